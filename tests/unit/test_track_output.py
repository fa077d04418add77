"""Where records and lines of a loop go, and what processors and statistics make of them."""

from __future__ import annotations

import copy
import itertools
import re
import subprocess
import sys

import pytest

import otel_dllogger
from otel_dllogger import Verbosity
from otel_dllogger.training import (
    HistoryBuffer,
    LogProcessor,
    MessageHub,
    MisuseError,
    MMLogger,
    log_results,
    track,
)
from tests.support.command import environment
from tests.support.ids import repr_without_address
from tests.support.paths import TESTS
from tests.support.track import Keeper, finish, validate

pytestmark = [pytest.mark.newest_only, pytest.mark.usefixtures("nothing_global")]

SCRIPT = TESTS / "scripts" / "track_ranks.py"
CONSOLE = r"\d\d/\d\d \d\d:\d\d:\d\d - mmengine - INFO - "


def test_a_processor_of_ones_own(hub, keeper, options):
    """A given processor decides which statistics are logged, and how they are counted."""
    items = [{"data_src": "loss", "method_name": "max", "log_name": "top", "window_size": "global"}]
    processor = LogProcessor(by_epoch=False, custom_cfg=items)
    for batch in track(range(4), processor=processor, log_every=2, max_epochs=1, **options):
        hub.update_scalar("train/loss", 9.0 - batch)
    assert [2, 4] == keeper.steps
    assert [9.0, 9.0] == [data["train/top"] for _, data, _ in keeper.logged]
    assert keeper.logged[0][2].startswith("Iter(train) [2/?]")


def test_the_global_logger_takes_the_records(keeper):
    """After ``init`` nothing needs to be passed; a Logger may come in the middle of a loop."""
    hub = MessageHub.get_instance("own")
    for batch in track(range(4), log_every=1):
        hub.update_scalar("train/loss", float(batch))
        if batch == 2:
            otel_dllogger.init([keeper])
    log_results({"acc": 0.5})
    assert [(1, 3), (1, 4), (1,)] == keeper.steps
    assert 4 == hub.get_info("iter")


def test_the_global_logger_at_its_default_verbosity():
    """Who gets the records of ``otel_dllogger.log`` gets those of a loop."""
    keeper = Keeper(Verbosity.DEFAULT)
    otel_dllogger.init([keeper])
    finish(track(range(2), log_every=2))
    assert [(1, 2)] == keeper.steps


def test_without_a_logger_the_lines_are_printed(capsys):
    """Without any Logger, MMEngine's lines are on the standard output."""
    hub = MessageHub("a")
    for _ in track(range(2), hub=hub, log_every=1, max_epochs=1):
        hub.update_scalar("train/loss", 0.5)
    line = log_results({"acc": 0.5, "rate": "100 %d"}, hub=hub)
    printed = capsys.readouterr().out.splitlines()
    times = r"eta: 0:00:00  time: 0.\d{4}  data_time: 0.\d{4}  "
    for number in (1, 2):
        pattern = rf"{CONSOLE}Epoch\(train\) \[1\]\[{number}/2\]    {times}loss: 0.5000"
        assert re.fullmatch(pattern, printed[number - 1])
    assert re.fullmatch(CONSOLE + re.escape(line), printed[2])
    assert 3 == len(printed)


@pytest.mark.parametrize(("rank", "lines"), [(0, 3), (1, 0)])
def test_one_rank_prints(rank, lines):
    """Of several ranks, the first one prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", SCRIPT],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment(
            RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank), PYTHONPATH=str(SCRIPT.parents[2])
        ),
    )
    assert ("", 0) == (done.stderr, done.returncode)
    assert lines == len(done.stdout.splitlines())
    assert ("acc: 0.5000" in done.stdout) == (rank == 0)


def test_a_scalar_without_a_mode_is_warned_of_once(hub, options, caplog):
    """A name that begins with no mode is never logged, which is said."""
    for _ in track(range(4), log_every=2, **options):
        hub.update_scalar("trian/loss", 1.0)
    said = [r.getMessage() for r in caplog.records if "trian/loss" in r.getMessage()]
    (warning,) = said
    assert "'trian/loss' in the hub is not logged: its name does not begin with one of" in warning


LONELY = """
from urllib.request import urlopen
from otel_dllogger.training import MessageHub
from otel_dllogger.training import track

hub = MessageHub.get_instance("lonely")
for _ in track([1, 2], hub=hub, max_epochs=1):
    hub.update_scalar("train/loss", 0.5)
import otel_dllogger.logger as logger
print(urlopen(logger._attached[0][0].url).read().decode())
"""


def test_a_script_under_run_needs_no_logger(tmp_path):
    """What track logs is on the page of ``otel-dllogger run``, beside the line on the console."""
    script = tmp_path / "train.py"
    script.write_text(LONELY)
    done = subprocess.run(
        [sys.executable, "-m", "otel_dllogger", "run", script],
        env=environment(OTEL_EXPORTER_PROMETHEUS_PORT="0"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    assert re.search(rf"{CONSOLE}Epoch\(train\) \[1\]\[2/2\]", done.stdout)
    assert re.search(r'^dl_loss\{.*stage="train"\} 0\.5$', done.stdout, re.MULTILINE)


class Speed(LogProcessor):
    """Put into the hub what is to be shown."""

    def get_log_after_epoch(self, runner, batch_idx, mode, with_non_scalar=False):
        hub = runner.message_hub
        hub.update_scalar(f"{mode}/speed", 12.5 + len(hub.get_info("seen", "")), 2)
        hub.update_info("seen", hub.get_info("seen", "") + "x")
        hub.log_scalars.move_to_end(f"{mode}/acc", last=False)
        return super().get_log_after_epoch(runner, batch_idx, mode, with_non_scalar)


def test_what_a_processor_puts_into_the_hub_is_shown_and_stays(hub, keeper, options):
    """As with MMEngine, where there is but one hub."""
    for accuracy in (0.5, 0.75):
        log_results({"acc": accuracy}, processor=Speed(), **options)
    assert [12.5, 13.5] == [data["val/speed"] for _, data, _ in keeper.logged]
    values, counts = hub.get_scalar("val/speed").data
    assert ([12.5, 13.5], [2, 2]) == (values.tolist(), counts.tolist())
    assert [0.5, 0.75] == hub.get_scalar("val/acc").data[0].tolist()
    assert "xx" == hub.get_info("seen")


def test_a_statistic_may_change_the_hub(hub, keeper, options, own_statistics):
    """There is but one, whoever asks for it."""

    @HistoryBuffer.register_statistics
    def best(self):
        self.asked = getattr(self, "asked", 0) + 1
        hub.update_info("best", max(self._log_history))
        hub.pop_info("val/gone")
        return self.asked

    items = [{"data_src": "acc", "log_name": "asked", "method_name": "best"}]
    hub.update_info("val/gone", [1])
    for accuracy in (0.25, 0.75, 0.5):
        log_results({"acc": accuracy}, processor=LogProcessor(custom_cfg=items), **options)
    assert (0.75, None) == (hub.get_info("best"), hub.get_info("val/gone"))
    assert [1, 2, 3] == [data["val/asked"] for _, data, _ in keeper.logged]


class Foreign:
    """A history that is not this package's."""

    def current(self):
        return 1.0

    mean = statistics = lambda self, *_args, **_options: 1.0


def test_a_history_of_another_kind_is_shown_as_it_is(hub, keeper, options, counted):
    """It cannot tell what of it is new."""
    hub.log_scalars["val/foreign"] = hub.log_scalars["val/loss_foreign"] = Foreign()
    finish(track(range(2), **options))
    validate(hub, options, [2.0], acc=0.5)
    assert 1.0 == keeper.logged[-1][1]["val/foreign"] == keeper.logged[-1][1]["val/loss_foreign"]
    assert {} == counted()


class BestProcessor(LogProcessor):
    """Add what a processor of one's own asks a hub and its histories."""

    def get_log_after_epoch(self, runner, batch_idx, mode, with_non_scalar=False):
        hub = copy.deepcopy(runner.message_hub)
        history = hub.get_scalar("val/acc")
        tag, line = super().get_log_after_epoch(runner, batch_idx, mode, with_non_scalar)
        own = {
            "best": history.max(),
            "mean": history.mean(),
            "now": history.current(),
            "window": history.mean(5),
            "distance": hub.get_scalar("val/distance").mean(),
            "whole": isinstance(hub, MessageHub) and isinstance(history, HistoryBuffer),
            "hidden": hub.get_scalar("val/hidden").current(),
            "train": hub.get_scalar("train/loss").mean(1),
            "all": len(history.data[0]),
            "loss": hub.get_scalar("train/loss").min(),
            "hub": hub.instance_name,
        }
        return {**tag, **own}, line


def test_a_processor_of_ones_own_may_ask_anything_of_the_hub(hub, keeper, options):
    """It sees the hub with its histories, and all results there were."""
    hub.update_scalar("val/hidden", 9.0)
    for accuracy in (0.75, 0.25):
        hub.update_scalar("train/loss", accuracy / 2)
        hub.update_scalar("val/distance", accuracy)
        log_results({"acc": accuracy}, processor=BestProcessor(), **options)
    expected = {
        "acc": 0.25,
        "best": 0.75,
        "mean": 0.5,
        "now": 0.25,
        "window": 0.5,
        "all": 2,
        "distance": 0.5,
        "whole": True,
        "hidden": 9.0,
        "train": 0.125,
        "loss": 0.125,
        "hub": "a",
    }
    assert {f"val/{name}": value for name, value in expected.items()} == keeper.logged[-1][1]


@pytest.mark.parametrize("wrong", [MMLogger("x"), otel_dllogger], ids=["MMLogger", "module"])
def test_what_only_looks_like_a_logger_is_refused_at_the_call(wrong):
    """A logger of text takes no records."""
    with pytest.raises(MisuseError, match=r"logger=.* is not a Logger"):
        track([1], logger=wrong)


def test_a_statistic_that_is_not_there_is_refused_at_the_call(options):
    """Minutes into a training would be late."""
    cfg = [{"data_src": "loss", "method_name": "mni"}]
    with pytest.raises(MisuseError, match=r"custom_cfg\[0\]=.* there is no statistic 'mni'"):
        track([1], processor=LogProcessor(custom_cfg=cfg), **options)


class Extra(LogProcessor):
    """Add a number."""

    def get_log_after_iter(self, runner, batch_idx, mode):
        tag, line = super().get_log_after_iter(runner, batch_idx, mode)
        return {**tag, "extra": 1.0}, line


class Bare(LogProcessor):
    """Have nothing of its base class."""

    def __init__(self):
        self.by_epoch = True


def test_a_method_that_is_put_on_a_processor_counts(hub, keeper, options):
    """As on any object of Python's."""
    processor = LogProcessor()
    processor.get_log_after_iter = lambda *_state: ({"own": 1.0}, "line")
    finish(track(range(2), processor=processor, log_every=2, **options))
    assert {"train/own": 1.0, "train/eta": 0.0} == keeper.logged[-1][1]


def test_a_processor_is_made_as_a_whole(options):
    """What its base class has is needed, be it that its own methods fail."""
    with pytest.raises(
        MisuseError, match=r"processor=.* is not initialized: call super\(\).__init__"
    ):
        track([1], processor=Bare(), **options)


def test_what_fails_now_and_then_costs_itself(hub, keeper, options, counted, own_statistics):
    """The record and the line have everything else, a given result first of all."""
    calls = itertools.count()

    @HistoryBuffer.register_statistics
    def flaky(self):
        return 1 / (next(calls) // 2)

    items = [
        {"data_src": "loss", "method_name": "flaky"},
        {"data_src": "loss", "log_name": "acc", "method_name": "flaky"},
        {"data_src": "loss", "log_name": "least", "method_name": "min"},
        {"data_src": "least", "log_name": "nothing", "method_name": "min"},
    ]
    hub.update_scalar("val/loss", 3.0)
    line = log_results({"acc": 0.5}, processor=LogProcessor(custom_cfg=items), **options)
    assert {"val/acc": 0.5, "val/least": 3.0} == keeper.logged[-1][1]
    assert line.endswith("acc: 0.5000  least: 3.0000")
    assert {"statistic_failed": 1} == counted()


def test_a_scalar_that_has_no_value_costs_itself(hub, keeper, options):
    """One that is there and empty, or cannot be read, leaves the others in the record."""
    hub.log_scalars["train/empty"] = HistoryBuffer()
    hub.log_scalars["val/empty"] = HistoryBuffer()
    hub.update_info(3, "no text")
    for _ in track(range(2), log_every=2, **options):
        hub.update_scalar("train/loss", 1.0)
    log_results({"acc": 0.5}, **options)
    assert {"train/loss", "train/time", "train/data_time", "train/eta"} == set(keeper.logged[0][1])
    assert {"val/acc": 0.5} == keeper.logged[1][1]


def test_a_statistic_that_fails_costs_itself_alone(hub, keeper, options, counted, own_statistics):
    """Training goes on, the record has what MMEngine has of itself, and the loss is counted."""

    @HistoryBuffer.register_statistics
    def broken(self):
        return 1 / 0

    cfg = [
        {"data_src": "loss", "log_name": "least", "method_name": "min"},
        {"data_src": "loss", "log_name": "own", "method_name": "broken"},
        {"data_src": "lr", "method_name": "broken"},
    ]
    processor = Extra(window_size=2, custom_cfg=cfg, num_digits=1, mean_pattern="loss")
    for number in track(range(4), processor=processor, log_every=2, **options):
        hub.update_scalars({"train/loss": float(number), "train/lr": 0.1})
    assert [0.5, 2.5] == [data["train/loss"] for _, data, _ in keeper.logged]
    times = {"train/time", "train/data_time", "train/eta"}
    assert {*times, "train/loss", "train/least", "train/extra"} == set(keeper.logged[0][1])
    assert keeper.logged[0][2].endswith("loss: 0.5  least: 0.0")
    assert {"statistic_failed": 4} == counted()  # two numbers of each of two records


@pytest.mark.parametrize(("source", "name"), [("lr", "lr"), ("loss", "base_lr"), ("time", "time")])
@pytest.mark.parametrize("value", [None, [1.0, 2.0]], ids=str)
def test_a_statistic_that_is_no_number_costs_itself(
    hub, keeper, options, own_statistics, source, name, value
):
    """Where the line needs one, as for a learning rate and for times."""

    @HistoryBuffer.register_statistics
    def odd(self):
        return value

    items = [{"data_src": source, "log_name": name, "method_name": "odd"}]
    processor = LogProcessor(custom_cfg=items)
    for _ in track(range(2), processor=processor, log_every=2, max_epochs=1, **options):
        hub.update_scalars({"train/loss": 1.0, "train/lr": 0.1})
    names = {f"train/{name}" for name in ("loss", "lr", "time", "data_time", "eta")}
    assert names - {f"train/{name}"} == set(keeper.logged[-1][1])


class Uncopied(LogProcessor):
    """Fail, and refuse to be copied."""

    def __getstate__(self):
        raise TypeError

    def get_log_after_iter(self, runner, batch_idx, mode):
        raise ValueError


def test_a_processor_that_cannot_be_copied_costs_no_record(hub, keeper, options):
    """Its settings are all that is needed of it."""
    for _ in track(range(2), processor=Uncopied(), log_every=2, **options):
        hub.update_scalar("train/loss", 1.0)
    assert 1.0 == keeper.logged[-1][1]["train/loss"]


class Broken(LogProcessor):
    """Fail as code of a user's own does."""

    def get_log_after_iter(self, runner, batch_idx, mode):
        raise RuntimeError(mode)


def test_a_processor_that_fails_costs_no_record(hub, keeper, options, counted):
    """Its base class makes the record in its place, without a history that fails."""
    for _ in track(range(4), processor=Broken(), log_every=2, **options):
        hub.update_scalar("train/loss", 1.0)
    assert [1.0, 1.0] == [data["train/loss"] for _, data, _ in keeper.logged]
    assert {"statistic_failed": 2} == counted()
    hub.log_scalars["train/odd"] = object()
    finish(track(range(2), log_every=2, **options))
    assert (3, 6) == (len(keeper.logged), hub.get_info("iter"))
    assert "train/odd" not in keeper.logged[-1][1]
    assert {"statistic_failed": 3} == counted()


def test_metadata_of_a_users_own_stops_nothing(hub, keeper, options):
    """A key that is no text is the user's business."""
    options["logger"].metadata("train/loss", {1: "x"})
    for _ in track(range(2), log_every=2, **options):
        hub.update_scalar("train/loss", 1.0)
    assert 1.0 == keeper.logged[-1][1]["train/loss"]


@pytest.mark.parametrize(
    "processor", [{"window_size": 5}, LogProcessor, object()], ids=repr_without_address
)
def test_what_is_no_processor_is_refused_at_the_call(options, processor):
    """A class, or MMEngine's own, which asks a Runner for more than a loop has."""
    with pytest.raises(
        MisuseError, match=r"processor=.* is not a LogProcessor: pass otel_dllogger.training.Log"
    ):
        track([1], processor=processor, **options)
