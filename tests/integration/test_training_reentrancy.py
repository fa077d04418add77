"""Smoothed statistics, hubs and loggers hold no lock while anybody else's code runs.

Where they do, such code that waits for another thread, or calls them itself, waits for ever.
"""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from otel_dllogger.training import HistoryBuffer, MessageHub, MMLogger
from otel_dllogger.training.device import SIZE
from tests.support.command import environment, uncovered
from tests.support.paths import TESTS

pytestmark = pytest.mark.newest_only

SCRIPT = TESTS / "scripts" / "training_signals.py"
PATIENCE_S = 10.0


def is_done_beside(call):
    """Tell whether another thread gets through with a call while this one is where it is."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    return not thread.is_alive()


@pytest.fixture(autouse=True)
def no_instances(own_statistics):
    """Begin and end without hubs, loggers and statistics of a test's own."""
    yield
    for logger in MMLogger._instances.values():
        for handler in logger.handlers:
            handler.close()
    MessageHub._instances.clear()
    MMLogger._instances.clear()


def test_a_signal_handler_may_do_what_it_came_between():
    """Whatever a signal handler asks or updates, nothing hangs, is lost or is there twice."""
    done = subprocess.run(
        [sys.executable, SCRIPT, "0.7"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=uncovered() | environment(PYTHONPATH=str(SCRIPT.parents[2])),
    )
    expected = ["lost 0 0 True", "since 0", "twice True {}", "cut True True True"]
    assert (expected, "", 0) == (done.stdout.splitlines(), done.stderr, done.returncode)


def test_a_statistic_may_wait_for_who_asks_the_same_history():
    """A registered statistic runs while others ask the history and update it."""
    buffer, answers = HistoryBuffer([1.0], [1]), []

    def ask():
        buffer.update(3.0)
        answers.append((buffer.mean(), buffer.current(), len(buffer.data[0])))

    @HistoryBuffer.register_statistics
    def slow(self):
        return is_done_beside(ask), len(self._log_history)

    assert (True, 1) == buffer.statistics("slow")
    assert [(2.0, 3.0, 2)] == answers


class Device:
    """Stand in for an accelerator that is no CPU."""

    type = "made up"


DEVICE = Device()


class LateTensor:
    """A tensor on an accelerator whose copying does something else first."""

    dtype, device = "float", DEVICE

    def __init__(self, number, first=lambda: None):
        self.number, self.first = number, first

    def numel(self):
        return 1

    def is_floating_point(self):
        return True

    def new_empty(self, size):
        block = Block()
        block.extend([-1.0] * size)
        return block

    def detach(self):
        first, self.first = self.first, lambda: None
        first()
        return self

    def reshape(self, _shape):
        return self.number


class Block(list):
    """What a tensor's ``new_empty`` gives."""

    def tolist(self):
        return list(self)

    def __getitem__(self, key):
        return Block(super().__getitem__(key))


@pytest.mark.parametrize("is_first", [True, False])
def test_the_copy_of_a_value_may_wait_for_who_updates_the_same_hub(is_first):
    """A tensor is copied while others put values of any name, the first of it as well."""
    hub, answers = MessageHub.get_instance("a"), []

    def update():
        hub.update_scalar("train/loss", LateTensor(1.0))
        hub.update_scalar("train/new", 1.0)
        MessageHub.get_instance("b").update_scalar("train/new", 1.0)

    if not is_first:
        hub.update_scalar("train/loss", LateTensor(2.0))
    hub.update_scalar("train/loss", LateTensor(3.0, lambda: answers.append(is_done_beside(update))))
    assert [True] == answers
    assert [1.0, 3.0] == hub.get_scalar("train/loss").data[0].tolist()[-2:]


def test_the_copy_of_a_value_may_update_the_same_scalar():
    """In the middle of the copy of a tensor the same thread fills the block of copies."""
    buffer = HistoryBuffer()
    others = [float(number) for number in range(SIZE)]

    def update():
        for number in others:
            buffer.update_on_device(LateTensor(number))

    buffer.update_on_device(LateTensor(-1.0))
    assert is_done_beside(lambda: buffer.update_on_device(LateTensor(-2.0, update)))
    assert [-1.0, *others, -2.0] == buffer.data[0].tolist()


def test_a_value_is_read_while_another_is_copied():
    """What is read of a block has no place that another thread has yet to write to."""
    buffer, read = HistoryBuffer(), []
    buffer.update_on_device(LateTensor(1.0))

    def update_and_read():
        buffer.update_on_device(LateTensor(3.0))
        read.append(buffer.data[0].tolist())

    assert is_done_beside(lambda: buffer.update_on_device(LateTensor(2.0, update_and_read)))
    assert [[1.0, 3.0]] == read
    assert [1.0, 3.0, 2.0] == buffer.data[0].tolist()


class Slow(MessageHub):
    """A hub that waits for another thread as it is made."""

    def __init__(self, name, first=lambda: None):
        super().__init__(name)
        self.answer = first()


def test_an_instance_may_wait_for_others_as_it_is_made():
    """Other names are there for other threads meanwhile, and who is made first is the one."""
    hub = Slow.get_instance(
        "a",
        first=lambda: is_done_beside(
            lambda: [Slow.get_instance("b"), Slow.get_current_instance()],
        ),
    )
    assert hub.answer
    assert hub is Slow.get_instance("a")
    made = []
    with pytest.warns(UserWarning, match="'c' already exists"):
        again = Slow.get_instance("c", first=lambda: made.append(Slow.get_instance("c")))
    assert again is made[0] is Slow.get_instance("c")
    assert ["b", "a", "c"] == list(Slow._instances)


class Waiting:
    """A message whose text waits for another thread that logs."""

    def __init__(self, call):
        self.call, self.answers = call, []

    def __str__(self):
        self.answers.append(is_done_beside(self.call))
        return "waiting"


def test_a_message_may_wait_for_who_logs_to_the_same_logger(tmp_path, capsys):
    """The text of a message is made before the file is taken."""
    logger = MMLogger.get_instance("a", log_file=tmp_path / "a.log")
    message = Waiting(lambda: logger.info("beside"))
    logger.info("%s", message)
    assert {True} == set(message.answers)
    for text in (capsys.readouterr().out, (tmp_path / "a.log").read_text()):
        assert ["beside", "waiting"] == sorted(
            {line.split(" - ")[-1] for line in text.split("\n")[:-1]}
        )


def test_a_stream_may_wait_for_who_logs_to_the_same_logger():
    """What stands in for the standard output runs while others log to it."""

    class Stream:
        def __init__(self):
            self.lines, self.answers = [], []

        def write(self, line):
            if line.endswith("first\n"):
                self.answers.append(is_done_beside(lambda: logger.info("beside")))
            self.lines.append(line.split(" - ")[-1])

    logger, stream = MMLogger.get_instance("a"), Stream()
    logger.handlers[0].setStream(stream)
    logger.info("first")
    assert ([True], ["beside\n", "first\n"]) == (stream.answers, stream.lines)
