"""Processes that end, fork and are killed while they send over OTLP."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.collector import BlackHole, GRPCCollector, HTTPCollector, free_port
from tests.support.command import uncovered
from tests.support.paths import TESTS

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("opentelemetry.proto", reason="pip install 'otel-dllogger[otlp]'")
pytest.importorskip("grpc", reason="pip install 'otel-dllogger[otlp]'")

SCRIPT = TESTS / "scripts" / "otlp_exit.py"
PROTOCOLS = {"http/protobuf": HTTPCollector, "grpc": GRPCCollector}
DEADLINE_S = 60

# Two seconds by contract. The rest is what a loaded machine takes to end an interpreter.
AT_MOST_S = 4.0


@pytest.fixture(params=PROTOCOLS)
def collector(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A collector of each protocol."""
    with PROTOCOLS[request.param]() as collector:
        collector.protocol = request.param
        yield collector


class Run:
    """Run the script to its end.

    Attributes:
        code: Its exit status.
        said: What it printed, line by line.
        errors: What it wrote on standard error.
        end_s: Seconds from where it wanted to end until it had.
    """

    def __init__(self, url: str, protocol: str, how: str, *rest: str) -> None:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", SCRIPT, url, protocol, how, *rest],
            env=uncovered(),
            capture_output=True,
            check=False,
            text=True,
            timeout=DEADLINE_S,
        )
        ended_s = time.time()
        self.code, self.errors = done.returncode, done.stderr
        self.said = done.stdout.splitlines()
        self.end_s = ended_s - float(self.said[-1].removeprefix("end "))


@pytest.mark.parametrize("how", ["close", "exit", "raise", "fail"])
def test_everything_is_sent_at_the_end(collector: Any, how: str) -> None:
    """However a script ends, the values of its last moment arrive; only a clean end finishes."""
    run = Run(collector.url, collector.protocol, how)
    has_failed = how in ("raise", "fail")
    assert has_failed == bool(run.code)
    assert list(map(float, range(10))) == collector.values("dl.loss")
    assert float(not has_failed) == collector.values("dllogger.run_finished")[-1]
    assert run.end_s < AT_MOST_S


@pytest.mark.parametrize("how", ["close", "exit"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nobody_listens(protocol: str, how: str) -> None:
    """A connection that is refused is tried again, and given up within two seconds."""
    run = Run(f"http://127.0.0.1:{free_port()}", protocol, how)
    assert 0 == run.code
    assert run.end_s < AT_MOST_S
    assert 1 == run.errors.count("before a collector accepted the last values"), run.errors
    assert run.errors.count("\n") <= 2, run.errors


@pytest.mark.parametrize("how", ["close", "exit", "five", "inflight"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_black_hole(protocol: str, how: str) -> None:
    """A peer that accepts and is silent holds the end up for two seconds and no more."""
    with BlackHole() as hole:
        run = Run(hole.url, protocol, how)
    assert 0 == run.code
    assert run.end_s < AT_MOST_S
    assert 1 == run.errors.count("before a collector accepted the last values"), run.errors
    assert "Traceback" not in run.errors


def test_a_collector_that_is_slow_at_the_end(collector: Any) -> None:
    """A request that it has begun to read, and does not answer, holds up for no longer."""
    collector.hold.clear()
    run = Run(collector.url, collector.protocol, "inflight")
    assert 0 == run.code
    assert run.end_s < AT_MOST_S
    assert "Traceback" not in run.errors


def test_sigterm_ends_the_process_at_once(collector: Any) -> None:
    """Its default action is left as it is, with a request under way."""
    collector.hold.clear()
    run = Run(collector.url, collector.protocol, "sigterm")
    assert -signal.SIGTERM == run.code
    assert run.end_s < AT_MOST_S


def test_a_forked_child_sends_nothing_and_waits_for_nothing(collector: Any) -> None:
    """With every lock held at the fork: the child logs, flushes, closes and ends at once."""
    run = Run(collector.url, collector.protocol, "fork")
    assert 0 == run.code, run.errors
    assert ["threads 1", "child 7"] == run.said[:2]
    child_ended_s = float(run.said[2].removeprefix("child ended "))
    assert list(map(float, range(10))) == collector.values("dl.loss")
    assert [] == collector.named("dl.child")
    # The parent may say so twice, if it ends before its first request: the child never does.
    finished = [point for point in collector.named("dllogger.run_finished") if point.value]
    assert finished
    assert all(point.time_us > child_ended_s * 1e6 for point in finished)
    assert "" == run.errors


def test_a_spawned_child_knows_nothing(collector: Any) -> None:
    """It imports the script, and starts neither thread nor request."""
    run = Run(collector.url, collector.protocol, "spawn")
    assert (0, ["spawned 1"]) == (run.code, run.said[:-1]), run.errors
    assert list(map(float, range(10))) == collector.values("dl.loss")
