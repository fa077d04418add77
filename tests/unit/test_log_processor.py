"""The lines and numbers of a loop: MMEngine's, character by character."""

from __future__ import annotations

import pytest

from otel_dllogger.training import HistoryBuffer
from tests.support.log_processor import LINE, after_epoch, after_iter, documented, hub_of

pytestmark = [pytest.mark.newest_only, pytest.mark.usefixtures("own_statistics")]


# The documented lines


def test_the_documented_line():
    """The line is the documented one, and the numbers are those of the line."""
    tag, line = after_iter(documented())
    assert f"Epoch(train) [1][10/25]  {LINE}" == line
    expected = {
        "lr": 0.01,
        "time": 0.0019,
        "data_time": 0.0004,
        "loss1": 0.8381,
        "loss2": 0.9007,
        "loss": 1.7388,
        "epoch": 1,
        "iter": 10,
    }
    assert expected == tag
    assert list(expected) == list(tag)


def test_the_documented_line_by_iteration():
    """Iterations are counted through the training."""
    tag, line = after_iter(
        documented(), place={"max_epochs": None, "max_iters": 60}, by_epoch=False
    )
    assert f"Iter(train) [10/60]  {LINE}" == line
    assert "epoch" not in tag
    assert 10 == tag["iter"]


@pytest.mark.parametrize(
    ("item", "text"),
    [
        ({"method_name": "mean", "window_size": "global", "log_name": "loss1_global"}, 3.8),
        ({"method_name": "max", "window_size": 2, "log_name": "loss1_local_max"}, 4),
        ({"method_name": "max", "window_size": "global", "log_name": "loss1_global_max"}, 9),
        ({"method_name": "min", "window_size": "epoch", "log_name": "loss1_min"}, 1),
        ({"method_name": "mean", "window_size": 1, "log_name": "loss_tmp"}, 3),
        ({"method_name": "current", "log_name": "loss1_now"}, 3),
        ({"method_name": "mean"}, 19 / 5),
    ],
)
def test_the_documented_statistics(item, text):
    """A configured statistic is shown after the others, or in the place of its source."""
    hub = hub_of(loss1=[9, 1, 2, 4, 3], loss=[1, 2, 3])
    place = {"iter": 4, "batch_idx": 3}
    tag, line = after_iter(
        hub, batch_idx=3, place=place, custom_cfg=[{"data_src": "loss1", **item}]
    )
    name = item.get("log_name", "loss1")
    expected = {"loss1": 3.8, "loss": 2.0, name: text}
    assert expected == {key: value for key, value in tag.items() if key not in ("epoch", "iter")}
    shown = "  ".join(
        f"{key}: {value:.4f}" if isinstance(tag[key], float) else f"{key}: {value}"
        for key, value in expected.items()
    )
    assert f"Epoch(train) [1][ 4/25]    {shown}" == line


def test_windows_of_an_epoch_and_of_the_training():
    """An epoch's window is of this epoch's batches, the training's of all iterations."""
    hub = hub_of(loss=[float(number) for number in range(40)])
    items = [
        {"data_src": "loss", "method_name": "mean", "log_name": name, "window_size": window}
        for name, window in (("of_epoch", "epoch"), ("of_all", "global"), ("of_3", 3))
    ]
    tag, _ = after_iter(hub, batch_idx=4, place={"iter": 29}, custom_cfg=items)
    assert (37.0, 24.5, 38.0) == (tag["of_epoch"], tag["of_all"], tag["of_3"])
    assert [{"data_src", "method_name", "log_name", "window_size"}] * 3 == list(map(set, items))
    assert "epoch" == items[0]["window_size"]


def test_a_registered_statistic_has_its_arguments():
    """What an item says besides goes to the statistic."""

    @HistoryBuffer.register_statistics
    def scaled(self, factor, window_size=None):
        return self.mean(window_size) * factor

    items = [
        {
            "data_src": "loss",
            "method_name": "scaled",
            "factor": 10,
            "log_name": "x",
            "window_size": 2,
        }
    ]
    tag, line = after_iter(hub_of(loss=[1.0, 2.0, 3.0]), custom_cfg=items)
    assert 25.0 == tag["x"]
    assert line.endswith("  loss: 2.0000  x: 25.0000")


def test_a_statistic_that_is_an_array_stays_on_the_line():
    """After an iteration, an array is written as it is, as MMEngine writes it."""

    @HistoryBuffer.register_statistics
    def last_two(self):
        return self._log_history[-2:]

    items = [{"data_src": "loss", "method_name": "last_two", "log_name": "x"}]
    hub = hub_of(loss=[1.0, 2.0])
    assert after_iter(hub, custom_cfg=items)[1].endswith("  loss: 1.5000  x: [1. 2.]")


def test_a_statistic_that_is_not_there():
    """An unknown statistic raises when it is asked for."""
    items = [{"data_src": "loss", "method_name": "mode"}]
    with pytest.raises(KeyError, match="'mode' is not a statistic"):
        after_iter(hub_of(loss=1.0), custom_cfg=items)
    after_iter(hub_of(other=1.0), custom_cfg=items)


# Where a line stands


@pytest.mark.parametrize(
    ("mode", "place", "batch_idx", "expected"),
    [
        ("train", {"epoch": 8, "max_epochs": 300}, 9, "Epoch(train)   [9][10/25]"),
        ("train", {"epoch": 99, "max_epochs": 300}, 0, "Epoch(train) [100][ 1/25]"),
        ("train", {"dataloader_len": 1000}, 9, "Epoch(train) [1][  10/1000]"),
        ("train", {"max_epochs": 12}, 9, "Epoch(train)  [1][10/25]"),
        ("val", {"epoch": 1}, 4, "Epoch(val) [1][ 5/25]"),
        ("val", {"epoch": 1, "max_epochs": 12}, 24, "Epoch(val)  [1][25/25]"),
        ("test", {"epoch": 1}, 4, "Epoch(test) [ 5/25]"),
        ("train", {"dataloader_len": None}, 9, "Epoch(train) [1][10/?]"),
        ("test", {"dataloader_len": None}, 9, "Epoch(test) [10/?]"),
    ],
)
def test_lines_by_epoch(mode, place, batch_idx, expected):
    """Epochs and iterations are aligned to the greatest there will be."""
    hub = hub_of(mode, x=1.0)
    line = after_iter(hub, mode, batch_idx, place=place)[1]
    assert expected == line.partition("  x:")[0].rstrip()


@pytest.mark.parametrize("mode", ["train", "val"])
def test_an_epoch_stands_apart_where_their_number_is_not_known(mode):
    """Without max_epochs there is a blank before the epoch nevertheless."""
    hub = hub_of(mode, x=1.0)
    line = after_iter(hub, mode, place={"epoch": 3, "max_epochs": None})[1]
    assert line.startswith(f"Epoch({mode}) ")
    assert f"[{4 if mode == 'train' else 3}][10/25]" == line.split()[1]


@pytest.mark.parametrize(
    ("mode", "place", "batch_idx", "expected"),
    [
        ("train", {"iter": 9, "max_iters": 300}, 4, "Iter(train) [ 10/300]"),
        ("train", {"iter": 9, "max_iters": None}, 4, "Iter(train) [10/?]"),
        ("val", {"iter": 9, "max_iters": 300}, 4, "Iter(val) [ 5/25]"),
        ("test", {"iter": 9, "max_iters": 300}, 24, "Iter(test) [25/25]"),
    ],
)
def test_lines_by_iteration(mode, place, batch_idx, expected):
    """A training counts its iterations, a validation its own batches."""
    hub = hub_of(mode, x=1.0)
    line = after_iter(hub, mode, batch_idx, place=place, by_epoch=False)[1]
    assert expected == line.partition("  x:")[0].rstrip()


@pytest.mark.parametrize(
    ("mode", "options", "expected"),
    [
        ("val", {}, "Epoch(val) [2][25/25]    "),
        ("test", {}, "Epoch(test) [25/25]    "),
        ("val", {"by_epoch": False}, "Iter(val) [25/25]    "),
        ("test", {"by_epoch": False}, "Iter(test) [25/25]    "),
    ],
)
def test_lines_of_results(mode, options, expected):
    """Results show all scalars, and the mean times of the whole loader at the end."""
    hub = hub_of(mode, time=[9.0] + [0.25] * 26, data_time=[9.0] + [0.125] * 26, acc=[0.5, 0.75])
    tag, line = after_epoch(hub, mode, place={"epoch": 2}, **options)
    assert f"{expected}acc: 0.7500  time: 0.2500  data_time: 0.1250" == line
    assert {"acc": 0.75, "time": 0.25, "data_time": 0.125} == tag
    assert ["acc", "time", "data_time"] == list(tag)


def test_results_of_a_loader_without_a_length():
    """An unknown length is a question mark."""
    line = after_epoch(hub_of("val", acc=0.5), place={"epoch": 2, "dataloader_len": None})[1]
    assert "Epoch(val) [2][?/?]    acc: 0.5000" == line


def test_progress_of_a_validation_shows_its_times_alone():
    """A validation's scalars wait for its results."""
    hub = hub_of("val", time=0.25, data_time=0.125, acc=0.5, loss=1.0)
    hub.update_info("eta", 3723)
    tag, line = after_iter(hub, "val", 4, place={"epoch": 1})
    assert "Epoch(val) [1][ 5/25]    eta: 1:02:03  time: 0.2500  data_time: 0.1250  " == line
    assert {"time", "data_time", "acc", "loss", "epoch", "iter"} == set(tag)
    assert (1, 10) == (tag["epoch"], tag["iter"])


def test_progress_of_a_validation_shows_losses_with_its_name_twice():
    """As in MMEngine, a loss is shown whose name has the mode in front of its own."""
    hub = hub_of("val", acc=0.5)
    hub.update_scalar("val/val/loss", 0.25)
    line = after_iter(hub, "val", 4, place={"epoch": 1})[1]
    assert "Epoch(val) [1][ 5/25]    val/loss: 0.2500" == line


def test_progress_of_a_test_has_no_epoch():
    """A test belongs to no epoch."""
    tag, line = after_iter(hub_of("test", acc=0.5), "test", 4)
    assert "Epoch(test) [ 5/25]    " == line
    assert {"acc", "iter"} == set(tag)


@pytest.mark.parametrize("missing", ["eta", "time", "data_time"])
def test_without_an_eta_or_a_time(missing):
    """What IterTimerHook did not measure is not shown in its place."""
    hub = documented()
    if missing == "eta":
        hub.pop_info("eta")
    else:
        del hub.log_scalars[f"train/{missing}"]
    line = after_iter(hub)[1]
    assert "eta" not in line
    assert ("time: 0.0019" in line) == (missing != "time")
    assert line.startswith("Epoch(train) [1][10/25]  lr: 1.0000e-02  ")


def test_rates_stand_one_blank_apart():
    """All learning rates come first, in the form of 1.0000e-02."""
    hub = hub_of(loss=1.0, base_lr=0.1, lr=0.01)
    assert (
        "Epoch(train) [1][10/25]  base_lr: 1.0000e-01 lr: 1.0000e-02  loss: 1.0000"
        == after_iter(hub)[1]
    )
