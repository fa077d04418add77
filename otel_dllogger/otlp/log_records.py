"""Events, ``info`` calls and parameters as OTLP log records.

Each has an event name, so that a log store can select by it. Secrets are left out by the rules of
the parameters that are labels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry.proto.logs.v1.logs_pb2 import (
    SEVERITY_NUMBER_INFO,
    SEVERITY_NUMBER_WARN,
    LogRecord,
)

from otel_dllogger.json_encoding import encode_spaced
from otel_dllogger.metrics.naming import label_text
from otel_dllogger.otlp.any_value import any_value, key_values
from otel_dllogger.record import Event, Info, Record
from otel_dllogger.redaction import REDACTED, redact, redact_arguments
from otel_dllogger.secret_names import is_secret_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TypeGuard

LogEntry = Event | Info | Record
"""What becomes a log record; of records, those of parameters."""

INFO_EVENT = "dllogger.info"
PARAMETER_EVENT = "dllogger.parameter"
HANG_EVENT = "hang"

INFO = (SEVERITY_NUMBER_INFO, "INFO")
WARN = (SEVERITY_NUMBER_WARN, "WARN")

MAX_BODY_BYTES = 256 << 10
"""About how many bytes a body may have before it is left out: what common log stores take.

This also bounds the text that is searched for secrets."""

MAX_DEPTH = 16
"""The levels of a body, each of which is three messages of OTLP: some parsers take only 100."""

_VALUE_BYTES = 16  # of a value's messages, apart from its text
_LAST_TIME_US = 2**63 // 1000 - 1  # nanoseconds in 64 bits: the year 2262


def encode_log_record(
    entry: LogEntry, labels: Mapping[str, str], observed_us: int | None = None
) -> bytes:
    """Return an entry as the bytes of a ``LogRecord``.

    Args:
        entry: An event, an ``info`` call or a record of parameters, with plain data.
        labels: The attributes that tell whose it is.
        observed_us: When it was read from a log, microseconds since the Unix epoch; None for
            what was logged in this process.
    """
    name, attributes = _name(entry), dict(labels)
    if isinstance(entry, Event) and entry.step is not None:
        attributes["step"] = encode_spaced(entry.step).decode()
    number, text = WARN if name == HANG_EVENT else INFO
    record = LogRecord(
        time_unix_nano=_nanoseconds(entry.time_us),
        observed_time_unix_nano=_nanoseconds(entry.time_us if observed_us is None else observed_us),
        severity_number=number,
        severity_text=text,
        event_name=name,
        attributes=key_values(attributes),
    )
    plain = entry.plain
    if plain is not None:
        record.body.CopyFrom(any_value(_body(plain)))
    encoded: bytes = record.SerializeToString()
    return encoded


def becomes_log_record(entry: object) -> TypeGuard[LogEntry]:
    """Return whether an entry is sent as a log record, apart from what metrics it makes."""
    return isinstance(entry, (Event, Info)) or (isinstance(entry, Record) and entry.is_parameter)


def _name(entry: LogEntry) -> str:
    if isinstance(entry, Event):
        return label_text(entry.name)
    return INFO_EVENT if isinstance(entry, Info) else PARAMETER_EVENT


def _nanoseconds(time_us: int) -> int:
    return min(max(time_us, 0), _LAST_TIME_US) * 1000


def _body(plain: Any) -> Any:
    try:
        return _Redaction().of(plain, "", 0)
    except _TooLargeError:
        return f"[more than {MAX_BODY_BYTES >> 10} KiB are not sent; a JSON log has them]"


class _TooLargeError(Exception):
    """Raised if a body has more than ``MAX_BODY_BYTES``."""


class _Redaction:
    """The redaction of the values in one body."""

    def __init__(self) -> None:
        self._left_bytes = MAX_BODY_BYTES

    def of(self, value: Any, path: str, depth: int) -> Any:
        """Return a plain value without secrets.

        Args:
            value: The value.
            path: The names that lead to it, joined by dots.
            depth: The number of mappings and lists around it.

        Raises:
            _TooLargeError: If there are too many values.
        """
        self._spend(_VALUE_BYTES)
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, (dict, list, tuple)) and depth >= MAX_DEPTH:
            return f"[nested deeper than {MAX_DEPTH} levels; a JSON log has it]"
        if isinstance(value, dict):
            return self._mapping(value, path, depth)
        if isinstance(value, (list, tuple)):
            return self._sequence(value, path, depth)
        return value

    def _sequence(self, items: Sequence[Any], path: str, depth: int) -> list[Any]:
        if not all(isinstance(item, str) for item in items):
            return [
                REDACTED if _is_secret(path, item) else self.of(item, path, depth + 1)
                for item in items
            ]
        self._spend(_VALUE_BYTES * len(items))
        texts = [REDACTED if _is_secret(path, item) else self._text(item) for item in items]
        return redact_arguments(texts)  # as of a command line, perhaps

    def _text(self, text: str) -> str:
        safe = redact(text)
        self._spend(len(safe))
        return safe

    def _mapping(self, mapping: dict[str, Any], path: str, depth: int) -> dict[str, Any]:
        safe = {}
        for name, value in mapping.items():
            inner = f"{path}.{name}" if path else name
            if not _is_secret(inner, value):
                self._spend(len(name))
                safe[name] = self.of(value, inner, depth + 1)
        return safe

    def _spend(self, size_bytes: int) -> None:
        self._left_bytes -= size_bytes
        if self._left_bytes < 0:
            raise _TooLargeError


def _is_secret(path: str, value: object) -> bool:
    """Return whether a value is a secret by its name; what has values is looked into instead."""
    return not isinstance(value, (dict, list, tuple)) and is_secret_name(path, value)
