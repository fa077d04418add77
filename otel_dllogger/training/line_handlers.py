"""How lines of text leave a logger: MMEngine's form, whole, counted where they cannot.

The handlers of ``logging``, but for what would cost lines or time in a training: a fork beside
a write, a set-up of logging that closes all handlers, a full disk.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from otel_dllogger.backends.append_file import open_append_file
from otel_dllogger.backends.stdout import write_line
from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.training.faults import MisuseError
from otel_dllogger.values import safe_repr, safe_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAX_WARNINGS = 4_096
"""Different warnings that one handler remembers; after those it begins anew."""

_CHECK_INTERVAL_S = 1.0  # between two looks whether a file is where it was

_LINE = "_otel_dllogger_line"  # of a record: its text, once it is formatted

_RED, _YELLOW, _GREEN, _PLAIN = "\033[31m", "\033[33m", "\033[32m", "\033[0m"


class LineFormatter(logging.Formatter):
    """Write a record as MMEngine's line.

    Args:
        datefmt: The format of the time, for ``time.strftime``.
        coloured: Tells, at each line, whether the level's name is coloured; never if None.
    """

    def __init__(self, datefmt: str, *, coloured: Callable[[], bool] | None = None) -> None:
        super().__init__(datefmt=datefmt)
        self._coloured = coloured

    def usesTime(self) -> bool:  # noqa: N802 - logging's name
        """Say that a line has a time."""
        return True

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the line, without a traceback."""
        number, level, place = record.levelno, record.levelname, ""
        if number >= logging.ERROR:
            place = f"{record.pathname} - {record.funcName} - {record.lineno} - "
        colour = _colour(number)
        if colour and self._coloured is not None and self._coloured():
            level = f"{colour}{level}{_PLAIN}"
        return f"{record.asctime} - {record.name} - {level} - {place}{record.message}"

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; where the message and its arguments do not fit, both as they are."""
        try:
            return super().format(record)
        except Exception as error:
            DIAGNOSTICS.caught(
                "format_failed",
                f"the line shows the plain values of {safe_repr(record.msg)[:100]} and its "
                "arguments, which do not go together",
                error,
            )
            text = f"{safe_text(record.msg)} {safe_repr(record.args)}"
            plain = {**record.__dict__, "msg": text, "args": None}
            return super().format(logging.makeLogRecord(plain))


class FirstWarnings(logging.Filter):
    """Let a warning through once; the arguments of a message make no other warning of it."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[int, object] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a record is no warning, or a new one."""
        if record.levelno != logging.WARNING:
            return True
        if len(self._seen) >= MAX_WARNINGS:
            self._seen.clear()
        mine = object()
        # One operation, since a lock could be held where a child is forked. The hash alone is
        # kept: a message can be of any length.
        return self._seen.setdefault(hash(safe_text(record.msg)), mine) is mine


class ConsoleHandler(logging.StreamHandler):  # type: ignore[type-arg] # Python 3.10 cannot say it
    """Write lines to the ``sys.stdout`` of the moment, each in one piece."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)  # StreamHandler's would keep a stream
        self._stream: Any = None
        self.setFormatter(LineFormatter("%m/%d %H:%M:%S", coloured=self._takes_colour))

    @property
    def stream(self) -> Any:
        """Return the standard output, or what ``setStream`` put in its place."""
        return sys.stdout if self._stream is None else self._stream

    @stream.setter
    def stream(self, stream: Any) -> None:
        self._stream = stream

    def handle(self, record: logging.LogRecord) -> bool:
        """Write one record, unless a filter keeps it; no lock is held meanwhile."""
        passed: Any = self.filter(record)
        if passed:
            self.emit(passed if isinstance(passed, logging.LogRecord) else record)
        return bool(passed)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        try:
            write_line(self.stream, self.format(record) + self.terminator)
            self.flush()
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        """Flush what stands in for the standard output."""
        if callable(flush := getattr(self.stream, "flush", None)):
            flush()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802 - logging's
        """Count a line that the output did not take."""
        _caught("stdout", "the standard output does not take a line")

    def _takes_colour(self) -> bool:
        # https://no-color.org and https://force-color.org: what is set and not empty counts.
        if os.environ.get("NO_COLOR"):
            return False
        if os.environ.get("FORCE_COLOR"):
            return True
        try:
            return os.environ.get("TERM") != "dumb" and bool(self.stream.isatty())
        except (AttributeError, ValueError, OSError):  # a stand-in; closed
            return False


class CountingFile(logging.FileHandler):
    """Write lines as those of DLLogger's file are, and outlive what closes all handlers.

    The lock of the handler is held for the file alone: what a message does as it is formatted
    is done before. What a signal handler logs while its own thread writes, or rotates the file,
    is written after that.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self._waiting: deque[tuple[int, logging.LogRecord]] = deque()  # with their process
        self._writer: tuple[int, int] | None = None
        super().__init__(*args, **options)

    def _open(self) -> Any:
        file = Lines(self.baseFilename, self.mode, self.encoding, self.errors)
        # logging.config closes the handlers of all loggers; the next line opens this one
        # again, which must neither empty the file nor be refused.
        self.mode = "a"
        return file

    def handle(self, record: logging.LogRecord) -> bool:
        """Write one record, unless a filter keeps it."""
        passed: Any = self.filter(record)
        if not passed:
            return False
        if isinstance(passed, logging.LogRecord):  # which Python 3.12 and later can give
            record = passed
        try:
            line = self.format(record)
        except Exception as error:  # of a formatter of the user's own
            DIAGNOSTICS.caught("format_failed", f"{self.baseFilename} does without a line", error)
            return False
        formatted = logging.makeLogRecord({**record.__dict__, _LINE: line})
        me = os.getpid(), threading.get_ident()
        self._waiting.append((me[0], formatted))
        self.acquire()
        try:
            # Unless this is a signal handler that came while its thread writes, which goes on.
            while self._waiting and self._writer != me:
                self._write_as(me)
        finally:
            self.release()
        return True

    def _write_as(self, me: tuple[int, int]) -> None:
        try:
            self._writer = me
            while self._waiting:
                process, formatted = self._waiting.popleft()
                if process == me[0]:  # else the parent's, which writes it
                    self.emit(formatted)
        finally:
            self._writer = None

    def format(self, record: logging.LogRecord) -> str:
        """Return a record's line, which may be made already."""
        line: str | None = record.__dict__.get(_LINE)
        return super().format(record) if line is None else line

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802 - logging's
        """Count a line that could not be written, as where the file cannot be rotated."""
        _caught("disk_full", f"{self.baseFilename} does not take a line")


class Lines:
    """The stream of a handler whose lines go to an ``AppendFile``.

    Args:
        path: The file.
        mode: ``w``, ``a`` or ``x``, as for ``open``.
        encoding: The encoding; UTF-8 where there is none.
        errors: What becomes of characters that it does not have.

    Raises:
        ValueError: If the mode is none of these.
        OSError: If the file cannot be opened.
    """

    def __init__(self, path: str, mode: str, encoding: str | None, errors: str | None) -> None:
        self._encoding, self._errors = encoding or "utf-8", errors or "backslashreplace"
        "".encode(self._encoding, self._errors)
        if mode.replace("t", "").replace("+", "") not in {"w", "a", "x"}:
            raise ValueError(f"invalid mode: {mode!r}")
        if "x" in mode and os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        self._file = open_append_file(path, append="w" not in mode)
        self._file.check_path()  # that it has open already can have been renamed
        self._checked_s = time.monotonic()

    def write(self, text: str) -> int:
        """Write whole lines."""
        now_s = time.monotonic()
        if now_s - self._checked_s >= _CHECK_INTERVAL_S:
            self._checked_s = now_s
            self._file.check_path()
        self._file.write_line(text.encode(self._encoding, self._errors))
        return len(text)

    def flush(self) -> None:
        """Do nothing: a line is written, or kept until the disk takes it."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def fileno(self) -> int:
        """Return the descriptor, for who watches the file."""
        return self._file.fileno()

    def seek(self, _offset: int, _whence: int = 0) -> None:
        """Do nothing: a line is always written at the end."""

    def tell(self) -> int:
        """Return the size of the file in bytes, for who rotates it."""
        try:
            return os.fstat(self._file.fileno()).st_size
        except OSError:  # closed
            return 0


def open_file_handler(
    path: str, kind: type[logging.FileHandler], options: Mapping[str, Any]
) -> logging.FileHandler:
    """Return a handler that writes MMEngine's lines to a file, and make the file's folder.

    Args:
        path: The file.
        kind: ``logging.FileHandler``, or a class derived from it.
        options: What the class takes besides.

    Raises:
        MisuseError: If it does not take these options.
        OSError: If the file cannot be opened.
    """
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)  # noqa: PTH103, PTH120
    counting: Any = type(kind.__name__, (CountingFile, kind), {})
    try:
        # A locale, or half a surrogate pair in a file's name, must not cost the line.
        own = {"encoding": "utf-8", "errors": "backslashreplace", **options}
        # Opened last: TimedRotatingFileHandler refuses arguments with its file left open.
        handler: logging.FileHandler = counting(path, **{**own, "delay": True})
        if not own.get("delay"):
            handler.stream = handler._open()  # noqa: SLF001 - documented
    except (TypeError, ValueError, LookupError) as error:
        raise MisuseError(
            f"{kind.__name__} cannot be made of {path!r} and {dict(options)!r}: {error}"
        ) from error
    handler.setFormatter(LineFormatter("%Y/%m/%d %H:%M:%S"))
    return handler


def _caught(reason: str, where: str) -> None:
    error = sys.exc_info()[1]
    if isinstance(error, Exception):
        DIAGNOSTICS.caught(reason, where, error)


def _colour(level: int) -> str:
    if level >= logging.ERROR:
        return _RED
    if level >= logging.WARNING:
        return _YELLOW
    return _GREEN if level <= logging.DEBUG else ""
