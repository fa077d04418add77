"""The logger of each rank: its lines, the console, and its place among other loggers."""

from __future__ import annotations

import io
import logging
import logging.config
import os
import pty
import re
import sys
from collections import Counter

import pytest

from otel_dllogger.training.line_handlers import MAX_WARNINGS, ConsoleHandler
from otel_dllogger.training.rank_logger import MMLogger, print_log
from tests.support.rank_logger import CONSOLE, FILE, PLAIN, assert_lines, levels_of, python

pytestmark = [pytest.mark.newest_only, pytest.mark.usefixtures("no_loggers")]


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


@pytest.mark.slow
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


# The logger among loggers


def test_a_logger_is_the_same_everywhere():
    """One name is one logger; what it is made with the second time changes nothing."""
    logger = MMLogger.get_instance("a", logger_name="b")
    assert logger is MMLogger.get_instance("a")
    assert ("a", "b", None) == (logger.instance_name, logger.name, logger.log_file)
    with pytest.warns(UserWarning, match="'a' already exists"):
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
