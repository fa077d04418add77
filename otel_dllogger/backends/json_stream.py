"""A backend that writes DLLogger's JSON lines, which are in the kernel before ``log`` returns."""

from __future__ import annotations

import os
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

from otel_dllogger import arguments, settings
from otel_dllogger.backends.open_files import close_append_file, open_append_file
from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.identity import detect_topology
from otel_dllogger.logger import RecordBackend, logger_of
from otel_dllogger.record import HANG, OK, OPEN
from otel_dllogger.runtime.interruptions import let_through
from otel_dllogger.values import to_plain

if TYPE_CHECKING:
    from otel_dllogger.backends.append_file import AppendFile
    from otel_dllogger.hangs.watch import HangWatch
    from otel_dllogger.record import Event, Info, Metadata, Phase, Record

_SECOND_US = 1_000_000
_MOST_PHASES = 100
_FIELDS = ("{rank}", "{run}", "{host}")
_ANY_FIELD = re.compile(r"\{[^{}/]*\}")


class JSONStreamBackend(RecordBackend):
    """A backend that writes one line of JSON per call, as DLLogger does, with one ``write`` each.

    Args:
        verbosity: The highest verbosity of a ``log`` call that is written.
        filename: The file, a ``str`` or a path. ``{rank}``, ``{run}`` and ``{host}`` in it are
            filled in, so that ``"{run}_rank{rank}.json"`` means one file per rank; any other field
            stays as it is, with a warning.
        append: Whether to keep the content of the file; otherwise it is emptied, as DLLogger
            does.
        hang_seconds: How many seconds without a record are a hang, after which the stacks of all
            threads are appended to ``<filename>.stacks``, with an event ``hang``. ``"auto"`` is
            ten times the usual interval between records, from 60 to 300 seconds; 0 watches
            nothing. By default OTEL_DLLOGGER_HANG_SECONDS, else 0.

    Raises:
        OSError: If the file cannot be opened, for a reason that will not pass.
        ConfigurationError: If ``filename`` is not a path, or ``hang_seconds`` is invalid.
    """

    def __init__(
        self,
        verbosity: int,
        filename: str | os.PathLike[str],
        append: bool = False,
        *,
        hang_seconds: float | str | None = None,
    ) -> None:
        super().__init__(verbosity)
        settings.warn_of_unknown()
        arguments.path("filename", filename, step="pass one such as 'log_rank{rank}.json'")
        hang_limit = settings.hang_limit(hang_seconds)
        # Imported here, since importing orjson would add half to the time that importing the
        # package takes.
        from orjson import dumps  # noqa: PLC0415

        from otel_dllogger.json_encoding import encode_record, encode_spaced  # noqa: PLC0415

        self._encode_number = dumps
        self._encode_record = encode_record
        self._encode_spaced = encode_spaced
        self._filename = _fill_in(filename)
        self.file: AppendFile = open_append_file(self._filename, append=append, user=self)
        self._second = _Second(0)
        self._phases: dict[tuple[str, bool], bytes] = {}
        self._local_rank = detect_topology().local_rank
        self._hang_watch = self._watch_for_hangs(hang_limit) if hang_limit else None

    def _watch_for_hangs(self, limit: float | str) -> HangWatch | None:
        from otel_dllogger.hangs.watch import HangWatch  # noqa: PLC0415 - rarely needed

        if self.file.regular:
            return HangWatch(self, None if limit == settings.AUTO else float(limit))
        DIAGNOSTICS.warn(
            "hang stacks",
            f"{self.file.name} is not a file, so there is no place for stacks beside it: hangs are "
            "not watched for; write the log to a file",
        )
        return None

    @property
    def log_path(self) -> str:
        """Return the path of the file."""
        return os.fsdecode(self.file.name)

    @property
    def log_end(self) -> int:
        """Return where in the file the last line ended that this process wrote."""
        return self.file.end

    def report_hang(self, data: dict[str, Any], step: Any) -> None:
        """Log that the training hangs, for all backends of the Logger that has this one.

        Args:
            data: The ``file`` with the stacks, if it could be written, the ``seconds`` without a
                record, and the ``open_phases``.
            step: The last step, None if it is not known.
        """
        logger = logger_of(self)
        if logger is not None:
            logger.event(HANG, data, step=step)

    def write_record(self, record: Record) -> None:
        """Write a LOG line.

        It is assembled from bytes, in a third of the time of ``json.dumps``:

            DLLL {"timestamp": "1700000000.25", "datetime": "2023-11-14 22:13:20.250000+00:00",
            "elapsedtime": "1.5", "type": "LOG", "step": [0, 1], "data": {"loss":0.5}}

        Both times are text as DLLogger writes them: ``str`` of a float and of a datetime. All
        lines of the same second share them, except for the fraction.
        """
        second = self._second
        microsecond = record.time_us - second.start_us
        if not 0 <= microsecond < _SECOND_US:
            second = self._second_of(record.time_us)
            microsecond = record.time_us - second.start_us
        local = second.datetime
        local_fraction = fraction = b"%06d" % microsecond
        # str() of a float has no zeros at its end, except one right after the point: 1.25, 1.0.
        # That of a datetime has six digits, or neither point nor digits; the shared part ends in
        # the point.
        if not microsecond % 10:
            fraction = fraction.rstrip(b"0") or b"0"
            if not microsecond:
                local, local_fraction = local[:-1], b""
        step = None
        if record.is_pair:
            try:  # with the blanks of ``json.dumps``, like everything but the data
                step = b'", "type": "LOG", "step": [%d, %d], "data": ' % record.step
            except ValueError as error:  # more digits than Python converts
                let_through(error)
                step = None
        if step is None:
            encoded_step = self._encode_spaced(to_plain(record.step))
            step = b'", "type": "LOG", "step": %b, "data": ' % encoded_step
        elapsed_us = record.elapsed_us
        elapsed = elapsed_us / 1e6
        self.file.write_line(
            b"".join(
                (
                    second.timestamp,
                    fraction,
                    local,
                    local_fraction,
                    second.offset,
                    # orjson writes the same digits as ``str`` in a third of its time, except
                    # below 0.1 ms, where ``str`` uses an exponent: 9e-05 and 0.00009.
                    self._encode_number(elapsed) if elapsed_us > 99 else b"%a" % elapsed,
                    step,
                    record.encoded or self._encode_record(record),
                    b"}\n",
                )
            )
        )

    def write_metadata(self, metadata: Metadata) -> None:
        """Write a METADATA line."""
        self._write_entry(
            b"DLLL",
            {
                "timestamp": str(metadata.time_us / 1e6),
                "elapsedtime": str(metadata.elapsed_s),
                "datetime": str(metadata.timestamp.astimezone()),
                "type": "METADATA",
                "metric": to_plain(metadata.metric),
                "metadata": to_plain(metadata.metadata),
            },
        )

    def write_info(self, info: Info) -> None:
        """Write an INFO line, as TCAP DLLogger does."""
        self._write_entry(
            b"INFO",
            {
                "local_rank": self._local_rank,
                "datetime": str(info.timestamp),
                "type": "INFO",
                "data": to_plain(info.data),
            },
        )

    def write_phase(self, phase: Phase) -> None:
        """Write a PHASE line, or a PHASE_BEGIN line for a phase that is announced.

        DLLogger has no such lines; readers of its format skip them by their type. A tight loop
        writes one for each wait for data, so they are assembled from bytes as well:

            DLLL {"timestamp": "1700000000.250000", "datetime": "2023-11-14 22:13:20.250000+00:00",
            "elapsedtime": "1.5", "type": "PHASE", "name": "checkpoint", "begin": 1699999998.25,
            "seconds": 2.0, "self_seconds": 2.0, "step": [0, 1], "outcome": "ok"}
        """
        is_open = phase.outcome == OPEN
        middle = self._phases.get((phase.name, is_open))
        if middle is None:
            kind = b"PHASE_BEGIN" if is_open else b"PHASE"
            name = self._encode_spaced(phase.name)
            middle = b'", "type": "%b", "name": %b, "begin": ' % (kind, name)
            if len(self._phases) < _MOST_PHASES:
                self._phases[phase.name, is_open] = middle
        second = self._second
        if not 0 <= (microsecond := phase.time_us - second.start_us) < _SECOND_US:
            second = self._second_of(phase.time_us)
            microsecond = phase.time_us - second.start_us
        fraction = b"%06d" % microsecond
        number = self._encode_number
        seconds = number(phase.duration_us / 1e6)
        if phase.outcome == OK and phase.step is None and not phase.is_overlapping:
            end = b', "step": null, "outcome": "ok"}\n'
        else:
            end = b', "step": %b%b%b}\n' % (
                self._encode_spaced(to_plain(phase.step)),
                b"" if is_open else b', "outcome": "%b"' % phase.outcome.encode(),
                b', "overlapped": true' if phase.is_overlapping else b"",
            )
        self.file.write_line(
            b"".join(
                (
                    second.timestamp,
                    fraction,
                    second.datetime,
                    fraction,
                    second.offset,
                    number(phase.elapsed_us / 1e6),
                    middle,
                    number((phase.time_us - phase.duration_us) / 1e6),
                    b', "seconds": ',
                    seconds,
                    b', "self_seconds": ',
                    seconds if phase.self_us == phase.duration_us else number(phase.self_us / 1e6),
                    end,
                )
            )
        )

    def write_event(self, event: Event) -> None:
        """Write an EVENT line."""
        self._write_entry(
            b"DLLL",
            {
                "timestamp": str(event.time_us / 1e6),
                "elapsedtime": str(event.elapsed_s),
                "datetime": str(event.timestamp.astimezone()),
                "type": "EVENT",
                "name": event.name,
                "step": to_plain(event.step),
                "data": event.plain,
            },
        )

    def flush(self) -> None:
        """Write again what the disk refused before; nothing else is held back."""
        self.file.flush()

    def settle(self) -> None:
        """Count what the disk has not taken when the process exits; later lines still land."""
        self.file.close()

    def close(self) -> None:
        """Flush and close the file, once all that share it do; a later line opens it again."""
        if self._hang_watch is not None:
            self._hang_watch.close()
        close_append_file(self.file, self)

    def _write_entry(self, prefix: bytes, entry: dict[str, Any]) -> None:
        self.file.check_path()  # for a script that logs hardly any steps
        self.file.write_line(b"%b %b\n" % (prefix, self._encode_spaced(entry)))

    def _second_of(self, time_us: int) -> _Second:
        """Format what the lines of one second share, and check the path once per second."""
        self.file.check_path()
        second = self._second = _Second(time_us // _SECOND_US)
        return second


class _Second:
    """The text that all LOG lines of one second share: everything around the fractions.

    Args:
        number: Seconds since the Unix epoch.
    """

    __slots__ = ("datetime", "offset", "start_us", "timestamp")

    def __init__(self, number: int) -> None:
        text = str(datetime.fromtimestamp(number).astimezone())  # 19 characters and the offset
        self.start_us = number * _SECOND_US
        self.timestamp = f'DLLL {{"timestamp": "{number}.'.encode()
        self.datetime = f'", "datetime": "{text[:19]}.'.encode()
        self.offset = f'{text[19:]}", "elapsedtime": "'.encode()


def _fill_in(filename: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """Fill in ``{rank}``, ``{run}`` and ``{host}``; other braces stay as they are."""
    text = os.fspath(filename)
    if not isinstance(text, str):
        return filename
    fields = frozenset(_ANY_FIELD.findall(text))
    unknown = sorted(fields.difference(_FIELDS))
    if unknown:
        DIAGNOSTICS.warn(
            f"file name {text[:80]}",
            f"{' and '.join(unknown)} in the file name {text!r} is not filled in: the fields are "
            "{rank}, {run} and {host}",
        )
    if fields.isdisjoint(_FIELDS):
        return filename
    topology = detect_topology()
    for field, value in zip(_FIELDS, (topology.rank, topology.run, topology.host), strict=True):
        text = text.replace(field, str(value).replace("/", "_"))
    return text
