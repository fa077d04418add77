"""The histogram of step times on every page and at every receiver, where it was asked for."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from otel_dllogger import ConfigurationError, Logger, OTelBackend, OTLPBackend, PrometheusBackend
from otel_dllogger.cli.main import main
from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.metrics.exported_store import ExportedStore
from otel_dllogger.metrics.exposition import StorePage
from otel_dllogger.metrics.step_durations import BOUNDS_US
from otel_dllogger.record import Record
from tests.support.bridge import (
    BridgeProcess,
    append,
    open_bridge,
    parse_page,
    read_page,
    steps,
    value_of,
)
from tests.support.collector import HTTPCollector
from tests.support.http import ask, wait_until
from tests.support.prometheus import check_metrics

if TYPE_CHECKING:
    from pathlib import Path

VARIABLE = "OTEL_DLLOGGER_STEP_HISTOGRAM"
NAME = "dllogger_step_duration_seconds"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
START_US = 1_700_000_000_000_000


def train(backend: Any, intervals_us: list[int], *, stride: int = 1) -> None:
    """Log steps with these times between them."""
    elapsed_us = 0
    backend.write_record(Record(START_US, 0, (0, 0), {"loss": 1.0}))
    for number, interval_us in enumerate(intervals_us, 1):
        elapsed_us += interval_us
        step = (0, number * stride)
        backend.write_record(Record(START_US + elapsed_us, elapsed_us, step, {"loss": 1.0}))


def of_histogram(page: dict[Any, float]) -> dict[Any, float]:
    return {key: value for key, value in page.items() if key[0].startswith(NAME)}


@pytest.fixture
def open_page() -> Any:
    """Return a function that opens a backend with a page, which is closed in the end."""
    opened = []

    def make(**arguments: Any) -> PrometheusBackend:
        opened.append(PrometheusBackend(1, port=0, run="r", **arguments))
        return opened[-1]

    yield make
    for backend in opened:
        backend.close()


@pytest.mark.parametrize("accept", ["text/plain", OPENMETRICS])
def test_both_pages_have_the_same_histogram(open_page: Any, accept: str) -> None:
    """A rank's own, made by the Prometheus client, and that of a bridge; both are valid."""
    backend = open_page(step_histogram=True)
    train(backend, [1_000_000] * 5 + [31_000_000])
    page = ask(backend.endpoint.port, Accept=accept).body.decode()
    stored = ExportedStore(backend._store, backend.topology)
    bridge_page = StorePage().render([stored], accept)[1].decode()
    lines = [line for line in page.splitlines() if NAME in line]
    assert lines == [line for line in bridge_page.splitlines() if NAME in line]
    assert f"# TYPE {NAME} histogram" in lines
    found = {line.partition(" ")[0]: line.partition(" ")[2] for line in lines if line[0] != "#"}
    labels = 'rank="0",run="r"'
    assert found[f'{NAME}_bucket{{le="0.5",{labels}}}'] == "0.0"
    assert found[f'{NAME}_bucket{{le="1.0",{labels}}}'] == "5.0"
    assert found[f'{NAME}_bucket{{le="30.0",{labels}}}'] == "5.0"
    assert found[f'{NAME}_bucket{{le="60.0",{labels}}}'] == "6.0"
    assert found[f'{NAME}_bucket{{le="+Inf",{labels}}}'] == "6.0"
    assert found[f"{NAME}_count{{{labels}}}"] == "6.0"
    assert found[f"{NAME}_sum{{{labels}}}"] == "36.0"
    assert len(found) == 22
    if accept == OPENMETRICS:
        assert f"# UNIT {NAME} seconds" in lines
        for text in (page, bridge_page):
            (family,) = (one for one in parse_openmetrics(text) if one.name == NAME)
            assert family.type == "histogram"
    else:
        checked = check_metrics(page.encode())
        assert (0, "", "") == (checked.returncode, checked.stdout, checked.stderr)


def test_every_bucket_is_there_before_the_first_step(open_page: Any) -> None:
    """At 0, so that a rate sees the first steps."""
    page = of_histogram(parse_page(ask(open_page(step_histogram=True).endpoint.port).body.decode()))
    assert [0.0] * 22 == list(page.values())


def test_nobody_has_it_who_did_not_ask(open_page: Any) -> None:
    """Neither the page nor the state of the rank."""
    backend = open_page()
    train(backend, [1_000_000] * 3)
    assert NAME not in ask(backend.endpoint.port).body.decode()
    assert backend._store._own.durations is None


@pytest.mark.parametrize(
    ("variable", "argument", "has_it"),
    [("1", None, True), ("1", False, False), ("", True, True), ("0", None, False)],
)
def test_the_argument_comes_before_the_variable(
    open_page: Any, monkeypatch: Any, variable: str, argument: Any, has_it: bool
) -> None:
    """As for every setting."""
    monkeypatch.setenv(VARIABLE, variable)
    backend = open_page(step_histogram=argument)
    assert has_it == (NAME in ask(backend.endpoint.port).body.decode())


@pytest.mark.parametrize("backend", [OTelBackend, PrometheusBackend, OTLPBackend])
def test_text_is_not_a_switch(backend: Any) -> None:
    """``"false"`` would be true."""
    with pytest.raises(ConfigurationError, match="step_histogram='false' is not True or False"):
        backend(1, step_histogram="false")


def test_its_series_count_against_the_limit(open_page: Any) -> None:
    """A rank with a histogram has 22 series less for what it logs."""
    rooms = []
    for has_it in (False, True):
        store = open_page(step_histogram=has_it, max_series=200)._store
        rooms.append(store.max_series - store._series)
    assert rooms[0] - rooms[1] == 22


def sdk_points(reader: InMemoryMetricReader) -> list[Any]:
    """Collect, and return the points of the histogram."""
    data = reader.get_metrics_data()
    return [
        point
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == "dllogger.step_duration"
        for point in metric.data.data_points
    ]


def test_the_provider_of_an_application_has_it_after_a_collection() -> None:
    """A collection asks for the values, and the next one has them, with the bounds of the page."""
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
    backend = OTelBackend(1, meter_provider=provider, run="r", step_histogram=True)
    train(backend, [1_000_000], stride=10)
    backend.flush()  # from now on there are no new names, for which the thread would wake
    train(backend, [100_000_000], stride=10)
    found: list[Any] = []
    wait_until(lambda: found.extend(sdk_points(reader)) or found[-1].count > 10, 30)
    point = found[-1]
    assert (point.count, point.sum) == (20, 101.0)
    assert dict(point.attributes) == {"run": "r", "rank": "0"}
    assert list(point.explicit_bounds) == [bound / 1e6 for bound in BOUNDS_US]
    train(backend, [1_000_000])
    backend.close()  # gives it what is left
    assert sdk_points(reader)[0].count == 21
    provider.shutdown()


def test_two_loggers_on_one_provider_share_it() -> None:
    """One that is closed stays in it, as histograms of the SDK do."""
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
    for rank in (0, 1):
        backend = OTelBackend(1, meter_provider=provider, run="r", rank=rank, step_histogram=True)
        train(backend, [1_000_000] * (1 + rank))
        backend.close()
    found = {point.attributes["rank"]: point.count for point in sdk_points(reader)}
    assert found == {"0": 1, "1": 2}
    provider.shutdown()


def test_an_sdk_that_fails_is_counted() -> None:
    """Only a thread of the package gives it values, so that ``log`` never sees its failure."""
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
    backend = OTelBackend(1, meter_provider=provider, run="r", step_histogram=True)

    class Broken:
        def record(self, *_arguments: object) -> None:
            raise RuntimeError("broken")

    backend._instruments._step_durations = Broken()  # type: ignore[assignment]
    before = DIAGNOSTICS.dropped.get("instrument", 0)
    logger = Logger([backend])
    logger.log((0, 0), {"loss": 1.0})
    time.sleep(0.001)  # a step that takes longer than the clock's resolution
    logger.log((0, 1), {"loss": 1.0})
    logger.flush()
    assert DIAGNOSTICS.dropped["instrument"] == before + 1
    logger.close()
    provider.shutdown()


def test_a_collector_gets_an_exponential_histogram() -> None:
    """Cumulative, with the longest step as it was, and no more than 160 buckets."""
    with HTTPCollector() as collector:
        backend = OTLPBackend(1, endpoint=collector.url, run="r", step_histogram=True)
        train(backend, [*range(1_000, 100_000, 100), 31_000_000], stride=2)
        backend.close()
    point = collector.named("dllogger.step_duration", run="r", rank="0")[-1]
    assert (point.unit, point.value) == ("s", 2 * 991)
    assert START_US < point.start_us <= point.time_us
    histogram = point.histogram
    assert histogram.count == sum(histogram.positive.bucket_counts) == 2 * 991
    assert (histogram.min, histogram.max) == (0.0005, 15.5)
    assert histogram.sum == pytest.approx(31 + sum(range(1_000, 100_000, 100)) / 1e6)
    assert 80 < len(histogram.positive.bucket_counts) <= 160
    base = 2.0 ** (2.0**-histogram.scale)
    offset, last = histogram.positive.offset, len(histogram.positive.bucket_counts)
    assert base**offset < 0.0005 <= base ** (offset + 1)
    assert base ** (offset + last - 1) < 15.5 <= base ** (offset + last)


def test_a_collector_gets_none_that_is_empty_or_that_nobody_asked_for() -> None:
    """Before the first step there is nothing to say."""
    with HTTPCollector() as collector:
        for has_it in (True, False):
            backend = OTLPBackend(1, endpoint=collector.url, run="r", step_histogram=has_it)
            train(backend, [] if has_it else [1_000_000])
            backend.close()
    assert not collector.named("dllogger.step_duration")
    assert collector.named("dllogger.steps")


@pytest.mark.newest_only
def test_a_bridge_has_it_and_keeps_it_over_a_restart(tmp_path: Path) -> None:
    """The checkpoint holds the buckets; without the setting they are gone."""
    log, checkpoint = tmp_path / "r" / "log_rank0.json", tmp_path / "checkpoint"
    append(log, steps(0, 11))
    with open_bridge(log, checkpoint=checkpoint, step_histogram=True) as bridge:
        first = of_histogram(read_page(bridge))
    assert value_of(first, f"{NAME}_count", "rank=0", "run=r") == 10
    assert value_of(first, f"{NAME}_bucket", "le=0.1") == 10
    assert value_of(first, f"{NAME}_bucket", "le=0.05") == 0
    append(log, steps(11, 16))
    with open_bridge(log, checkpoint=checkpoint, step_histogram=True) as bridge:
        assert value_of(read_page(bridge), f"{NAME}_count") == 15
    with open_bridge(log, checkpoint=checkpoint) as bridge:
        assert not of_histogram(read_page(bridge))


@pytest.mark.newest_only
def test_the_command_has_an_option_for_it(tmp_path: Path) -> None:
    """And sends it to a collector as well."""
    append(tmp_path / "r" / "log_rank0.json", steps(0, 11))
    with (
        HTTPCollector() as collector,
        BridgeProcess(
            tmp_path / "r", "--step-histogram", "--otlp", collector.url, folder=tmp_path
        ) as bridge,
    ):
        bridge.wait_for_value(10, f"{NAME}_count", "rank=0")
        assert collector.wait_for("dllogger.step_duration", 1)[-1] == 10
        assert bridge.stop() < 10


@pytest.mark.newest_only
def test_backfill_sends_it_to_a_collector(tmp_path: Path) -> None:
    """As an exponential histogram with the times of the log."""
    append(tmp_path / "r" / "log_rank0.json", steps(0, 301))
    with HTTPCollector() as collector:
        arguments = ["backfill", str(tmp_path / "r"), "--to", "otlp", collector.url, "-q"]
        folder = str(tmp_path / "sent")
        assert main([*arguments, "--checkpoint", folder, "--step-histogram"]) == 0
    points = collector.named("dllogger.step_duration", rank="0")
    assert points[-1].value == 300
    assert points[-1].time_us == START_US + 30_100_000
    assert len(points) > 1


@pytest.mark.newest_only
@pytest.mark.parametrize("by_variable", [True, False])
def test_backfill_has_an_option_for_it(tmp_path: Path, monkeypatch: Any, by_variable: bool) -> None:
    """A text of samples, by the option or the variable."""
    append(tmp_path / "r" / "log_rank0.json", steps(0, 301))  # half a minute
    output = tmp_path / "r.om"
    if by_variable:
        monkeypatch.setenv(VARIABLE, "1")
    more = [] if by_variable else ["--step-histogram"]
    arguments = ["backfill", str(tmp_path / "r"), "--to", "openmetrics", str(output), "-q"]
    assert main([*arguments, *more]) == 0
    families = {family.name: family for family in parse_openmetrics(output.read_text())}
    assert families[f"{NAME}_bucket"].type == "unknown"
    counts = [sample.value for sample in families[f"{NAME}_count"].samples]
    assert counts == sorted(counts)
    assert (len(counts) > 1, counts[-1]) == (True, 300)
    buckets = families[f"{NAME}_bucket"].samples
    assert {sample.value for sample in buckets if sample.labels["le"] == "0.05"} == {0}
    assert [one.value for one in buckets if one.labels["le"] == "+Inf"] == counts
    assert families[f"{NAME}_sum"].samples[-1].value == pytest.approx(30)


@pytest.mark.newest_only
def test_backfill_of_a_table_refuses_it(tmp_path: Path, capsys: Any) -> None:
    """Rows are what was logged."""
    append(tmp_path / "log.json", steps(0, 3))
    arguments = ["backfill", str(tmp_path), "--to", "csv", "-", "--step-histogram"]
    assert main(arguments) == 2
    assert "--step-histogram has no effect with --to csv" in capsys.readouterr().err
