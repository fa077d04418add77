"""From a hub to a Logger: names, steps, metadata, lines and a page."""

from __future__ import annotations

import io
import json
import math
import re
import sys
from datetime import datetime

import pytest

from otel_dllogger import JSONStreamBackend, Logger, PrometheusBackend, StdOutBackend, Verbosity
from otel_dllogger.logger import Backend
from otel_dllogger.training import LogProcessor, LoopState, MessageHub, MisuseError, mmengine_line
from otel_dllogger.training.device import take_peak_memory_mib
from tests.support.http import ask

pytestmark = pytest.mark.newest_only

CONSOLE = r"\d\d/\d\d \d\d:\d\d:\d\d - mmengine - INFO - "


class Keeper(Backend):
    """A user's backend that keeps what it is given."""

    def __init__(self, verbosity=Verbosity.VERBOSE):
        super().__init__(verbosity)
        self.logged, self.described = [], []

    def log(self, timestamp, elapsedtime, step, data):
        self.logged.append((step, dict(data)))

    def metadata(self, timestamp, elapsedtime, metric, metadata):
        self.described.append((metric, dict(metadata)))


def hub_of(mode="train", **scalars):
    """Return a hub with these scalars."""
    hub = MessageHub("a")
    hub.update_scalars({f"{mode}/{name}": value for name, value in scalars.items()})
    return hub


def lines_of(path):
    """Return the records of a JSON log."""
    return [json.loads(line.removeprefix("DLLL ")) for line in path.read_text().splitlines()]


# Steps


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ({"epoch": 1, "iter": 29, "max_epochs": 5}, (2, 30)),
        ({"iter": 29}, (1, 30)),
        ({"iter": 29, "max_iters": 60}, 30),
        ({"epoch": 3, "iter": 29, "max_iters": 60}, 30),
        ({"mode": "val", "epoch": 1, "iter": 25, "batch_idx": 4}, (1, 25, 5)),
        ({"mode": "val", "iter": 25, "batch_idx": 4, "max_iters": 60}, (0, 25, 5)),
        ({"mode": "val", "epoch": 1, "iter": 25, "batch_idx": None}, (1,)),
        (
            {
                "mode": "val",
                "iter": 25,
                "batch_idx": None,
                "max_iters": 60,
                "dataloader_len": 9,
            },
            (0, 25, 9),
        ),
        ({"mode": "test", "epoch": 1, "iter": 25, "batch_idx": 4}, (None, None, 5)),
        ({"mode": "test", "epoch": 1, "iter": 25, "batch_idx": None}, ()),
        ({"mode": "test", "batch_idx": None, "max_iters": 60}, ()),
    ],
)
def test_the_step_of_a_record(place, expected):
    """A record stands where the same line of MMEngine's log stands."""
    keeper, hub = Keeper(), hub_of(place.get("mode", "train"), x=1.0)
    hub.log_to(Logger([keeper]), LoopState(hub, **place))
    assert [expected] == [step for step, _ in keeper.logged]


def test_a_processor_says_how_it_is_counted():
    """A given processor decides between epochs and iterations."""
    keeper, hub = Keeper(), hub_of(loss=1.0)
    state = LoopState(hub, epoch=1, iter=29, max_epochs=3, max_iters=60)
    hub.log_to(Logger([keeper]), state, LogProcessor(by_epoch=False))
    assert [30] == [step for step, _ in keeper.logged]


# Values and names


def test_names_have_their_mode_once():
    """Each statistic has the mode in front; where the record stands is not among them."""
    keeper, hub = Keeper(), hub_of(loss=1.0, lr=0.1, time=0.5, data_time=0.25)
    hub.update_scalar("train/loss", 3.0)
    hub.update_info("eta", 12.5)
    item = {"data_src": "loss", "method_name": "min", "log_name": "loss_min", "window_size": 10}
    expected = {
        "train/loss": 2.0,
        "train/lr": 0.1,
        "train/time": 0.5,
        "train/data_time": 0.25,
        "train/loss_min": 1.0,
        "train/eta": 12.5,
    }
    for hierarchy in (False, True):
        processor = LogProcessor(custom_cfg=[item], log_with_hierarchy=hierarchy)
        hub.log_to(Logger([keeper]), LoopState(hub), processor)
    assert [expected, expected] == [data for _, data in keeper.logged]


def test_results_have_what_is_no_number():
    """A list among the results is in the record."""
    keeper, hub = Keeper(), hub_of("val", acc=0.5)
    hub.update_info("val/per_class", [1, 2])
    line = hub.log_to(Logger([keeper]), LoopState(hub, "val", epoch=1, batch_idx=None))
    assert [((1,), {"val/acc": 0.5, "val/per_class": [1, 2]})] == keeper.logged
    assert "Epoch(val) [1][?/?]    acc: 0.5000  per_class: [1, 2]" == line


def test_the_hub_that_is_asked_counts():
    """A state of another hub says where the training is, not what is logged."""
    keeper, hub, other = Keeper(), hub_of(loss=1.0), hub_of(loss=9.0)
    state = LoopState(other, iter=4)
    hub.log_to(Logger([keeper]), state)
    assert [((1, 5), {"train/loss": 1.0})] == keeper.logged
    assert state.message_hub is other


def test_the_peak_of_the_memory_is_logged(monkeypatch):
    """An accelerator's peak is among the values and on the line, and begins anew."""

    class Cuda:
        peak_bytes = 3 * 1024 * 1024 + 5

        def is_available(self):
            return True

        def max_memory_allocated(self, device):
            return self.peak_bytes

        def reset_peak_memory_stats(self):
            self.peak_bytes = 0

    class Torch:
        cuda = Cuda()

    monkeypatch.setitem(sys.modules, "torch", Torch())
    keeper, hub = Keeper(), hub_of(loss=1.0)
    line = hub.log_to(Logger([keeper]), LoopState(hub, max_epochs=1, dataloader_len=5))
    assert {"train/loss": 1.0, "train/memory": 3} == keeper.logged[0][1]
    assert "Epoch(train) [1][1/5]    memory: 3  loss: 1.0000" == line
    assert ("train/memory", {"unit": "MiB", "STAGE": "TRAIN"}) in keeper.described
    assert 0 == take_peak_memory_mib()


def test_without_an_accelerator_there_is_no_memory():
    """Without PyTorch, which is not imported for it, nothing is known."""
    assert take_peak_memory_mib() is None
    assert "torch" not in sys.modules


def test_a_wrong_state_raises():
    """A mode that has no results raises, and nothing is logged."""
    keeper, hub = Keeper(), hub_of(loss=1.0)
    for place in ({"mode": "train", "batch_idx": None}, {"mode": "x"}):
        with pytest.raises(MisuseError):
            hub.log_to(Logger([keeper]), LoopState(hub, **place))
    assert [] == keeper.logged


def test_a_record_reaches_who_takes_the_default_verbosity():
    """A backend gets these records at the verbosity at which it gets ``otel_dllogger.log``'s."""
    keeper, silent, hub = Keeper(Verbosity.DEFAULT), Keeper(Verbosity.OFF), hub_of(loss=1.0)
    hub.log_to(Logger([keeper, silent]), LoopState(hub))
    assert [((1, 1), {"train/loss": 1.0})] == keeper.logged
    assert [] == silent.logged


# Metadata


def test_metadata_come_once_before_the_values(tmp_path):
    """Seconds and goals are said before the first record of a name, and only then."""
    path = tmp_path / "log.json"
    hub = hub_of(loss=1.0, lr=0.1, time=0.5, data_time=0.25)
    hub.update_info("eta", 12.5)
    with Logger([JSONStreamBackend(Verbosity.VERBOSE, str(path))]) as logger:
        for number in range(3):
            hub.log_to(logger, LoopState(hub, iter=number))
            hub.update_scalar("train/loss_b", 1.0)
    train = {"STAGE": "TRAIN"}
    expected = [
        ("train/loss", {"GOAL": "MINIMIZE", **train}),
        ("train/time", {"unit": "s", **train}),
        ("train/data_time", {"unit": "s", **train}),
        ("train/eta", {"unit": "s", **train}),
        "LOG",
        ("train/loss_b", {"GOAL": "MINIMIZE", **train}),
        "LOG",
        "LOG",
    ]
    actual = [
        (line["metric"], line["metadata"]) if line["type"] == "METADATA" else line["type"]
        for line in lines_of(path)
    ]
    assert expected == actual


def test_each_logger_gets_its_own_metadata():
    """Another Logger is told again, and another mode's names are."""
    keepers = Keeper(), Keeper()
    hub = hub_of(loss=1.0)
    hub.update_scalar("val/loss", 1.0)
    for keeper in keepers:
        logger = Logger([keeper])
        hub.log_to(logger, LoopState(hub))
        hub.log_to(logger, LoopState(hub, "val"))
    expected = [
        (f"{mode}/loss", {"GOAL": "MINIMIZE", "STAGE": mode.upper()}) for mode in ("train", "val")
    ]
    assert [expected, expected] == [keeper.described for keeper in keepers]


# The line


def test_the_line_on_the_standard_output(capsys):
    """A backend for it prints MMEngine's lines, and everything else as ever."""
    hub = hub_of(loss=1.0, lr=0.01)
    logger = Logger([StdOutBackend(Verbosity.VERBOSE, line_format=mmengine_line)])
    line = hub.log_to(logger, LoopState(hub, max_epochs=1, dataloader_len=25))
    logger.log("PARAMETER", {"lr": 1})
    first, second = capsys.readouterr().out.splitlines()
    assert "Epoch(train) [1][ 1/25]  lr: 1.0000e-02  loss: 1.0000" == line
    assert re.fullmatch(CONSOLE + re.escape(line), first)
    assert re.fullmatch(r"DLL .* - PARAMETER lr : 1 ", second)


def test_the_line_has_the_time_of_the_record():
    """A line begins with the day and the time; what has no line is None."""
    hub = hub_of(loss=1.0)
    line = hub.log_to(logger := Logger([keeper := KeepingData()]), LoopState(hub))
    assert logger.backends == [keeper]
    when = datetime(2026, 1, 2, 3, 4, 5, 678)  # noqa: DTZ001 - naive, as DLLogger's
    assert f"01/02 03:04:05 - mmengine - INFO - {line}" == mmengine_line(when, 1, keeper.data)
    assert mmengine_line(when, 1, {"a": 1}) is None
    assert mmengine_line(when, 1, "text") is None


class KeepingData(Keeper):
    """Keep the data as the Logger passed it."""

    data = None

    def log(self, timestamp, elapsedtime, step, data):
        self.data = data


def test_a_line_without_an_output(monkeypatch):
    """A closed output is counted, not raised."""
    stream = io.StringIO()
    stream.close()
    monkeypatch.setattr(sys, "stdout", stream)
    hub = hub_of(loss=1.0)
    logger = Logger([StdOutBackend(Verbosity.VERBOSE, line_format=mmengine_line)])
    assert hub.log_to(logger, LoopState(hub)).endswith("loss: 1.0000")


# The page


def page_values(page):
    """Return the samples of a page by name and the labels that matter."""
    samples = {}
    for name, labels, value in re.findall(
        r"^(dl_\w+|dllogger_nonfinite_total)\{(.*)\} (\S+)$", page, re.MULTILINE
    ):
        found = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        samples[name, found.get("stage"), found["metric"]] = float(value)
    return samples


def test_smoothed_statistics_are_metrics_like_any_other():
    """A page that is scraped has each statistic, with its unit and stage."""
    hub = hub_of(loss=4.0, lr=0.01, time=0.5, data_time=0.25)
    hub.update_scalar("train/loss", 2.0)
    hub.update_scalar("train/bad_loss", math.nan)
    hub.update_scalar("val/acc", 0.75)
    hub.update_info("eta", 90.0)
    items = [{"data_src": "loss", "method_name": "min", "log_name": "loss_min"}]
    with Logger([backend := PrometheusBackend(Verbosity.VERBOSE, port=0)]) as logger:
        hub.log_to(logger, LoopState(hub, iter=9), LogProcessor(custom_cfg=items))
        hub.pop_info("eta")
        hub.log_to(logger, LoopState(hub, "val", epoch=1, batch_idx=None))
        answer = ask(backend.endpoint.port)
    assert 200 == answer.status
    samples = page_values(answer.body.decode())
    expected = {
        ("dl_loss", "train", "train/loss"): 3.0,
        ("dl_loss_min", "train", "train/loss_min"): 2.0,
        ("dl_lr", "train", "train/lr"): 0.01,
        ("dl_time_seconds", "train", "train/time"): 0.5,
        ("dl_data_time_seconds", "train", "train/data_time"): 0.25,
        ("dl_eta_seconds", "train", "train/eta"): 90.0,
        ("dl_acc", "val", "val/acc"): 0.75,
        ("dllogger_nonfinite_total", "train", "train/bad_loss"): 1.0,
        ("dllogger_nonfinite_total", "train", "train/loss"): 0.0,
    }
    assert expected == {key: samples[key] for key in expected}
    assert ("dl_bad_loss", "train", "train/bad_loss") not in samples


def test_a_log_of_what_is_not_finite_can_be_read(tmp_path):
    """NaN and infinity go into the JSON log as from any other record."""
    path = tmp_path / "log.json"
    hub = hub_of(loss=math.nan, x=math.inf)
    with Logger([JSONStreamBackend(Verbosity.VERBOSE, str(path))]) as logger:
        line = hub.log_to(logger, LoopState(hub))
        logger.log((1, 2), {"train/loss": math.nan, "train/x": math.inf})
    _, ours, usual = (record.get("data") for record in lines_of(path))
    assert str(usual) == str(ours)
    assert line.endswith("loss: nan  x: inf")


def test_what_the_user_said_of_a_metric_holds(tmp_path):
    """Only what nobody said is added: an explicit goal of none stays one."""
    path = tmp_path / "log.json"
    logger = Logger([JSONStreamBackend(1, path)])
    logger.metadata("train/loss", {"GOAL": "NONE", "unit": "nats"})
    logger.metadata("train/time", {"format": ":.3f"})
    hub = MessageHub("told")
    hub.update_scalars({"train/loss": 1.0, "train/time": 0.5})
    hub.log_to(logger, LoopState(hub, max_epochs=1, dataloader_len=1))
    lines = [json.loads(line.removeprefix("DLLL ")) for line in path.read_text().splitlines()]
    told = [(e["metric"], e["metadata"]) for e in lines if e["type"] == "METADATA"][2:]
    assert [("train/time", {"unit": "s", "STAGE": "TRAIN"})] == told
