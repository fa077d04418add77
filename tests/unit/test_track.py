"""Loops of one's own: what is logged when, how far a loop is, and how it ends."""

from __future__ import annotations

import copy
import itertools
import pickle
import re
import subprocess
import sys
import threading
import time

import pytest

import otel_dllogger
from otel_dllogger import Logger, Verbosity
from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.logger import Backend
from otel_dllogger.training import (
    HistoryBuffer,
    LogProcessor,
    LoopState,
    MessageHub,
    MisuseError,
    MMLogger,
    log_results,
    track,
)
from tests.support.command import environment
from tests.support.ids import repr_without_address
from tests.support.paths import TESTS

SCRIPT = TESTS / "scripts" / "track_ranks.py"
CONSOLE = r"\d\d/\d\d \d\d:\d\d:\d\d - mmengine - INFO - "


@pytest.fixture(autouse=True)
def nothing_global():
    """Begin and end without hubs, without loggers by name and without a global Logger."""
    for named in (MessageHub, MMLogger):
        named._instances.clear()
    yield
    otel_dllogger.shutdown()
    for named in (MessageHub, MMLogger):
        named._instances.clear()


class Keeper(Backend):
    """A user's backend that keeps what it is given."""

    def __init__(self, verbosity=Verbosity.VERBOSE):
        super().__init__(verbosity)
        self.logged = []

    def log(self, timestamp, elapsedtime, step, data):
        self.logged.append((step, dict(data), data.line))

    def metadata(self, timestamp, elapsedtime, metric, metadata):
        """Nothing is kept of it."""

    @property
    def steps(self):
        return [step for step, _, _ in self.logged]


@pytest.fixture
def keeper():
    return Keeper()


@pytest.fixture
def hub():
    return MessageHub("a")


@pytest.fixture
def options(hub, keeper):
    """Return a hub and a logger for a loop."""
    return {"hub": hub, "logger": Logger([keeper])}


def finish(loop):
    """Run a loop to its end, and return its batches."""
    return list(loop)


def infos(hub):
    """Return how far a hub says the training is."""
    return hub.get_info("epoch"), hub.get_info("iter")


# Epochs


def test_epochs_one_after_the_other(hub, keeper, options):
    """Each epoch yields the loader's batches; iterations are counted through."""
    for epoch in range(3):
        for number, batch in enumerate(track("abcde", log_every=2, max_epochs=3, **options)):
            assert "abcde"[number] == batch
            assert (epoch or None, epoch * 5 + number or None) == infos(hub)
            hub.update_scalar("train/loss", 10.0 * epoch + number)
        assert (epoch + 1, (epoch + 1) * 5) == infos(hub)
    assert [(1, 2), (1, 4), (2, 7), (2, 9), (3, 12), (3, 14)] == keeper.steps
    assert "[2][2/5]" in keeper.logged[2][2]
    assert 15 == len(hub.get_scalar("train/time").data[0])
    assert 15 == len(hub.get_scalar("train/data_time").data[0])
    assert {"train/loss", "train/time", "train/data_time", "train/eta"} == set(keeper.logged[0][1])
    assert 0.5 == keeper.logged[0][1]["train/loss"]


@pytest.mark.parametrize(
    ("length", "every", "expected"),
    [
        (10, 10, [10]),
        (25, 10, [10, 20]),
        (9, 10, [9]),
        (1, 10, [1]),
        (3, 1, [1, 2, 3]),
        (10, 5, [5, 10]),
        (0, 5, []),
    ],
)
@pytest.mark.parametrize("mode", ["train", "val", "test"])
def test_what_is_logged_when(keeper, options, length, every, expected, mode):
    """A record comes every so many batches, and of a shorter loader with the last one."""
    finish(track(range(length), mode=mode, log_every=every, **options))
    assert expected == [step[-1] for step in keeper.steps]


def test_ten_batches_between_records_by_default(keeper, options):
    """The default is MMEngine's."""
    finish(track(range(25), **options))
    assert [(1, 10), (1, 20)] == keeper.steps


def test_times_are_measured(hub, options):
    """The time of a batch is that of its loading and of the loop's body."""

    def slow_loader():
        for number in range(4):
            wait_s(0.01)
            yield number

    for _ in track(slow_loader(), **options):
        wait_s(0.02)
    loading, whole = (hub.get_scalar(f"train/{name}").data[0] for name in ("data_time", "time"))
    assert (4, 4) == (len(loading), len(whole))
    assert (loading >= 0.01).all()
    assert (whole >= loading + 0.02).all()
    assert loading.mean() < 1
    assert whole.mean() < 1


def wait_s(seconds):
    """Work for a while."""
    end_s = time.perf_counter() + seconds
    while time.perf_counter() < end_s:
        pass


def test_the_time_before_a_loop_begins_does_not_count(hub, options):
    """A loop that is made early measures from its first batch on."""
    loop = track(range(2), **options)
    wait_s(0.02)
    start_s = time.perf_counter()
    finish(loop)
    assert hub.get_scalar("train/time").data[0].sum() <= time.perf_counter() - start_s


# The time that is left


def test_the_time_left_of_a_training_by_epoch(hub, options):
    """What is left are the other batches of this epoch and the other epochs."""
    left = []
    for _ in range(2):
        for _ in track(range(4), log_every=1, max_epochs=3, **options):
            wait_s(0.001)
            if "eta" in hub.runtime_info:
                mean_s = hub.get_scalar("train/time").mean()
                left.append(hub.get_info("eta") / mean_s)
    # Asked in the body, of the batch before; that of the last one is gone with its epoch.
    assert [11, 10, 9, 7, 6, 5] == pytest.approx(left)


def test_the_time_left_of_a_training_by_iteration(hub, keeper, options):
    """What is left are the other iterations, and nothing after the last one."""
    left = []
    for _ in track(range(4), log_every=1, max_iters=6, **options):
        wait_s(0.001)
        if "eta" in hub.runtime_info:
            left.append(hub.get_info("eta") / hub.get_scalar("train/time").mean())
    assert [5, 4, 3, 2, 1] == pytest.approx(left)
    assert 0 == keeper.logged[-1][1]["train/eta"]


@pytest.mark.parametrize("mode", ["val", "test"])
def test_the_time_left_of_a_validation(hub, keeper, options, mode):
    """What is left are the other batches, at the pace of this loop."""
    for _ in range(40):
        hub.update_scalar(f"{mode}/time", 1000.0)
    hub.update_info("eta", 1e6)
    for _ in track(range(4), mode=mode, log_every=1, **options):
        wait_s(0.001)
    etas = [data[f"{mode}/eta"] for _, data, _ in keeper.logged]
    assert 0 == etas[-1]
    assert all(0.003 <= eta < 1000 for eta in etas[:1])
    assert etas[1] >= 0.002


def test_of_an_unknown_length_nothing_is_known_of_the_time_left(hub, keeper, options):
    """A loader without a length has no ETA, nor an old one."""
    hub.update_info("eta", 5.0)
    finish(track(iter(range(5)), log_every=2, max_epochs=2, **options))
    assert [(1, 2), (1, 4)] == keeper.steps
    assert all("train/eta" not in data for _, data, _ in keeper.logged)
    assert "Epoch(train) [1][2/?]" in keeper.logged[0][2]
    assert hub.get_info("eta") is None


def test_after_the_last_epoch_no_time_is_left(keeper, options):
    """One epoch too many has nothing left, rather than less."""
    for _ in range(2):
        finish(track(range(4), log_every=4, max_epochs=1, **options))
        assert 0 == keeper.logged[-1][1]["train/eta"]


@pytest.mark.parametrize("mode", ["train", "val"])
def test_the_time_left_is_that_of_the_loop_under_way(hub, options, mode):
    """After a loop, also one that is left in its middle, nothing is known of it."""
    finish(track(range(4), mode=mode, log_every=2, max_epochs=2, **options))
    assert hub.get_info("eta") is None
    for batch in track(range(4), mode=mode, log_every=1, max_epochs=2, **options):
        if batch == 2:
            break
    assert hub.get_info("eta") is None


def test_without_max_epochs_the_time_left_is_this_epochs(hub, keeper, options):
    """Nothing is known of other epochs."""
    finish(track(range(4), log_every=2, **options))
    assert 0 == keeper.logged[-1][1]["train/eta"]
    for number, _ in enumerate(track(range(4), log_every=1, **options)):
        if number == 1:
            ratio = hub.get_info("eta") / hub.get_scalar("train/time").mean()
            assert 3 == pytest.approx(ratio)


# Iterations


def test_iterations_begin_the_loader_again(hub, keeper, options):
    """The loader is begun again until all iterations are done, and then the loop ends."""
    batches = finish(track("abcd", log_every=3, max_iters=10, **options))
    assert "abcdabcdab" == "".join(batches)
    assert [3, 6, 9] == keeper.steps
    assert (None, 10) == infos(hub)
    assert [] == finish(track("abcd", max_iters=10, **options))
    assert "ab" == "".join(track("abcd", max_iters=12, **options))
    assert (None, 12) == infos(hub)


def test_a_loader_is_begun_only_when_it_is_needed(options):
    """After the last iteration no other batch is loaded."""
    loaded = []

    class Loader:
        def __iter__(self):
            for number in range(3):
                loaded.append(number)
                yield number

    finish(track(Loader(), max_iters=3, **options))
    assert [0, 1, 2] == loaded


def test_iterations_are_counted_from_loop_to_loop(keeper, options):
    """Records are as far from each other as they are said to be, in whatever parts they come."""
    batches = itertools.count()
    for length in (15, 15, 15, 3, 2):
        finish(track(itertools.islice(batches, length), max_iters=50, **options))
    assert [10, 20, 30, 40, 48, 50] == keeper.steps


def test_an_iterator_is_used_up_once(hub, options):
    """What cannot begin again ends before all iterations are done."""
    assert [0, 1, 2] == finish(track(iter(range(3)), max_iters=10, **options))
    assert (None, 3) == infos(hub)


@pytest.mark.timeout(20)
def test_a_loader_without_batches_ends(options):
    """Nothing can be begun again and again."""
    assert [] == finish(track([], max_iters=10, **options))


def test_iterations_within_epochs(hub, keeper, options):
    """With both limits a loop is of one epoch, and ends early at the last iteration."""
    every = {"log_every": 2, "max_epochs": 5, "max_iters": 6, **options}
    assert [0, 1, 2, 3] == finish(track(range(4), **every))
    assert [0, 1] == finish(track(range(4), **every))
    assert [] == finish(track(range(4), **every))
    assert [(1, 2), (1, 4), (2, 6)] == keeper.steps
    assert 6 == hub.get_info("iter")
    assert 0 == keeper.logged[-1][1]["train/eta"]


# Resuming


@pytest.mark.parametrize("limits", [{"max_epochs": 4}, {"max_iters": 30}])
def test_a_training_goes_on_where_its_checkpoint_was(options, limits):
    """A hub that loaded a state goes on counting, through a pickle as well."""
    finish(
        track(
            range(5),
            log_every=5,
            **{**limits, "max_iters": 5} if "max_iters" in limits else limits,
            **options,
        )
    )
    state = pickle.loads(pickle.dumps(options["hub"].state_dict()))
    keeper, other = Keeper(), MessageHub("b")
    other.load_state_dict(state)
    finish(track(range(5), hub=other, logger=Logger([keeper]), log_every=5, **limits))
    expected = [(2, 10)] if "max_epochs" in limits else [10, 15, 20, 25, 30]
    assert expected == keeper.steps


# Other ends


def test_a_break_leaves_the_loop(hub, keeper, options):
    """A loop that is left in the middle has not done its epoch; the next one begins anew."""
    for batch in track(range(10), log_every=2, **options):
        if batch == 5:
            break
    assert (None, 5) == infos(hub)
    assert [(1, 2), (1, 4)] == keeper.steps
    assert 10 == len(finish(track(range(10), log_every=5, **options)))
    assert (1, 15) == infos(hub)


def test_an_error_in_the_body_passes_through(hub, keeper, options):
    """What the body raises is raised, and nothing is logged after it."""

    def train():
        for batch in track(range(10), log_every=2, **options):
            1 / (3 - batch)

    with pytest.raises(ZeroDivisionError):
        train()
    assert [(1, 2)] == keeper.steps
    assert (None, 3) == infos(hub)


def test_an_error_of_the_loader_passes_through(options):
    """What the loader raises is raised."""

    def loader():
        yield 1
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        finish(track(loader(), **options))


def test_a_stop_iteration_of_a_body_is_no_end(options):
    """What is thrown into the loop comes out of it."""
    loop = track(range(3), **options)
    next(loop)
    with pytest.raises(KeyError):
        loop.throw(KeyError("x"))
    assert [] == finish(loop)


# Validations and tests


def test_validations_within_a_training(hub, keeper, options):
    """A validation knows the training's epoch and iteration, and changes neither."""
    for epoch in range(2):
        finish(track(range(4), log_every=4, max_epochs=2, **options))
        assert [0, 1, 2] == finish(track(range(3), mode="val", log_every=2, **options))
        assert (epoch + 1, epoch * 4 + 4) == infos(hub)
        log_results({"acc": epoch / 4}, **options)
    assert [(1, 4), (1, 4, 2), (1,), (2, 8), (2, 8, 2), (2,)] == keeper.steps
    _, data, line = keeper.logged[-1]
    assert {"val/acc", "val/time", "val/data_time"} == set(data)
    assert 0.25 == data["val/acc"]
    assert re.fullmatch(
        r"Epoch\(val\) \[2\]\[3/3\]    acc: 0.2500  data_time: \S+  time: \S+", line
    )
    assert {"val/eta", "val/time", "val/data_time"} == set(keeper.logged[1][1])


def test_a_test_on_its_own(keeper, options):
    """A test has no epoch, and its results are the run's."""
    finish(track(range(3), mode="test", log_every=3, **options))
    line = log_results({"acc": 0.5}, mode="test", **options)
    assert [(None, None, 3), ()] == keeper.steps
    assert line.startswith("Epoch(test) [3/3]    acc: 0.5000")


def test_results_of_a_training_by_iteration(hub, keeper, options):
    """Results stand at the iteration where the training is."""
    finish(track(range(4), max_iters=4, log_every=4, **options))
    finish(track(range(4), mode="val", log_every=2, **options))
    line = log_results({"acc": 0.5}, **options)
    assert [4, (0, 4, 2), (0, 4, 4), (0, 4, 4)] == keeper.steps
    assert line.startswith("Iter(val) [4/4]    acc: 0.5000")


def test_results_without_a_loop(keeper, options):
    """Results need no loop before them."""
    assert "Epoch(val) [0][?/?]    acc: 0.5000" == log_results({"acc": 0.5}, **options)
    assert [((0,), {"val/acc": 0.5})] == [entry[:2] for entry in keeper.logged]


def test_results_that_are_no_numbers(keeper, options):
    """A list is in the record and on the line, a nested dict as well."""
    line = log_results({"acc": 0.5, "per_class": [1, 2], "text": "good"}, **options)
    assert line.endswith("acc: 0.5000  per_class: [1, 2]  text: good")
    assert {"val/acc": 0.5, "val/per_class": [1, 2], "val/text": "good"} == keeper.logged[0][1]


@pytest.mark.parametrize(("first", "second"), [(None, 0.5), (0.5, None), ([1], 0.5), (0.5, [1])])
def test_the_last_results_count(keeper, options, first, second):
    """A result that was no number once, or was one, is what it is now, and stands there once."""
    log_results({"acc": first}, **options)
    line = log_results({"acc": second}, **options)
    text = f"{second:.4f}" if isinstance(second, float) else second
    assert {"val/acc": second} == keeper.logged[-1][1]
    assert f"Epoch(val) [0][?/?]    acc: {text}" == line


def test_results_have_a_processor_of_their_own(options):
    """A given processor decides about the line."""
    line = log_results({"acc": 0.5}, processor=LogProcessor(num_digits=1), **options)
    assert line.endswith("acc: 0.5")


def test_a_processor_of_ones_own(hub, keeper, options):
    """A given processor decides which statistics are logged, and how they are counted."""
    items = [{"data_src": "loss", "method_name": "max", "log_name": "top", "window_size": "global"}]
    processor = LogProcessor(by_epoch=False, custom_cfg=items)
    for batch in track(range(4), processor=processor, log_every=2, max_epochs=1, **options):
        hub.update_scalar("train/loss", 9.0 - batch)
    assert [2, 4] == keeper.steps
    assert [9.0, 9.0] == [data["train/top"] for _, data, _ in keeper.logged]
    assert keeper.logged[0][2].startswith("Iter(train) [2/?]")


# Where it goes


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


# What is wrong


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"mode": "training"}, "mode='training' is not one of train, val, test"),
        ({"mode": None}, "mode=None is not one of"),
        ({"log_every": 0}, "log_every=0 is not a whole number from 1 up: pass how many batches"),
        ({"log_every": None}, "log_every=None is not a whole number"),
        ({"log_every": 2.5}, r"log_every=2\.5 is not a whole number"),
        ({"max_epochs": 0}, "max_epochs=0 is not a whole number"),
        ({"max_epochs": -1}, "max_epochs=-1 is not a whole number"),
        ({"max_iters": 0}, "max_iters=0 is not a whole number"),
        ({"max_iters": "9"}, "max_iters='9' is not a whole number"),
    ],
)
def test_wrong_options_raise_at_the_call(options, wrong, message):
    """What cannot mean anything raises before the first batch."""
    with pytest.raises(MisuseError, match=message):
        track(range(3), **wrong, **options)


def test_what_is_no_loader_raises_at_the_call(options):
    """What has no batches raises where the mistake is."""
    with pytest.raises((MisuseError, TypeError)):
        track(5, **options)


@pytest.mark.parametrize("mode", ["train", "", None])
def test_results_are_of_a_validation_or_a_test(hub, options, mode):
    """A training has no results, and nothing of them is kept."""
    with pytest.raises(MisuseError, match=r"mode=.* has no results: pass one of val, test"):
        log_results({"acc": 0.5}, mode=mode, **options)
    assert {} == hub.log_scalars


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"hub": 3}, "hub=3 is not a MessageHub"), ({"logger": 3}, "logger=3 is not a Logger")],
)
def test_what_is_no_hub_or_logger_is_refused_at_the_call(wrong, message):
    """Both are looked at before the first batch, and before results are kept."""
    with pytest.raises(MisuseError, match=message):
        track([1], **wrong)
    with pytest.raises(MisuseError, match=message):
        log_results({"acc": 1.0}, **wrong)
    with pytest.raises(MisuseError, match="is not a dict"):
        log_results([1.0])


def test_a_loop_of_few_batches_has_a_record(hub, keeper, options):
    """Where there are fewer than log_every, also without a length, the last one counts."""
    for _ in track(iter([1, 2, 3]), **options, max_epochs=1):
        hub.update_scalar("train/loss", 1.0)
    for _ in track([1] * 5, **options, max_iters=4):
        hub.update_scalar("train/loss", 2.0)
    assert [(1, 3), 4] == keeper.steps
    assert 4 == hub.get_info("iter")


def test_a_processor_counts_as_its_loop(hub, options):
    """Epochs in a training by iteration would be lines that mean nothing."""
    by_epoch = LogProcessor()
    with pytest.raises(MisuseError, match="LogProcessor\\(by_epoch=False\\)"):
        track([1], processor=by_epoch, max_iters=3, **options)
    finish(track([1], max_iters=3, **options))
    with pytest.raises(MisuseError, match="LogProcessor\\(by_epoch=False\\)"):
        log_results({"acc": 1.0}, processor=by_epoch, **options)
    assert "val/acc" not in hub.log_scalars
    with pytest.raises(MisuseError, match=r"processor=.* is none"):
        track([1], processor={"window_size": 5}, **options)


def test_the_epoch_can_be_said(hub, keeper, options):
    """A loop that is left early is counted by whoever leaves it."""
    for epoch in range(3):
        for batch in track(range(10), epoch=epoch, log_every=2, max_epochs=3, **options):
            if batch == 3:
                break
    assert [(1, 2), (2, 5), (3, 8)] == keeper.steps
    with pytest.raises(MisuseError, match="epoch=-1 is not a whole number from 0 up"):
        track([1], epoch=-1, **options)


def test_a_validation_has_no_results_of_the_one_before(hub, keeper, options):
    """Only what is measured in it is logged while it is under way."""
    for accuracy in (0.5, 0.75):
        for _ in track(range(2), mode="val", log_every=2, **options):
            hub.update_scalars({"val/loss": 1.0, "val/distance": 2.0})
        log_results({"accuracy": accuracy}, **options)
    assert 2.0 == keeper.logged[1][1]["val/distance"]
    progress = {"val/data_time", "val/time", "val/loss", "val/eta"}
    assert progress == keeper.logged[2][1].keys()
    assert [0.5, 0.75] == [keeper.logged[n][1]["val/accuracy"] for n in (1, 3)]


def test_a_scalar_without_a_mode_is_warned_of_once(hub, options, caplog):
    """A name that begins with no mode is never logged, which is said."""
    for _ in track(range(4), log_every=2, **options):
        hub.update_scalar("trian/loss", 1.0)
    said = [r.getMessage() for r in caplog.records if "trian/loss" in r.getMessage()]
    (warning,) = said
    assert "'trian/loss' in the hub is not logged: its name begins with none of" in warning


LONELY = """
from urllib.request import urlopen
from otel_dllogger.training import MessageHub
from otel_dllogger.training import track

hub = MessageHub.get_instance("lonely")
for _ in track([1, 2], hub=hub, max_epochs=1):
    hub.update_scalar("train/loss", 0.5)
import otel_dllogger.logger as logger
print(urlopen(logger._attached[0].url).read().decode())
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


def test_results_are_those_that_were_given(hub, keeper, options):
    """A loss is no mean over validations, nor mixed with what the loop measured."""
    for loss in (1.0, 0.25):
        for _ in track(range(2), mode="val", log_every=2, **options):
            hub.update_scalar("val/loss_cls", 3.0)
        line = log_results({"loss": loss, "loss_cls": 7.0}, **options)
        assert f"loss: {loss:.4f}" in line
    logged = [data for _, data, _ in keeper.logged]
    assert [1.0, 0.25] == [logged[n]["val/loss"] for n in (1, 3)]
    assert [7.0, 7.0] == [logged[n]["val/loss_cls"] for n in (1, 3)]
    assert 3.0 == logged[2]["val/loss_cls"]
    assert "val/loss" not in logged[2]
    assert [1.0, 0.25] == hub.get_scalar("val/loss").data[0].tolist()  # for statistics of all


def test_results_of_another_call_are_not_repeated(hub, keeper, options):
    """What was not given this time is not in the record of this time."""
    log_results({"acc": 0.5, "table": [1, 2]}, **options)
    line = log_results({"recall": 0.25}, **options)
    assert "acc" not in line
    assert {"val/recall": 0.25} == keeper.logged[-1][1]


@pytest.mark.parametrize("window", [{}, {"window_size": "global"}, {"window_size": 2}])
def test_a_statistic_of_all_results(keeper, options, window):
    """A configuration sees every result there was."""
    best = {"data_src": "acc", "log_name": "best", "method_name": "max", **window}
    for accuracy in (0.5, 0.75, 0.25):
        log_results({"acc": accuracy}, processor=LogProcessor(custom_cfg=[best]), **options)
    assert {"val/acc": 0.25, "val/best": 0.75} == keeper.logged[-1][1]


def validate(hub, options, losses, **results):
    """Validate on one batch a loss, and return the line of the results."""
    for loss in track(losses, mode="val", log_every=len(losses), **options):
        hub.update_scalar("val/loss", loss)
    return log_results(results, **options)


def test_a_validation_counts_for_itself(hub, keeper, options):
    """Means are of its own batches: of the last ten under way, of all as results."""
    validate(hub, options, [100.0] * 3)
    line = validate(hub, options, [1.0, 2.0, 3.0])
    assert [100.0, 100.0, 2.0, 2.0] == [data["val/loss"] for _, data, _ in keeper.logged]
    assert "loss: 2.0000" in line
    validate(hub, options, [13.0] * 10 + [1.0] * 10)
    assert [1.0, 7.0] == [data["val/loss"] for _, data, _ in keeper.logged[4:]]


def test_what_a_loop_measures_stays_beside_a_result_of_its_name(hub, keeper, options):
    """A result takes neither the loop's scalar nor its history away, be it a number or not."""
    line = validate(hub, options, [1.0] * 3, loss=[1, 2])
    assert 1 == line.count("  loss: ")
    validate(hub, options, [2.0] * 3, loss=9.0)
    validate(hub, options, [3.0] * 3)
    assert [1.0, [1, 2], 2.0, 9.0, 3.0, 3.0] == [data["val/loss"] for _, data, _ in keeper.logged]
    assert [1.0] * 3 + [2.0] * 3 + [9.0] + [3.0] * 3 == hub.get_scalar("val/loss").data[0].tolist()


def test_a_validation_that_measures_nothing_logs_nothing_old(hub, keeper, options):
    """What another validation measured, times included, is not in the results of this one."""
    validate(hub, options, [1.0] * 3, accuracy=0.5)
    log_results({"accuracy": 0.75}, **options)
    assert {"val/accuracy": 0.75} == keeper.logged[-1][1]


def test_a_validation_goes_on_after_a_resume(hub, keeper, options):
    """What was measured before a checkpoint is of other validations after it."""
    hub.log_scalars["val/loss"] = HistoryBuffer([], [], max_length=2)
    hub.update_scalar("val/early", 1.0, resumed=False)
    validate(hub, options, [100.0] * 3)
    resumed = MessageHub("resumed")
    resumed.load_state_dict(pickle.loads(pickle.dumps(hub.state_dict())))
    options["hub"] = resumed
    resumed.update_scalar("val/early", 2.0, resumed=False)
    log_results({"accuracy": 0.75}, **options)
    assert {"val/accuracy": 0.75, "val/early": 2.0} == keeper.logged[-1][1]
    validate(resumed, options, [1.0])
    assert {"val/loss", "val/time", "val/data_time"} == set(keeper.logged[-1][1])
    assert 1.0 == keeper.logged[-1][1]["val/loss"]


def test_a_full_history_still_shows_its_last_values(hub, keeper, options):
    """What is no longer kept counts as well, where it is asked how many came since."""
    hub.log_scalars["val/loss"] = HistoryBuffer([], [], max_length=4)
    for loss in (100.0, 1.0):
        validate(hub, options, [loss] * 3)
    assert [100.0, 100.0, 1.0, 1.0] == [data["val/loss"] for _, data, _ in keeper.logged]


def test_results_of_several_loops(hub, keeper, options):
    """All that was measured since the results before is in them; under way each has its own."""
    hub.update_scalar("val/threshold", 0.5)
    for name in ("loss_clean", "loss_noisy"):
        for loss in track([1.0, 3.0], mode="val", log_every=2, **options):
            hub.update_scalar(f"val/{name}", loss)
    log_results({"accuracy": 0.5}, **options)
    times = {"val/time", "val/data_time"}
    assert [
        {*times, "val/eta", "val/loss_clean"},
        {*times, "val/eta", "val/loss_noisy"},
        {*times, "val/loss_clean", "val/loss_noisy", "val/threshold", "val/accuracy"},
    ] == [set(data) for _, data, _ in keeper.logged]


@pytest.mark.parametrize("log_every", [1, 100])
def test_the_times_of_results_are_of_their_validation(hub, keeper, options, log_every):
    """Of all its batches and of no other, of several loops, and of one that is left early."""
    some = {"mode": "val", "log_every": log_every, **options}
    means = []
    for lengths in ([3], [3], [4, 1], [10], [2]):
        before = len(hub.get_scalar("val/time").data[0]) if means else 0
        for length in lengths:
            for number, _ in enumerate(track(range(10 if length == 2 else length), **some), 1):
                wait_s(0.001 * len(means))
                if number == length:
                    break
        log_results({"acc": 1.0}, **options)
        # A break leaves the last batch unmeasured.
        mean_s = hub.get_scalar("val/time").data[0][before:].mean()
        means.append(mean_s)
        assert pytest.approx(mean_s) == keeper.logged[-1][1]["val/time"]
    assert len(set(means)) == len(means)


def test_the_times_that_are_put_in_by_hand(hub, keeper, options):
    """Without a loop they are those that there are."""
    for time_s in (1.0, 0.0, 0.0, 0.0):
        hub.update_scalar("val/time", time_s)
    log_results({"acc": 1.0}, **options)
    assert {"val/time": 0.25, "val/acc": 1.0} == keeper.logged[-1][1]


@pytest.mark.parametrize("window", ["epoch", "global", 10, None])
@pytest.mark.parametrize("method", ["max", "mean"])
def test_windows_begin_with_their_validation(hub, keeper, options, window, method):
    """Under way as in the results; those that are of all values are of all validations."""
    hub.update_info("iter", 1000)
    items = [{"data_src": "loss", "log_name": "loss_own", "method_name": method}]
    items = [{**item, "window_size": window} for item in items]
    options["processor"] = LogProcessor(custom_cfg=items)
    for value in (100.0, 1.0):
        del keeper.logged[:]
        for _ in track(range(4), mode="val", log_every=2, **options):
            hub.update_scalar("val/loss", value)
        log_results({"acc": 1.0}, **options)
        shown = [data["val/loss_own"] for _, data, _ in keeper.logged]
        if window in {"epoch", 10} or value == 100.0:
            assert [value] * 3 == shown
        elif method == "max":
            assert [100.0] * 3 == shown
        else:
            assert pytest.approx([402 / 6, 404 / 8, 404 / 8]) == shown


def test_a_validation_that_is_begun_again_counts_once(hub, keeper, options):
    """A checkpoint of the middle of one is resumed with the whole of it before it."""
    validate(hub, options, [1.0], acc=1.0)
    for number in track(range(4), mode="val", log_every=2, **options):
        hub.update_scalar("val/loss", 1000.0)
        if number == 2:
            state = pickle.loads(pickle.dumps(hub.state_dict()))
            break
    resumed = MessageHub("resumed")
    resumed.load_state_dict(state)
    options["hub"] = resumed
    validate(resumed, options, [2.0], acc=2.0)
    assert 2.0 == keeper.logged[-1][1]["val/loss"]
    for _ in track(range(4), mode="val", log_every=2, **options):  # and a break is no such thing
        resumed.update_scalar("val/first", 1.0)
        break
    validate(resumed, options, [2.0], acc=2.0)
    assert 1.0 == keeper.logged[-1][1]["val/first"]


@pytest.mark.parametrize(("window", "expected"), [("epoch", 0.25), (2, 0.5), ("global", 0.75)])
def test_windows_of_results_count_validations(keeper, options, window, expected):
    """However many batches a validation has."""
    item = {"data_src": "acc", "log_name": "own", "method_name": "max", "window_size": window}
    for accuracy in (0.75, 0.5, 0.25):
        finish(track(range(5), mode="val", **options))
        log_results({"acc": accuracy}, processor=LogProcessor(custom_cfg=[item]), **options)
    assert expected == keeper.logged[-1][1]["val/own"]


def test_an_epochs_window_has_all_values_of_a_validation(hub, keeper, options):
    """However many a batch gives."""
    item = {"data_src": "iou", "log_name": "most", "method_name": "max", "window_size": "epoch"}
    for most in (100.0, 12.0):
        for batch in track(range(4), mode="val", **options):
            for number in range(3):
                hub.update_scalar("val/iou", most - 3 * batch - number)
        log_results({}, processor=LogProcessor(custom_cfg=[item]), **options)
    assert 12.0 == keeper.logged[-1][1]["val/most"]


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


def test_results_of_one_mode_leave_those_of_another(hub, keeper, options):
    """A test may be measured before a validation is logged."""
    hub.update_scalars({"test/loss": 1.0, "val/loss": 2.0})
    log_results({}, mode="val", **options)
    log_results({}, mode="test", **options)
    assert [{"val/loss": 2.0}, {"test/loss": 1.0}] == [data for _, data, _ in keeper.logged]


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


@pytest.mark.parametrize("name", ["epoch", "iter", "time", "data_time", "grad_norm", "memory"])
def test_a_result_of_any_name_is_as_it_was_given(hub, keeper, options, name):
    """Also one that the processor knows something of, in the middle of validations."""
    validate(hub, options, [1.0] * 4, **{name: 100.0})
    line = validate(hub, options, [1.0] * 4, **{name: 200.0})
    assert [100.0, 200.0] == [keeper.logged[n][1][f"val/{name}"] for n in (1, 3)]
    assert f"{name}: 200.0000" in line


def test_a_result_is_as_given_whatever_else_is_made_of_it(keeper, options):
    """An item of a configuration shows its statistic under another name only."""
    items = [
        {"data_src": "loss", "method_name": "mean", "window_size": "global"},
        {"data_src": "loss", "method_name": "max", "log_name": "worst"},
    ]
    for loss in (4.0, 2.0):
        log_results({"loss": loss}, processor=LogProcessor(custom_cfg=items), **options)
    assert {"val/loss": 2.0, "val/worst": 4.0} == keeper.logged[-1][1]


def test_a_result_of_a_scalar_that_is_not_resumed(hub, keeper, options):
    """How the loop keeps its scalar is how its result is kept."""
    hub.update_scalar("val/loss", 1.0, resumed=False)
    log_results({"loss": 2.0}, **options)
    log_results({"loss": [2.0]}, **options)
    assert [2.0, [2.0]] == [data["val/loss"] for _, data, _ in keeper.logged]
    assert "val/loss" not in hub.state_dict()["log_scalars"]


def test_a_result_may_name_its_mode(keeper, options):
    """As scalars of the hub do."""
    log_results({"val/acc": 0.5, 1: 0.25}, **options)
    assert {"val/acc": 0.5, "val/1": 0.25} == keeper.logged[-1][1]


@pytest.mark.parametrize("wrong", [MMLogger("x"), otel_dllogger], ids=["MMLogger", "module"])
def test_what_only_looks_like_a_logger_is_refused_at_the_call(wrong):
    """A logger of text takes no records."""
    with pytest.raises(MisuseError, match=r"logger=.* is not a Logger"):
        track([1], logger=wrong)


def test_a_training_without_end_has_an_eta(hub, keeper, options):
    """More iterations than time can hold are no reason to stop."""
    loop = track(itertools.repeat(1), max_iters=10**24, log_every=1, **options)
    for _ in itertools.islice(loop, 3):
        hub.update_scalar("train/loss", 1.0)
    assert [1, 2] == keeper.steps


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
    with pytest.raises(MisuseError, match=r"processor=.* is half made: call super\(\).__init__"):
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


def test_loops_that_are_made_before_they_begin(hub, keeper, options):
    """Where a loop is, it asks when it begins."""
    loops = [track(range(4), log_every=4, max_epochs=2, **options) for _ in range(2)]
    finish(itertools.chain(*loops))
    assert [(1, 4), (2, 8)] == keeper.steps
    assert (2, 8) == infos(hub)


def test_a_validation_in_another_thread_takes_no_time_away(hub, options):
    """What runs beside a batch is not within it."""

    def validate_beside():
        for _ in track(range(2), mode="val", **options):
            wait_s(0.01)

    for _ in track(range(2), **options):
        start_s = time.perf_counter()
        thread = threading.Thread(target=validate_beside)
        thread.start()
        thread.join()
        took_s = time.perf_counter() - start_s
        hub.update_scalar("train/joined", took_s)
    joined, whole = (hub.get_scalar(f"train/{name}").data[0] for name in ("joined", "time"))
    assert (whole >= joined).all()


def test_an_item_of_what_has_no_value_here_has_none(hub, keeper, options):
    """Be its source the name of another item, which has one."""
    items = [
        {"data_src": "loss", "log_name": "acc", "method_name": "min"},
        {"data_src": "acc", "log_name": "worst", "method_name": "min", "window_size": 5},
    ]
    options["processor"] = LogProcessor(custom_cfg=items)
    log_results({"acc": -7.0}, **options)
    hub.update_scalar("val/loss", 1.0)
    log_results({}, **options)
    assert [-7.0, 1.0] == [data["val/acc"] for _, data, _ in keeper.logged]
    assert ["val/worst" in data for _, data, _ in keeper.logged] == [True, False]


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


class Unspeakable:
    """Have no text."""

    def __repr__(self):
        raise ValueError


def test_a_result_that_cannot_be_shown_raises_nothing(options, hub):
    """It is kept as it is."""
    log_results({"acc": 0.5, "odd": Unspeakable()}, **options)
    assert 0.5 == hub.get_scalar("val/acc").current()


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
    with pytest.raises(MisuseError, match=r"processor=.* is none: pass otel_dllogger.training.Log"):
        track([1], processor=processor, **options)


def test_what_is_not_resumed_stays_so(hub, keeper, options):
    """The loop puts in what it measures as the hub was told to keep it."""
    for key in ("train/time", "train/data_time", "val/time"):
        hub.update_scalar(key, 1.0, resumed=False)
    for key in ("eta", "iter", "epoch", "max_epochs"):
        hub.update_info(key, 0, resumed=False)
    finish(track(range(2), log_every=2, max_epochs=1, epoch=0, **options))
    finish(track(range(2), mode="val", log_every=2, **options))
    log_results({}, **options)
    assert 3 == len(keeper.logged)
    state = hub.state_dict()
    assert ["val/data_time"] == list(state["log_scalars"])
    assert not {"eta", "iter", "epoch"} & state["runtime_info"].keys()


def test_a_validation_within_a_batch_is_not_of_its_time(hub, options):
    """What nested loops take is theirs, however deep."""
    for _ in track(range(2), **options):
        for _ in track(range(2), mode="val", **options):
            wait_s(0.02)
            for _ in track(range(2), mode="test", **options):
                wait_s(0.02)
    train, val, test = (hub.get_scalar(f"{m}/time").data[0] for m in ("train", "val", "test"))
    assert (2, 4, 8) == (len(train), len(val), len(test))
    assert (test >= 0.02).all()
    assert (val >= 0.02).all()
    assert 0 <= train.min() <= train.max() < val.min()
    assert val.sum() < test.sum()


def test_results_that_are_logged_by_hand_are_logged(hub, keeper, options, caplog):
    """They are those of MMEngine's window, no other record has them, and nobody is warned."""
    for loss in (1.0, 3.0):
        finish(track(range(2), **options))
        hub.update_scalar("val/loss", loss)
        hub.update_scalar("val/acc", loss)
        hub.log_to(options["logger"], LoopState(hub, "val", max_epochs=2, batch_idx=None))
    results = [data for _, data, _ in keeper.logged[1::2]]
    assert [(1.0, 1.0), (2.0, 3.0)] == [(data["val/loss"], data["val/acc"]) for data in results]
    log_results({"f1": 0.5}, **options)
    assert {"val/f1": 0.5} == keeper.logged[-1][1]
    assert [] == [r for r in caplog.records if "is not logged" in r.getMessage()]


def test_loops_that_are_held_or_take_turns_cost_no_time(hub, options):
    """A time is never less than nothing, whichever loop ends when."""
    for _ in track(range(3), **options):
        inner = track(range(10), mode="val", **options)
        for number in inner:
            wait_s(0.005)
            if number == 1:
                break
    turns = track(range(4), mode="val", **options)
    for _ in track(range(6), **options):
        wait_s(0.005)
        next(turns, None)
    assert hub.get_scalar("train/time").data[0].min() > 0
    assert hub.get_scalar("train/time").data[0][3:].min() >= 0.005


def test_a_loop_that_is_held_is_not_resumed(hub, keeper, options):
    """Two loops lead to one record, also where the first one is left and kept."""
    held = []
    for value in (10.0, 0.0):
        held.append(track(range(10), mode="val", **options))
        for number, _ in enumerate(held[-1]):
            hub.update_scalar("val/loss", value)
            if number == 4 - len(held):
                break
    held.pop().close()
    held.pop().close()
    line = log_results({"acc": 1.0}, **options)
    assert 40 / 7 == keeper.logged[-1][1]["val/loss"]
    assert line.startswith("Epoch(val) [0][2/2]")


def test_results_may_be_logged_while_training_goes_on(hub, options, caplog):
    """As of an evaluation that takes its time: nobody is warned."""
    for _ in range(4):
        finish(track(range(2), **options))
        log_results({}, **options)
        for _ in track(range(2), mode="val", **options):
            hub.update_scalar("val/boxes", 1.0)
    for _ in range(3):  # nor where several lead to one
        finish(track(range(2), **options))
        for _ in track(range(2), mode="val", **options):
            hub.update_scalar("val/boxes", 1.0)
    assert [] == [r for r in caplog.records if "is not logged" in r.getMessage()]


def test_what_a_validation_leaves_unlogged_is_warned_of(hub, options, caplog):
    """A scalar that no progress shows, and whose results nobody logs, is named once."""
    for epoch in range(3):
        finish(track(range(2), **options))
        DIAGNOSTICS._warned_at.clear()  # minutes pass
        for _ in track(range(2), mode="val", **options):
            hub.update_scalars({"val/forgotten": 0.5, "val/loss_x": 1.0})
            hub.update_scalar("test/logged", 1.0)
        log_results({}, mode="test", **options)
        assert epoch + 1 == hub.get_info("epoch")
    (said,) = [r.getMessage() for r in caplog.records if "is not logged" in r.getMessage()]
    assert "'val/forgotten' in the hub is not logged: call log_results({}, mode='val')" in said


class Sampler:
    """Note the epochs that it is told of."""

    def __init__(self):
        self.epochs = []

    def set_epoch(self, epoch):
        self.epochs.append(epoch)


class Loader(list):
    """A loader with PyTorch's names."""


@pytest.mark.parametrize("place", ["sampler", "batch_sampler"])
def test_a_loader_that_begins_again_is_shuffled_anew(options, place):
    """The sampler is told each further epoch, as DistributedSampler wants it."""
    loader, sampler = Loader([1, 2]), Sampler()
    if place == "sampler":
        loader.sampler = sampler
    else:
        loader.batch_sampler = type("Batches", (), {"sampler": sampler})
    finish(track(loader, max_iters=6, **options))
    assert [1, 2] == sampler.epochs
