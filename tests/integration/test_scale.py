"""A run of 1,024 ranks: the dashboards answer in time and draw what a person can read."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import psutil
import pytest

from grafana.queries.dashboard import PANELS_WITHOUT_QUERIES, Dashboard
from grafana.queries.datasource import DataSource
from grafana.queries.interpolation import DashboardError
from tests.support.many_ranks import HISTORY_S, many_ranks
from tests.support.paths import ROOT
from tests.support.training_run import SCRAPE_INTERVAL_S

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from grafana.queries.datasource import Query, Result
    from tests.support.prometheus import Prometheus

DASHBOARDS = sorted((ROOT / "grafana" / "dashboards").glob("*.json"))
RANKS = 1024

BOARD_LIMIT_S = 1.0  # on a core that has nothing else to do, and does the work in this time:
WORK_S = 0.073
WORK_BYTES = 64 << 20
SERIES_LIMIT = 60
CHANCES = 4

pytestmark = [pytest.mark.newest_only, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Run a Prometheus with an hour of 1,024 ranks, which go on being there."""
    with many_ranks(tmp_path_factory.mktemp("scale"), RANKS) as running:
        yield running


def _value(found: list[tuple[dict[str, str], float]]) -> float:
    return found[0][1] if found else 0


@pytest.fixture(scope="module")
def source(prometheus: Prometheus) -> DataSource:
    """Look at the last hour."""
    end_s = time.time()
    return DataSource(
        prometheus.url,
        start_s=end_s - HISTORY_S,
        end_s=end_s,
        scrape_interval_s=SCRAPE_INTERVAL_S,
    )


@dataclass
class Figures:
    """Collect what was measured, and what of it is too much."""

    rows: list[str] = field(default_factory=list)
    total_s: float = 0.0
    crowded: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def note(
        self, title: str, ref_id: str, took_s: float, series: int, *, is_asked: bool = True
    ) -> None:
        """Take down one query, or all of a panel; one that is not asked at once does not count."""
        row = f"{title:<50} {ref_id:<6} {took_s:8.3f} {series:6}"
        self.rows.append(row)
        self.total_s += took_s * is_asked

    def note_drawn(self, title: str, series: int) -> None:
        """Take down how many series a panel draws."""
        row = f"{title:<50} drawn  {'':8} {series:6}"
        self.rows.append(row)
        if series > SERIES_LIMIT:
            self.crowded.append(row)

    def write(self, path: Path) -> None:
        """Leave the table in a file, and where pytest shows it if the test fails, or with -s."""
        load = f"load average {os.getloadavg()[0]:.1f}"
        head = f"{path.stem:<50} {'':<6} {self.total_s:8.3f} seconds in all; {load}"
        path.write_text("\n".join([head, *self.rows, ""]))
        print(path.read_text())


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_of_a_thousand_ranks_is_quick_and_readable(
    path: Path, prometheus: Prometheus, source: DataSource, tmp_path: Path
) -> None:
    """All queries of a board take less than a second, and no panel draws more than 60 series.

    The rules make them take longer, never shorter, so that one quick answer of several is enough.
    """
    for _ in range(CHANCES):
        figures = _load(path, prometheus, source)
        slowdown = _slowdown()
        figures.write(tmp_path / f"{path.stem}.txt")
        if figures.total_s / slowdown < BOARD_LIMIT_S:
            break
    too_much = [*figures.broken, *figures.crowded]
    assert not too_much, "\n".join(too_much)
    assert figures.total_s / slowdown < BOARD_LIMIT_S, "\n".join(figures.rows)


def _load(path: Path, prometheus: Prometheus, source: DataSource) -> Figures:
    """Ask all that a board asks when it is opened."""
    figures = Figures()
    process = psutil.Process(prometheus.pid)
    before_s, began_s = sum(process.cpu_times()[:2]), time.perf_counter()
    board = Dashboard.load(path, source)
    took_s = min(time.perf_counter() - began_s, sum(process.cpu_times()[:2]) - before_s)
    figures.note("all variables", "", took_s, len(board.variables))
    folded = {  # Grafana asks for these when somebody opens their row
        one["title"]
        for row in board.model["panels"]
        if row.get("collapsed")
        for one in row["panels"]
    }
    for panel in board.panels:
        try:
            results = [_ask(source, process, query) for query in board.queries(panel)]
        except DashboardError as error:
            figures.broken.append(str(error))
            continue
        for result in results:
            query = result.query
            is_asked = panel.title not in folded
            figures.note(
                panel.title, query.ref_id, result.took_s, len(result.frames), is_asked=is_asked
            )
        if panel.kind not in PANELS_WITHOUT_QUERIES:
            figures.note_drawn(panel.title, board.series_drawn(panel, results))
    for query in board.annotation_queries():
        result = _ask(source, process, query)
        figures.note(query.panel, query.ref_id, result.took_s, len(result.frames))
    return figures


def test_the_rules_of_a_thousand_ranks_keep_up(prometheus: Prometheus, tmp_path: Path) -> None:
    """All groups together are evaluated in less than the interval, and none fails."""
    figures, groups = Figures(), prometheus.get("rules")["groups"]
    total_s = 0.0
    for group in groups:
        took_s = float(group["evaluationTime"])
        total_s += took_s
        figures.note(group["name"], "group", took_s, len(group["rules"]))
        for rule in group["rules"]:
            figures.note(rule["name"], "rule", float(rule["evaluationTime"]), 0)
    figures.write(tmp_path / "rules.txt")
    rules = [rule for group in groups for rule in group["rules"]]
    assert [] == [(rule["name"], rule["health"]) for rule in rules if rule["health"] != "ok"]
    assert total_s < SCRAPE_INTERVAL_S
    assert RANKS == _value(prometheus.query("sum(up)"))


def test_the_shares_of_the_time_of_a_thousand_ranks_add_up(prometheus: Prometheus) -> None:
    """They are all of it, none is negative, and the many wait for the few that are slow."""
    shares = {
        labels.get("part") or labels["phase"]: share
        for labels, share in prometheus.query("run:dllogger_time:ratio")
    }
    assert sum(shares.values()) == pytest.approx(1)
    assert min(shares.values()) >= 0
    assert {"productive", "waiting", "checkpoint", "startup", "other", "down"} <= set(shares)
    assert shares["productive"] > shares["checkpoint"] > 0
    assert shares["waiting"] > 0


def _ask(source: DataSource, process: psutil.Process, query: Query) -> Result:
    """Ask once.

    A query cannot take longer than the processor time of Prometheus meanwhile, unless the
    machine had other things to do.
    """
    before_s = sum(process.cpu_times()[:2])
    result = source.run(query)
    busy_s = sum(process.cpu_times()[:2]) - before_s
    return replace(result, took_s=min(result.took_s, busy_s))


def _slowdown() -> float:
    """Return how many times as long as on a free core work takes now, at least once."""
    began_s = time.perf_counter()
    hashlib.blake2b(bytes(WORK_BYTES)).digest()
    return max((time.perf_counter() - began_s) / WORK_S, 1.0)
