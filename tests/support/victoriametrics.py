"""A real VictoriaMetrics on a free port, new enough for OTLP with Prometheus' names."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any

from tests.support.paths import ROOT
from tests.support.prometheus import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Self


_LISTENING = re.compile(r"started server at http://127\.0\.0\.1:(\d+)/")


def program() -> str:
    """Return the path of the program; the first call may fetch it."""
    fetched = subprocess.run(
        [ROOT / "scripts" / "fetch-victoriametrics"],
        check=False,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert fetched.returncode == 0, fetched.stderr
    return fetched.stdout.strip()


class VictoriaMetrics:
    """A VictoriaMetrics that stores what comes over OTLP and answers queries like Prometheus.

    Args:
        folder: Where its data and its log go.
        flags: Further arguments of the program.
    """

    def __init__(self, folder: Path, *flags: str) -> None:
        folder.mkdir()
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    program(),
                    f"-storageDataPath={folder / 'data'}",
                    "-httpListenAddr=127.0.0.1:0",
                    "-retentionPeriod=100y",
                    "-search.latencyOffset=0s",
                    "-opentelemetry.usePrometheusNaming",
                    # Like Prometheus: the sender becomes job and instance, and target_info.
                    "-opentelemetry.promoteAllResourceAttributes=false",
                    "-opentelemetry.promoteScopeMetadata=false",
                    *flags,
                ],
                stdout=log,
                stderr=log,
                cwd=folder,
            )

    def __enter__(self) -> Self:
        try:
            listening = wait_for(self._listening, bool)
            self.url = f"http://127.0.0.1:{listening[1]}"
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    @property
    def otlp(self) -> str:
        """Return the address to which OTLP is sent."""
        return f"{self.url}/opentelemetry/v1/metrics"

    def _listening(self) -> re.Match[str] | None:
        assert self._process.poll() is None, self._log.read_text()
        return _LISTENING.search(self._log.read_text())

    def stop(self) -> None:
        """End the process by force, since its data are no longer needed."""
        self._process.kill()
        self._process.wait()

    def ask(self, path: str, **arguments: str) -> bytes:
        """Return the answer to a GET request."""
        url = f"{self.url}{path}?{urllib.parse.urlencode(arguments)}"
        with urllib.request.urlopen(url, timeout=20) as answer:
            return bytes(answer.read())

    def export(self, selector: str) -> list[dict[str, Any]]:
        """Return all points so far of the series that a selector matches."""
        self.ask("/internal/force_flush")
        # Without an end, it would be the last full second.
        around = {"start": "1", "end": str(int(time.time()) + 3600)}
        answer = self.ask("/api/v1/export", **{"match[]": selector, **around})
        return [json.loads(line) for line in answer.splitlines()]

    def query(self, expression: str, time_s: float) -> list[tuple[dict[str, str], float]]:
        """Return labels and value of each series of an instant query."""
        self.ask("/internal/force_flush")
        answer = json.loads(self.ask("/api/v1/query", query=expression, time=str(time_s)))
        return [(one["metric"], float(one["value"][1])) for one in answer["data"]["result"]]
