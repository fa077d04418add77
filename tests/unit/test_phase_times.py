"""What the time of a rank went to: each second once, live and from the log alike."""

from __future__ import annotations

import contextlib
from collections import defaultdict

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import otel_dllogger.logger
import otel_dllogger.phases
from otel_dllogger import JSONStreamBackend, Logger, RecordBackend
from otel_dllogger.logs.ranks import LoggedRank
from otel_dllogger.logs.reader import FileReader
from otel_dllogger.logs.run_identity import RunIdentity
from otel_dllogger.metrics.phases import MAX_NAMES, PhaseTimes
from otel_dllogger.metrics.store import SeriesStore
from otel_dllogger.phases import PHASES
from otel_dllogger.record import INTERRUPTED, OK, Phase

S = 1_000_000
START_NS = 1_700_000_000 * 10**9


class Clock:
    """Both clocks, which stand still until they are told to go on."""

    def __init__(self, monkeypatch):
        self.now_ns = START_NS
        for module in (otel_dllogger.logger, otel_dllogger.phases):
            monkeypatch.setattr(module, "monotonic_ns", lambda: self.now_ns)
        monkeypatch.setattr(otel_dllogger.logger, "time_ns", lambda: self.now_ns)

    def pass_s(self, seconds):
        self.now_ns += round(seconds * 1e9)


class StoreBackend(RecordBackend):
    """A backend that is a store alone."""

    def __init__(self):
        super().__init__(1)
        self.store = SeriesStore(run="r", rank=0, start_us=0)
        self.store.open_phases = lambda: PHASES.times_us(self)
        self.write_record = self.write_metadata = self.store.take
        self.write_phase = self.write_event = self.store.take

    def write_record(self, record):
        """Take it."""

    def write_metadata(self, metadata):
        """Take it."""

    @property
    def state(self):
        return self.store.ranks[0]

    def seconds(self):
        times_us, _ = self.store.phases_of(self.state)
        return {name: us / S for name, us in times_us.items() if us}


class Training:
    """A training by a clock of its own."""

    def __init__(self, monkeypatch, path=None):
        PHASES.__init__()  # as in a new process
        self.clock = Clock(monkeypatch)
        self.backend = StoreBackend()
        self.path = path
        files = [] if path is None else [JSONStreamBackend(1, path)]
        self.logger = Logger([self.backend, *files])
        self.step = 0

    def work(self, seconds):
        self.clock.pass_s(seconds)

    def log(self, step=None):
        self.step += 1
        self.logger.log((0, self.step) if step is None else step, {"loss": 1.0})

    @contextlib.contextmanager
    def phase(self, name, seconds=0.0):
        with self.logger.phase(name):
            self.work(seconds)
            yield

    def seconds(self):
        return self.backend.seconds()


@pytest.fixture
def training(monkeypatch):
    return Training(monkeypatch)


def read(path):
    """Return the rank that a log shows."""
    reader = FileReader(RunIdentity("r", 0, None, "", True))
    rank = LoggedRank("r", 0, "h")
    for line in path.read_bytes().splitlines(keepends=True):
        for _, item in reader.read(line):
            rank.take(item)
    return rank


def seconds_of(rank):
    times_us = rank.state.phases.all_us()
    return {name: us / S for name, us in times_us.items() if us}


def test_without_a_phase_it_is_startup_then_training(training):
    """Time is credited at the record that ends it; what comes after the last one is not."""
    training.work(40)
    training.log()
    for _ in range(9):
        training.work(1)
        training.log()
    training.work(3)
    assert training.seconds() == {"startup": 40, "train": 9}
    assert training.backend.state.step_us == 9 * S


def test_an_inner_phase_stops_the_clock_of_the_outer_one(training):
    """The time in a validation that saves is half of the checkpoint's."""
    training.log()
    training.work(1)
    with training.phase("validation", 30), training.phase("checkpoint", 20):
        pass
    with training.phase("data_wait", 0.5):
        pass
    training.work(1)
    assert training.seconds() == {"validation": 30, "checkpoint": 20, "data_wait": 0.5}
    training.log()
    assert training.seconds() == {
        "validation": 30,
        "checkpoint": 20,
        "data_wait": 0.5,
        "train": 2,
    }
    assert training.backend.state.step_us == 2.5 * S, "without what interrupts the training"


def test_an_open_phase_counts_while_it_is_open(training):
    """A scrape in a checkpoint sees how long it has lasted, and the outer one stands still."""
    training.log()
    with training.phase("validation", 3), training.phase("checkpoint", 2):
        training.work(5)
        assert training.seconds() == {"validation": 3, "checkpoint": 7}
        assert training.backend.store.phases_of(training.backend.state)[1] == {
            "validation": True,
            "checkpoint": True,
        }
    assert training.seconds() == {"validation": 3, "checkpoint": 7}
    assert not any(training.backend.store.phases_of(training.backend.state)[1].values())


@pytest.mark.parametrize("name", ["train", "epoch", "validation"])
def test_a_record_within_a_phase_ends_no_training(training, name):
    """What is around a phase is startup and train; all in it is the phase's own."""
    training.work(10)
    with training.phase(name, 5):
        for _ in range(4):
            training.log()
            training.work(2)
        with training.phase("checkpoint", 1):
            pass
    training.work(1)
    training.log()
    expected = defaultdict(float, startup=10, checkpoint=1)
    expected[name] += 13
    expected["train"] += 1
    assert training.seconds() == expected
    assert sum(expected.values()) == 25


def test_steps_within_an_epoch_have_their_time(training):
    """A phase around the loop is not a part of each step, nor does it take its time away."""
    training.log()
    with training.phase("epoch"):
        for _ in range(10):
            training.work(2)
            training.log()
    assert training.backend.state.step_us == pytest.approx(18 * S, abs=2 * S)


def test_a_long_interval_is_a_stall_beyond_ten_usual_ones(training):
    """The usual one is the mean of the others, of which there must be some."""
    training.log()
    for seconds in (*[1] * 20, 60, *[1] * 5, 60):
        training.work(seconds)
        training.log()
    found = training.seconds()
    assert found["stalled"] == pytest.approx(2 * 50, rel=0.1)
    assert found["train"] + found["stalled"] == 145


def test_a_phase_explains_a_long_interval(training):
    """It is not a stall."""
    training.log()
    for seconds in [1] * 20:
        training.work(seconds)
        training.log()
    with training.phase("checkpoint", 100):
        pass
    training.work(1)
    training.log()
    assert training.seconds() == {"train": 21, "checkpoint": 100}


def test_every_tenth_step_may_be_logged(training):
    """An interval of ten steps is ten usual ones."""
    training.log((0, 0))
    for step in (*range(1, 20), 30, 40):
        training.work(1 if step < 20 else 10)
        training.log((0, step))
    assert training.seconds() == {"train": 39}


def test_a_script_that_logs_epochs_alone_trains_as_well(training):
    """The first summary ends the startup."""
    for epoch in range(4):
        training.work(10)
        with training.phase("validation", 1):
            pass
        training.log((epoch,))
    assert training.seconds() == {"startup": 10, "validation": 4, "train": 30}


def test_an_epoch_that_is_announced_is_still_startup(training):
    """Until the first iteration."""
    training.work(5)
    training.log((0,))
    training.work(5)
    training.log((0, 1))
    training.work(1)
    training.log((0, 2))
    assert training.seconds() == {"startup": 10, "train": 1}


def test_phases_beyond_the_limit_are_counted_and_are_not_training(training, caplog):
    """Their time is in no series, as that of nothing that is known."""
    training.log()
    for number in range(MAX_NAMES + 20):
        with training.phase(f"phase {number}", 1):
            pass
    training.log()
    found = training.seconds()
    assert MAX_NAMES - 3 <= len(found) <= MAX_NAMES
    assert "train" not in found
    assert f"more than {MAX_NAMES} names of phases" in caplog.text
    assert "max_series" not in caplog.text
    training.logger.log((1, 0), {"accuracy": 1.0})
    assert training.backend.state.iterations["accuracy"] == 1.0  # which has a limit of its own


def test_events_beyond_the_limit_are_counted(training, caplog, counted):
    """Their names are not metrics, of which max_series would allow more; a hang has its place."""
    for number in range(MAX_NAMES + 20):
        training.logger.event(f"event {number}")
    training.logger.event("hang")
    assert len(training.backend.state.events) == MAX_NAMES + 1
    assert training.backend.state.events["hang"] == 1
    assert counted() == {"series_limit": 20}
    assert f"more than {MAX_NAMES} names of events" in caplog.text


def test_a_restart_is_startup_again(monkeypatch, tmp_path):
    """The log of a second process, whose clock begins at 0, continues the first one's counters."""
    for number in range(2):
        training = Training(monkeypatch, tmp_path / f"part{number}")
        training.clock.now_ns += number * 1000 * 10**9
        training.logger._start_ns = training.clock.now_ns
        with training.phase("restore", 7):
            pass
        training.work(3)
        training.log()
        training.work(2)
        training.log()
    path = tmp_path / "log.json"
    path.write_bytes(b"".join((tmp_path / f"part{i}").read_bytes() for i in range(2)))
    assert seconds_of(read(path)) == {"startup": 6, "restore": 14, "train": 4}


ACTIONS = st.one_of(
    st.tuples(st.just("work"), st.integers(1, 40)),
    st.tuples(st.just("log"), st.just(0)),
    st.tuples(st.just("validation record"), st.just(0)),
    st.tuples(st.just("begin"), st.sampled_from(["train", "data_wait", "checkpoint", "epoch"])),
    st.tuples(st.just("end"), st.just(0)),
)


@given(st.lists(ACTIONS, max_size=60))
@settings(deadline=None, max_examples=300)
@example([("begin", "epoch"), ("begin", "epoch"), ("log", 0), ("work", 1), ("end", 0), ("log", 0)])
def test_each_second_is_in_one_phase_live_and_from_the_log(tmp_path_factory, actions):
    """Against an account that knows what was open at each moment."""
    path = tmp_path_factory.mktemp("log") / "log.json"
    opened, scopes = [], []
    truth, waiting = defaultdict(int), 0
    has_trained = False
    with pytest.MonkeyPatch.context() as monkeypatch:
        training = Training(monkeypatch, path)
        for action, given_ in [*actions, *[("end", 0)] * 60]:
            # Even an empty phase takes a moment: no two begin at the same one.
            passed_us = given_ * S if action == "work" else 1
            training.work(passed_us / S)
            if opened:
                truth[opened[-1]] += passed_us
            else:
                waiting += passed_us
            if action == "log":
                training.log()
                truth["train" if has_trained else "startup"] += waiting
                has_trained, waiting = True, 0
            elif action == "validation record":
                training.log((0, training.step, 1))
            elif action == "begin":
                scopes.append(training.logger.phase(given_))
                scopes[-1].__enter__()
                opened.append(given_)
            elif action == "end" and opened:
                scopes.pop().__exit__(None, None, None)
                opened.pop()
            found = training.backend.store.phases_of(training.backend.state)[0]
            found["train"] += found.pop("stalled")
            assert {name: us for name, us in found.items() if us} == {
                name: us for name, us in truth.items() if us
            }
        logged = read(path)
        assert seconds_of(logged) == training.seconds()
        assert logged.state.step_us == training.backend.state.step_us
        assert logged.state.phases.counts == training.backend.state.phases.counts
        restored = PhaseTimes()
        restored.load_plain(logged.state.phases.to_plain())
        assert restored.to_plain() == logged.state.phases.to_plain()
        training.logger.close()


@pytest.mark.parametrize("name", ["_covered_us", "times_us", "counts", "announced", "_opened_us"])
@pytest.mark.parametrize("wrong", ["text", {"a": "b"}, [1.5], 1.5])
def test_a_damaged_checkpoint_is_refused(name, wrong):
    """By an exception that its reader knows."""
    plain = PhaseTimes().to_plain()
    with pytest.raises((LookupError, TypeError, ValueError)):
        PhaseTimes().load_plain({**plain, name: wrong})


def test_a_line_cannot_claim_more_than_has_passed():
    """Of a log with a line that is not true, as of a clock that was set."""
    times = PhaseTimes()
    times.end_startup(10 * S)
    times.take(Phase(0, 15 * S, "checkpoint", 100 * S, 100 * S, OK), has_series=True)
    times.take(Phase(0, 15 * S, "eval", 5 * S, 5 * S, INTERRUPTED), has_series=True)
    assert times.all_us() == {
        "startup": 10 * S,
        "stalled": 0,
        "train": 0,
        "checkpoint": 5 * S,
        "eval": 0,
    }


def test_a_phase_beyond_the_limit_does_not_show_while_it_is_open(training):
    """Its series would be gone when it ends."""
    for number in range(MAX_NAMES):
        with training.phase(f"phase {number}"):
            pass
    with training.phase("extra", 1):
        times_us, opened = training.backend.store.phases_of(training.backend.state)
    assert "extra" not in {**times_us, **opened}
    assert sum(name.startswith("phase ") for name in opened) == MAX_NAMES


def test_a_slow_begin_does_not_hide_later_stalls(training):
    """What is usual is found again."""
    training.log()
    for seconds in (*[20] * 6, *[0.5] * 400, 40):
        training.work(seconds)
        training.log()
    assert training.seconds()["stalled"] > 20
