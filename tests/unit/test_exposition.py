"""The page that is rendered straight from stores says what OpenTelemetry's reader says."""

from __future__ import annotations

import math
import os
import subprocess
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.identity import Topology
from otel_dllogger.metrics.exported_store import ExportedStore
from otel_dllogger.metrics.exposition import StorePage
from otel_dllogger.metrics.instruments import Instruments
from otel_dllogger.metrics.internal import PROCESS_METRICS, RANK_METRICS
from otel_dllogger.metrics.store import SeriesStore
from otel_dllogger.record import Info, Metadata, Record, SeriesMetadata
from tests.support.prometheus import find_program
from tests.support.seen_names import SEEN_NAMES

EXAMPLES = settings(deadline=None, derandomize="CI" in os.environ, max_examples=250)
ACCEPTS = {
    "text/plain": parse_text,
    "application/openmetrics-text; version=1.0.0": parse_openmetrics,
}

NAMES = st.sampled_from(SEEN_NAMES) | st.text(max_size=20)
NUMBERS = (
    st.floats() | st.integers(-(2**70), 2**70) | st.booleans() | st.sampled_from([10**400, 1e22])
)
STEPS = st.sampled_from([(), (0,), (3, 7), (1, 2, 3), 5, "event", "PARAMETER", (2**2000, 1)])
METADATA = st.fixed_dictionaries(
    {},
    optional={
        "unit": st.sampled_from(
            ["s", "ms", "%", "images/s", "GB", "bleu", None, "W", "tokens/min"]
        ),
        "GOAL": st.sampled_from(["MINIMIZE", "MAXIMIZE", "NONE"]),
        "STAGE": st.sampled_from(["TRAIN", "VAL", "own"]),
    },
)
RECORDS = st.tuples(STEPS, st.dictionaries(NAMES, NUMBERS, max_size=4))
ENTRIES = st.tuples(
    st.integers(0, 2), RECORDS | st.tuples(NAMES, METADATA) | st.dictionaries(NAMES, NUMBERS)
)


class Stores:
    """Three stores of ranks of one run, on a page of either kind."""

    def __init__(self, *, max_series=10_000):
        self.provider_registry = CollectorRegistry(auto_describe=False)
        reader = PrometheusMetricReader(
            registry=self.provider_registry, scope_info_enabled=False, disable_target_info=True
        )
        provider = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
        self.page = StorePage((*RANK_METRICS, *PROCESS_METRICS))
        self.stores, self.exported, self.instruments = [], [], []
        for rank in range(3):
            topology = Topology(f'r"{rank % 2}\\', rank, rank, 3, 1, "host", 42)
            store = SeriesStore(
                run=topology.run, rank=rank, start_us=1_700_000_000_000_000, max_series=max_series
            )
            self.stores.append(store)
            self.exported.append(ExportedStore(store, topology, text_parameters=True))
            self.instruments.append(
                Instruments(store, topology, provider, version="1", text_parameters=True)
            )

    def take(self, number, entry, time_us):
        store = self.stores[number]
        match entry:
            case dict():
                store.take(Info(time_us, 0, entry))
            case (str() as name, dict() as metadata) if name not in ("event", "PARAMETER"):
                store.take(Metadata(time_us, 0, name, metadata))
            case (step, data):
                store.take(Record(time_us, time_us, step, data))

    def read_pages(self):
        """Return what the two pages say, by who renders them."""
        for exported, instruments in zip(self.exported, self.instruments, strict=True):
            changed = set(exported.store.changed_metadata)  # each of the two takes them
            exported.apply_late_metadata()
            exported.store.changed_metadata |= changed
            instruments.register_new()
        for accept, parse in ACCEPTS.items():
            encode, expected_type = choose_encoder(accept)
            expected = encode(self.provider_registry).decode()
            content_type, page = self.page.render(self.exported, accept)
            assert expected_type == content_type
            yield meaning(parse, expected), meaning(parse, page.decode())


def meaning(parse, page):
    """Return a page's families, whatever their order; a label that is empty is none."""
    families = {}
    for family in parse(page):
        samples = {}
        for sample in family.samples:
            labels = frozenset((k, v) for k, v in sample.labels.items() if v)
            assert (sample.name, labels) not in samples
            samples[sample.name, labels] = sample.value
        families[family.name] = (family.type, family.documentation, family.unit, samples)
    return families


@pytest.mark.slow
@EXAMPLES
@given(rounds=st.lists(st.lists(ENTRIES, max_size=8), min_size=1, max_size=3))
@example(  # one name and two units, neither of which shows in the name
    rounds=[
        [(0, ("hr@10", {"unit": "bleu", "GOAL": "MINIMIZE"})), (0, ((), {"hr@10": 0.0}))],
        [(1, ((), {"hr@10": 0.0}))],
    ]
)
@example(  # two names that are one in Prometheus
    rounds=[[(0, ("a.b", {"GOAL": "MINIMIZE"})), (0, ((), {"a.b": 0.0})), (1, ((), {"a_b": 0.0}))]]
)
def test_it_says_what_the_reader_says(rounds):
    """Families, kinds, helps, units, labels and values, after any history and at any moment."""
    stores = Stores()
    time_us = 1_700_000_000_000_000
    for entries in rounds:
        for number, entry in entries:
            time_us += 1_500_000
            stores.take(number, entry, time_us)
        for expected, found in stores.read_pages():
            assert expected == found


def test_it_says_it_beyond_the_limit_of_series():
    """What a store has no room for is on neither page."""
    stores = Stores(max_series=60)
    for number in range(30):
        data = {f"m{number}": 1.0, f"n{number}": math.nan}
        stores.take(number % 3, ((0, number), data), 1_700_000_000_000_000)
    for expected, found in stores.read_pages():
        assert expected == found
    assert DIAGNOSTICS.dropped["series_limit"]


def test_a_rank_that_left_leaves_the_page():
    """Only the stores that are passed are on it, and those that come back are as before."""
    stores = Stores()
    for number in range(3):
        stores.take(number, ((0, 1), {"loss": float(number)}), 1_700_000_000_000_000)
    page = stores.page
    first = page.render(stores.exported, "")[1]
    fewer = page.render(stores.exported[:1], "")[1].decode()
    assert (3, 1) == (first.count(b"\ndl_loss{"), fewer.count("\ndl_loss{"))
    assert first == page.render(stores.exported, "")[1]


def test_series_that_are_one_are_on_it_once():
    """Two keys that are shown alike, as from two formats of one run, are no double series."""
    store = SeriesStore(run="r", rank=0, start_us=0)
    store.take(SeriesMetadata("loss\0train", "loss", {"STAGE": "TRAIN"}))
    store.take(SeriesMetadata("loss", "loss", {"STAGE": "TRAIN"}))
    store.take(Record(0, 0, (0, 1), {"loss\0train": 1.0, "loss": 2.0}))
    exported = ExportedStore(store, Topology("r", 0, 0, 1, 1, "h", 1))
    lines = StorePage().render([exported], "")[1].decode().splitlines()
    (line,) = [line for line in lines if line.startswith("dl_loss{")]
    assert line.endswith('metric="loss",rank="0",run="r",stage="train"} 2.0')


@pytest.mark.slow
@EXAMPLES
@given(
    calls=st.lists(
        st.dictionaries(st.sampled_from("abc"), st.sampled_from([1, 2.5, "", "x", "y", "3"])),
        max_size=6,
    )
)
def test_a_parameter_is_one_series(calls):
    """Of a number or of a text, whatever it was before, and never two with the same labels."""
    stores = Stores()
    for call in calls:
        stores.take(0, call, 1_700_000_000_000_000)
    last = {name: value for call in calls for name, value in call.items()}
    shown = {
        (name, "" if isinstance(value, float) else value): value if isinstance(value, float) else 1
        for name, value in ((n, float(v) if v in (1, 2.5, "3") else v) for n, v in last.items())
        if value != ""
    }
    for pages in stores.read_pages():
        for families in pages:
            samples = families.get("dllogger_parameter", (0, 0, 0, {}))[3]
            found = {
                (dict(key)["name"], dict(key).get("value", "")): v
                for (_n, key), v in samples.items()
            }
            assert shown == found


def test_a_parameter_of_an_older_checkpoint_is_one_series():
    """One that was written with a number and a text of one name."""
    store = SeriesStore(run="r", rank=0, start_us=0)
    plain = store.to_plain()
    ranks = {str(rank): state for rank, state in plain["ranks"].items()}
    ranks["0"] |= {"parameters": {"lr": 0.1}, "texts": {"lr": "auto", "name": "adam"}}
    store.load_plain({**plain, "ranks": ranks})
    exported = ExportedStore(store, Topology("r", 0, 0, 1, 1, "h", 1), text_parameters=True)
    lines = StorePage().render([exported], "")[1].decode().splitlines()
    assert [line for line in lines if line.startswith("dllogger_parameter{")] == [
        'dllogger_parameter{name="lr",rank="0",run="r"} 0.1',
        'dllogger_parameter{name="name",rank="0",run="r",value="adam"} 1.0',
    ]


def test_promtool_finds_nothing_to_say():
    """The real checker takes it."""
    stores = Stores()
    for number in range(3):
        stores.take(number, (f"v\n{number}", {"unit": "s", "GOAL": "MINIMIZE"}), 0)
        stores.take(number, ((0, 1), {f"v\n{number}": 1.5, "loss": 2}), time.time_ns() // 1000)
    page = stores.page.render(stores.exported, "text/plain")[1]
    promtool = [find_program("promtool"), "check", "metrics"]
    result = subprocess.run(promtool, input=page, capture_output=True, timeout=30, check=False)
    assert (0, b"") == (result.returncode, result.stderr)
