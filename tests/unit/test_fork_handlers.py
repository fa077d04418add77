"""The registry of what is told of forks: its order, and what cannot keep it from its work."""

from __future__ import annotations

import ast
import gc
import os
import sys
from pathlib import Path

import pytest

import otel_dllogger
from otel_dllogger.runtime import fork

PACKAGE = Path(otel_dllogger.__file__).parent


class Noting:
    """Note who was called, in the process that is asked."""

    def __init__(self, name, called, error=None):
        self.name, self.called, self.error = name, called, error
        fork.register(self)

    def after_fork_in_child(self):
        """Be told of it in the child."""
        self.called.append(self.name)
        if self.error is not None:
            raise self.error


class NotingAll(Noting):
    """Note it in the parent as well."""

    def before_fork(self):
        """Be told of it before."""
        self.called.append(f"before {self.name}")

    def after_fork_in_parent(self):
        """Be told of it thereafter."""
        self.called.append(f"after {self.name}")


def called_in_child(called):
    """Fork; return what was called in the child by then."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(writer, "\n".join(called).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        text = stream.read()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return text.split("\n") if text else []


def test_handlers_are_called_in_their_order():
    """What others stand on is put right first; before a fork it is the other way round."""
    called = []
    handlers = [Noting("a", called), NotingAll("b", called), NotingAll("c", called)]
    before = ["before c", "before b"]
    assert [*before, "a", "b", "c"] == called_in_child(called)
    assert [*before, "after b", "after c"] == called
    assert len(handlers) == 3


@pytest.mark.parametrize("error", [RuntimeError("one"), SystemExit(3), KeyboardInterrupt()])
def test_one_that_raises_keeps_no_other_from_running(error, monkeypatch):
    """Nor the process from forking; Python says what was raised."""
    called = []
    monkeypatch.setattr(
        sys, "unraisablehook", lambda said: called.append(type(said.exc_value).__name__)
    )
    handlers = [Noting("a", called), Noting("b", called, error), Noting("c", called)]
    assert ["a", "b", "c", type(error).__name__] == called_in_child(called)
    assert len(handlers) == 3


@pytest.mark.slow
def test_a_handler_is_held_weakly():
    """An object that is gone is not called, and leaves nothing behind."""
    called = []
    before = set(fork._handlers)
    kept, gone = Noting("kept", called), Noting("gone", called)
    mine = set(fork._handlers) - before
    assert len(mine) == 2
    del gone
    gc.collect()
    (number,) = mine & set(fork._handlers)
    assert fork._handlers[number]() is kept
    assert [kept.name] == called_in_child(called)


def test_a_handler_that_comes_or_goes_meanwhile():
    """One that is registered by another one, or lost by it, breaks nothing."""
    called, made = [], []

    class Restless(Noting):
        def after_fork_in_child(self):
            super().after_fork_in_child()
            made.append(Noting("made", called))
            doomed.clear()

    restless = Restless("restless", called)
    doomed = [Noting("doomed", called)]
    last = Noting("last", called)
    assert [restless.name, last.name] == called_in_child(called)
    assert len(doomed) == 1


@pytest.mark.slow
def test_python_is_told_in_one_place():
    """No other module registers anything with Python itself."""
    places = [
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr == "register_at_fork"
    ]
    assert places == ["runtime/fork.py"]
