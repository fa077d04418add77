"""Handlers that write log lines whole, in MMEngine's format, and count those that are lost.

They are the handlers of ``logging``, but they survive what would otherwise cost training lines
or time: a fork during a write, a logging set-up that closes all handlers, a full disk.
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

from otel_dllogger.backends.open_files import close_append_file, open_append_file
from otel_dllogger.backends.stdout import write_line
from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.errors import MisuseError
from otel_dllogger.values import safe_repr, safe_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAX_WARNINGS = 4_096
"""How many different warnings one handler remembers; after that it starts over."""

_CHECK_INTERVAL_S = 1.0  # between two checks that a file is still where it was

_LINE = "_otel_dllogger_line"  # attribute of a record: its text, once formatted

_RED, _YELLOW, _GREEN, _PLAIN = "\033[31m", "\033[33m", "\033[32m", "\033[0m"


class LineFormatter(logging.Formatter):
    """A formatter that writes a record as MMEngine does.

    Args:
        datefmt: The format of the time, for ``time.strftime``.
        coloured: Called for each line, returns whether the level's name is coloured; never if
            None.
    """

    def __init__(self, datefmt: str, *, coloured: Callable[[], bool] | None = None) -> None:
        super().__init__(datefmt=datefmt)
        self._coloured = coloured

    def usesTime(self) -> bool:  # noqa: N802 - logging's name
        """Return True: every line has a time."""
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
        """Return the line; if the message does not fit its arguments, show both as they are."""
        try:
            return super().format(record)
        except Exception as error:
            DIAGNOSTICS.caught(
                "format_failed",
                f"{safe_repr(record.msg)[:100]} does not fit its arguments, the line shows both as "
                "they are",
                error,
            )
            text = f"{safe_text(record.msg)} {safe_repr(record.args)}"
            plain = {**record.__dict__, "msg": text, "args": None}
            return super().format(logging.makeLogRecord(plain))


class FirstWarnings(logging.Filter):
    """A filter that passes each warning once; other arguments do not make it another warning."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[int, object] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is not a warning, or is a new one."""
        if record.levelno != logging.WARNING:
            return True
        if len(self._seen) >= MAX_WARNINGS:
            self._seen.clear()
        mine = object()
        # One atomic operation, since a lock could be held when a child is forked. Only the hash
        # is kept, since a message can have any length.
        return self._seen.setdefault(hash(safe_text(record.msg)), mine) is mine


class ConsoleHandler(logging.StreamHandler):  # type: ignore[type-arg] # Python 3.10 cannot say it
    """A handler that writes lines to the current ``sys.stdout``, each in one piece."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)  # StreamHandler's would hold on to a stream
        self._stream: Any = None
        self.setFormatter(LineFormatter("%m/%d %H:%M:%S", coloured=self._takes_colour))

    @property
    def stream(self) -> Any:
        """Return the standard output, or what ``setStream`` replaced it with."""
        return sys.stdout if self._stream is None else self._stream

    @stream.setter
    def stream(self, stream: Any) -> None:
        self._stream = stream

    def handle(self, record: logging.LogRecord) -> bool:
        """Write one record, unless a filter rejects it; no lock is held meanwhile."""
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
        """Flush the stream."""
        if callable(flush := getattr(self.stream, "flush", None)):
            flush()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802 - logging's
        """Count a line that the standard output did not take."""
        _caught("stdout", "a line could not be written to the standard output")

    def _takes_colour(self) -> bool:
        # https://no-color.org and https://force-color.org: a variable counts if it is not empty.
        if os.environ.get("NO_COLOR"):
            return False
        if os.environ.get("FORCE_COLOR"):
            return True
        try:
            return os.environ.get("TERM") != "dumb" and bool(self.stream.isatty())
        except (AttributeError, ValueError, OSError):  # a substitute; closed
            return False


class CountingFile(logging.FileHandler):
    """A file handler as durable as DLLogger's log, which outlives a close of all handlers.

    The handler's lock is held only for work on the file: a message is formatted before that,
    whatever its code does. What a signal handler logs while its own thread writes or rotates
    the file is written afterwards.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self._waiting: deque[tuple[int, logging.LogRecord]] = deque()  # each with its process id
        self._writer: tuple[int, int] | None = None
        super().__init__(*args, **options)

    def _open(self) -> Any:
        file = Lines(self.baseFilename, self.mode, self.encoding, self.errors)
        # logging.config closes the handlers of all loggers. The next line to be logged opens
        # this one again, which must neither empty the file nor be refused.
        self.mode = "a"
        return file

    def handle(self, record: logging.LogRecord) -> bool:
        """Write one record, unless a filter rejects it."""
        passed: Any = self.filter(record)
        if not passed:
            return False
        if isinstance(passed, logging.LogRecord):  # possible from Python 3.12 on
            record = passed
        try:
            line = self.format(record)
        except Exception as error:  # from a user-defined formatter
            DIAGNOSTICS.caught("format_failed", f"a line of {self.baseFilename} is left out", error)
            return False
        formatted = logging.makeLogRecord({**record.__dict__, _LINE: line})
        me = os.getpid(), threading.get_ident()
        self._waiting.append((me[0], formatted))
        self.acquire()
        try:
            # Unless this is a signal handler that interrupted its own thread in the middle of a
            # write: that write goes on, and takes this record as well.
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
                if process == me[0]:  # otherwise the parent's, which writes it itself
                    self.emit(formatted)
        finally:
            self._writer = None

    def format(self, record: logging.LogRecord) -> str:
        """Return a record's line, which may have been formatted already."""
        line: str | None = record.__dict__.get(_LINE)
        return super().format(record) if line is None else line

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802 - logging's
        """Count a line that could not be written, for example because a rotation failed."""
        _caught("disk_full", f"a line could not be written to {self.baseFilename}")


class Lines:
    """A stream for a handler, whose lines go to an ``AppendFile``.

    Args:
        path: The file.
        mode: ``w``, ``a`` or ``x``, as for ``open``.
        encoding: The encoding; None is UTF-8.
        errors: How to handle characters that it cannot encode.

    Raises:
        ValueError: If the mode is not one of these.
        OSError: If the file cannot be opened.
    """

    def __init__(self, path: str, mode: str, encoding: str | None, errors: str | None) -> None:
        self._encoding, self._errors = encoding or "utf-8", errors or "backslashreplace"
        "".encode(self._encoding, self._errors)
        if mode.replace("t", "").replace("+", "") not in {"w", "a", "x"}:
            raise ValueError(f"invalid mode: {mode!r}")
        if "x" in mode and os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        self._file = open_append_file(path, append="w" not in mode, user=self)
        self._file.check_path()  # one that is open already may have been renamed
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
        """Close the file, once all that share it do."""
        close_append_file(self._file, self)

    def fileno(self) -> int:
        """Return the descriptor, for handlers that watch the file."""
        return self._file.fileno()

    def seek(self, _offset: int, _whence: int = 0) -> None:
        """Do nothing: a line is always written at the end."""

    def tell(self) -> int:
        """Return the size of the file in bytes, for handlers that rotate it."""
        try:
            return os.fstat(self._file.fileno()).st_size
        except OSError:  # closed
            return 0


def open_file_handler(
    path: str, kind: type[logging.FileHandler], options: Mapping[str, Any]
) -> logging.FileHandler:
    """Return a handler that writes MMEngine's lines to a file; make the file's folder.

    Args:
        path: The file.
        kind: ``logging.FileHandler``, or a class derived from it.
        options: The other arguments of the class.

    Raises:
        MisuseError: If the class does not take these options.
        OSError: If the file cannot be opened.
    """
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)  # noqa: PTH103, PTH120
    counting: Any = type(kind.__name__, (CountingFile, kind), {})
    try:
        # Neither a locale nor half a surrogate pair in a file name may cost the line.
        own = {"encoding": "utf-8", "errors": "backslashreplace", **options}
        # Opened last: if TimedRotatingFileHandler refuses an argument, it leaves its file open.
        handler: logging.FileHandler = counting(path, **{**own, "delay": True})
        if not own.get("delay"):
            handler.stream = handler._open()  # noqa: SLF001 - documented
    except (TypeError, ValueError, LookupError) as error:
        raise MisuseError(
            f"{kind.__name__} cannot be created with {path!r} and {dict(options)!r}: {error}"
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
