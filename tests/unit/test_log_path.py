"""What holds by construction on the way of a log call: which locks there are, and no barrier
that keeps an exception of the application's."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import otel_dllogger

pytestmark = pytest.mark.newest_only

PACKAGE = Path(otel_dllogger.__file__).parent
NOT_IN_TRAINING = ("backfill/", "bridge/", "cli/", "logs/", "view/", "__main__.py")

# Each is held for a few lines that call nothing foreign, or is only ever tried and not waited
# for. A new one belongs here with its reason.
LOCKS = {
    "backends/append_file.py": ["RLock", "RLock"],  # made anew by a fork
    "backends/open_files.py": ["RLock", "RLock"],  # the same
    "backends/otlp.py": ["Lock", "Lock"],  # taken once, for good
    "backends/prometheus.py": ["Lock", "Lock"],  # the same
    "diagnostics.py": ["RLock", "RLock"],
    "http/endpoint.py": ["Lock"],  # taken once, for good
    "metrics/instruments.py": ["Lock"],  # of the thread that makes instruments alone
    "runtime/native_timer.py": ["RLock", "RLock"],  # of the watch over hangs and a fork
    "runtime/own_sockets.py": ["RLock", "RLock"],  # of the endpoint's threads and a fork
    "metrics/store.py": ["RLock", "RLock"],
    "otlp/sender.py": ["RLock"],
    "runtime/wakers.py": ["Lock", "Lock", "Lock", "Lock"],  # tried, or waited for with a limit
}

EVENTS_OF_TRAINING = ("logger.py", "record.py")

LOG_PATH = (
    "logger.py",
    "phases.py",
    "values.py",
    "json_encoding.py",
    "record.py",
    "runtime/wakers.py",
    "metrics/store.py",
    "metrics/rank_state.py",
    "metrics/phases.py",
    "backends/append_file.py",
    "backends/json_stream.py",
    "backends/open_files.py",
    "backends/stdout.py",
    "otlp/queue.py",
)


def tree_of(path):
    return ast.parse((PACKAGE / path).read_text())


def name_of(call):
    """Return the last part of the name that is called."""
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def calls_in(node):
    return [name_of(one) for one in ast.walk(node) if isinstance(one, ast.Call)]


def test_the_locks_of_a_training_process_are_known():
    """No Event, Condition or Queue: to use one takes a lock that no signal handler may want."""
    kinds = {"Lock", "RLock", "Event", "Condition", "Semaphore", "Barrier", "Queue"}
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if not name.startswith(NOT_IN_TRAINING):
            made = [one for one in calls_in(tree_of(name)) if one in kinds]
            if name in EVENTS_OF_TRAINING:  # not those of ``threading``
                made = [one for one in made if one != "Event"]
            if made:
                found[name] = made
    assert found == LOCKS


def test_warnings_are_written_in_one_place():
    """A handler of logging is foreign: it is called by the thread for warnings, and no other."""
    writers = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("warning", "error", "exception", "critical")
    }
    assert writers == {"diagnostics.py"}


@pytest.mark.parametrize("path", LOG_PATH)
def test_no_barrier_keeps_an_exception_of_a_signal_handler(path):
    """Each ``except`` lets it through first, or raises; ``suppress`` could do neither."""
    tree = tree_of(path)
    assert "suppress" not in calls_in(tree)
    for handler in (one for one in ast.walk(tree) if isinstance(one, ast.ExceptHandler)):
        raises = any(isinstance(one, ast.Raise) for one in ast.walk(handler))
        passes = {"let_through", "_unformatted", "_caught"} & set(calls_in(handler))
        if getattr(handler.type, "id", "") == "LockTimeout":  # which is the package's own
            continue
        assert raises or passes, f"{path}:{handler.lineno}"
