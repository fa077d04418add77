"""One stall of half a minute in an hour, as real databases have it: scraped, filled in and sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from otel_dllogger import PrometheusBackend
from otel_dllogger.cli.main import main
from otel_dllogger.record import Record
from tests.support.bridge import log_line
from tests.support.prometheus import Prometheus, wait_for
from tests.support.victoriametrics import VictoriaMetrics

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.newest_only

START_US = 1_700_000_000_000_000
HOUR_S = 3600
STALL_AT_S, STALL_S = 1800, 31
ELAPSED_S = [*range(STALL_AT_S), *range(STALL_AT_S - 1 + STALL_S, HOUR_S)]
"""When the steps of the hour ended."""

BUCKETS = "dllogger_step_duration_seconds_bucket"
LONGEST = f"histogram_quantile(1, sum by (run, le) (%s({BUCKETS}%s)))"
EXPECTED = [({"run": "r"}, 60.0)]  # rounded up to a bound


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Write the log of the hour."""
    lines = (
        log_line(
            [0, number],
            {"loss": 1.0},
            time_us=START_US + elapsed_s * 1_000_000,
            elapsed_us=elapsed_s * 1_000_000,
        )
        for number, elapsed_s in enumerate(ELAPSED_S)
    )
    path = tmp_path / "r" / "log_rank0.json"
    path.parent.mkdir()
    path.write_bytes(b"".join(lines))
    return path


def test_prometheus_scrapes_it(prometheus: Prometheus) -> None:
    """A classic histogram, with the type and the bounds of one."""
    backend = PrometheusBackend(
        1, port=0, run="r", discovery_dir=prometheus.discovery, step_histogram=True
    )
    for number, elapsed_s in enumerate(ELAPSED_S):
        elapsed_us = elapsed_s * 1_000_000
        record = Record(START_US + elapsed_us, elapsed_us, (0, number), {"loss": 1.0})
        backend.write_record(record)
    try:
        expression = LONGEST % ("", "")
        assert EXPECTED == wait_for(lambda: prometheus.query(expression), bool)
        above = f'{BUCKETS}{{le="60.0"}} - on () {BUCKETS}{{le="30.0"}}'
        assert [1.0] == [value for _labels, value in prometheus.query(above)]
        metadata = prometheus.get("metadata", metric="dllogger_step_duration_seconds")
        assert [{"histogram"}] == [{one["type"] for one in known} for known in metadata.values()]
    finally:
        backend.close()


def test_prometheus_is_filled_with_it(log: Path, tmp_path: Path) -> None:
    """Whoever looks at the past finds the stall where it was, and nowhere else."""
    data = tmp_path / "prometheus" / "data"
    data.mkdir(parents=True)
    arguments = ["backfill", str(log), "--to", "prometheus", str(data), "-q"]
    assert main([*arguments, "--step-histogram"]) == 0
    configuration = tmp_path / "prometheus" / "prometheus.yml"
    configuration.write_text("scrape_configs: []\n")
    flags = ("--storage.tsdb.retention.time=100y",)
    with Prometheus(
        data.parent, discovery=tmp_path, configuration=configuration, flags=flags
    ) as server:

        def longest(at_s: int, window: str) -> object:
            expression = LONGEST % ("increase", f"[{window}]")
            at = str(START_US // 1_000_000 + at_s)
            found = server.get("query", query=expression, time=at)["result"]
            return [float(one["value"][1]) for one in found]

        assert [60.0] == longest(HOUR_S, "1h")
        assert [60.0] == longest(STALL_AT_S + 60, "2m")
        assert [1.0] == longest(HOUR_S, "20m")


def test_victoria_metrics_has_it_by_both_ways(log: Path, tmp_path: Path) -> None:
    """Imported as a classic histogram; sent as an exponential one, whose buckets are finer."""
    with VictoriaMetrics(tmp_path / "victoriametrics") as server:
        arguments = ["backfill", str(log), "-q", "--step-histogram", "--to"]
        assert main([*arguments, "victoriametrics", server.url]) == 0
        end_s = START_US / 1e6 + HOUR_S
        assert EXPECTED == server.query(LONGEST % ("increase", "[1h]"), end_s)
        sent = str(tmp_path / "sent")
        assert main([*arguments, "otlp", server.otlp, "--checkpoint", sent]) == 0
        (found,) = server.query(
            "histogram_quantile(1, sum by (run, vmrange) (dllogger_step_duration_seconds_bucket))",
            end_s,
        )
        assert found[0] == {"run": "r"}
        assert STALL_S <= found[1] < 35
