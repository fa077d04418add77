"""A backend that prints DLLogger's lines of text to standard output, with one write per line."""

from __future__ import annotations

import inspect
import io
import os
import sys
from collections import defaultdict
from typing import TYPE_CHECKING, Any, TextIO

from otel_dllogger import arguments, settings
from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.identity import detect_topology
from otel_dllogger.logger import MAX_NAMES, RecordBackend
from otel_dllogger.record import parse_rank
from otel_dllogger.runtime.interruptions import let_through
from otel_dllogger.values import safe_repr, safe_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from otel_dllogger.record import Info, Metadata, Record, Timed

MAX_ERRORS_IN_A_ROW = 10
"""The number of consecutive failures after which the backend gives up the output."""


def default_step_format(step: Any) -> str:
    """Return a step as text, in DLLogger's format."""
    return str(step)


def default_metric_format(metric: Any, metadata: Any, value: Any) -> str:
    """Return a metric as ``name : value unit``, as DLLogger does.

    Args:
        metric: The metric's name.
        metadata: The metric's metadata; ``format`` (such as ``":.3f"``) and ``unit`` are used.
        value: The value as the user logged it.

    Raises:
        Exception: Whatever ``str.format`` raises for a malformed ``format``.
    """
    unit = metadata.get("unit", "")
    form = metadata.get("format", "")
    if not isinstance(form, str):  # adding anything else could run the user's code
        raise TypeError(f"{form!r:.80} is not a format; pass one such as ':.3f'")
    template = "{" + form + "}"
    return f"{metric} : {value if value is None else template.format(value)} {unit}"


def default_prefix_format(timestamp: datetime) -> str:
    """Return the beginning of a line, in DLLogger's format."""
    return f"DLL {timestamp} - "


class StdOutBackend(RecordBackend):
    """A backend that prints one line of text per ``log`` and ``info`` call.

    Args:
        verbosity: The highest verbosity of a ``log`` call that is printed.
        step_format: Returns a step as text; called with ``(step)``.
        metric_format: Returns a metric as text; called with ``(metric, metadata, value)``.
        prefix_format: Returns the beginning of the line; called with ``(timestamp)``, or as in
            TCAP DLLogger with ``(rank, timestamp)``.
        line_format: Returns the whole line of a ``log`` call, or None for the usual line; called
            with ``(timestamp, step, data)``. ``training.mmengine_line`` is an example.

    Raises:
        ConfigurationError: If one of the formats is not a function.
    """

    def __init__(
        self,
        verbosity: int,
        step_format: Callable[[Any], str] = default_step_format,
        metric_format: Callable[[Any, Any, Any], str] = default_metric_format,
        prefix_format: Callable[..., str] = default_prefix_format,
        *,
        line_format: Callable[[datetime, Any, Any], str | None] | None = None,
    ) -> None:
        super().__init__(verbosity)
        settings.warn_of_unknown()
        formats = {
            "step_format": step_format,
            "metric_format": metric_format,
            "prefix_format": prefix_format,
        }
        for name, value in formats.items():
            arguments.function(name, value, step="pass one, or leave it out for DLLogger's")
        if line_format is not None:
            step = "pass one, such as otel_dllogger.training.mmengine_line"
            arguments.function("line_format", line_format, step=step)
        # Scripts write to this as in DLLogger; we read it without adding keys.
        self._metadata: defaultdict[Any, dict[Any, Any]] = defaultdict(dict)
        self.step_format = step_format
        self.metric_format = metric_format
        self.prefix_format = prefix_format
        self.line_format = line_format
        self._errors_in_a_row = 0
        self._known_prefix_format: object = default_prefix_format
        self._prefix_takes_rank = False
        self._own_rank: int | None = None

    def write_record(self, record: Record) -> None:
        """Print ``prefix step metric metric ...``, or the line that ``line_format`` returns."""
        if self.line_format is not None:
            line = self._whole_line(self.line_format, record)
            if line is not None:
                self._print(line)
                return
        try:
            step = self.step_format(record.step)
        except Exception as error:
            step = _unformatted("step_format", record.step, error)
        try:
            items = list(record.data.items())  # at once: another thread may change it
        except Exception as error:  # usually because it is not a dict
            let_through(error)
            metrics = safe_text(record.data)
        else:
            metrics = " ".join([self._metric_text(name, value) for name, value in items])
        self._print(f"{self._prefix(record, record.data)}{step} {metrics}")

    def write_metadata(self, metadata: Metadata) -> None:
        """Remember a metric's metadata for its lines."""
        try:
            if metadata.metric in self._metadata or len(self._metadata) < MAX_NAMES:
                self._metadata.setdefault(metadata.metric, {}).update(metadata.metadata)
        except Exception as error:  # not a mapping, or not a name
            let_through(error)
            DIAGNOSTICS.count(
                "format_failed",
                f"the metadata of {safe_repr(metadata.metric)} are not a dict: pass one, as in "
                "metadata('loss', {'unit': 's'})",
            )

    def write_info(self, info: Info) -> None:
        """Print ``prefix text``."""
        text = info.data if isinstance(info.data, str) else info.plain
        self._print(f"{self._prefix(info, None)}{text}")

    def _whole_line(
        self, line_format: Callable[[datetime, Any, Any], str | None], record: Record
    ) -> str | None:
        try:
            line = line_format(record.timestamp, record.step, record.data)
            return line if line is None else safe_text(line)
        except Exception as error:
            _unformatted("line_format", record.step, error)
            return None

    def _metric_text(self, name: Any, value: Any) -> str:
        metadata: dict[Any, Any] = {}
        try:
            metadata = self._metadata.get(name, metadata)
            return safe_text(self.metric_format(name, metadata, value))
        except Exception as error:
            text = _unformatted("metric_format", value, error, metadata.get("format"))
            return f"{safe_text(name)} : {text} {safe_text(metadata.get('unit', ''))}"

    def _prefix(self, entry: Timed, data: Any) -> str:
        try:
            prefix_format = self.prefix_format  # scripts may set another one later
            if prefix_format is not self._known_prefix_format:
                self._known_prefix_format = prefix_format
                self._prefix_takes_rank = _takes_rank(prefix_format)
            if self._prefix_takes_rank:
                return prefix_format(self._rank_of(data), entry.timestamp)
            return prefix_format(entry.timestamp)
        except Exception as error:
            _unformatted("prefix_format", entry.timestamp, error)
            return default_prefix_format(entry.timestamp)

    def _rank_of(self, data: Any) -> Any:
        """Return the rank of a record, from its data or else that of the process."""
        if isinstance(data, dict) and "rank" in data:
            rank = parse_rank(data["rank"])
            if rank is not None:
                return rank
        if self._own_rank is None:
            self._own_rank = detect_topology().rank
        return self._own_rank

    def _print(self, line: str) -> None:
        stream = sys.stdout
        if stream is None or self._errors_in_a_row >= MAX_ERRORS_IN_A_ROW:
            DIAGNOSTICS.count(
                "stdout",
                "nothing more is printed: too many writes to the standard output failed in a row",
            )
            return
        try:
            write_line(stream, line + "\n")
            self._errors_in_a_row = 0
        except (OSError, ValueError) as error:  # full, broken pipe; closed
            let_through(error)
            self._errors_in_a_row += 1
            DIAGNOSTICS.count(
                "stdout", f"a line could not be written to the standard output: {error}"
            )


def write_line(stream: TextIO, line: str) -> None:
    """Write a line in one piece, so that lines of ranks on the same terminal do not mix.

    For a text stream on a descriptor this bypasses the stream, whose buffer may be flushed at
    any byte. Anything else that replaces ``sys.stdout`` gets one ``write``, as from ``print``.
    """
    encoding = getattr(stream, "encoding", None) or "utf-8"
    if type(stream) is io.TextIOWrapper and isinstance(stream.buffer, _ON_DESCRIPTOR):
        try:
            stream.flush()
        except RuntimeError as error:  # a signal handler prints while its thread uses the buffer
            let_through(error)
        rest = line.encode(encoding, "backslashreplace")
        while rest:
            rest = rest[os.write(stream.fileno(), rest) :]
        return
    try:
        stream.write(line)
    except UnicodeEncodeError as error:
        let_through(error)
        stream.write(line.encode(encoding, "backslashreplace").decode(encoding))


_ON_DESCRIPTOR = (io.BufferedWriter, io.FileIO)


def _unformatted(what: str, value: object, error: Exception, template: object = None) -> str:
    """Return the ``repr`` of a value that could not be formatted, and count the fault.

    Raises:
        Exception: ``error``, if a signal handler of the application raised it.
    """
    let_through(error)
    of = "" if template is None else f" with format {safe_repr(template)}"
    DIAGNOSTICS.count(
        "format_failed",
        f"{what}{of} raised {type(error).__name__}: the line shows the plain value instead",
    )
    return safe_repr(value)


def _takes_rank(prefix_format: Callable[..., str]) -> bool:
    """Return whether a function takes ``(rank, timestamp)``, as in TCAP DLLogger."""
    try:
        parameters = inspect.signature(prefix_format).parameters.values()
    except (TypeError, ValueError) as error:
        let_through(error)
        return False
    required = [
        p
        for p in parameters
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    return len(required) == 2
