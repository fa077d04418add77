"""A run of real ranks with real faults, watched by a Prometheus with the shipped rules.

Time is compressed: what takes the rules an hour takes a test minutes.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.support.paths import ROOT, TESTS
from tests.support.prometheus import Prometheus, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

SHIPPED = ROOT / "prometheus"
DISCOVERY = "/var/run/dllogger"
SCRAPE_INTERVAL_S = 15.0

_TRAIN_RANK = TESTS / "scripts" / "train_rank.py"
_LAUNCHERS = ("OTEL_", "SLURM_", "TORCHELASTIC_", "PBS_", "LSB_", "PMI_", "OMPI_", "RANK", "LOCAL_")

_DURATION = r"\d+(?:ms|[smhdwy])\b"
_SETTINGS = r"(?:\w+_(?:interval|timeout|window)|interval|for|keep_firing_for)"
# Where a duration may be: on the right of a setting, in a range or subquery, after offset.
_PLACES = re.compile(
    rf"(?:^\s*(?:- )?{_SETTINGS}:\s*{_DURATION})"
    rf"|(?:\[\s*{_DURATION}\s*(?::\s*(?:{_DURATION})?\s*)?\])"
    rf"|(?:\boffset\s+-?{_DURATION})",
    re.MULTILINE,
)
_UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_ANNOTATIONS = re.compile(r"(^( *)annotations:.*\n(?:\2 +.*\n|\n)*)", re.MULTILINE)
_SECONDS = re.compile(
    r"(record:\s*[\w:]+_seconds\s+expr:\s*vector\()(\d+(?:\.\d+)?)(?=\))", re.MULTILINE
)

# A rate that is made by hand is divided by the seconds of its range.
_OF_A_RANGE = re.compile(rf"(\[{_DURATION}\]\) / )(\d+)\b")


def lapse(text: str, factor: float) -> str:
    """Divide only the durations of a Prometheus configuration or rule file.

    Args:
        text: The content of the file; the ``vector(N)`` of its recording rules is in seconds.
        factor: How much faster time should pass.
    """

    def shorter(found: re.Match[str]) -> str:
        return re.sub(_DURATION, lambda token: _divide(token[0], factor), found[0])

    def fewer(found: re.Match[str]) -> str:
        return f"{found[1]}{float(found[2]) / factor:g}"

    # The texts of alerts are left alone: every third piece is one, after its indentation.
    pieces = _ANNOTATIONS.split(text)
    del pieces[2::3]
    for number in range(0, len(pieces), 2):
        piece = _OF_A_RANGE.sub(fewer, pieces[number])
        pieces[number] = _SECONDS.sub(fewer, _PLACES.sub(shorter, piece))
    return "".join(pieces)


def _divide(token: str, factor: float) -> str:
    unit = token.lstrip("0123456789")
    milliseconds = int(token.removesuffix(unit)) * _UNITS_MS[unit] / factor
    # In the same unit, or the next smaller one that gives a whole number.
    for smaller, size_ms in sorted(_UNITS_MS.items(), key=lambda item: -item[1]):
        if size_ms <= _UNITS_MS[unit] and milliseconds % size_ms == 0:
            return f"{int(milliseconds / size_ms)}{smaller}"
    return f"{max(round(milliseconds), 1)}ms"


def shipped_configuration(
    folder: Path, *, discovery: Path, factor: float = 1, source: Path = SHIPPED
) -> Path:
    """Copy the shipped configuration with its rules, for another discovery folder.

    Args:
        folder: Where to copy it; must not exist yet.
        discovery: The folder with a file_sd file per rank.
        factor: How much faster time should pass.
        source: What to copy.

    Returns:
        The copy of ``prometheus.yml``.
    """
    for path in sorted(source.rglob("*.yml")):
        copy = folder / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text().replace(DISCOVERY, str(discovery))
        copy.write_text(lapse(text, factor))
    return folder / "prometheus.yml"


@dataclass(frozen=True)
class Part:
    """The part that one rank plays.

    Attributes:
        run: The run that it belongs to.
        rank: The number of the rank.
        world_size: The number of ranks.
        fault: What goes wrong, or nothing.
        at_s: When it goes wrong, in seconds of the rank's own training.
        for_s: How long it lasts, in seconds; 0 means for good.
        epochs: How long to train; the default takes longer than the test.
        script: What the rank executes.
        options: Further options of the script.
        linger_s: OTEL_DLLOGGER_LINGER_SECONDS; None leaves the default.
    """

    run: str
    rank: int
    world_size: int
    fault: str | None = None
    at_s: float = 0.0
    for_s: float = 0.0
    epochs: int = 50
    script: Path = _TRAIN_RANK
    options: Mapping[str, Any] = field(default_factory=dict, compare=False)
    linger_s: float | None = 30.0


class RankProcess:
    """The process of one rank, started as by torchrun, and its output.

    Args:
        part: What the rank does.
        folder: Where all ranks write.
        discovery: Where the rank announces itself.
        attempt: The number of restarts before this one.
        port: The port of its page; 0 means any.
    """

    def __init__(
        self, part: Part, folder: Path, discovery: Path, *, attempt: int = 0, port: int = 0
    ) -> None:
        self.part = part
        self.attempt = attempt
        name = f"{part.run}_{part.rank}_{attempt}"
        self._output = folder / f"stdout_{name}"
        self._errors = folder / f"stderr_{name}"
        options = {
            "folder": str(folder),
            "fault": part.fault if attempt == 0 else None,
            "at_s": part.at_s,
            "for_s": part.for_s,
            "epochs": part.epochs,
            **part.options,
        }
        inherited = {
            key: value for key, value in os.environ.items() if not key.startswith(_LAUNCHERS)
        }
        environment = {
            **inherited,
            "RANK": str(part.rank),
            "LOCAL_RANK": str(part.rank),
            "WORLD_SIZE": str(part.world_size),
            "TORCHELASTIC_RUN_ID": part.run,
            "TORCHELASTIC_RESTART_COUNT": str(attempt),
            # The package adds the local rank to the port.
            "OTEL_EXPORTER_PROMETHEUS_PORT": str(port - part.rank if port else 0),
            "OTEL_DLLOGGER_DISCOVERY_DIR": str(discovery),
            "OTEL_DLLOGGER_STEP_HISTOGRAM": "1",
        }
        if part.linger_s is not None:
            environment["OTEL_DLLOGGER_LINGER_SECONDS"] = f"{part.linger_s:g}"
        with self._output.open("wb") as output, self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, part.script, json.dumps(options)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
            )

    def events(self) -> dict[str, float]:
        """Return the events of the rank with their times in Unix seconds."""
        lines = self._output.read_text().splitlines(keepends=True)
        return dict(json.loads(line) for line in lines if line.endswith("\n"))

    def errors(self) -> str:
        """Return what the rank wrote to its standard error."""
        return self._errors.read_text()


@dataclass(frozen=True)
class AlertHistory:
    """The times of the evaluations at which an alert was in one state."""

    name: str
    state: str
    labels: dict[str, str]
    times_s: list[float]


class TrainingRun:
    """Several runs that train at the same time while Prometheus watches.

    Args:
        folder: Where everything is written.
        parts: What each rank does.
        factor: How much faster the time of the rules passes.
        source: The configuration and rules.
    """

    def __init__(
        self, folder: Path, parts: list[Part], *, factor: float = 10.0, source: Path = SHIPPED
    ) -> None:
        self.factor = factor
        self.folder = folder
        self._parts = parts
        self.discovery = folder / "discovery"
        self.discovery.mkdir()
        configuration = shipped_configuration(
            folder / "prometheus", discovery=self.discovery, factor=factor, source=source
        )
        self.prometheus = Prometheus(
            folder / "prometheus",
            discovery=self.discovery,
            configuration=configuration,
            flags=[f"--query.lookback-delta={_divide('300s', factor)}"],
        )
        self.ranks: list[RankProcess] = []
        self.start_s = self.end_s = 0.0

    def __enter__(self) -> TrainingRun:  # noqa: PYI034 - Self came with Python 3.11
        try:
            self.prometheus.__enter__()
            self.start_s = time.time()
            for part in self._parts:
                self.start(part)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def start(self, part: Part, *, attempt: int = 0, port: int = 0) -> RankProcess:
        """Start a rank, which ends with the run at the latest."""
        one = RankProcess(part, self.folder, self.discovery, attempt=attempt, port=port)
        self.ranks.append(one)
        return one

    def watch(self, is_over: Callable[[], object], *, within_s: float) -> bool:
        """Wait until a condition is true, and restart the ranks that were killed.

        Returns:
            Whether it became true in time; tests report what is missing.
        """
        deadline_s = time.monotonic() + within_s

        def told() -> bool:
            self._restart_killed()
            return bool(is_over()) or time.monotonic() > deadline_s

        wait_for(told, bool, within_s=within_s + 10)
        self.end_s = time.time()
        return time.monotonic() <= deadline_s

    def _restart_killed(self) -> None:
        latest = {(one.part.run, one.part.rank): one for one in self.ranks}
        for one in latest.values():
            code = one.process.poll()
            if code == -signal.SIGKILL and one.part.fault == "restart":
                self.start(one.part, attempt=one.attempt + 1)
            else:
                assert code in (None, 0), (one.part, code, one.errors())

    def when(self, event: str, *, rank: int, run: str) -> float | None:
        """Return when something happened to a rank for the first time, in Unix seconds."""
        times = [
            one.events()[event]
            for one in self.ranks
            if (one.part.run, one.part.rank) == (run, rank) and event in one.events()
        ]
        return min(times, default=None)

    def alerts(self, *, at_s: float | None = None) -> list[AlertHistory]:
        """Return every alert that has been pending or firing so far, with its times."""
        at_s = time.time() if at_s is None else at_s
        answer = self.prometheus.get("query", query="ALERTS[1d]", time=str(at_s))
        histories = []
        for one in answer["result"]:
            labels: Mapping[str, str] = one["metric"]
            rest = {
                name: value
                for name, value in labels.items()
                if name not in ("__name__", "alertname", "alertstate")
            }
            times_s = [float(time_s) for time_s, _ in one["values"]]
            histories.append(AlertHistory(labels["alertname"], labels["alertstate"], rest, times_s))
        return histories

    def rules(self) -> list[dict[str, Any]]:
        """Return the rule groups as Prometheus runs them."""
        groups: list[dict[str, Any]] = self.prometheus.get("rules")["groups"]
        return groups

    def stop(self) -> None:
        """End all started processes, ranks first so that they remove their discovery files."""
        running = [one.process for one in self.ranks if one.process.poll() is None]
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.prometheus.stop()
