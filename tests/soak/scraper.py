"""A scraper that reads every page closely: it parses, and its counters never go back."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import shutil
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from pathlib import Path

    from prometheus_client import Metric

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
PROMTOOL_EVERY_S = 15.0
MISSES = 20
"""Scrapes in a row that a live rank may fail to answer, which takes 10 s and more."""

_PAUSE_S = 0.5
_BROKEN = 1  # of promtool: what is not a page; 3 is a matter of taste


@dataclass(frozen=True)
class Target:
    """The endpoint of a rank.

    Attributes:
        pid: The process.
        port: Where it listens on the loopback.
    """

    pid: int
    port: int


Targets = list[Target]


def find_targets(folder: Path) -> Targets:
    """Read the ranks' discovery files."""
    targets = []
    for path in sorted(folder.glob("*.json")):
        with contextlib.suppress(OSError, ValueError, LookupError):
            (group,) = json.loads(path.read_text())
            (address,) = group["targets"]
            pid = int(group["labels"]["__meta_dllogger_pid"])
            targets.append(Target(pid, int(address.rpartition(":")[2])))
    return targets


class Scraper:
    """Scrape all ranks again and again, from one thread.

    Attributes:
        scrapes: How many scrapes were tried.
        pages: How many pages came and parsed.
        by_promtool: How many of them promtool looked at too.

    Args:
        targets: Returns the endpoints.
        is_live: Tells whether a process is alive and not about to be killed.
        find: Called with what is wrong.
        dice: Where chance comes from.
    """

    def __init__(
        self,
        targets: Callable[[], Targets],
        is_live: Callable[[int], bool],
        find: Callable[[str], None],
        dice: random.Random,
    ) -> None:
        self.scrapes = self.pages = self.by_promtool = 0
        self._targets = targets
        self._is_live = is_live
        self._find = find
        self._dice = dice
        self._counters: dict[str, dict[tuple[str, ...], float]] = {}
        self._misses: dict[int, int] = {}
        self._promtool = shutil.which("promtool")
        self._promtool_s = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop scraping."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(_PAUSE_S):
            for target in self._targets():
                self.scrapes += 1
                try:
                    self._scrape(target)
                except (OSError, http.client.HTTPException) as error:
                    self._missed(target, error)
                except Exception as error:
                    self._find(f"the scraper failed: {type(error).__name__}: {error}")

    def _missed(self, target: Target, error: Exception) -> None:
        misses = self._misses[target.pid] = self._misses.get(target.pid, 0) + 1
        if misses == MISSES and self._is_live(target.pid):
            self._find(f"process {target.pid} did not answer {misses} scrapes in a row: {error}")

    def _scrape(self, target: Target) -> None:
        openmetrics = self._dice.random() < 0.5
        headers = {"Accept": OPENMETRICS if openmetrics else "text/plain"}
        if self._dice.random() < 0.5:
            headers["Accept-Encoding"] = "gzip"
        connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=5)
        try:
            connection.request("GET", "/metrics", headers=headers)
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        if response.status != http.client.OK:
            if self._is_live(target.pid):
                self._find(f"a scrape was answered with {response.status}: {body[:200]!r}")
            return
        self._misses[target.pid] = 0
        if response.getheader("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        page = body.decode()
        parse = parse_openmetrics if openmetrics else parse_text
        try:
            families = list(parse(page))
        except Exception as error:
            kind = "OpenMetrics" if openmetrics else "text"
            self._find(f"a page of {kind} does not parse: {type(error).__name__}: {error}"[:500])
            return
        self._check_counters(families)
        self.pages += 1
        if not openmetrics:
            self._ask_promtool(body)

    def _check_counters(self, families: list[Metric]) -> None:
        samples = [sample for family in families for sample in family.samples]
        pids = {one.labels["pid"] for one in samples if one.name == "dllogger_rank_info"}
        if len(pids) != 1:
            self._find(f"a page is of {len(pids)} processes: {sorted(pids)}")
            return
        last = self._counters.setdefault(pids.pop(), {})
        seen = set()
        for sample in samples:
            series = (
                sample.name,
                *(text for pair in sorted(sample.labels.items()) for text in pair),
            )
            if series in seen:
                self._find(f"a page has {str(series)[:200]} twice")
            seen.add(series)
            if sample.name.startswith("dllogger_") and sample.name.endswith("_total"):
                if sample.value < last.get(series, 0.0):
                    self._find(f"{series} went back from {last[series]} to {sample.value}")
                last[series] = sample.value

    def _ask_promtool(self, page: bytes) -> None:
        now_s = time.monotonic()
        if self._promtool is None or now_s - self._promtool_s < PROMTOOL_EVERY_S:
            return
        self._promtool_s = now_s
        checked = subprocess.run(
            [self._promtool, "check", "metrics"], input=page, capture_output=True, check=False
        )
        self.by_promtool += 1
        if checked.returncode == _BROKEN:
            self._find(f"promtool refuses a page: {checked.stderr.decode()[:500]}")
