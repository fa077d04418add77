"""How lines of text leave a logger: MMEngine's form, whole, counted where they cannot.

The handlers of ``logging``, but for what would cost lines or time in a training: a fork beside
a write, a set-up of logging that closes all handlers, a full disk.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

from otel_dllogger.backends.stdout import write_line
from otel_dllogger.faults import FAULTS
from otel_dllogger.training.faults import MisuseError
from otel_dllogger.values import safe_repr, safe_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAX_WARNINGS = 4_096
"""Different warnings that one handler remembers; after those it begins anew."""

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
            FAULTS.drop(
                "format_failed",
                f"the message {safe_repr(record.msg)[:100]} with its arguments raised "
                f"{type(error).__name__}: the line shows the plain values instead",
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

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        try:
            write_line(self.stream, self.format(record) + self.terminator)
            self.flush()
        except Exception:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802 - logging's
        """Count a line that the output did not take."""
        FAULTS.drop("stdout", f"the standard output does not take a line: {sys.exc_info()[1]}")

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
    """Count what the disk did not take, and outlive what closes all handlers."""

    def _open(self) -> Any:
        raw = WholeWrites(self.baseFilename, self.mode.replace("t", ""))
        # logging.config closes the handlers of all loggers; the next line opens this one
        # again, which must neither truncate the file nor be refused.
        self.mode = "a"
        raw_as_any: Any = raw
        return io.TextIOWrapper(raw_as_any, self.encoding, self.errors, write_through=True)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802 - logging's
        """Count a line that the disk did not take."""
        FAULTS.drop("disk_full", f"{self.baseFilename} does not take a line: {sys.exc_info()[1]}")


class WholeWrites(io.FileIO):
    """Write each line to its end, without the buffer of ``open``.

    The buffer has a lock that no fork renews: a child forked while another thread writes would
    wait for it for ever. And it would keep the lines of a full disk to the end of the process.
    """

    _is_torn = False

    def write(self, data: Any) -> int:
        """Write all of the data, on a new line where the last one was cut."""
        rest = b"\n" + data if self._is_torn else data
        while rest:
            written = super().write(rest)
            if written is None:
                raise BlockingIOError("a descriptor that does not wait has no room")
            rest = rest[written:]
            self._is_torn = bool(rest)
        return len(data)


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


def _colour(level: int) -> str:
    if level >= logging.ERROR:
        return _RED
    if level >= logging.WARNING:
        return _YELLOW
    return _GREEN if level <= logging.DEBUG else ""
