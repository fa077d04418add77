"""What a LogProcessor can be told, what it refuses, and how it serves MMEngine's Runner."""

from __future__ import annotations

import functools
import re
from types import SimpleNamespace

import numpy as np
import pytest

from otel_dllogger.training import HistoryBuffer, LogProcessor, MisuseError
from tests.support.log_processor import LINE, after_epoch, after_iter, at, documented, hub_of

pytestmark = [pytest.mark.newest_only, pytest.mark.usefixtures("own_statistics")]


# Options


def test_what_is_smoothed():
    """Losses, times and gradient norms are means of ten values; anything else is the last."""
    hub = hub_of(
        **{
            name: [1.0] * 20 + [12.0]
            for name in ("loss_cls", "time", "data_time", "grad_norm", "x")
        }
    )
    tag, _ = after_iter(hub)
    expected = dict.fromkeys(("loss_cls", "time", "data_time", "grad_norm"), 2.1) | {"x": 12.0}
    assert expected == pytest.approx({name: tag[name] for name in expected})


@pytest.mark.parametrize(("window", "expected"), [(1, 12.0), (2, 6.5), (100, 32 / 21)])
def test_how_much_is_smoothed(window, expected):
    """The window is the option's."""
    tag, _ = after_iter(hub_of(loss=[1.0] * 20 + [12.0]), window_size=window)
    assert expected == pytest.approx(tag["loss"])


def test_a_pattern_of_ones_own():
    """Names that the pattern finds are smoothed, and no others."""
    hub = hub_of(loss=[1.0, 3.0], acc=[1.0, 3.0], top_acc5=[1.0, 3.0])
    tag, _ = after_iter(hub, mean_pattern="acc")
    assert (3.0, 2.0, 2.0) == (tag["loss"], tag["acc"], tag["top_acc5"])


@pytest.mark.parametrize(
    ("digits", "expected"), [(2, "lr: 1.23e-02  loss: 1.23"), (0, "lr: 1e-02  loss: 1")]
)
def test_the_number_of_digits(digits, expected):
    """Rates and losses have as many digits as told."""
    line = after_iter(hub_of(lr=0.0123456, loss=1.23456), num_digits=digits)[1]
    assert f"Epoch(train) [1][10/25]  {expected}" == line


def test_numbers_with_their_mode():
    """With hierarchy the numbers have the mode in front; the line stays as it is."""
    hub = documented()
    items = [{"data_src": "loss1", "method_name": "max", "window_size": 5, "log_name": "top"}]
    tag, line = after_iter(hub, log_with_hierarchy=True, custom_cfg=items)
    assert f"Epoch(train) [1][10/25]  {LINE}  top: 0.8381" == line
    names = ("lr", "time", "data_time", "loss1", "loss2", "loss", "top")
    assert [*(f"train/{name}" for name in names), "epoch", "iter"] == list(tag)


def test_results_with_their_mode():
    """With hierarchy, results have the mode in front on the line as well."""
    hub = hub_of("val", time=0.25, acc=0.5)
    hub.update_info("val/per_class", [1, 2])
    tag, line = after_epoch(hub, log_with_hierarchy=True, with_non_scalar=True, place={"epoch": 1})
    assert (
        "Epoch(val) [1][25/25]    val/acc: 0.5000  val/per_class: [1, 2]  val/time: 0.2500" == line
    )
    assert {"val/acc": 0.5, "val/per_class": [1, 2], "val/time": 0.25} == tag


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([1, 2.5], "[1, 2.5]"),
        ("good", "good"),
        (None, "None"),
        (0.25, "0.2500"),
        (np.array([1, 2]), "\n[1 2]\n"),
    ],
)
@pytest.mark.parametrize("wanted", [True, False])
def test_what_is_no_scalar(value, text, wanted):
    """What is no scalar is on the line always, and among the numbers where it is wanted."""
    hub = hub_of("val", time=0.25, acc=0.5)
    hub.update_info("val/x", value)
    hub.update_info("train/y", value)
    tag, line = after_epoch(hub, with_non_scalar=wanted, place={"epoch": 1})
    assert f"Epoch(val) [1][25/25]    acc: 0.5000  x: {text}  time: 0.2500" == line
    assert (["acc", "x", "time"] if wanted else ["acc", "time"]) == list(tag)


def test_a_tensor_among_results_has_a_line_of_its_own():
    """What has elements as a tensor is shown as an array is."""
    hub = hub_of("val")

    class Tensor:
        def numel(self):
            return 2

        def __str__(self):
            return "tensor([1, 2])"

    hub.update_info("val/x", Tensor())
    assert after_epoch(hub)[1].endswith("x: \ntensor([1, 2])\n")


def test_a_time_of_ones_own_statistic():
    """A configured time is not averaged over the loader."""
    hub = hub_of("val", time=[1.0, 2.0, 6.0], data_time=[1.0, 2.0, 6.0])
    items = [
        {"data_src": "val/time", "method_name": "max"},
        {"data_src": "time", "method_name": "min"},
    ]
    tag, _ = after_epoch(hub, custom_cfg=items)
    assert {"time": 1.0, "data_time": 3.0} == tag


def test_names_of_other_modes_are_left_out():
    """A line has the scalars of its mode alone."""
    hub = hub_of(loss=1.0)
    hub.update_scalar("val/acc", 1.0)
    hub.update_scalar("loss", 1.0)
    assert {"loss", "epoch", "iter"} == set(after_iter(hub)[0])


# What is wrong


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (["loss"], r"custom_cfg\[0\]='loss' is not a dict"),
        ([{"method_name": "mean"}], r"custom_cfg\[0\]=.* has no data_src"),
        ([{"data_src": "loss"}], r"custom_cfg\[0\]=.*'loss'.* has no method_name"),
        (
            [{"data_src": 1, "method_name": "mean"}],
            r"custom_cfg\[0\]=.* has a data_src that is not",
        ),
        (
            [{"data_src": "x", "method_name": "mean", "windowsize": 3}],
            r"custom_cfg\[0\]=.* keyword argument 'windowsize'; 'mean' takes window_size",
        ),
        (
            [{"data_src": "x", "method_name": "current", "window_size": 3}],
            r"custom_cfg\[0\]=.* 'window_size'; 'current' takes nothing",
        ),
        (
            [{"data_src": "x", "method_name": "mean"}, {"data_src": "x", "method_name": "max"}],
            r"custom_cfg\[1\]=.*'max'.* logs 'x' a second time",
        ),
        (
            [
                {"data_src": "x", "method_name": "mean", "log_name": "z"},
                {"data_src": "y", "method_name": "max", "log_name": "z"},
            ],
            r"custom_cfg\[1\]=.*'y'.* logs 'z' a second time",
        ),
        ([{"data_src": "x", "method_name": "mean", "log_name": ["z"]}], r"custom_cfg\[0\]="),
        ([{"data_src": "x", "method_name": "mean", "log_name": None}], r"custom_cfg\[0\]="),
        ({"data_src": "x"}, r"custom_cfg={'data_src': 'x'} is not a list: pass \[dict"),
    ],
)
def test_an_item_that_means_nothing_is_named(items, message):
    """A configuration that cannot mean anything raises where it is made."""
    with pytest.raises(MisuseError, match=message):
        LogProcessor(custom_cfg=items)


def test_a_source_with_its_mode_in_front_is_warned_of(caplog):
    """MMEngine takes it, and never finds it."""
    LogProcessor(custom_cfg=[{"data_src": "train/loss", "method_name": "min"}])
    (warning,) = [record.getMessage() for record in caplog.records]
    assert "matches no scalar: its data_src begins with a mode; write 'loss'" in warning
    LogProcessor(custom_cfg=[{"data_src": "toy/bias", "method_name": "min"}])
    assert 1 == len(caplog.records)


def test_an_epochs_window_needs_epochs():
    """By iteration there is no epoch whose values could count."""
    items = [{"data_src": "x", "method_name": "mean", "window_size": "epoch"}]
    LogProcessor(custom_cfg=items)
    with pytest.raises(MisuseError, match=r"custom_cfg\[0\]=.* has the window 'epoch'"):
        LogProcessor(by_epoch=False, custom_cfg=items)


@pytest.mark.parametrize("window", ["all", 1.5, [1], np.array([1, 2])], ids=repr)
def test_a_window_is_one_of_three(window):
    """A window of another kind raises, with its item."""
    items = [{"data_src": "x", "method_name": "mean", "window_size": window}]
    with pytest.raises(
        TypeError, match=r"custom_cfg\[0\]=.*window_size should be int, epoch or global, but got"
    ):
        LogProcessor(custom_cfg=items)


def test_a_statistic_of_ones_own_gets_what_it_takes(own_statistics):
    """What it cannot do without is asked for at the start; what is not Python's cannot tell."""

    @HistoryBuffer.register_statistics
    def quantile(self, window_size, q=0.5):
        return np.quantile(self._log_history[-window_size:], q)

    item = {"data_src": "loss", "log_name": "q", "method_name": "quantile"}
    with pytest.raises(MisuseError, match="missing a required argument: 'window_size'"):
        LogProcessor(custom_cfg=[item])
    tag, _line = after_iter(hub_of(loss=[1.0, 2.0]), custom_cfg=[{**item, "window_size": 1}])
    assert 2.0 == tag["q"]

    def windowed(function):
        @functools.wraps(function)
        def method(self, window_size):
            return function(self._log_history[-window_size:])

        return method

    @HistoryBuffer.register_statistics
    @windowed
    def median(values):
        return np.median(values)

    item = {"data_src": "loss", "log_name": "m", "method_name": "median", "window_size": 2}
    assert 1.5 == after_iter(hub_of(loss=[1.0, 2.0]), custom_cfg=[item])[0]["m"]
    HistoryBuffer._statistics_methods["min"] = min
    LogProcessor(custom_cfg=[{"data_src": "loss", "method_name": "min", "what": 1}])


@pytest.mark.parametrize("mode", ["", "training", None, "Train"])
def test_a_mode_is_one_of_three(mode):
    """A mode that is none raises."""
    state = at(hub_of(loss=1.0))
    with pytest.raises(MisuseError, match=r"mode=.* is not one of train, val, test"):
        LogProcessor().get_log_after_iter(state, 0, mode)
    for other in (mode, "train"):
        with pytest.raises(MisuseError, match=r"mode=.* is not one of val, test"):
            LogProcessor().get_log_after_epoch(state, 0, other)


# MMEngine's Runner


def runner_of(hub, **changes):
    """Return what a processor asks of MMEngine's Runner."""
    loop = SimpleNamespace(dataloader=range(25))
    given = {
        "message_hub": hub,
        "epoch": 2,
        "iter": 59,
        "max_epochs": 12,
        "max_iters": 300,
        "_train_loop": loop,
        "train_loop": loop,
        "val_loop": SimpleNamespace(dataloader=range(7)),
        "test_loop": SimpleNamespace(dataloader=range(1000)),
        "model": SimpleNamespace(),
    }
    return SimpleNamespace(**{**given, **changes})


@pytest.mark.parametrize(
    ("mode", "options", "expected"),
    [
        ("train", {}, "Epoch(train)  [3][10/25]"),
        ("val", {}, "Epoch(val)  [2][10/7]"),
        ("test", {}, "Epoch(test) [  10/1000]"),
        ("train", {"by_epoch": False}, "Iter(train) [ 60/300]"),
        ("val", {"by_epoch": False}, "Iter(val) [10/7]"),
    ],
)
def test_lines_of_a_runner(mode, options, expected):
    """A Runner of MMEngine gives the lines that its own LogProcessor gives."""
    processor = LogProcessor(**options)
    tag, line = processor.get_log_after_iter(runner_of(hub_of(mode, x=1.0)), 9, mode)
    assert expected == line.partition("  x:")[0].rstrip()
    assert 60 == tag["iter"]


@pytest.mark.parametrize("loop", [None, {"type": "EpochBasedTrainLoop"}])
def test_a_runner_that_only_validates(loop):
    """Without a training there is neither an epoch nor an iteration."""
    runner = runner_of(hub_of("val", x=1.0), _train_loop=loop)
    tag, line = LogProcessor().get_log_after_iter(runner, 4, "val")
    assert "Epoch(val)[0][5/7]" == line.strip()
    assert (0, 0) == (tag["epoch"], tag["iter"])
    assert LogProcessor().get_log_after_epoch(runner, 7, "val")[1].startswith("Epoch(val) [0][7/7]")


def test_one_processor_serves_several_hubs_that_change():
    """What a processor knows of names holds for the hub and the mode that it is asked of."""
    processor = LogProcessor(
        custom_cfg=[{"data_src": "loss", "method_name": "max", "log_name": "top"}]
    )
    one, other = hub_of(loss=[1.0, 3.0]), hub_of(acc=[1.0, 3.0])
    expected = [
        (one, "train", {"loss": 2.0, "top": 3.0}),
        (other, "train", {"acc": 3.0}),
        (one, "val", {}),
        (one, "train", {"loss": 2.0, "top": 3.0}),
    ]
    for hub, mode, numbers in expected:
        tag, _ = processor.get_log_after_iter(at(hub, mode=mode), 9, mode)
        assert numbers == {key: tag[key] for key in tag if key not in ("epoch", "iter")}
    one.update_scalar("train/acc", 5.0)
    one.update_scalar("val/acc", 6.0)
    assert 5.0 == processor.get_log_after_iter(at(one), 9, "train")[0]["acc"]
    assert 6.0 == processor.get_log_after_iter(at(one, mode="val"), 9, "val")[0]["acc"]
    del one.log_scalars["train/loss"]
    assert "top" not in processor.get_log_after_iter(at(one), 9, "train")[0]


@pytest.mark.parametrize(
    "options", [{"window_size": "epoch"}, {"window_size": 0}, {"mean_pattern": "("}], ids=repr
)
def test_options_that_mean_nothing_are_refused(options):
    """A window or a pattern that is none is named where it is given."""
    (name,) = options
    with pytest.raises(MisuseError, match=name):
        LogProcessor(**options)


@pytest.mark.parametrize(
    ("item", "kind"),
    [
        ({"data_src": "loss", "method_name": "mni"}, KeyError),
        ({"data_src": "loss", "method_name": "picky", "strange": 3}, KeyError),
    ],
)
def test_a_statistic_that_cannot_be_had_names_its_item(item, kind, own_statistics):
    """What shows only when it is asked for says which item of the configuration asked."""

    @HistoryBuffer.register_statistics
    def picky(self, **options):
        raise KeyError

    hub = hub_of(loss=[1.0, 2.0])
    with pytest.raises(kind, match=re.escape(f"custom_cfg has {item!r}")):
        after_iter(hub, custom_cfg=[item])


def test_a_window_of_nothing_is_refused():
    """A window has at least one value, and a number at least no digits."""
    with pytest.raises(MisuseError, match=r"custom_cfg\[0\]=.* empty window"):
        LogProcessor(custom_cfg=[{"data_src": "a", "method_name": "min", "window_size": 0}])
    with pytest.raises(MisuseError, match="num_digits='a'"):
        LogProcessor(num_digits="a")
