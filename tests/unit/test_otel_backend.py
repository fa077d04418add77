"""Metrics on a MeterProvider of the application's, which stays the application's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    ConsoleMetricExporter,
    InMemoryMetricReader,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import Resource

from otel_dllogger import ConfigurationError, Logger, OTelBackend, Verbosity
from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.metrics.instruments import lift_cardinality_limit
from otel_dllogger.metrics.resource import SCHEMA_URL
from otel_dllogger.version import __version__
from tests.support.command import assert_forked_child_answers
from tests.support.http import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAN = float("nan")


@pytest.fixture
def reader() -> InMemoryMetricReader:
    return InMemoryMetricReader()


@pytest.fixture
def provider(reader: InMemoryMetricReader) -> Iterator[MeterProvider]:
    """The application's own provider, with a reader of the application's."""
    provider = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
    yield provider
    provider.shutdown()


def points(reader: InMemoryMetricReader) -> dict[str, list[Any]]:
    """Collect, and return the data points by the name of their instrument."""
    data = reader.get_metrics_data()
    return {
        metric.name: list(metric.data.data_points)
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def test_metrics_are_on_the_provider_that_is_given(
    provider: MeterProvider, reader: InMemoryMetricReader
) -> None:
    """A value is a gauge with the labels of the contract, beside the figures of the rank."""
    logger = Logger([OTelBackend(1, meter_provider=provider, run="r", rank=2)])
    logger.metadata("val.loss", {"GOAL": "MINIMIZE", "unit": "s"})
    logger.log((0, 1), {"val.loss": 0.5})
    logger.flush()
    (point,) = points(reader)["dl.loss"]
    assert 0.5 == point.value
    assert {
        "run": "r",
        "rank": "2",
        "metric": "val.loss",
        "stage": "val",
        "goal": "minimize",
        "kind": "duration",
        "granularity": "iteration",
    } == point.attributes
    (steps,) = points(reader)["dllogger.steps"]
    assert 1.0 == steps.value


def test_the_resource_of_the_application_stays_as_it_is(reader: InMemoryMetricReader) -> None:
    """It says who the application is; the scope says who counts."""
    own = Resource({"service.name": "trainer", "host.name": "mine"}, "https://example.org/own")
    provider = MeterProvider(metric_readers=[reader], resource=own, shutdown_on_exit=False)
    logger = Logger([OTelBackend(1, meter_provider=provider, run="r", rank=2)])
    logger.log((0, 1), {"loss": 0.5})
    logger.flush()
    data = reader.get_metrics_data()
    assert data is not None
    (found,) = data.resource_metrics
    assert own == found.resource
    (scope,) = [one.scope for one in found.scope_metrics]
    assert ("otel_dllogger", __version__, SCHEMA_URL) == (
        scope.name,
        scope.version,
        scope.schema_url,
    )
    logger.close()
    provider.shutdown()


def test_flush_makes_a_new_metric_part_of_the_next_export(
    provider: MeterProvider, reader: InMemoryMetricReader
) -> None:
    """After flush, and not some time after it, every metric has its instrument."""
    logger = Logger([OTelBackend(1, meter_provider=provider)])
    for number in range(100):
        logger.log((0, number), {f"metric_{number}": number})
        logger.flush()
        assert f"dl.metric_{number}" in points(reader)


def test_a_new_metric_is_exported_without_a_flush(
    provider: MeterProvider, reader: InMemoryMetricReader
) -> None:
    """The instrument comes by itself, off the training thread."""
    logger = Logger([OTelBackend(1, meter_provider=provider)])
    logger.log((0, 1), {"loss": 0.5})
    wait_until(lambda: "dl.loss" in points(reader))
    logger.log((0, 2), {"accuracy": 0.5})
    wait_until(lambda: "dl.accuracy" in points(reader))


def test_a_collection_that_hangs_does_not_delay_log(
    provider: MeterProvider, reader: InMemoryMetricReader
) -> None:
    """A slow callback of the application holds the SDK's lock; a metric's first log returns."""
    collecting, go_on = threading.Event(), threading.Event()

    def slow(_options: Any) -> list[Observation]:
        collecting.set()
        assert go_on.wait(30)
        return [Observation(1)]

    logger = Logger([OTelBackend(1, meter_provider=provider)])
    provider.get_meter("application").create_observable_gauge("slow", [slow])
    collection = threading.Thread(target=reader.get_metrics_data)
    collection.start()
    try:
        assert collecting.wait(10)
        start_s = time.monotonic()
        logger.metadata("loss", {"unit": "s"})
        logger.log((0, 1), {"loss": 0.5, "accuracy": 0.5})
        logger.log((0,), {"loss": 0.5})
        assert time.monotonic() - start_s < 5
        assert collection.is_alive()
    finally:
        go_on.set()
        collection.join()
    wait_until(lambda: points(reader).keys() >= {"dl.loss", "dl.accuracy"})


def test_nothing_but_finite_floats_reaches_the_sdk(
    provider: MeterProvider, reader: InMemoryMetricReader
) -> None:
    """One str or bool would cost the whole batch of an exporter: ints, arrays, text are floats."""
    values = {
        "int": 3,
        "bool": True,
        "huge": 2**70,
        "beyond": 10**400,
        "text": "0.25",
        "words": "no number",
        "none": None,
        "list": [1, 2],
        "zero_d": np.array(1.5),
        "scalar": np.float32(2.5),
        "np_int": np.int64(7),
        "np_bool": np.bool_(True),
        "nan": NAN,
        "inf": -float("inf"),
        "array": np.ones(3),
        "nested": {"a": 1},
    }
    logger = Logger([OTelBackend(1, meter_provider=provider)])
    logger.log((np.int64(0), np.int32(4)), values)
    logger.log("PARAMETER", {"lr": np.float64(0.1), "epochs": 3, "cold": True})
    logger.log((), {"best": 1})
    logger.flush()
    found = points(reader)
    assert {float} == {type(point.value) for series in found.values() for point in series}
    labels = {type(one) for pts in found.values() for p in pts for one in p.attributes.values()}
    assert {str} == labels
    exported = {name: series[0].value for name, series in found.items() if series}
    logged = {name[3:]: exported[name] for name in exported if name.startswith("dl.")}
    assert {
        "int": 3.0,
        "bool": 1.0,
        "huge": 2.0**70,
        "text": 0.25,
        "zero_d": 1.5,
        "scalar": 2.5,
        "np_int": 7.0,
        "np_bool": 1.0,
        "best": 1.0,
    } == logged


def test_labels_that_would_poison_an_export_do_not(
    provider: MeterProvider, reader: InMemoryMetricReader
) -> None:
    """Surrogates and control characters in names and stages are escaped, so all can encode."""
    logger = Logger([OTelBackend(1, meter_provider=provider, run="r")])
    logger.metadata("lo\ud800ss\n", {"STAGE": "a\x00b"})
    logger.log((0, 1), {"lo\ud800ss\n": 1.0})
    logger.flush()
    found = points(reader)
    for series in found.values():
        for point in series:
            for text in point.attributes.values():
                assert text.encode().decode() == text
    (point,) = found["dl.lo_ss"]
    assert point.attributes["metric"].startswith("lo\\ud800ss\\u000a~")


def test_close_tells_the_end_and_leaves_the_provider_alone(
    provider: MeterProvider, reader: InMemoryMetricReader
) -> None:
    """After close the run is finished, and the application goes on with its provider."""
    logger = Logger([OTelBackend(1, meter_provider=provider)])
    counter = provider.get_meter("application").create_counter("requests")
    logger.log((0, 1), {"loss": 0.5})
    assert [0.0] == [point.value for point in points(reader)["dllogger.run_finished"]]
    logger.close()
    counter.add(1)
    found = points(reader)
    assert [1.0] == [point.value for point in found["dllogger.run_finished"]]
    assert [0.5] == [point.value for point in found["dl.loss"]]
    assert [1] == [point.value for point in found["requests"]]


def test_close_ends_the_thread(provider: MeterProvider) -> None:
    """A process that makes many Loggers does not gather threads."""

    def own_threads() -> list[threading.Thread]:
        return [one for one in threading.enumerate() if one.name == "otel-dllogger-instruments"]

    before = own_threads()
    for _ in range(5):
        logger = Logger([OTelBackend(1, meter_provider=provider)])
        logger.log((0, 1), {"loss": 0.5})
        logger.close()
    wait_until(lambda: set(own_threads()) <= set(before))


def test_verbosity_says_what_is_exported(
    provider: MeterProvider, reader: InMemoryMetricReader
) -> None:
    """What is logged at a higher verbosity than the backend's stays out."""
    backend = OTelBackend(verbosity=Verbosity.DEFAULT, meter_provider=provider)
    logger = Logger([backend])
    logger.log((0, 1), {"quiet": 1.0}, verbosity=Verbosity.VERBOSE)
    logger.log((0, 1), {"loud": 1.0}, verbosity=Verbosity.DEFAULT)
    logger.flush()
    found = points(reader)
    assert "dl.loud" in found
    assert "dl.quiet" not in found


@pytest.mark.parametrize("max_series", [0, -1, 1.5, "10", True, 10**10])
def test_a_limit_that_is_none_is_refused(max_series: Any) -> None:
    """The error names the value and what to do."""
    with pytest.raises(ConfigurationError, match=r"max_series=.* leave it out"):
        OTelBackend(0, max_series=max_series)


def test_the_limit_of_series_holds(provider: MeterProvider, reader: InMemoryMetricReader) -> None:
    """New names beyond max_series are counted as dropped, known ones go on."""
    logger = Logger([OTelBackend(1, meter_provider=provider, max_series=100)])
    logger.log((0, 1), {"known": 1})
    logger.log((0, 2), {f"name_{number}": 1 for number in range(100)})
    logger.log((0, 3), {"known": 2})
    logger.flush()
    found = points(reader)
    assert [2.0] == [point.value for point in found["dl.known"]]
    exported = [name for name in found if name.startswith("dl.name_")]
    assert 100 == len(exported) + DIAGNOSTICS.dropped["series_limit"]
    assert 90 < sum(map(len, found.values())) <= 100


def run_script(script: str, *arguments: object, **environment: str) -> str:
    """Run a script in a fresh interpreter, whose global provider is not set yet."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert (0, "") == (done.returncode, done.stderr)
    return done.stdout


GLOBAL = """
import sys
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
import otel_dllogger as dllogger

def set_provider():
    reader = InMemoryMetricReader()
    metrics.set_meter_provider(MeterProvider(metric_readers=[reader]))
    return reader

when = sys.argv[1]
if when == "before":
    reader = set_provider()
dllogger.init([dllogger.OTelBackend(1)])
if when == "between":
    reader = set_provider()
dllogger.log((0, 1), {"loss": 0.5})
dllogger.flush()
if when == "after":
    reader = set_provider()
dllogger.log((0, 2), {"loss": 0.25, "accuracy": 1})
dllogger.flush()
for resource in reader.get_metrics_data().resource_metrics:
    for scope in resource.scope_metrics:
        for metric in scope.metrics:
            for point in metric.data.data_points:
                print(scope.scope.name, metric.name, point.value)
"""


@pytest.mark.parametrize("when", ["before", "between", "after"])
def test_the_global_provider_is_found_whenever_it_is_set(when: str) -> None:
    """An application may set up OpenTelemetry before the Logger, or long after."""
    lines = run_script(GLOBAL, when).splitlines()
    assert "otel_dllogger dl.loss 0.25" in lines
    assert "otel_dllogger dl.accuracy 1.0" in lines
    assert "otel_dllogger dllogger.iteration 2.0" in lines


NEVER_SET = """
from opentelemetry import metrics
import otel_dllogger as dllogger

dllogger.init([dllogger.OTelBackend(1), dllogger.PrometheusBackend(1, port=0)])
dllogger.log((0, 1), {"loss": 0.5})
dllogger.shutdown()
print(type(metrics.get_meter_provider()).__name__)
"""


def test_the_global_provider_is_never_set() -> None:
    """A library leaves that to the application, and its own provider to itself."""
    assert "_ProxyMeterProvider\n" == run_script(NEVER_SET)


CONSOLE = """
import sys
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader
import otel_dllogger as dllogger

with open(sys.argv[1], "w") as out:
    line = lambda data: data.to_json(indent=None) + "\\n"
    exporter = ConsoleMetricExporter(out=out, formatter=line)
    provider = MeterProvider([PeriodicExportingMetricReader(exporter, export_interval_millis=1e6)])
    dllogger.init([dllogger.OTelBackend(1, meter_provider=provider)])
    dllogger.log((0, 1), {"loss": 0.5, "flag": True, "nan": float("nan")})
    dllogger.shutdown()
    provider.shutdown()
"""


def test_an_exporter_of_the_application_gets_the_last_values_at_its_shutdown(
    tmp_path: Path,
) -> None:
    """A periodic reader that never came to its turn exports all when the application ends."""
    path = tmp_path / "exported.json"
    assert "" == run_script(CONSOLE, path)
    (line,) = path.read_text().splitlines()
    (resource,) = json.loads(line)["resource_metrics"]
    (scope,) = resource["scope_metrics"]
    found = {metric["name"]: metric["data"]["data_points"] for metric in scope["metrics"]}
    assert [0.5] == [point["value"] for point in found["dl.loss"]]
    assert [1.0] == [point["value"] for point in found["dl.flag"]]
    assert not found.get("dl.nan")
    assert [1.0] == [point["value"] for point in found["dllogger.run_finished"]]


def test_a_periodic_export_goes_on_while_training_logs(tmp_path: Path) -> None:
    """Exports from the reader's thread see a loss that moves, and no export fails."""
    path = tmp_path / "exported.json"
    with path.open("w") as out:
        exporter = ConsoleMetricExporter(
            out=out, formatter=lambda data: data.to_json(indent=None) + "\n"
        )
        reader = PeriodicExportingMetricReader(exporter, export_interval_millis=20)
        provider = MeterProvider([reader], shutdown_on_exit=False)
        logger = Logger([OTelBackend(1, meter_provider=provider)])

        def steps_exported() -> set[float]:
            return {
                point["value"]
                for line in path.read_text().splitlines(keepends=True)
                if line.endswith("\n")
                for resource in json.loads(line)["resource_metrics"]
                for scope in resource["scope_metrics"]
                for metric in scope["metrics"]
                if metric["name"] == "dl.step"
                for point in metric["data"]["data_points"]
            }

        step = 0

        def several_came() -> bool:
            nonlocal step
            step += 1
            logger.log((0, step), {"step": step, f"name_{step}": step})
            return len(steps_exported()) >= 3

        wait_until(several_came, 30)
        logger.close()
        provider.shutdown()
    assert step in steps_exported()


def test_a_second_backend_on_a_provider_is_exported(
    provider: MeterProvider, reader: InMemoryMetricReader
) -> None:
    """A process that trains twice exports the second run, and no longer the first."""

    def losses() -> dict[str, float]:
        data = reader.get_metrics_data()
        assert data is not None
        return {
            point.attributes["run"]: point.value
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == "dl.loss"
            for point in metric.data.data_points
        }

    first = Logger([OTelBackend(1, meter_provider=provider, run="first")])
    first.log((0, 1), {"loss": 1.0})
    first.flush()
    beside = Logger([OTelBackend(1, meter_provider=provider, run="beside")])
    beside.log((0, 1), {"loss": 2.0})
    beside.flush()
    assert losses() == {"first": 1.0, "beside": 2.0}
    first.close()
    second = Logger([OTelBackend(1, meter_provider=provider, run="second")])
    second.log((0, 1), {"loss": 3.0})
    second.flush()
    assert losses() == {"beside": 2.0, "second": 3.0}
    for logger in (beside, second):
        logger.close()


def test_a_forked_child_exports_nothing_of_its_parents() -> None:
    """A child that collects on the inherited provider would repeat every series."""
    assert_forked_child_answers("""
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from otel_dllogger import Logger, OTelBackend

reader = InMemoryMetricReader()
logger = Logger([OTelBackend(1, meter_provider=MeterProvider([reader]))])

def exported():
    data = reader.get_metrics_data()
    return {
        metric.name
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.data.data_points
    }

logger.log((0, 1), {"loss": 1.0})
logger.flush()
assert {"dl.loss", "dllogger.rank_info"} <= exported()

def beside():
    hold()

def answers():
    logger.log((0, 2), {"loss": 2.0})
    logger.flush()
    return exported() == set()
""")


def test_a_reader_without_a_limit_of_series_is_given_none() -> None:
    """The SDK's own limit came late; where a reader has one, the store's is below it."""

    class OldReader:
        def __init__(self, prefix: str = "") -> None: ...

    assert {} == lift_cardinality_limit(OldReader, 5)
    limits = lift_cardinality_limit(InMemoryMetricReader, 20_000).get("cardinality_limits", {})
    assert all(limit > 20_000 for limit in limits.values())
