"""Threads, processes and signal handlers that log at one moment."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from otel_dllogger import JSONStreamBackend, Logger, PrometheusBackend
from otel_dllogger.faults import FAULTS
from otel_dllogger.record import Record
from tests._command import uncovered
from tests._http import ask

SCRIPTS = Path(__file__).parent / "scripts"
DEADLINE_S = 60
THREADS = 8
PROCESSES = 4


@pytest.fixture
def rapid_switches():
    """Let the interpreter go from thread to thread as often as it can."""
    before_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before_s)


def run_threads(work, count=THREADS):
    """Run a function in threads that begin together; one that hangs fails."""
    barrier = threading.Barrier(count)
    failed = []

    def begin(thread):
        barrier.wait(DEADLINE_S)
        try:
            work(thread)
        except BaseException as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=begin, args=(one,), daemon=True) for one in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert ([], []) == (failed, [thread for thread in threads if thread.is_alive()])


def records_in(path):
    """Read the lines of a file; one that is not whole fails."""
    return [json.loads(line[5:]) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("append", [True, False])
def test_threads_of_several_processes_share_a_file(append, tmp_path):
    """8 threads of each of 4 processes: every line is in the one file, whole, in its order."""
    path, lines = tmp_path / "log", 100
    with ExitStack() as stack:
        started = []
        for process in range(PROCESSES):
            arguments = [path, process, int(append), lines]
            child = subprocess.Popen(
                [sys.executable, SCRIPTS / "threads_log.py", *map(str, arguments)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            stack.callback(child.communicate)
            stack.callback(child.kill)
            started.append(child)
        # One that ended before the next one opened the file would be emptied, as it should.
        for said in (b"ready\n", b"open\n"):
            for child in started:
                assert said == child.stdout.readline()
            for child in started:
                child.stdin.write(b"go\n")
                child.stdin.flush()
        assert [0] * PROCESSES == [child.wait(DEADLINE_S) for child in started]
    found = {}
    for record in records_in(path):
        data = record["data"]
        assert data["number"] * 977 % 20_000 == len(data["text"])
        found.setdefault(tuple(record["step"]), []).append(data["number"])
    expected = {
        (process, thread): list(range(lines))
        for process in range(PROCESSES)
        for thread in range(THREADS)
    }
    assert expected == found


@pytest.mark.parametrize(("rounds", "lines", "size"), [(60, 5, 10), (10, 10, 200_000)])
def test_processes_that_open_an_old_file_at_once_keep_their_lines(rounds, lines, size, tmp_path):
    """Whoever empties the file, with DLLogger's default mode, does so before any line."""
    arguments = [tmp_path, rounds, lines, size]
    subprocess.run(
        [sys.executable, SCRIPTS / "open_at_once.py", *map(str, arguments)],
        check=True,
        timeout=DEADLINE_S,
        capture_output=True,
    )
    expected = [[process, number] for process in range(8) for number in range(lines)]
    for one in range(rounds):
        assert expected == sorted(record["step"] for record in records_in(tmp_path / str(one)))


@pytest.mark.parametrize(("lines", "size"), [(2000, 10), (200, 100_000)])
def test_a_signal_handler_may_log_at_any_moment(lines, size, tmp_path):
    """A handler that interrupts log() thousands of times neither hangs nor tears nor loses."""
    path = tmp_path / "log"
    result = subprocess.run(
        [sys.executable, SCRIPTS / "signal_logs.py", path, str(lines), str(size)],
        check=True,
        capture_output=True,
        text=True,
        env=uncovered(),
        timeout=DEADLINE_S,
    )
    handled, counted, state, kept = json.loads(result.stdout)
    found = {}
    for record in records_in(path):
        who, number = record["step"]
        assert size == len(record["data"]["text"])
        found.setdefault(who, []).append(number)
    in_handler = sorted(found.pop(9))
    assert list(range(handled)) == in_handler
    assert {who: list(range(lines)) for who in range(3)} == found
    assert (3 * lines + handled, "ready", 0) == (counted, state, kept)
    assert handled > 10


def test_counters_are_exact_under_threads(tmp_path, rapid_switches):
    """The page counts every call of 8 threads, and each thread's last value is on it."""
    logs = 500
    with Logger(
        [
            JSONStreamBackend(1, tmp_path / "log"),
            metrics := PrometheusBackend(1, port=0, run="threads"),
        ]
    ) as logger:

        def work(thread):
            for number in range(logs):
                value = float("nan") if number % 10 == 5 else number
                logger.log((0, number), {f"metric{thread}": number, "shared": value})
                if not number % 50:
                    logger.metadata(f"metric{thread}", {"unit": "s"})
                    logger.info({"lr": number})
                    logger.log("PARAMETER", {"lr": number})

        run_threads(work)
        page = ask(metrics.endpoint.port).body.decode()
    calls, values, nonfinite = {}, {}, {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name == "dllogger_records_total":
                calls[sample.labels["type"]] = sample.value
            if sample.name == "dllogger_nonfinite_total":
                nonfinite[sample.labels["metric"]] = sample.value
            if sample.name.startswith("dl_metric"):
                values[sample.name] = sample.value
    expected = {"log": THREADS * logs, "metadata": 80, "info": 80, "parameter": 80}
    assert expected == calls
    assert 0 == FAULTS.dropped["backend_failed"]
    assert {f"dl_metric{thread}_seconds": logs - 1 for thread in range(THREADS)} == values
    assert THREADS * logs / 10 == nonfinite["shared"]
    assert THREADS * (logs + 30) == len(records_in(tmp_path / "log"))


def test_every_line_has_its_own_time_under_threads(tmp_path, rapid_switches):
    """At the turn of a second no thread takes the half-made text of another's second."""
    backend = JSONStreamBackend(1, tmp_path / "log")

    def work(thread):
        for number in range(3000):
            second = 1_700_000_000 + number * THREADS + thread
            backend.write_record(Record(second * 1_000_000 + 250_000, 0, (0, 0), {"s": second}))

    run_threads(work)
    backend.close()
    records = records_in(tmp_path / "log")
    expected = [f"{record['data']['s']}.25" for record in records]
    assert expected == [record["timestamp"] for record in records]
    assert THREADS * 3000 == len(records)
