"""Send every step of logs to a collector, and save the progress, so that none is sent twice."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from otel_dllogger.bridge.otlp_forwarder import OTLPForwarder, sent_ranks
from otel_dllogger.errors import BackfillError
from otel_dllogger.logs.findings import Announcements
from otel_dllogger.otlp.patience import Refused, Stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from otel_dllogger.logs.source import Source
    from otel_dllogger.logs.whole_logs import FoundLog
    from otel_dllogger.otlp.patient_exporter import PatientExporter


class SentLogs(NamedTuple):
    """What a backfill over OTLP did.

    Attributes:
        lines: Lines that were read.
        left_out: Points that are outside of the time range that was asked for.
        is_any_there: Whether anything of the logs was ever sent, now or by an earlier backfill.
    """

    lines: int
    left_out: int
    is_any_there: bool


def send_logs(
    logs: Iterable[FoundLog],
    source: Source,
    exporter: PatientExporter,
    folder: Path,
    *,
    target: str,
    since_us: int | None,
    until_us: int | None,
    progress: Callable[[int], object],
    tell: Callable[[str], object] = lambda _line: None,
) -> SentLogs:
    """Send every step of all logs that was not sent yet.

    Args:
        logs: The logs, in the order in which they are to be read.
        source: How to read them.
        exporter: Sends points.
        folder: The folder that stores how far each log was sent.
        target: The collector's URL, for error messages.
        since_us: Earlier points are left out; microseconds since the Unix epoch.
        until_us: Points from this time on are left out.
        progress: Called with the size of each log that is done.
        tell: Takes what makes the records of a log doubtful, in one line.

    Returns:
        What was done; the exporter knows how much it has sent.

    Raises:
        BackfillError: If the collector does not accept them.
    """
    ranks = sent_ranks(source)
    lines = left_out = 0
    is_any_there = False
    announcements = Announcements(tell)
    for log in logs:
        checkpoint = folder / _digest(os.path.realpath(log.path))
        was_sent = checkpoint.exists()
        answered = exporter.sent + exporter.refused
        forwarder = OTLPForwarder(
            # All paths that were given determine the name of the run, not this one alone.
            dataclasses.replace(source, paths=(log.path,), run=log.identity.run),
            exporter,
            ranks=ranks,
            checkpoint=str(checkpoint),
            since_us=since_us,
            until_us=until_us,
            is_watched=True,
        )
        try:
            forwarder.run_to_end()
        except Refused as error:
            raise BackfillError(
                f"{target} refuses the metrics ({error}): correct the address, or the headers that "
                "it needs, and run the same command again; it continues where it stopped"
            ) from None
        except Stopped as error:
            raise BackfillError(
                f"{target} does not accept the metrics ({error}): start the collector and run the "
                "same command again; it continues where it stopped"
            ) from None
        finally:
            forwarder.close()
        if exporter.sent + exporter.refused > answered:
            was_sent = True
        elif not was_sent:  # a checkpoint stands for a log that something was sent of
            for name in (checkpoint, f"{checkpoint}.sent"):
                Path(name).unlink(missing_ok=True)
        is_any_there = is_any_there or was_sent
        announcements.announce(
            (path, findings.found().all()) for path, findings in forwarder.new_findings()
        )
        lines += forwarder.lines
        left_out += forwarder.left_out
        progress(log.size_bytes)
    return SentLogs(lines, left_out, is_any_there)


def checkpoint_folder(source: Source, target: str, since: str | None, until: str | None) -> Path:
    """Return where to save how far logs were sent, by collector, time range and way to read them.

    Args:
        source: How they are read.
        target: The collector's URL.
        since: When the time range begins, in the user's words.
        until: When it ends.
    """
    home = os.environ.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser()
    how = dataclasses.replace(source, paths=())
    key = f"{target.rstrip('/')} {since} {until} {how}"
    return Path(home, "otel-dllogger", "backfill", _digest(key))


def make_folder(folder: Path) -> None:
    """Make a checkpoint's folder if there is none yet.

    Raises:
        BackfillError: If it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BackfillError(
            f"{folder} cannot be created ({error.strerror}): name another folder with --checkpoint"
        ) from None


def _digest(text: str) -> str:
    return hashlib.blake2b(os.fsencode(text), digest_size=10).hexdigest()
