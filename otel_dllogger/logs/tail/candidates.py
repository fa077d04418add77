"""Tell which files of a folder are logs, by their names or by their first lines."""

from __future__ import annotations

import codecs
import os
import re
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.logs.parsers import event_names
from otel_dllogger.logs.parsers.context import FileContext
from otel_dllogger.logs.parsers.detect import parse_line
from otel_dllogger.logs.tail.fingerprint import FileKey
from otel_dllogger.logs.tail.open_files import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_dllogger.logs.tail.anomalies import FileAnomalies

NAMES = ("*.json", "*.jsonl", "*.log", "*.txt", event_names.NAMES)
"""The names of log files in a folder, unless others are asked for."""

CANDIDATES = ("*.out", "*.err", "*.csv")
"""Names of files that may be logs, as may those without an ending; their first lines decide."""

SETTINGS = (
    "hparams.json",
    "config.json",
    "*_config.json",
    "args.json",
    "training_args*.json",
    "opts.json",
    "params.json",
    "settings.json",
    "package.json",
    "special_tokens_map.json",
    "tokenizer*.json",
    "preds.json",
    "predictions*.json",
    "results*.json",
    "*_results.json",
)
"""Names of the settings and results that trainings write beside their logs.

A file that is named so is a log only if a line of it begins as DLLogger's do.
"""

HEAD_BYTES = 1 << 16
"""A file that has no record among its first bytes, as many as this, is not a log."""

_SETTINGS = re.compile(
    "|".join(re.escape(name).replace(r"\*", ".*") for name in SETTINGS), re.DOTALL
)
_PREFIX = re.compile(rb"(?:DLLL?|TCAPPDLL) ")
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def is_settings(name: str) -> bool:
    """Return whether a file is named as settings or results are, rather than as a log.

    Args:
        name: The file's name, without its folder.
    """
    return (
        name.endswith(".json")
        and _SETTINGS.fullmatch(name) is not None
        and (not name.endswith(".log.json"))
    )


def has_prefix(line: bytes) -> bool:
    """Return whether a line begins as those of DLLogger and TCAP DLLogger do."""
    return _PREFIX.match(line) is not None


class _Look(NamedTuple):
    """What was found in the head of a file.

    Attributes:
        key: The file.
        stamp: Its size and the time of its last change, when it was looked at.
        is_log: Whether there was a record.
    """

    key: FileKey
    stamp: tuple[int, int]
    is_log: bool

    def holds(self, key: FileKey, stamp: tuple[int, int]) -> bool:
        """Return whether another look at the file would find the same."""
        if key != self.key:
            return False
        # What is added behind a whole head changes nothing.
        is_whole = min(self.stamp[0], stamp[0]) >= HEAD_BYTES
        return self.is_log or is_whole or stamp == self.stamp


class Heads:
    """The heads of files whose names do not tell whether they are logs.

    Each file is read once, and again only when it has grown without a record in its head.

    Args:
        anomalies: Where to count files that cannot be read.
    """

    def __init__(self, anomalies: FileAnomalies) -> None:
        self._anomalies = anomalies
        self._before: dict[str, _Look] = {}
        self._now: dict[str, _Look] = {}

    def is_log(self, path: str, status: os.stat_result) -> bool:
        """Return whether a file begins as a log does.

        Args:
            path: The file, not a link.
            status: What ``lstat`` returned for it.
        """
        key = FileKey(status.st_dev, status.st_ino)
        stamp = (status.st_size, status.st_mtime_ns)
        look = self._now.get(path) or self._before.get(path)
        if look is None or not look.holds(key, stamp):
            try:
                look = _Look(key, stamp, status.st_size > 0 and _has_record(path, key))
            except FileNotFoundError:
                return False
            except OSError as error:
                self._anomalies.note_error(path, error)
                return False
        self._now[path] = look
        return look.is_log

    def end_scan(self) -> None:
        """Forget the files that were not asked for in this scan."""
        self._before, self._now = self._now, {}


def _has_record(path: str, key: FileKey) -> bool:
    """Return whether there is a record in the head of a file.

    Raises:
        OSError: If the file cannot be read.
    """
    must_have_prefix = is_settings(path.rpartition("/")[2])
    context = FileContext()
    with os.fdopen(open_regular(path, key), "rb") as file:
        for line in _head_lines(file):
            if b"\0" in line:
                return False
            if has_prefix(line) if must_have_prefix else _is_record(line, context):
                return True
    return False


def _is_record(line: bytes, context: FileContext) -> bool:
    """Return whether a line holds a record; what cannot be read holds none."""
    try:
        return bool(parse_line(line, context))
    except Exception as error:  # one odd file is not a reason to read no other
        DIAGNOSTICS.caught("backend_failed", "the head of a file", error)
        return False


def _head_lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a head, those of UTF-16 as UTF-8; no more is read than is asked for."""
    line = file.readline(HEAD_BYTES)
    if line.startswith(_UTF16):
        head = line + file.read(HEAD_BYTES - len(line))
        yield from head.decode("utf-16", "ignore").encode().splitlines(keepends=True)
        return
    left_bytes = HEAD_BYTES
    while line:
        yield line
        left_bytes -= len(line)
        line = file.readline(left_bytes) if left_bytes else b""
