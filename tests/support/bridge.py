"""A real ``otel-dllogger bridge``, the logs that it reads, and its page as a dict."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from otel_dllogger.bridge.service import Bridge
from otel_dllogger.logs.source import Source
from tests.support.command import COMMAND, uncovered
from tests.support.http import ask
from tests.support.prometheus import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from typing_extensions import Self

Page = dict[tuple[str, ...], float]
"""Values by name and labels, such as ``("dl_loss", "rank=0", "run=r1")``."""

_URL = re.compile(r"metrics of the logs: http://127\.0\.0\.1:(\d+)/metrics\n")
_START_US = 1_700_000_000_000_000
DEADLINE_S = 40.0
LOOKS = 4  # a missing file is looked for three times
END_S = 2.0
"""Seconds within which a signal must end it."""


def log_line(
    step: object,
    data: Mapping[str, object],
    *,
    time_us: int,
    elapsed_us: int = 0,
    kind: str = "LOG",
) -> bytes:
    """Return a line as this package's JSONStreamBackend writes it."""
    record = {
        "timestamp": f"{time_us / 1e6:.6f}",
        "datetime": "2023-11-14 22:13:20.000000",
        "elapsedtime": f"{elapsed_us / 1e6:.6f}",
        "type": kind,
        "step": step,
        "data": data,
    }
    return b"DLLL " + json.dumps(record).encode() + b"\n"


def steps(first: int, last: int, *, start_us: int = _START_US, **more: object) -> bytes:
    """Return the lines of the steps ``first`` to ``last - 1``, a tenth of a second apart."""
    lines = []
    for number in range(first, last):
        elapsed_us = (number + 1) * 100_000
        data = {"loss": 8 / (1 + number), "lr": 0.1, **more}
        lines.append(
            log_line([0, number], data, time_us=start_us + elapsed_us, elapsed_us=elapsed_us)
        )
    return b"".join(lines)


def append(path: Path, lines: bytes) -> None:
    """Append lines to a log, as a training job does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(lines)


def set_age(path: Path, age_s: float) -> None:
    """Make a file look as if it had last grown ``age_s`` seconds ago."""
    changed_s = time.time() - age_s
    os.utime(path, (changed_s, changed_s))


def parse_page(text: str) -> Page:
    """Return a page's samples, none of which may occur twice."""
    page: Page = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = (f"{name}={value}" for name, value in sorted(sample.labels.items()) if value)
            key = (sample.name, *labels)
            assert key not in page
            page[key] = sample.value
    return page


def of_ranks(page: Page) -> Page:
    """Return the ranks' samples of a page, without the bridge's own metrics."""
    return {key: value for key, value in page.items() if not key[0].startswith("dllogger_bridge")}


def value_of(page: Page, name: str, *labels: str) -> float | None:
    """Return the only value of a name with these labels, None if there is none."""
    found = [value for key, value in page.items() if key[0] == name and {*labels} <= {*key[1:]}]
    assert len(found) < 2
    return found[0] if found else None


@contextlib.contextmanager
def open_bridge(
    *paths: Path,
    checkpoint: Path | None = None,
    expire_s: float = 900,
    step_histogram: bool = False,
) -> Iterator[Bridge]:
    """Open a bridge in this process, which the test polls and which ends as if it were killed."""
    bridge = Bridge(
        Source([str(path) for path in paths], step_histogram=step_histogram),
        host="127.0.0.1",
        port=0,
        checkpoint=None if checkpoint is None else str(checkpoint),
        expire_s=expire_s,
    )
    try:
        yield bridge
    finally:
        bridge.endpoint.close()


def read_page(bridge: Bridge) -> Page:
    """Read everything there is, save the checkpoint, and return the page."""
    for _ in range(LOOKS):
        bridge.poll()
        while bridge._tailer.behind:
            bridge.poll()
    bridge._ingest.commit()
    return parse_page(bridge._render("")[1].decode())


_COMMITTING = """
import sys
from otel_dllogger.bridge import polling
from otel_dllogger.cli.main import main
polling.COMMIT_INTERVAL_S = {}
sys.exit(main())
"""


_EXPECTED = re.compile(
    r"otel-dllogger: (?:metrics of the logs: http"
    r"|[\d,]+ logs? found$|[\d,]+ ranks? of [\d,]+ runs?: )"
)


class BridgeProcess:
    """A process that runs ``otel-dllogger bridge`` as a user does.

    Args:
        arguments: The arguments of the command, without ``--listen``.
        folder: Where it runs, and where its standard error goes.
        variables: The environment; by default one without settings, and without coverage.
        commit_interval_s: Seconds between two checkpoints, instead of the default.
        listen: Where its page is, None for the default.
    """

    def __init__(
        self,
        *arguments: object,
        folder: Path,
        variables: Mapping[str, str] | None = None,
        commit_interval_s: float | None = None,
        listen: str | None = "127.0.0.1:0",
    ) -> None:
        given = [] if listen is None else ["--listen", listen]
        command = COMMAND
        if commit_interval_s is not None:
            command = (sys.executable, "-c", _COMMITTING.format(commit_interval_s))
        self.stderr = folder / f"stderr_{time.monotonic_ns()}"
        with self.stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                [*command, "bridge", *given, *map(str, arguments)],
                cwd=folder,
                env=uncovered() if variables is None else variables,
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.kill()

    @property
    def port(self) -> int:
        """Return the page's port, once the process has printed it."""
        return int(wait_for(self._url, bool)[1])

    def _url(self) -> re.Match[str] | None:
        assert self.process.poll() is None, self.errors()
        return _URL.search(self.errors())

    def errors(self) -> str:
        """Return what the process printed."""
        return self.stderr.read_text()

    def complaints(self) -> list[str]:
        """Return what the process printed, except where the page is and what was found."""
        return [line for line in self.errors().splitlines() if not _EXPECTED.match(line)]

    def page(self) -> Page:
        """Scrape the page."""
        answer = ask(self.port)
        assert answer.status == 200
        return parse_page(answer.body.decode())

    def wait_for(self, condition: Callable[[Page], object]) -> Page:
        """Return the first page that satisfies a condition."""
        deadline_s = time.monotonic() + DEADLINE_S
        while not condition(page := self.page()):
            assert time.monotonic() < deadline_s, self.errors()
            time.sleep(0.02)
        return page

    def wait_for_value(self, expected: float | None, name: str, *labels: str) -> Page:
        """Return the first page on which a series has this value."""
        deadline_s = time.monotonic() + DEADLINE_S
        while (found := value_of(page := self.page(), name, *labels)) != expected:
            assert time.monotonic() < deadline_s, (expected, found, self.errors())
            time.sleep(0.02)
        return page

    def stop(self, number: int = signal.SIGTERM) -> float:
        """End the process with a signal, and return how many seconds that took."""
        start_s = time.monotonic()
        self.process.send_signal(number)
        assert self.process.wait(30) == 0, self.errors()
        return time.monotonic() - start_s

    def kill(self) -> None:
        """End the process with SIGKILL."""
        self.process.kill()
        self.process.wait()

    def peak_bytes(self) -> int:
        """Return the peak memory of the process so far."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+)", status)
        assert found is not None
        return int(found[1]) * 1024
