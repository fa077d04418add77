"""What the page says: every figure's name, kind and help, byte by byte, and metrics' names."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.identity import Topology
from otel_dllogger.metrics.instruments import Instruments
from otel_dllogger.metrics.naming import map_metric, parse_metadata
from otel_dllogger.metrics.store import SeriesStore
from otel_dllogger.record import Info, Metadata, Record

S = 1_000_000
T0_US = 1_700_000_000 * S
TOPOLOGY = Topology(run="r", rank=1, local_rank=1, world_size=2, attempt=1, host="h", pid=42)
NAN = float("nan")

PAGE = """\
# HELP dllogger_rank_info Where a rank runs; join on run and rank
# TYPE dllogger_rank_info gauge
dllogger_rank_info{attempt="1",host="h",local_rank="1",pid="42",rank="1",run="r",world_size="2"} 1.0
# HELP dllogger_world_size How many ranks the run has
# TYPE dllogger_world_size gauge
dllogger_world_size{rank="1",run="r"} 2.0
# HELP dllogger_epoch Last epoch that was logged
# TYPE dllogger_epoch gauge
dllogger_epoch{rank="1",run="r"} 0.0
# HELP dllogger_iteration Last iteration that was logged
# TYPE dllogger_iteration gauge
dllogger_iteration{rank="1",run="r"} 20.0
# HELP dllogger_steps_total Training steps, counted from the iterations that were logged
# TYPE dllogger_steps_total counter
dllogger_steps_total{rank="1",run="r"} 11.0
# HELP dllogger_step_seconds_total Time between the training steps that were logged, without phases that interrupt them
# TYPE dllogger_step_seconds_total counter
dllogger_step_seconds_total{rank="1",run="r"} 2.0
# HELP dllogger_phase_seconds_total What the time of the training loop went to, by phase
# TYPE dllogger_phase_seconds_total counter
dllogger_phase_seconds_total{phase="startup",rank="1",run="r"} 1.0
dllogger_phase_seconds_total{phase="stalled",rank="1",run="r"} 0.0
dllogger_phase_seconds_total{phase="train",rank="1",run="r"} 2.0
# HELP dllogger_hang_dumps_total Hangs whose stacks were written
# TYPE dllogger_hang_dumps_total counter
dllogger_hang_dumps_total{rank="1",run="r"} 0.0
# HELP dllogger_records_total Calls of the logger by type
# TYPE dllogger_records_total counter
dllogger_records_total{rank="1",run="r",type="log"} 3.0
dllogger_records_total{rank="1",run="r",type="metadata"} 2.0
dllogger_records_total{rank="1",run="r",type="info"} 1.0
dllogger_records_total{rank="1",run="r",type="parameter"} 1.0
# HELP dllogger_nonfinite_total NaN and Inf that were logged
# TYPE dllogger_nonfinite_total counter
dllogger_nonfinite_total{kind="loss",metric="train.loss",rank="1",run="r",stage="train"} 1.0
dllogger_nonfinite_total{kind="throughput",metric="ips",rank="1",run="r"} 0.0
# HELP dllogger_best Best finite value so far, by the metric's goal
# TYPE dllogger_best gauge
dllogger_best{goal="minimize",metric="train.loss",rank="1",run="r",stage="train"} 0.5
# HELP dllogger_parameter Hyper-parameters
# TYPE dllogger_parameter gauge
dllogger_parameter{name="lr",rank="1",run="r"} 0.1
# HELP dllogger_last_log_timestamp_seconds When the rank logged last
# TYPE dllogger_last_log_timestamp_seconds gauge
dllogger_last_log_timestamp_seconds{rank="1",run="r"} 1.700000004e+09
# HELP dllogger_run_start_timestamp_seconds When the rank started
# TYPE dllogger_run_start_timestamp_seconds gauge
dllogger_run_start_timestamp_seconds{rank="1",run="r"} 1.7e+09
# HELP dllogger_run_finished 1 after the summary of the run or a clean close
# TYPE dllogger_run_finished gauge
dllogger_run_finished{rank="1",run="r"} 0.0
# HELP dllogger_run_terminated 1 after SIGTERM or SIGINT told the process to end, unless it goes on
# TYPE dllogger_run_terminated gauge
dllogger_run_terminated{rank="1",run="r"} 0.0
# HELP dllogger_dropped_total What was not written or not exported, by reason
# TYPE dllogger_dropped_total counter
dllogger_dropped_total{rank="1",reason="disk_full",run="r"} 3.0
# HELP dllogger_log_seconds_total Time that the training loop spent in log()
# TYPE dllogger_log_seconds_total counter
dllogger_log_seconds_total{rank="1",run="r"} 0.25
# HELP dl_loss Last value logged as loss
# TYPE dl_loss gauge
dl_loss{goal="minimize",granularity="epoch",kind="loss",metric="train.loss",rank="1",run="r",stage="train"} 0.75
# HELP dl_ips_per_second Last value logged as ips
# TYPE dl_ips_per_second gauge
dl_ips_per_second{granularity="iteration",kind="throughput",metric="ips",rank="1",run="r",unit="imgs/s"} 1.0
"""  # noqa: E501 - lines of a page


class Page:
    """A store and a real exporter of it."""

    def __init__(self, provider: type[MeterProvider] = MeterProvider, **options: Any) -> None:
        self.store = SeriesStore(run="r", rank=1, start_us=T0_US)
        self.registry = CollectorRegistry()
        reader = PrometheusMetricReader(
            registry=self.registry, scope_info_enabled=False, disable_target_info=True
        )
        self.memory = InMemoryMetricReader()
        self.provider = provider(
            metric_readers=[reader, self.memory], resource=Resource({}), shutdown_on_exit=False
        )
        self.instruments = Instruments(self.store, TOPOLOGY, self.provider, version="0", **options)

    def log(self, step: Any, data: Any, *, at_s: int = 0) -> None:
        self.store.take(Record(T0_US + at_s * S, at_s * S, step, data))

    def metadata(self, metric: Any, metadata: Any) -> None:
        self.store.take(Metadata(T0_US, 0, metric, metadata))

    def text(self) -> str:
        self.instruments.register_new()
        page = generate_latest(self.registry).decode()
        # Versions of the exporter differ in whether they write a label that is empty.
        return re.sub(r',\w+=""', "", page)

    def families(self) -> dict[str, Any]:
        return {family.name: family for family in parse_text(self.text())}

    def values(self, name: str) -> dict[str, float]:
        """Return the values of a name by their ``metric``, or ``name``, label."""
        return {
            sample.labels.get("metric") or sample.labels["name"]: sample.value
            for family in self.families().values()
            for sample in family.samples
            if sample.name == name
        }


@pytest.fixture
def page() -> Page:
    return Page()


def test_the_page_is_this_byte_by_byte(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names, kinds, help, labels and values of all figures, and of two metrics."""
    page.log("PARAMETER", {"lr": 0.1, "optimizer": "adam", "api_key": 7}, at_s=1)
    page.metadata("train.loss", {"GOAL": "MINIMIZE", "STAGE": "TRAIN"})
    page.metadata("ips", {"unit": "imgs/s"})
    page.log((0, 10), {"train.loss": 0.5, "ips": 100}, at_s=1)
    page.log((0, 20), {"train.loss": NAN, "ips": True, "text": "x", "list": [1]}, at_s=3)
    page.log((0,), {"train.loss": 0.75}, at_s=4)
    page.store.take(Info(T0_US + 4 * S, 4 * S, "hello"))
    DIAGNOSTICS.dropped["disk_full"] += 3
    monkeypatch.setattr(DIAGNOSTICS, "log_ns", 250_000_000)
    text = page.text()
    none_dropped = re.compile(r'dllogger_dropped_total\{rank="1",reason="(\w+)",run="r"\} 0.0\n')
    assert set(DIAGNOSTICS.dropped) - {"disk_full"} == set(none_dropped.findall(text))
    assert PAGE == none_dropped.sub("", text)


def test_units_are_told_to_opentelemetry(page: Page) -> None:
    """The SDK gets UCUM units and the names of the contract, for exporters other than ours."""
    page.metadata("ips", {"unit": "imgs/s"})
    page.metadata("top1", {"unit": "%"})
    page.log((0, 1), {"ips": 1, "top1": 2, "loss": 3})
    page.instruments.register_new()
    (resource,) = page.memory.get_metrics_data().resource_metrics
    (scope,) = resource.scope_metrics
    assert ("otel_dllogger", "0") == (scope.scope.name, scope.scope.version)
    units = {metric.name: metric.unit for metric in scope.metrics}
    assert {
        "dl.ips": "{image}/s",
        "dl.loss": "",
        "dl.top1": "%",
        "dllogger.last_log_timestamp": "s",
        "dllogger.phase_seconds": "s",
        "dllogger.log": "s",
        "dllogger.run_start_timestamp": "s",
        "dllogger.step": "s",
    } == {name: unit for name, unit in units.items() if unit or name.startswith("dl.")}


def test_every_kind_of_step_is_a_series_of_its_own(page: Page) -> None:
    """A loss of an iteration, its mean of the epoch, validation and the run do not mix."""
    for value, step in enumerate([(), (0,), (0, 1), (0, 1, 2)]):
        page.log(step, {"loss": value})
    found = {one.labels["granularity"]: one.value for one in page.families()["dl_loss"].samples}
    assert {"run": 0.0, "epoch": 1.0, "iteration": 2.0, "validation": 3.0} == found


def test_a_rank_in_the_data_is_the_rank_of_the_series(page: Page) -> None:
    """A record may be another rank's; -1, a single card, is rank 0, and rank is no metric."""
    page.log((0, 1), {"loss": 0.5, "rank": "3"})
    page.log((0, 1), {"loss": 0.25, "rank": -1})
    families = page.families()
    found = {one.labels["rank"]: one.value for one in families["dl_loss"].samples}
    assert {"3": 0.5, "0": 0.25} == found
    assert "dl_rank" not in families
    info = {one.labels["rank"]: one.labels for one in families["dllogger_rank_info"].samples}
    assert {"0", "1", "3"} == info.keys()
    assert "1" == info["1"]["local_rank"]
    assert "" == info["3"].get("local_rank", "")


def test_text_parameters_are_exported_on_request_and_secrets_never() -> None:
    """With text_parameters a setting that is text is a label of a series that is 1."""
    page = Page(text_parameters=True)
    page.log("PARAMETER", {"optimizer": {"name": "adam", "lr": 0.1}, "password": "x", "token": "y"})
    samples = page.families()["dllogger_parameter"].samples
    found = {one.labels["name"]: (one.labels.get("value"), one.value) for one in samples}
    assert {"optimizer.name": ("adam", 1.0), "optimizer.lr": (None, 0.1)} == found


def test_metadata_between_a_collection_and_the_first_export_is_honoured(page: Page) -> None:
    """A collection may come before the metric has its instrument: metadata still counts."""
    page.log((0, 1), {"compute": 0.5})
    page.memory.get_metrics_data()
    page.metadata("compute", {"unit": "s", "STAGE": "VAL"})
    assert {"compute": 0.5} == page.values("dl_compute_seconds")
    assert "dl_compute" not in page.families()


class PickyMeter:
    """A meter of somebody else's SDK, with a rule of its own."""

    def __init__(self, meter: Any) -> None:
        self.create_observable_counter = meter.create_observable_counter
        self._create_observable_gauge = meter.create_observable_gauge

    def create_observable_gauge(self, name: str, *arguments: Any, **options: Any) -> Any:
        if name == "dl.bad":
            raise ValueError("no bad names here")
        return self._create_observable_gauge(name, *arguments, **options)


class PickyProvider(MeterProvider):
    def get_meter(self, *arguments: Any, **options: Any) -> Any:
        return PickyMeter(super().get_meter(*arguments, **options))


def test_an_instrument_that_is_refused_costs_no_other_metric() -> None:
    """What a provider refuses is counted once, and all other metrics are exported."""
    page = Page(provider=PickyProvider)
    page.log((0, 1), {"first": 1, "bad": 2, "last": 3})
    page.log((0,), {"bad": 2, "next": 4})
    assert {"dl_first": 1.0, "dl_last": 3.0, "dl_next": 4.0} == logged_on(page)
    assert 1 == DIAGNOSTICS.dropped["instrument"]


NAMES = [
    ("train.loss", None, "dl_loss"),
    ("train.loss", "s", "dl_loss_seconds"),
    ("val_items/s", "items/s", "dl_items_per_second"),
    ("ips", "images/s", "dl_ips_per_second"),
    ("compute_time", "s", "dl_compute_time_seconds"),
    ("top1", "%", "dl_top1_percent"),
    ("tput", "{img}/s", "dl_tput_per_second"),
    ("x", "1", "dl_x"),
    ("x", "samples / s", "dl_x_per_second"),
    ("eval_90%_latency", "ms", "dl_90_latency_milliseconds"),
    ("hr@10", "bleu", "dl_hr_10"),
    ("mAP", "", "dl_map"),
    ("memory", "GiB", "dl_memory_gibibytes"),
    ("loss_total", None, "dl_loss_total"),
    ("power", "J/s", None),
    ("steps:", None, "dl_steps"),
    ("bytes", "MB/s", None),
    ("rate", "tokens/min", "dl_rate_per_min"),
    ("rate", "tokens/h", "dl_rate_per_hour"),
    ("rate", "tokens/d", "dl_rate_per_day"),
    ("損失", None, "dl_unnamed"),
    ("1st", "us", "dl_1st_microseconds"),
]


@pytest.mark.parametrize(("name", "unit", "expected"), NAMES)
def test_names_on_the_page_are_those_of_the_mapping(
    page: Page, name: str, unit: str | None, expected: str | None
) -> None:
    """The exporter's own rules give the name that the mapping foretells."""
    foretold = map_metric(name, parse_metadata({"unit": unit})).prometheus_name
    page.metadata(name, {"unit": unit})
    page.log((0, 1), {name: 1.5})
    assert {foretold: 1.5} == logged_on(page)
    assert expected in (None, foretold)


UNITS = st.one_of(
    st.sampled_from(
        ["s", "ms", "min", "h", "d", "%", "W", "C", "kb", "MB", "GiB", "img/s", "fps", "b/min", "1"]
    ),
    st.text(max_size=80),
    st.from_regex(r"[a-zA-Z%]{0,8} ?/ ?(s|sec|min|m|h|hour|d|day)", fullmatch=True),
    st.none(),
    st.integers(),
)


@pytest.mark.slow
@given(name=st.text(max_size=300), unit=UNITS)
@settings(max_examples=300, deadline=None)
def test_any_name_and_unit_gives_the_name_of_the_mapping(name: str, unit: Any) -> None:
    """Whatever a script calls its metric, one series is on the page, named as foretold."""
    page = Page()
    metadata = {"unit": unit}
    page.metadata(name, metadata)
    page.log((0, 1), {name: 1.5})
    foretold = map_metric(name, parse_metadata(metadata)).prometheus_name
    if name != "rank":
        assert {foretold: 1.5} == logged_on(page)
    text = generate_openmetrics(page.registry).decode()
    assert (
        set(page.families())
        >= {"dllogger_epoch"}
        <= {family.name for family in parse_openmetrics(text)}
    )


def logged_on(page: Page) -> dict[str, float]:
    """Return the values of the metrics that were logged, by their name on the page."""
    samples = [one for family in page.families().values() for one in family.samples]
    logged = [one for one in samples if one.name.startswith("dl_")]
    values = {one.name: one.value for one in logged}
    assert len(values) == len(logged)
    return values


@pytest.mark.parametrize("value", [NAN, float("inf"), float("-inf"), "nan", 10**400])
def test_values_that_are_not_finite_leave_the_page(
    page: Page, value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """They count, and take away the last good value; the SDK never sees, nor warns of, them."""
    page.log((0, 1), {"loss": 0.5})
    page.log((0, 2), {"loss": value})
    assert {} == logged_on(page)
    assert {"loss": 1.0} == page.values("dllogger_nonfinite_total")
    page.log((0, 3), {"loss": 0.25})
    assert {"dl_loss": 0.25} == logged_on(page)
    assert [] == caplog.messages


def test_counters_never_go_back(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time in log() may be summed up wrongly by threads at one moment; the counter waits."""

    def shown() -> float:
        return page.families()["dllogger_log_seconds"].samples[0].value

    monkeypatch.setattr(DIAGNOSTICS, "log_ns", 2_000_000_000)
    assert 2.0 == shown()
    monkeypatch.setattr(DIAGNOSTICS, "log_ns", 1_000_000_000)
    assert 2.0 == shown()
