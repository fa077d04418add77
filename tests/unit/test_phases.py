"""``phase`` and ``event`` as a script uses them: what is written, whatever ends it."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import otel_dllogger as dllogger
from otel_dllogger import DLLoggerNotInitialized, JSONStreamBackend, Logger
from otel_dllogger.logs.parsers.context import FileContext
from otel_dllogger.logs.parsers.detect import parse_line
from otel_dllogger.phases import PHASES
from otel_dllogger.record import OUTCOMES, Event, Phase
from otel_dllogger.testing import RecordingBackend


def names(recording):
    return [phase.name for phase in recording.phases]


def lines(path):
    return [json.loads(line.removeprefix("DLLL ")) for line in path.read_text().splitlines()]


def test_a_phase_has_a_line_when_it_ends(tmp_path):
    """With what the contract names, and the times as DLLogger writes them."""
    path = tmp_path / "log.json"
    with Logger([JSONStreamBackend(1, path)]) as logger:
        with logger.phase("validation", step=(0, 9)):
            assert not path.read_text()
            with logger.phase("check\u00e9point"):
                pass
        logger.event("saved", {"file": "a.pt", "loss": float("nan")}, step=(0, 9))
        logger.event("started")
    inner, outer, saved, started = lines(path)
    assert list(outer) == [
        *("timestamp", "datetime", "elapsedtime", "type"),
        *("name", "begin", "seconds", "self_seconds", "step", "outcome"),
    ]
    assert (outer["type"], outer["name"], outer["step"]) == ("PHASE", "validation", [0, 9])
    assert (outer["outcome"], inner["name"], inner["step"]) == ("ok", "check\u00e9point", None)
    assert outer["self_seconds"] == pytest.approx(outer["seconds"] - inner["seconds"], abs=2e-6)
    assert outer["begin"] == pytest.approx(float(outer["timestamp"]) - outer["seconds"])
    assert list(saved) == ["timestamp", "elapsedtime", "datetime", "type", "name", "step", "data"]
    assert (saved["type"], saved["name"], saved["step"]) == ("EVENT", "saved", [0, 9])
    assert saved["data"]["file"] == "a.pt"
    assert (started["step"], started["data"]) == (None, None)


def test_a_record_in_a_phase_announces_it_once(tmp_path):
    """Before the record, so that whoever reads the log knows what it is in."""
    path = tmp_path / "log.json"
    with Logger([JSONStreamBackend(1, path)]) as logger, logger.phase("validation"):
        for step in range(2):
            logger.log((0, 0, step), {"loss": 1})
        with logger.phase("checkpoint"):
            pass
    kinds = [line["type"] for line in lines(path)]
    assert kinds == ["PHASE_BEGIN", "LOG", "LOG", "PHASE", "PHASE"]
    assert "outcome" not in lines(path)[0]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, "ok"),
        (ValueError, "error"),
        (KeyboardInterrupt, "interrupted"),
        (SystemExit, "interrupted"),
        (asyncio.CancelledError, "interrupted"),
    ],
)
def test_an_exception_ends_a_phase_and_goes_on(recording, logger, error, outcome):
    """It is the script's; the phase says that it failed."""

    @logger.phase("work")
    def work():
        if error is not None:
            raise error
        return 7

    if error is None:
        assert work() == 7
    else:
        with pytest.raises(error):
            work()
    assert [(phase.name, phase.outcome) for phase in recording.phases] == [("work", outcome)]


def test_a_decorator_keeps_what_it_decorates(recording, logger):
    """A function, one that calls itself, a generator, a coroutine, an asynchronous generator."""

    @logger.phase("recursion")
    def countdown(n):
        """Count down."""
        return countdown(n - 1) if n else 0

    @logger.phase("generator")
    def numbers():
        got = yield 1
        yield got
        return "returned"

    @logger.phase("coroutine")
    async def wait():
        await asyncio.sleep(0)
        return 5

    @logger.phase("asynchronous generator")
    async def stream():
        yield 1
        yield 2

    async def use():
        return await wait(), [item async for item in stream()]

    assert (countdown(2), countdown.__name__, countdown.__doc__) == (0, "countdown", "Count down.")
    generator = numbers()
    assert names(recording) == ["recursion"] * 3
    assert (next(generator), generator.send("sent")) == (1, "sent")
    with pytest.raises(StopIteration, match="returned"):
        next(generator)
    assert names(recording)[3:] == ["generator"] * 3
    assert asyncio.run(use()) == (5, [1, 2])
    assert names(recording)[6:] == ["coroutine"] + ["asynchronous generator"] * 3
    assert not PHASES.names()


def test_tasks_may_end_in_any_order(recording, logger):
    """Their phases need not nest; each moment still belongs to one of them."""

    async def task(name, begun, may_end):
        async with logger.phase(name):
            begun.set()
            await may_end.wait()

    async def run():
        begun, may_end = [asyncio.Event() for _ in "ab"], [asyncio.Event() for _ in "ab"]
        tasks = []
        for number, name in enumerate("ab"):
            tasks.append(asyncio.create_task(task(name, begun[number], may_end[number])))
            await begun[number].wait()
        for number, one in enumerate(tasks):
            may_end[number].set()
            await one

    asyncio.run(run())
    first, second = recording.phases
    assert (first.name, second.name) == ("a", "b")
    begin_us = first.elapsed_us - first.duration_us
    assert first.self_us + second.self_us <= second.elapsed_us - begin_us
    assert first.self_us < first.duration_us
    assert not PHASES.names()


def test_phases_of_other_threads_overlap(recording, logger):
    """They do not stop the clock of the loop's phase, which is not in theirs."""

    def work():
        with logger.phase("upload"), logger.phase("compress"):
            pass

    with logger.phase("train"):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    found = {phase.name: phase for phase in recording.phases}
    assert {"upload": True, "compress": True, "train": False} == {
        name: phase.is_overlapping for name, phase in found.items()
    }
    assert found["train"].self_us == found["train"].duration_us


def test_the_loop_is_where_the_logger_was_made(recording):
    """Some frameworks train on a thread of their own."""

    def train():
        logger = Logger([recording])
        with logger.phase("train"):
            pass

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert not recording.phases[0].is_overlapping


def test_a_phase_may_be_used_again_and_by_several_threads(recording, logger):
    """Each end belongs to the begin of its own thread."""
    phase = logger.phase("again")
    inside, may_end = threading.Event(), threading.Event()

    def work():
        with phase:
            inside.set()
            may_end.wait()

    with phase, phase:
        pass
    thread = threading.Thread(target=work)
    thread.start()
    inside.wait()
    with phase:
        pass
    may_end.set()
    thread.join()
    assert [one.is_overlapping for one in recording.phases] == [False, False, False, True]


def test_the_functions_use_the_global_logger(recording):
    """A decorator may come before ``init``, as imports do; a phase may not begin before it."""

    @dllogger.phase("work")
    def work():
        """Work."""

    for use in (work, dllogger.phase("x").__enter__, lambda: dllogger.event("x")):
        with pytest.raises(DLLoggerNotInitialized):
            use()
    dllogger.init([recording])
    try:
        work()
        with dllogger.phase("block"):
            dllogger.event("happened", {"a": 1}, step=3)
    finally:
        dllogger.shutdown()
    assert names(recording) == ["work", "block"]
    (event,) = recording.events
    assert (event.name, event.plain, event.step) == ("happened", {"a": 1}, 3)


class Unwilling:
    """An object that can be neither printed nor written."""

    def __str__(self):
        raise RuntimeError

    __repr__ = __str__


@pytest.mark.parametrize("odd", [None, 3, 2.5, "", "\ud800", "x" * 10**5, b"x", Unwilling(), []])
def test_whatever_is_named_nothing_is_raised(tmp_path, odd):
    """A line is written that can be read."""
    path = tmp_path / "log.json"
    with Logger([JSONStreamBackend(1, path)]) as logger:
        with logger.phase(odd, step=odd):
            pass
        logger.event(odd, odd, step=odd)
    kinds = [type(entry) for line in path.read_bytes().splitlines() for entry in parsed(line)]
    assert kinds == [Phase, Event]


def test_a_backend_that_fails_does_not_keep_the_others_from_it(recording, counted):
    """It is counted; one of DLLogger's own kind has no such method, and is left out."""

    class Failing(RecordingBackend):
        def write_phase(self, phase):
            raise RuntimeError

        write_event = write_phase

    class DLLoggers:
        verbosity = 1

        def log(self, *_arguments):
            """Take it."""

        metadata = log

    logger = Logger([Failing(), DLLoggers(), recording])
    with logger.phase("work"):
        pass
    logger.event("happened")
    assert (names(recording), len(recording.events)) == (["work"], 1)
    assert counted() == {"backend_failed": 2}


def test_a_child_has_phases_of_its_own(tmp_path):
    """A fork in a phase is not in it; what the child does overlaps, and the parent goes on."""
    PHASES.__init__()
    path = tmp_path / "log.json"
    with Logger([JSONStreamBackend(1, path)]) as logger, logger.phase("train"):
        child = os.fork()
        if not child:
            with logger.phase("load"):
                pass
            os._exit(len(PHASES.names()))
        assert os.waitpid(child, 0)[1] == 0
        assert PHASES.names() == ["train"]
    found = {line["name"]: line.get("overlapped") for line in lines(path)}
    assert found == {"load": True, "train": None}


def test_a_signal_handler_may_have_a_phase(recording, logger):
    """Whatever it interrupts; the time is not counted twice."""

    def handle(*_signal):
        with logger.phase("handler"):
            pass

    before = signal.signal(signal.SIGALRM, handle)
    try:
        signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4)
        while names(recording).count("handler") < 500:
            with logger.phase("outer"), logger.phase("inner"):
                pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not PHASES.names()
    phases = recording.phases
    begin_us = min(phase.elapsed_us - phase.duration_us for phase in phases)
    assert sum(phase.self_us for phase in phases) <= phases[-1].elapsed_us - begin_us + 1000


def parsed(line):
    return list(parse_line(line, FileContext()))


TEXTS = st.text(max_size=20)
TIMES_US = st.integers(0, 10**12)


@settings(deadline=None)
@given(TEXTS, TIMES_US, TIMES_US, TIMES_US, st.sampled_from(OUTCOMES), st.booleans())
def test_a_line_says_exactly_what_the_phase_was(
    tmp_path_factory, name, elapsed_us, self_us, rest_us, outcome, is_overlapping
):
    """Microsecond by microsecond."""
    path = tmp_path_factory.mktemp("line") / "log.json"
    backend = JSONStreamBackend(1, path)
    phase = Phase(
        1_700_000_000_000_000 + elapsed_us,
        elapsed_us,
        name,
        self_us + rest_us,
        self_us,
        outcome,
        (1, 2),
        is_overlapping,
    )
    backend.write_phase(phase)
    backend.close()
    (found,) = parsed(path.read_bytes())
    assert type(found) is Phase
    for field in Phase.__slots__:
        assert getattr(found, field) == getattr(phase, field), field


def test_a_phase_that_is_left_open_ends_with_the_one_around_it(recording, logger):
    """As that of a hook whose other half is never called; what ends later changes nothing."""
    left = logger.phase("checkpoint")

    @logger.phase("validation")
    def validate():
        left.__enter__()
        raise ValueError("lost")

    with pytest.raises(ValueError, match="lost"):
        validate()
    left.__exit__(None, None, None)
    assert [(one.name, one.outcome) for one in recording.phases] == [
        ("checkpoint", "interrupted"),
        ("validation", "error"),
    ]
    assert not PHASES.names()


def test_a_phase_that_nobody_can_end_stops_no_clock(recording, logger):
    """An interrupt may come between its begin and the block, in which it would end."""
    logger.phase("lost").__enter__()
    gc.collect()
    with logger.phase("train"):
        assert PHASES.names() == ["train"]
    assert names(recording) == ["train"]


def test_a_closed_logger_has_no_open_phases(recording, logger):
    """Those of a notebook's earlier run; one that ends after all still has its line."""
    phase = logger.phase("train")
    phase.__enter__()
    logger.close()
    assert not PHASES.names()
    phase.__exit__(None, None, None)
    assert names(recording) == ["train"]


def test_another_thread_announces_nothing(tmp_path):
    """It cannot know that a phase of the loop has not ended when its line is written."""
    PHASES.__init__()
    path = tmp_path / "log.json"
    with Logger([JSONStreamBackend(1, path)]) as logger, logger.phase("train"):
        thread = threading.Thread(target=logger.log, args=("system", {"cpu": 1}))
        thread.start()
        thread.join()
    assert [line["type"] for line in lines(path)] == ["LOG", "PHASE"]


def test_a_handler_that_logs_announces_a_phase_once(tmp_path):
    """Wherever it strikes, no phase is announced after its end."""
    PHASES.__init__()
    path = tmp_path / "log.json"
    logger = Logger([JSONStreamBackend(1, path)])

    def handle(*_signal):
        with logger.phase("handler"):
            logger.log("system", {"cpu": 1})

    before = signal.signal(signal.SIGALRM, handle)
    try:
        signal.setitimer(signal.ITIMER_REAL, 1e-4, 3e-4)
        for step in range(5000):
            with logger.phase("outer"), logger.phase("inner"):
                logger.log((0, step), {"loss": 1})
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        logger.close()
    announced = {}
    for line in lines(path):
        if line["type"].startswith("PHASE"):
            key = line["name"], round(float(line["elapsedtime"]) - line["seconds"], 6)
            if line["type"] == "PHASE":
                announced.pop(key, None)
            else:
                assert key not in announced
                announced[key] = line
    assert not announced


def test_each_logger_shows_its_own_open_phases():
    """A phase of one is not on the page of the other."""
    PHASES.__init__()
    backends = [RecordingBackend(), RecordingBackend()]
    loggers = [Logger([backend]) for backend in backends]
    with loggers[0].phase("first"), loggers[1].phase("second"):
        assert [list(PHASES.times_us(backend)) for backend in backends] == [["first"], ["second"]]
