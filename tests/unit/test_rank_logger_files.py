"""The files of each rank's logger: which rank writes which, rotation, and configuration."""

from __future__ import annotations

import logging
import logging.config
import re
import subprocess
import sys
import types
from collections import Counter
from logging import handlers

import pytest

from otel_dllogger.errors import MisuseError
from otel_dllogger.identity import host_name
from otel_dllogger.training.rank_logger import MMLogger
from tests.support.command import uncovered
from tests.support.paths import TESTS
from tests.support.rank_logger import CONSOLE, DEADLINE_S, FILE, PLAIN, assert_lines, levels_of

pytestmark = [pytest.mark.newest_only, pytest.mark.usefixtures("no_loggers")]

SCRIPT = TESTS / "scripts" / "log_ranks.py"


def be_rank(monkeypatch, rank, world_size, local_rank=0):
    """Tell this process its rank as torchrun does."""
    for name, value in (("RANK", rank), ("WORLD_SIZE", world_size), ("LOCAL_RANK", local_rank)):
        monkeypatch.setenv(name, str(value))


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


@pytest.mark.slow
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


@pytest.mark.slow
def test_64_ranks_leave_8_files_on_each_node(tmp_path):
    """Storage of its own holds the files of the node's own ranks."""
    run_ranks(tmp_path, 64, 5, "INFO", "apart", "all")
    for node in range(8):
        names = {path.name for path in (tmp_path / f"node{node}" / "logs").iterdir()}
        expected = {f"run_{host_name()}_device{n}_rank{node * 8 + n}.log" for n in range(8)}
        assert expected == names


@pytest.mark.slow
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
