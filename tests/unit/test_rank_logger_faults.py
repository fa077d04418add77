"""What the logger of each rank survives: full disks, closed files, signals and forks."""

from __future__ import annotations

import io
import logging
import logging.config
import os
import re
import signal
import sys
import threading
from collections import Counter

import pytest

from otel_dllogger.training import line_handlers
from otel_dllogger.training.rank_logger import MMLogger, print_log
from tests.support.rank_logger import assert_lines, python

pytestmark = [pytest.mark.newest_only, pytest.mark.usefixtures("no_loggers")]

FAILING = """
import logging, sys
logging.getLogger("otel_dllogger").disabled = True
from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.training.rank_logger import MMLogger, print_log
logger = MMLogger.get_instance("a", log_file=sys.argv[1] if len(sys.argv) > 1 else None)
if len(sys.argv) > 2:
    sys.stdout = None
for number in range(100):
    logger.info("line %d %s", number, "x" * 1000)
print_log("printed")
for handler in logger.handlers:
    handler.close()
counts = {reason: count for reason, count in DIAGNOSTICS.dropped.items() if count}
sys.stderr.write(f"{counts}\\n")  # in one piece: a thread may say a warning meanwhile
"""


@pytest.mark.parametrize("shell", ["> /dev/full", ">&-"])
def test_a_console_that_takes_no_lines_is_counted(shell):
    """A full device and a closed descriptor cost the lines, not the training."""
    _, err, returncode = python(FAILING, shell=shell)
    assert ("{'stdout': 101}\n", 0) == (err, returncode)


def test_a_console_that_is_not_there_is_counted(tmp_path):
    """No standard output at all, and the file has every line."""
    _, err, returncode = python(FAILING, tmp_path / "a.log", "none")
    assert ("{'stdout': 101}\n", 0) == (err, returncode)
    assert len((tmp_path / "a.log").read_text().splitlines()) == 100


def test_a_closed_stdout_does_not_raise(monkeypatch, counted, capsys):
    """A stream closed under the logger is counted, and said once."""
    closed = io.StringIO()
    closed.close()
    logger = MMLogger.get_instance("a")
    monkeypatch.setattr(sys, "stdout", closed)
    for _ in range(10):
        logger.error("x")
    print_log("x")
    assert {"stdout": 11} == counted()
    assert capsys.readouterr().err.count("\n") <= 1


@pytest.mark.slow
def test_a_full_disk_does_not_raise():
    """The lines are counted, the console has them, and the end of the process is silent."""
    out, err, returncode = python(FAILING, "/dev/full")
    assert ("{'disk_full': 100}\n", 0) == (err, returncode)
    assert len(out.splitlines()) == 101


def test_a_full_disk_is_said_once():
    """A line of warning as it begins and one of what was lost, not a traceback per line."""
    code = FAILING.replace('logging.getLogger("otel_dllogger").disabled = True', "")
    _, err, _ = python(code, "/dev/full")
    lines = err.splitlines()
    (counts,) = [line for line in lines if line.startswith("{")]
    warning, *lost = [line for line in lines if not line.startswith("{")]
    assert warning.startswith("otel_dllogger: /dev/full cannot be written now (No space left")
    assert all("could not be written before it was closed" in line for line in lost)
    assert len(lost) <= 1
    assert counts == "{'disk_full': 100}"


def test_lines_that_a_full_disk_did_not_take_are_written_later(tmp_path):
    """Where the disk took half a line and refused the next one, both are whole in the end."""
    code = (
        "import resource as r, sys; from otel_dllogger.training.rank_logger import MMLogger\n"
        "logger = MMLogger.get_instance('a', log_file=sys.argv[1])\n"
        "hard = r.getrlimit(r.RLIMIT_FSIZE)[1]\n"
        "for line, limit in (('one', hard), ('x' * 100, 80), ('late', 80), ('two', hard)):\n"
        "    r.setrlimit(r.RLIMIT_FSIZE, (limit, hard))\n"
        "    logger.info(line)\n"
    )
    _, err, returncode = python(code, tmp_path / "a.log")
    assert (1, 0) == (err.count("\n"), returncode)
    lines = (".* - one", ".* - INFO - x{100}", ".* - INFO - late", ".* - INFO - two")
    assert_lines((tmp_path / "a.log").read_text(), *lines)


def test_two_loggers_with_one_file_keep_each_others_lines(tmp_path):
    """The second one, as a module of the same run has it, does not empty the file."""
    for name in ("a", "b"):
        MMLogger.get_instance(name, log_file=tmp_path / "a.log", logger_name=name).info("x")
    assert_lines((tmp_path / "a.log").read_text(), ".* - a - .* - x", ".* - b - .* - x")


def test_a_file_that_is_gone_is_made_anew(tmp_path, monkeypatch, counted):
    """A file that was deleted costs no line from the next look on, and is counted."""
    monkeypatch.setattr(line_handlers, "_CHECK_INTERVAL_S", 0.0)
    logger = MMLogger.get_instance("a", log_file=tmp_path / "a.log")
    logger.info("one")
    (tmp_path / "a.log").unlink()
    logger.info("two")
    assert_lines((tmp_path / "a.log").read_text(), ".*two")
    assert set(counted()) <= {"file_replaced"}


def test_a_file_is_made_once(tmp_path):
    """Mode "x" refuses a file that is there."""
    MMLogger.get_instance("a", log_file=tmp_path / "a.log", file_mode="x")
    with pytest.raises(FileExistsError):
        MMLogger.get_instance("b", log_file=tmp_path / "a.log", file_mode="x")


def test_a_formatter_that_raises_does_not_reach_training(tmp_path, capsys, counted):
    """A formatter of the user's own costs its line, which is counted."""

    class Broken(logging.Formatter):
        def format(self, record):
            raise RuntimeError("broken")

    logger = MMLogger.get_instance("a", log_file=tmp_path / "a.log")
    logger.handlers[1].setFormatter(Broken())
    logger.info("x")
    assert {"format_failed": 1} == counted()
    assert_lines(capsys.readouterr().out, ".* - x")


SIGNALS = """
import faulthandler, logging, signal, sys, time
logging.getLogger("otel_dllogger").disabled = True
from otel_dllogger.training.rank_logger import MMLogger
faulthandler.dump_traceback_later(60, exit=True)
cfg = dict(type="RotatingFileHandler", maxBytes=20_000, backupCount=500)
logger = MMLogger.get_instance("a", log_file=sys.argv[1], file_handler_cfg=cfg)
logger.removeHandler(logger.handlers[0])
logged = [0, 0]

def log(who):
    logged[who] += 1
    logger.info("line %d of %d", logged[who], who)

signal.signal(signal.SIGALRM, lambda *_: log(1))
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0007)
end_s = time.monotonic() + 0.5
while time.monotonic() < end_s:
    log(0)
signal.setitimer(signal.ITIMER_REAL, 0)
print(*logged, file=sys.stderr)
"""


@pytest.mark.slow
def test_a_signal_handler_may_log_while_a_file_is_rotated(tmp_path):
    """Each line is in one of the files once."""
    _, err, returncode = python(SIGNALS, tmp_path / "a.log")
    text = "".join(path.read_text() for path in tmp_path.iterdir())
    lines = Counter(line.partition(" - INFO - ")[2] for line in text.splitlines())
    assert re.fullmatch(r"\d+ \d+\n", err), err
    logged = [int(count) for count in err.split()]
    expected = {f"line {n} of {who}": 1 for who in (0, 1) for n in range(1, logged[who] + 1)}
    assert (expected, 0) == (lines, returncode)
    assert min(logged) > 10


def test_a_file_can_be_opened_late(tmp_path):
    """With ``delay`` the first line opens the file, as ``mode`` says."""
    (tmp_path / "a.log").write_text("old\n")
    cfg = {"type": "FileHandler", "delay": True, "mode": "wt"}
    logger = MMLogger.get_instance("a", log_file=tmp_path / "a.log", file_handler_cfg=cfg)
    assert (tmp_path / "a.log").read_text() == "old\n"
    logger.info("x")
    assert_lines((tmp_path / "a.log").read_text(), ".* - x")


def test_a_closed_file_goes_on(tmp_path):
    """A line after the end of the handler is appended, not lost and not alone."""
    logger = MMLogger.get_instance("a", log_file=tmp_path / "a.log")
    logger.info("one")
    logger.handlers[1].close()
    logger.info("two")
    assert_lines((tmp_path / "a.log").read_text(), ".*one", ".*two")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_goes_on(tmp_path):
    """Children forked while threads log have their lines, and wait for no lock."""
    logger = MMLogger.get_instance("a", log_file=tmp_path / "a.log", log_level="WARNING")
    over = threading.Event()

    def log():
        while not over.is_set():
            logger.error("parent")

    threads = [threading.Thread(target=log) for _ in range(4)]
    with (tmp_path / "console").open("w") as console:
        logger.handlers[0].setStream(console)
        for thread in threads:
            thread.start()
        try:
            for number in range(25):
                pid = os.fork()
                if not pid:
                    signal.alarm(20)  # a deadlock ends in a signal
                    logger.error("child %d", number)
                    os._exit(0)
                assert os.waitpid(pid, 0)[1] == 0
        finally:
            over.set()
            for thread in threads:
                thread.join()
    expected = {f"child {number}" for number in range(25)}
    for name in ("a.log", "console"):
        lines = (tmp_path / name).read_text().splitlines()
        assert {"parent"} | expected == {line.rpartition(" - ")[2] for line in lines}
