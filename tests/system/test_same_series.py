"""One run, recorded live, by the bridge, by backfill and over OTLP: the same series and values."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.support.paths import TESTS
from tests.support.prometheus import Prometheus, find_program, wait_for
from tests.support.victoriametrics import VictoriaMetrics

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.newest_only

RECORDED_RANK = TESTS / "scripts" / "recorded_rank.py"
COMMAND = [sys.executable, "-m", "otel_dllogger"]
RUN = "identity"
RANKS = 4
STEPS = 80
HOUR_S = 3600
MILLISECOND_S = 0.001

CONFIGURATION = """\
global:
  scrape_interval: 1s
  scrape_timeout: 1s
scrape_configs:
  - job_name: live
    file_sd_configs:
      - files: ["{discovery}/*.json"]
        refresh_interval: 1s
  - job_name: bridge
    static_configs:
      - targets: ["{bridge}"]
"""

OF_THE_PROCESS = {"dllogger_dropped_total", "dllogger_log_seconds_total"}
"""What a process knows of itself, which no log says."""

NOT_LOGGED = {"pid", "local_rank"}
"""Labels of dllogger_rank_info that no log says."""

Series = tuple[str, frozenset[tuple[str, str]]]
Samples = dict[Series, dict[float, float]]


class Recorded(NamedTuple):
    """Hold the series of each way, and what the log says."""

    live: Samples
    bridge: Samples
    backfilled: Samples
    imported: Samples
    otlp: Samples
    lines: dict[int, list[dict[str, Any]]]


def named(name: str, labels: dict[str, str]) -> Series:
    """Return a series without what says who scraped it, and what only a process knows."""
    left_out = {"job", "instance", "__name__", *(NOT_LOGGED if "rank_info" in name else ())}
    return name, frozenset((k, v) for k, v in labels.items() if k not in left_out)


def from_prometheus(prometheus: Prometheus, job: str) -> Samples:
    """Return all samples of a job with the times at which Prometheus has them."""
    matcher = f'{{__name__=~"dl_.+|dllogger_.+",run="{RUN}",job="{job}"}}'
    found = prometheus.get("query", query=f"{matcher}[{HOUR_S}s]")["result"]
    return {
        named(one["metric"]["__name__"], one["metric"]): {
            time_s: float(value) for time_s, value in one["values"]
        }
        for one in found
    }


def from_victoria_metrics(server: VictoriaMetrics) -> Samples:
    """Return all samples with their times."""
    found = server.export(f'{{__name__=~"dl_.+|dllogger_.+",run="{RUN}"}}')
    return {
        named(one["metric"]["__name__"], one["metric"]): {
            time_ms / 1000: value
            for time_ms, value in zip(one["timestamps"], one["values"], strict=True)
            if value is not None  # the marker of a value that is none
        }
        for one in found
    }


@contextlib.contextmanager
def bridging(logs: Path) -> Iterator[str]:
    """Run a bridge, and give its address."""
    command = [*COMMAND, "bridge", str(logs), "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as bridge:
        assert bridge.stderr is not None
        try:
            line = bridge.stderr.readline()
            yield line.strip().rpartition("http://")[2].removesuffix("/metrics")
            bridge.send_signal(signal.SIGTERM)
            assert 0 == bridge.wait(20)
        finally:
            bridge.kill()


@contextlib.contextmanager
def training(folder: Path, otlp: str) -> Iterator[None]:
    """Run the ranks until they have trained; in the end let them end."""
    ranks = []
    with contextlib.ExitStack() as stack:
        for rank in range(RANKS):
            environment = {
                **os.environ,
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(RANKS),
                "OTEL_DLLOGGER_RUN": RUN,
                "OTEL_DLLOGGER_DISCOVERY_DIR": str(folder / "discovery"),
                "OTEL_EXPORTER_PROMETHEUS_PORT": "0",
            }
            process = subprocess.Popen(
                [sys.executable, RECORDED_RANK, folder / "logs", otlp, str(STEPS)],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            ranks.append(process)
        for process in ranks:
            assert process.stdout is not None
            assert process.stdout.readline() == "trained\n"
        yield
        for process in ranks:
            process.communicate("end\n", timeout=30)
        assert [0] * RANKS == [process.returncode for process in ranks]


def backfill(logs: Path, *target: str) -> None:
    subprocess.run([*COMMAND, "backfill", logs, "--to", *target], check=True, timeout=60)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """Train once, and record that in every way."""
    folder = tmp_path_factory.mktemp("identity")
    logs, discovery = folder / "logs", folder / "discovery"
    logs.mkdir()
    discovery.mkdir()
    with contextlib.ExitStack() as stack:
        victoria = stack.enter_context(VictoriaMetrics(folder / "otlp"))
        bridge = stack.enter_context(bridging(logs))
        configuration = folder / "prometheus.yml"
        configuration.write_text(CONFIGURATION.format(discovery=discovery, bridge=bridge))
        (folder / "live").mkdir()
        prometheus = stack.enter_context(
            Prometheus(folder / "live", discovery=discovery, configuration=configuration)
        )
        with training(folder, victoria.otlp):
            records = STEPS + 2 * STEPS // 20  # each step, and two at the end of an epoch
            last = f'dllogger_records_total{{run="{RUN}",type="log"}} == {records}'
            wait_for(lambda: prometheus.query(last), lambda found: len(found) == 2 * RANKS)
            live = from_prometheus(prometheus, "live")
        finished = f'dllogger_run_finished{{run="{RUN}",job="bridge"}} == 1'
        wait_for(lambda: prometheus.query(finished), lambda found: len(found) == RANKS)
        by_bridge = from_prometheus(prometheus, "bridge")
        over_otlp = from_victoria_metrics(victoria)
    backfill(logs, "openmetrics", str(folder / "samples"))
    subprocess.run(
        [
            find_program("promtool"),
            *("tsdb", "create-blocks-from", "openmetrics", folder / "samples"),
            folder / "backfilled" / "data",
        ],
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=60,
    )
    empty = folder / "prometheus_of_nothing.yml"
    empty.write_text("")
    with Prometheus(folder / "backfilled", discovery=discovery, configuration=empty) as prometheus:
        backfilled = from_prometheus(prometheus, "")
    with VictoriaMetrics(folder / "imported") as server:
        backfill(logs, "victoriametrics", server.url)
        imported = from_victoria_metrics(server)
    lines = {
        rank: [
            json.loads(line[5:])
            for line in (logs / f"{RUN}_rank{rank}.json").read_text().splitlines()
        ]
        for rank in range(RANKS)
    }
    return Recorded(live, by_bridge, backfilled, imported, over_otlp, lines)


def logged_series(samples: Samples) -> set[Series]:
    return {series for series in samples if series[0] not in OF_THE_PROCESS}


@pytest.mark.parametrize("way", ["bridge", "backfilled", "imported", "otlp"])
def test_the_series_are_those_of_the_live_run(recorded: Recorded, way: str) -> None:
    """Names and labels, of what was logged and of the figures; the run's summary came after."""
    summary = {series for series in logged_series(getattr(recorded, way)) if is_summary(series)}
    assert RANKS == len(summary)
    assert logged_series(recorded.live) == logged_series(getattr(recorded, way)) - summary


def is_summary(series: Series) -> bool:
    return ("granularity", "run") in series[1]


def of_metric(samples: Samples, name: str, metric: str, granularity: str) -> dict[str, Any]:
    """Return the samples of a metric by rank."""
    wanted = {("metric", metric), ("granularity", granularity)}
    return {
        dict(labels)["rank"]: column
        for (family, labels), column in samples.items()
        if family == name and wanted <= labels
    }


def steps_of(recorded: Recorded, rank: int, metric: str) -> dict[int, tuple[float, float]]:
    """Return time and value of each training step, as the log has them."""
    return {
        line["step"][1]: (float(line["timestamp"]), float(line["data"][metric]))
        for line in recorded.lines[rank]
        if line["type"] == "LOG" and len(line["step"]) == 2
    }


METRICS = [("dl_loss", "train.loss"), ("dl_ips_per_second", "train.ips")]


@pytest.mark.parametrize(("name", "metric"), METRICS)
@pytest.mark.parametrize("way", ["live", "bridge"])
def test_what_was_scraped_is_what_was_logged_at_that_step(
    recorded: Recorded, way: str, name: str, metric: str
) -> None:
    """Of each scrape: the value is that of the iteration, or of one that came meanwhile."""
    samples = getattr(recorded, way)
    places = {
        dict(labels)["rank"]: column
        for (family, labels), column in samples.items()
        if family == "dllogger_iteration"
    }
    for rank, column in of_metric(samples, name, metric, "iteration").items():
        logged = steps_of(recorded, int(rank), metric)
        assert column
        for time_s, value in column.items():
            step = int(places[rank][time_s])
            values = [logged[near][1] for near in (step, step + 1, step - 1) if near in logged]
            assert value in values
        if not math.isnan(logged[STEPS - 1][1]):
            assert column[max(column)] == logged[STEPS - 1][1]


@pytest.mark.parametrize(("name", "metric"), METRICS)
@pytest.mark.parametrize("way", ["backfilled", "imported", "otlp"])
def test_every_step_is_there_at_its_time(
    recorded: Recorded, way: str, name: str, metric: str
) -> None:
    """All steps but the NaN, with the log's own times."""
    for rank, column in of_metric(getattr(recorded, way), name, metric, "iteration").items():
        logged = steps_of(recorded, int(rank), metric)
        expected = {
            round(time_s * 1e6) // 1000 / 1000: value
            for time_s, value in logged.values()
            if not math.isnan(value)
        }
        assert expected.keys() == column.keys()
        # VictoriaMetrics keeps decimal digits, about twelve.
        assert pytest.approx(expected, rel=0 if way == "backfilled" else 1e-11) == column
        assert (rank == "2" and metric == "train.loss") == (len(column) == STEPS - 1)


@pytest.mark.parametrize("way", ["bridge", "backfilled", "imported", "otlp"])
def test_the_figures_end_as_those_of_the_live_run(recorded: Recorded, way: str) -> None:
    """Steps, their time, records, NaN, best values, parameters: the log says all of it."""
    live, other = last_values(recorded.live), last_values(getattr(recorded, way))
    for series, value in live.items():
        family, labels = series
        if family.startswith("dl_") or family in OF_THE_PROCESS:
            continue
        if family == "dllogger_run_finished":
            assert (0, 1) == (value, other[series])
            continue
        if family == "dllogger_run_start_timestamp_seconds":
            # The live page is made first, then what sends OTLP, then the Logger, whose clock is
            # in the lines; how long that takes is the machine's business.
            first_s = float(recorded.lines[int(dict(labels)["rank"])][0]["timestamp"])
            assert value - MILLISECOND_S <= other[series] <= first_s + MILLISECOND_S
            continue
        # The end is a record more, and comes when it is told to.
        more = family == "dllogger_records_total" and ("type", "log") in labels
        tolerance = HOUR_S if family == "dllogger_last_log_timestamp_seconds" else 1e-4
        if family == "dllogger_last_event_timestamp_seconds":  # of twelve digits
            tolerance = 0.1
        assert other[series] == pytest.approx(value + more, abs=tolerance, rel=0), series


def last_values(samples: Samples) -> dict[Series, float]:
    return {series: column[max(column)] for series, column in samples.items()}


def test_nothing_is_counted_twice_by_a_second_look(recorded: Recorded) -> None:
    """No way has two series for one."""
    for samples in recorded[:-1]:
        by_labels = defaultdict(set)
        for family, labels in samples:
            by_labels[labels].add(family)
        assert len(samples) == sum(map(len, by_labels.values()))
