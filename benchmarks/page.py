"""The cost of a page with very many series: ``python -m benchmarks.page``.

It compares the page that the bridge renders straight from stores with the one from
OpenTelemetry's reader and the Prometheus client, for the same 50,000 series.
"""

from __future__ import annotations

import statistics
import time

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from otel_dllogger.identity import Topology
from otel_dllogger.metrics.exported_store import ExportedStore
from otel_dllogger.metrics.exposition import StorePage
from otel_dllogger.metrics.instruments import Instruments, lift_cardinality_limit
from otel_dllogger.metrics.store import SeriesStore
from otel_dllogger.record import Record

SERIES = 50_000
RANKS = 500
METRICS = 44
"""Metrics per rank; each has a goal and so gives three series, beside a dozen per rank."""
TARGET_S = 1.0
ROUNDS = 5
_MAX_SERIES = 100_000


def run() -> tuple[int, float, float]:
    """Return the number of series, and the CPU seconds of our page and of the reader's."""
    stores, registry = _fill()
    page = StorePage()
    series = sum(line[:1] != b"#" for line in page.render(stores, "")[1].splitlines())
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(ROUNDS):
        for exported in stores:  # new values, as between two scrapes
            _log(exported)
        start_s = time.process_time()
        page.render(stores, "")
        between_s = time.process_time()
        generate_latest(registry)
        ours.append(between_s - start_s)
        theirs.append(time.process_time() - between_s)
    return series, statistics.median(ours), statistics.median(theirs)


def _fill() -> tuple[list[ExportedStore], CollectorRegistry]:
    registry = CollectorRegistry(auto_describe=False)
    limits = lift_cardinality_limit(PrometheusMetricReader, _MAX_SERIES)
    reader = PrometheusMetricReader(registry=registry, scope_info_enabled=False, **limits)
    provider = MeterProvider(
        metric_readers=[reader],
        exemplar_filter=AlwaysOffExemplarFilter(),
        shutdown_on_exit=False,
    )
    stores = []
    for rank in range(RANKS):
        topology = Topology("benchmark", rank, rank % 8, RANKS, 1, f"node{rank // 8}", 1)
        store = SeriesStore(run="benchmark", rank=rank, start_us=0, max_series=_MAX_SERIES)
        exported = ExportedStore(store, topology)
        _log(exported)
        Instruments(store, topology, provider, version="1").register_new()
        stores.append(exported)
    return stores, registry


def _log(exported: ExportedStore) -> None:
    now_us = time.time_ns() // 1000
    step = (now_us // 1_000_000, now_us)
    data = {f"train.metric_{i}": now_us % 1_000_003 / (i + 7) for i in range(METRICS)}
    exported.store.take(Record(now_us, now_us, step, data))


def main() -> None:
    """Measure and print."""
    series, ours_s, theirs_s = run()
    print(
        f"A page of {series:,} series: {ours_s:.2f} s of CPU (target: {TARGET_S:g}), "
        f"{theirs_s / ours_s:.0f} times as fast as OpenTelemetry's reader."
    )


if __name__ == "__main__":
    main()
