"""The logger of each rank: its lines, its files and what it survives."""

from __future__ import annotations

import io
import logging
import logging.config
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import types
from collections import Counter
from logging import handlers

import pytest

from otel_dllogger.identity import host_name
from otel_dllogger.training import line_handlers
from otel_dllogger.training.faults import MisuseError
from otel_dllogger.training.line_handlers import MAX_WARNINGS, ConsoleHandler
from otel_dllogger.training.rank_logger import MMLogger, print_log
from tests.support.command import environment, uncovered
from tests.support.paths import TESTS

pytestmark = pytest.mark.newest_only

SCRIPT = TESTS / "scripts" / "log_ranks.py"
DEADLINE_S = 120
CONSOLE = r"\d\d/\d\d \d\d:\d\d:\d\d - "
FILE = r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d - "
HOST = re.escape(host_name())


@pytest.fixture(autouse=True)
def no_loggers(monkeypatch):
    """Begin and end without loggers, and with a console that nobody asked to have colours."""
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    yield
    for logger in MMLogger._instances.values():
        for handler in logger.handlers:
            handler.close()
    MMLogger._instances.clear()


def be_rank(monkeypatch, rank, world_size, local_rank=0):
    """Tell this process its rank as torchrun does."""
    for name, value in (("RANK", rank), ("WORLD_SIZE", world_size), ("LOCAL_RANK", local_rank)):
        monkeypatch.setenv(name, str(value))


def assert_lines(text, *patterns):
    """Check that a text is as many lines as patterns, each of its pattern."""
    lines = text.splitlines()
    assert len(patterns) == len(lines), text
    for pattern, line in zip(patterns, lines, strict=True):
        assert re.fullmatch(pattern, line), line


def python(code, *arguments, stdout=subprocess.PIPE, shell="", **environ):
    """Run a script in a process of its own; return its stdout, stderr and exit code."""
    wrapper = ["sh", "-c", f'exec "$@" {shell}', "sh"] if shell else []
    done = subprocess.run(
        [*wrapper, sys.executable, "-X", "dev", "-c", code, *map(str, arguments)],
        env=environment(**environ),
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    return done.stdout, done.stderr, done.returncode


# The lines


def test_a_line_has_its_time_logger_and_level(capsys, tmp_path):
    """The console shows the day and the time, the file the year as well."""
    logger = MMLogger.get_instance("a", log_file=tmp_path / "a.log", log_level="DEBUG")
    logger.debug("one")
    logger.info("%d of %s", 2, "two")
    logger.warning("three")
    logger.log(25, "four")
    expected = (
        "mmengine - DEBUG - one",
        "mmengine - INFO - 2 of two",
        "mmengine - WARNING - three",
        "mmengine - Level 25 - four",
    )
    assert_lines(capsys.readouterr().out, *[CONSOLE + line for line in expected])
    assert_lines((tmp_path / "a.log").read_text(), *[FILE + line for line in expected])


def test_an_error_says_where_it_is(capsys):
    """ERROR and CRITICAL lines carry file, function and line; a traceback follows."""
    logger = MMLogger.get_instance("a", logger_name="train")
    place = f"{re.escape(__file__)} - test_an_error_says_where_it_is - \\d+ - "
    try:
        raise ZeroDivisionError("division by zero")  # noqa: TRY301
    except ZeroDivisionError as error:
        logger.error(error)
        logger.exception("again")
    logger.critical("the end")
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(f"{CONSOLE}train - ERROR - {place}division by zero", lines[0])
    assert re.fullmatch(f"{CONSOLE}train - ERROR - {place}again", lines[1])
    assert lines[2] == "Traceback (most recent call last):"
    assert lines[-2] == "ZeroDivisionError: division by zero"
    assert re.fullmatch(f"{CONSOLE}train - CRITICAL - {place}the end", lines[-1])


def test_the_documented_error_line():
    """A script's own level is the function <module>, with its path and line."""
    code = "from otel_dllogger.training.rank_logger import MMLogger as M\n\n\nM('a').error('no')"
    out, err, returncode = python(code)
    assert_lines(out, CONSOLE + "mmengine - ERROR - <string> - <module> - 4 - no")
    assert ("", 0) == (err, returncode)


def test_a_message_that_does_not_fit_its_arguments_is_shown(capsys, counted):
    """The plain values take the line's place, which is counted as badly formatted."""

    class Odd:
        def __str__(self):
            raise RuntimeError

    logger = MMLogger.get_instance("a")
    logger.info("50% more", 1)
    logger.info("%d", "x")
    logger.warning(Odd())
    logger.info("100% done")
    assert_lines(
        capsys.readouterr().out,
        CONSOLE + r"mmengine - INFO - 50% more \(1,\)",
        CONSOLE + r"mmengine - INFO - %d \('x',\)",
        CONSOLE + "mmengine - WARNING - <.*Odd that cannot be shown>.*",
        CONSOLE + "mmengine - INFO - 100% done",
    )
    assert {"format_failed": 3} == counted()


def test_any_text_reaches_the_file(tmp_path):
    """UTF-8 whatever the locale; half of a surrogate pair is escaped."""
    code = (
        "import sys; from otel_dllogger.training.rank_logger import MMLogger\n"
        "MMLogger('a', log_file=sys.argv[1]).info('\\u00e9 \\udc80')"
    )
    python(code, tmp_path / "a.log", LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0")
    assert (tmp_path / "a.log").read_text("utf-8").endswith("INFO - é \\udc80\n")


# The console

COLOURS = """
from otel_dllogger.training.rank_logger import MMLogger
import sys
logger = MMLogger("a", log_level="DEBUG", log_file=sys.argv[1])
for level in ("debug", "info", "warning", "error", "critical"):
    getattr(logger, level)("x")
"""
COLOURED = ("\x1b[32mDEBUG\x1b[0m", "INFO", "\x1b[33mWARNING\x1b[0m")
RED = ("\x1b[31mERROR\x1b[0m", "\x1b[31mCRITICAL\x1b[0m")
PLAIN = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def levels_of(text):
    """Return the levels of lines, with their colours."""
    return tuple(line.split(" - ")[2] for line in text.splitlines())


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, (*COLOURED, *RED)),
        ({"NO_COLOR": ""}, (*COLOURED, *RED)),
        ({"NO_COLOR": "1"}, PLAIN),
        ({"TERM": "dumb"}, PLAIN),
    ],
)
def test_levels_are_coloured_on_a_terminal(tmp_path, environ, expected):
    """An error is red on a terminal, where nobody objects, and never in the file."""
    ours, theirs = pty.openpty()
    environ = {"TERM": "xterm", "NO_COLOR": "", **environ}
    assert ("", 0) == python(COLOURS, tmp_path / "a.log", stdout=theirs, **environ)[1:]
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 65536):
            shown += piece
    except OSError:  # Linux's way to say that the other end is closed
        pass
    os.close(ours)
    assert expected == levels_of(shown.decode())
    assert levels_of((tmp_path / "a.log").read_text()) == PLAIN


def test_levels_are_plain_in_a_pipe(tmp_path):
    """What is no terminal gets no colours, unless FORCE_COLOR asks for them."""
    assert levels_of(python(COLOURS, tmp_path / "a.log")[0]) == PLAIN
    forced = python(COLOURS, tmp_path / "a.log", FORCE_COLOR="1")[0]
    assert (*COLOURED, *RED) == levels_of(forced)
    both = python(COLOURS, tmp_path / "a.log", FORCE_COLOR="1", NO_COLOR="1")[0]
    assert levels_of(both) == PLAIN


def test_the_console_is_the_stdout_of_the_moment(capsys, monkeypatch):
    """A redirection after the logger was made counts, and so does setStream."""
    logger = MMLogger.get_instance("a")
    logger.info("one")
    instead, pinned = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", instead)
    logger.info("two")
    logger.handlers[0].setStream(pinned)
    logger.info("three")
    assert_lines(capsys.readouterr().out, ".* - one")
    assert_lines(instead.getvalue(), ".* - two")
    assert_lines(pinned.getvalue(), ".* - three")


def test_a_warning_is_shown_once(capsys, tmp_path):
    """The second of one message is left out, of each handler, whatever its arguments."""
    logger = MMLogger.get_instance("a", log_file=tmp_path / "a.log")
    for number in range(3):
        logger.warning("slow %d", number)
        logger.warning(["no", "hash"])
        logger.info("again")
    out, text = capsys.readouterr().out, (tmp_path / "a.log").read_text()
    for shown in (out, text):
        counts = Counter(line.partition("mmengine - ")[2] for line in shown.splitlines())
        expected = {"WARNING - slow 0": 1, "WARNING - ['no', 'hash']": 1, "INFO - again": 3}
        assert expected == counts


def test_another_logger_shows_the_same_warning(capsys):
    """What one logger has shown is new to the next."""
    for name in ("a", "b"):
        MMLogger.get_instance(name, logger_name=name).warning("slow")
    assert_lines(capsys.readouterr().out, ".* - a - .* - slow", ".* - b - .* - slow")


def test_warnings_are_not_remembered_without_end(capsys):
    """A loop of different warnings fills no memory."""
    logger = MMLogger.get_instance("a")
    (first,) = logger.handlers[0].filters
    for number in range(MAX_WARNINGS + 10):
        logger.warning(f"slow {number}")  # noqa: G004
    assert len(first._seen) == 10
    assert MAX_WARNINGS + 10 == len(capsys.readouterr().out.splitlines())


# The ranks


@pytest.mark.parametrize(
    ("rank", "level", "expected"),
    [
        (0, "DEBUG", PLAIN),
        (0, "WARNING", PLAIN[2:]),
        (0, logging.CRITICAL, PLAIN[4:]),
        (1, "DEBUG", PLAIN[3:]),
        (1, "CRITICAL", PLAIN[4:]),
    ],
)
def test_only_rank_0_says_what_is_no_error(monkeypatch, capsys, rank, level, expected):
    """The other ranks show ERROR and CRITICAL alone."""
    be_rank(monkeypatch, rank, 2)
    logger = MMLogger.get_instance("a", log_level=level)
    for name in PLAIN:
        logger.log(getattr(logging, name), "x")
    assert expected == levels_of(capsys.readouterr().out)


def test_torch_knows_the_rank_better_than_the_environment(monkeypatch, tmp_path):
    """Where torch.distributed runs, its rank counts; where it does not, the launcher's."""
    torch = types.ModuleType("torch.distributed")
    torch.is_available = lambda: True
    torch.is_initialized = lambda: running
    torch.get_rank, torch.get_world_size = lambda: 5, lambda: 6
    monkeypatch.setitem(sys.modules, "torch.distributed", torch)
    be_rank(monkeypatch, 1, 4, local_rank=1)
    for running, expected in ((False, "device1_rank1"), (True, "device1_rank5")):
        logger = MMLogger(f"{running}", log_file=tmp_path / "a.log", distributed=True)
        logger.handlers[1].close()
        assert str(tmp_path / f"a_{host_name()}_{expected}.log") == logger.log_file
    del torch.is_available  # as while it is imported
    assert MMLogger("c", log_file=tmp_path / "a.log").handlers[1:] == []


def test_one_rank_writes_the_file_of_all(monkeypatch, tmp_path):
    """Without ``distributed`` only rank 0 has it, and its folder is made."""
    be_rank(monkeypatch, 1, 2)
    logger = MMLogger.get_instance("other", log_file=tmp_path / "x" / "y" / "a.log")
    assert str(tmp_path / "x" / "y" / "a.log") == logger.log_file
    assert not (tmp_path / "x").exists()
    be_rank(monkeypatch, 0, 2)
    MMLogger.get_instance("first", log_file=tmp_path / "x" / "y" / "a.log").info("x")
    assert_lines((tmp_path / "x" / "y" / "a.log").read_text(), FILE + "mmengine - INFO - x")


def test_a_run_of_one_rank_keeps_the_plain_name(tmp_path, monkeypatch):
    """Neither ``distributed`` nor DEBUG adds a rank where there is one."""
    monkeypatch.chdir(tmp_path)
    logger = MMLogger.get_instance("a", log_file="a.log", log_level="DEBUG", distributed=True)
    assert logger.log_file == "a.log"
    assert [path.name for path in tmp_path.iterdir()] == ["a.log"]


def test_file_mode_says_whether_the_file_starts_anew(tmp_path):
    """The file of an earlier attempt is written over with "w", kept with "a"."""
    for mode, lines in (("w", 1), ("w", 1), ("a", 2)):
        logger = MMLogger("a", log_file=tmp_path / "a.log", file_mode=mode)
        logger.info("x")
        logger.handlers[1].close()
        assert lines == len((tmp_path / "a.log").read_text().splitlines())


def run_ranks(*arguments):
    """Run 64 ranks, and return the lines of their common console."""
    done = subprocess.run(
        [sys.executable, SCRIPT, *map(str, arguments)],
        env=uncovered(),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert ("", 0) == (done.stderr, done.returncode)
    return done.stdout.splitlines()


def assert_rank_file(path, rank, lines):
    """Check that a rank's file has all of its lines, each whole, and no one else's."""
    own = [f"{FILE}mmengine - INFO - rank {rank} line {n} x{{300}}" for n in range(lines)]
    assert_lines(
        path.read_text(), *own, f"{FILE}mmengine - ERROR - .* - rank - \\d+ - rank {rank} failed"
    )


@pytest.mark.parametrize(("level", "whose"), [("INFO", "all"), ("DEBUG", "first")])
def test_64_ranks_leave_64_files_on_shared_storage(tmp_path, level, whose):
    """Each rank has the file of its documented name, by ``distributed`` or by DEBUG."""
    lines = 50
    console = run_ranks(tmp_path, 64, lines, level, "together", whose)
    folder = tmp_path / "shared" / "logs"
    expected = {f"run_{host_name()}_device{rank % 8}_rank{rank}.log": rank for rank in range(64)}
    assert set(expected) == {path.name for path in folder.iterdir()}
    for name, rank in expected.items():
        assert_rank_file(folder / name, rank, lines)
    info = [line for line in console if re.fullmatch(CONSOLE + "mmengine - INFO - rank 0 .*", line)]
    error = re.compile(CONSOLE + r"mmengine - ERROR - .* - rank - \d+ - rank (\d+) failed")
    errors = Counter(match[1] for line in console if (match := error.fullmatch(line)))
    assert lines == len(info)
    assert {str(rank): 1 for rank in range(64)} == errors
    assert lines + 64 == len(console)


def test_64_ranks_leave_8_files_on_each_node(tmp_path):
    """Storage of its own holds the files of the node's own ranks."""
    run_ranks(tmp_path, 64, 5, "INFO", "apart", "all")
    for node in range(8):
        names = {path.name for path in (tmp_path / f"node{node}" / "logs").iterdir()}
        expected = {f"run_{host_name()}_device{n}_rank{node * 8 + n}.log" for n in range(8)}
        assert expected == names


def test_64_ranks_leave_one_file_by_default(tmp_path):
    """Above DEBUG and without ``distributed`` only rank 0 writes, under the plain name."""
    run_ranks(tmp_path, 64, 5, "INFO", "together", "first")
    (path,) = (tmp_path / "shared" / "logs").iterdir()
    assert path.name == "run.log"
    assert_rank_file(path, 0, 5)


# The handler of the file


def test_a_file_rotates_by_size(tmp_path):
    """``RotatingFileHandler`` gets its arguments, and the caller's dict stays as it is."""
    cfg = {"type": "RotatingFileHandler", "maxBytes": 500, "backupCount": 2}
    for name in ("a", "b"):
        logger = MMLogger.get_instance(name, log_file=tmp_path / name, file_handler_cfg=cfg)
        for number in range(30):
            logger.info("line %d of many", number)
        expected = {name, f"{name}.1", f"{name}.2"}
        assert expected == {path.name for path in tmp_path.glob(f"{name}*")}
        assert all(0 < path.stat().st_size <= 500 for path in tmp_path.glob(f"{name}*"))
        assert (tmp_path / name).read_text().endswith("INFO - line 29 of many\n")
    assert cfg == {"type": "RotatingFileHandler", "maxBytes": 500, "backupCount": 2}


def test_a_file_rotates_by_time(tmp_path):
    """``TimedRotatingFileHandler`` moves the file away when its time has come."""
    logger = MMLogger.get_instance(
        "a",
        log_file=tmp_path / "a.log",
        file_handler_cfg={"type": "TimedRotatingFileHandler", "when": "MIDNIGHT"},
    )
    logger.info("yesterday")
    assert isinstance(logger.handlers[1], handlers.TimedRotatingFileHandler)
    logger.handlers[1].rolloverAt -= 86_400
    logger.info("today")
    old, new = sorted(tmp_path.iterdir(), key=lambda path: len(path.name), reverse=True)
    assert re.fullmatch(r"a\.log\.\d{4}-\d\d-\d\d", old.name)
    assert_lines(old.read_text(), ".*yesterday")
    assert_lines(new.read_text(), ".*today")


def test_a_watched_file_is_made_anew(tmp_path):
    """``WatchedFileHandler`` notices that the file was moved."""
    path = tmp_path / "a.log"
    cfg = {"type": "WatchedFileHandler"}
    logger = MMLogger.get_instance("a", log_file=path, file_handler_cfg=cfg)
    logger.info("one")
    path.rename(tmp_path / "old")
    logger.info("two")
    assert_lines((tmp_path / "old").read_text(), ".*one")
    assert_lines(path.read_text(), ".*two")


def test_a_filename_in_the_configuration_counts(monkeypatch, tmp_path):
    """It takes the place of ``log_file``, and each rank still has its own."""
    be_rank(monkeypatch, 3, 4, local_rank=3)
    cfg = {"type": "FileHandler", "filename": str(tmp_path / "b.log"), "encoding": "ascii"}
    logger = MMLogger.get_instance("a", distributed=True, file_handler_cfg=cfg)
    logger.info("é")
    (path,) = tmp_path.iterdir()
    assert (f"b_{host_name()}_device3_rank3.log", str(path)) == (path.name, logger.log_file)
    assert path.read_bytes().endswith(b" - \\xe9\n")


@pytest.mark.parametrize(
    ("error", "words", "options"),
    [
        (MisuseError, ["log_level='LOUD'", "'INFO'"], {"log_level": "LOUD"}),
        (MisuseError, ["log_level=None"], {"log_level": None}),
        (MisuseError, ["log_level=True"], {"log_level": True}),
        (MisuseError, ["'type'", "WatchedFileHandler"], {"file_handler_cfg": {}}),
        (MisuseError, ["file_handler_cfg=3"], {"file_handler_cfg": 3}),
        (
            ValueError,
            ["'SocketHandler'", "FileHandler, RotatingFileHandler"],
            {"file_handler_cfg": {"type": "SocketHandler"}},
        ),
        (
            MisuseError,
            ["'maxByte'", "RotatingFileHandler", "maxBytes"],
            {"file_handler_cfg": {"type": "RotatingFileHandler", "maxByte": 1}},
        ),
        (
            MisuseError,
            ["TimedRotatingFileHandler", "'when': 'X'"],
            {"file_handler_cfg": {"type": "TimedRotatingFileHandler", "when": "X"}},
        ),
        (MisuseError, ["'mode': 'q'"], {"file_mode": "q"}),
        (MisuseError, ["name=''"], {"name": ""}),
    ],
)
def test_what_means_nothing_is_said_in_one_line(tmp_path, error, words, options):
    """The line names the value and what to pass instead; no logger is left behind."""
    with pytest.raises(error) as raised:
        MMLogger.get_instance(**{"name": "a", "log_file": tmp_path / "a.log", **options})
    for word in words:
        assert word in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not MMLogger.check_instance_created("a")


def test_a_wrong_configuration_is_refused_by_every_rank(monkeypatch, tmp_path):
    """A rank that writes no file refuses it as well: none waits for one that failed."""
    be_rank(monkeypatch, 1, 2)
    with pytest.raises(ValueError, match="there is no file handler 'X'"):
        MMLogger("a", log_file=tmp_path / "a", file_handler_cfg={"type": "X"})


def test_a_path_that_cannot_be_opened_is_said_at_once(tmp_path):
    """A folder, and a path through a file, raise where the logger is made."""
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "a.log"):
        with pytest.raises(OSError, match=re.escape(str(tmp_path))):
            MMLogger.get_instance("a", log_file=path)


# The logger among loggers


def test_a_logger_is_the_same_everywhere():
    """One name is one logger; what it is made with the second time changes nothing."""
    logger = MMLogger.get_instance("a", logger_name="b")
    assert logger is MMLogger.get_instance("a")
    assert ("a", "b", None) == (logger.instance_name, logger.name, logger.log_file)
    with pytest.warns(UserWarning, match="'a' is there already"):
        assert logger is MMLogger.get_instance("a", log_level="DEBUG")


def test_the_current_logger_is_the_last_or_mmengine():
    """``get_current_instance`` makes the logger "mmengine" where there is none."""
    current = MMLogger.get_current_instance()
    assert current.instance_name == "mmengine"
    assert current is MMLogger.get_current_instance()
    last = MMLogger.get_instance("last")
    assert last is MMLogger.get_current_instance()


def test_logging_does_not_know_the_logger(capsys, tmp_path):
    """No library's set-up of logging reaches it, nor does a line reach theirs."""
    logger = MMLogger.get_instance("a", log_file=tmp_path / "a.log")
    assert "mmengine" not in logging.Logger.manager.loggerDict
    logger.info("before")
    # Every handler that logging knows is closed by this, ours included.
    code = (
        "import logging.config, sys; from otel_dllogger.training.rank_logger import MMLogger\n"
        "logger = MMLogger.get_instance('a', log_file=sys.argv[1])\n"
        "assert logger is not logging.getLogger('mmengine')\n"
        "logger.info('before')\n"
        "for _ in range(2):\n"
        "    logging.config.dictConfig({'version': 1, 'root': {'level': 'ERROR'}})\n"
        "    logging.basicConfig(level=logging.DEBUG, force=True)\n"
        "    logger.info('after')\n"
        "logger.handlers[1].close()\n"
    )
    out, err, returncode = python(code, tmp_path / "b.log")
    assert ("", 0) == (err, returncode)
    assert_lines(out, ".*before", ".*after", ".*after")
    assert_lines((tmp_path / "b.log").read_text(), ".*before", ".*after", ".*after")
    assert_lines(capsys.readouterr().out, ".*before")


def test_levels_count_at_once(capsys):
    """``setLevel``, ``disabled`` and ``logging.disable`` take effect after lines as before."""
    logger = MMLogger.get_instance("a", log_level="DEBUG")
    logger.debug("1")
    logger.setLevel("INFO")
    logger.debug("2")
    logger.setLevel(logging.DEBUG)
    logger.debug("3")
    logging.disable(logging.CRITICAL)
    logger.critical("4")
    logging.disable(logging.NOTSET)
    logger.debug("5")
    logger.disabled = True
    logger.debug("6")
    assert [line[-1] for line in capsys.readouterr().out.splitlines()] == ["1", "3", "5"]


def test_a_handler_that_raises_does_not_reach_training(capsys, counted):
    """It is counted, and the handlers after it have the line."""

    class Broken(logging.Handler):
        def handle(self, record):
            raise RuntimeError("broken")

    logger = MMLogger.get_instance("a")
    logger.handlers.insert(0, Broken())
    logger.info("x")
    assert {"backend_failed": 1} == counted()
    assert_lines(capsys.readouterr().out, ".* - x")


# print_log


def test_print_log_prints_without_a_logger(capsys):
    """None prints the plain text, "silent" nothing."""
    print_log("50% of %s")
    print_log({"a": 1}, None, logging.ERROR)
    print_log("never", "silent")
    assert capsys.readouterr().out == "50% of %s\n{'a': 1}\n"


def test_print_log_logs(capsys):
    """A logger, its name and "current" log, at the level and from the place of the call."""
    logger = MMLogger.get_instance("a")
    plain = logging.Logger("plain")  # noqa: LOG001 - no one else may see it
    plain.addHandler(ConsoleHandler())
    print_log("50% of %s", logger)
    print_log("debug", "a", logging.DEBUG)
    for which in ("a", "current", logger, plain):
        print_log("x", which, logging.ERROR)
    place = re.escape(f"{__file__} - test_print_log_logs - ") + r"\d+ - "
    expected = CONSOLE + "mmengine - ERROR - " + place + "x"
    assert_lines(
        capsys.readouterr().out,
        CONSOLE + "mmengine - INFO - 50% of %s",
        *[expected] * 3,
        expected.replace("mmengine", "plain"),
    )


def test_print_log_makes_the_current_logger(capsys):
    """ "current" is "mmengine" where there is none yet."""
    print_log("x", "current")
    assert_lines(capsys.readouterr().out, CONSOLE + "mmengine - INFO - x")
    assert MMLogger.check_instance_created("mmengine")


def test_print_log_refuses_what_is_no_logger():
    """A name that nobody made is a ValueError, what is no name a TypeError."""
    with pytest.raises(ValueError, match="there is no MMLogger 'b'"):
        print_log("x", "b")
    with pytest.raises(TypeError, match="logger=3 is a int"):
        print_log("x", 3)
    assert not MMLogger.check_instance_created("b")


# What it survives

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
    assert warning.startswith("otel_dllogger: /dev/full takes no lines now (No space left")
    assert all("the disk took none until the end" in line for line in lost)
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
            for number in range(50):
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
    expected = {f"child {number}" for number in range(50)}
    for name in ("a.log", "console"):
        lines = (tmp_path / name).read_text().splitlines()
        assert {"parent"} | expected == {line.rpartition(" - ")[2] for line in lines}
