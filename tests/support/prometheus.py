"""A real Prometheus on a free port, and queries of it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_CONFIGURATION = """\
global:
  scrape_interval: 1s
  scrape_timeout: 1s
scrape_configs:
  - job_name: training
    file_sd_configs:
      - files: ["{discovery}/*.json"]
        refresh_interval: 1s
"""

_LISTENING = re.compile(r'msg="Listening on" address=127\.0\.0\.1:(\d+)')

# What rules use of the metrics that the programs export of themselves.
OF_THEMSELVES = {
    "prometheus": {
        "prometheus_rule_evaluation_failures_total",
        "prometheus_sd_file_read_errors_total",
    },
    "alertmanager": {"alertmanager_notifications_failed_total"},
}

# Tests wait for something that must come, and fail if it does not; they usually take less time.
DEADLINE_S = 60.0


def find_program(name: str) -> str:
    """Return a program's path; if it is missing, the test is skipped and says why."""
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.prefix, "bin")))
    package = "victoria-metrics" if name.startswith(("vm", "victoria")) else "prometheus"
    if name in ("amtool", "prometheus-alertmanager"):
        package = "prometheus-alertmanager"
    return found or pytest.skip(f"{name} is not installed: apt-get install {package}")


def wait_for(
    get: Callable[[], Any], condition: Callable[[Any], object], *, within_s: float = DEADLINE_S
) -> Any:
    """Ask until the answer satisfies a condition, and return it; a late one fails the test."""
    deadline_s = time.monotonic() + within_s
    while not condition(answer := get()):
        assert time.monotonic() < deadline_s, f"not within {within_s} s; the last answer: {answer}"
        time.sleep(0.05)
    return answer


class Prometheus:
    """A Prometheus that scrapes every target of a discovery folder, by default once a second.

    Args:
        folder: Where its configuration, database and log go.
        discovery: The folder with a file_sd file per rank.
        configuration: A configuration file to use instead of the test's own.
        flags: Further arguments of the program.
    """

    def __init__(
        self,
        folder: Path,
        *,
        discovery: Path,
        configuration: Path | None = None,
        flags: Sequence[str] = (),
    ) -> None:
        self.discovery = discovery
        folder.mkdir(exist_ok=configuration is not None)
        if configuration is None:
            configuration = folder / "prometheus.yml"
            configuration.write_text(_CONFIGURATION.format(discovery=discovery))
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    find_program("prometheus"),
                    f"--config.file={configuration}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    "--web.listen-address=127.0.0.1:0",
                    *flags,
                ],
                stdout=log,
                stderr=log,
                cwd=folder,
            )

    @property
    def pid(self) -> int:
        """Return its process id."""
        return self._process.pid

    def __enter__(self) -> Prometheus:  # noqa: PYI034 - Self came with Python 3.11
        try:
            listening = wait_for(lambda: _LISTENING.search(self._log.read_text()), bool)
            self.url = f"http://127.0.0.1:{listening[1]}"
            wait_for(self._is_ready, bool)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def _is_ready(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5) as answer:
                return answer.status == 200
        except urllib.error.HTTPError as answer:
            answer.close()  # Python 3.14 warns of an answer that is left open
            return False
        except OSError:
            return False

    def stop(self) -> None:
        """End the process, by force if necessary."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def get(self, path: str, *, timeout_s: float = 10.0, **arguments: str) -> Any:
        """Return the data in the answer of ``/api/v1/<path>``."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(arguments)}"
        with urllib.request.urlopen(url, timeout=timeout_s) as answer:
            return json.load(answer)["data"]

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Return labels and value of each series of an instant query."""
        series = self.get("query", query=expression)["result"]
        return [(one["metric"], float(one["value"][1])) for one in series]

    def by_rank(self, expression: str) -> dict[str, float]:
        """Return the values of an instant query by their ``rank``, which must not repeat."""
        series = self.query(expression)
        values = {labels["rank"]: value for labels, value in series}
        assert len(values) == len(series), series
        return values

    def wait_by_rank(
        self, expression: str, condition: Callable[[dict[str, float]], object]
    ) -> dict[str, float]:
        """Return the values by rank once they satisfy a condition."""
        return wait_for(lambda: self.by_rank(expression), condition)


def check_metrics(page: bytes) -> subprocess.CompletedProcess[str]:
    """Pass a page to ``promtool check metrics``: 1 means a broken page, 3 a matter of style."""
    checked = subprocess.run(
        [find_program("promtool"), "check", "metrics"], input=page, capture_output=True, check=False
    )
    return subprocess.CompletedProcess(
        checked.args, checked.returncode, checked.stdout.decode(), checked.stderr.decode()
    )
