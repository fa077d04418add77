"""Any values, names, steps and metadata through the whole: one line each, and a valid page."""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import io
import json
import math
import os
import subprocess
from contextlib import contextmanager
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from otel_dllogger import JSONStreamBackend, Logger, PrometheusBackend, StdOutBackend
from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.metrics.naming import label_text
from otel_dllogger.values import convert, to_plain
from tests.support.http import ask
from tests.support.prometheus import find_program
from tests.support.seen_names import SEEN_NAMES

EXAMPLES = settings(deadline=None, derandomize="CI" in os.environ, max_examples=250)
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
LOG_KEYS = ["timestamp", "datetime", "elapsedtime", "type", "step", "data"]
SEEN_UNITS = [
    *(None, "s", "ms", "min", "images/s", "img/s", "samples/s", "tokens/s", "%", "nat", "x", ""),
    *(
        "1",
        "B/s",
        "/s",
        "{image}",
        "s/s",
        "%/s",
        "GB",
        "°C",
        "a b/s",
        "per s",
        "}",
        "u" * 300,
        "\n",
    ),
]


class Raising:
    """Raise whatever is asked of it."""

    def __repr__(self) -> str:
        raise ValueError("no repr")

    __str__ = __float__ = item = __repr__
    shape = ()


class Tensor:
    """Do what a torch tensor of one value does."""

    shape = ()

    def __init__(self, value) -> None:
        self._value = value

    def item(self):
        return self._value

    def __bool__(self) -> bool:
        raise RuntimeError("ambiguous")


any_text = st.text(st.characters(), max_size=20)
names = st.one_of(st.sampled_from(SEEN_NAMES), any_text)
keys = st.one_of(
    names,
    names,
    names,
    st.integers(),
    st.none(),
    st.booleans(),
    st.floats(),
    st.tuples(st.integers()),
    st.binary(max_size=4),
    st.builds(Raising),
).filter(lambda key: key != "rank")
# Hypothesis cannot show an int of more than 4,300 digits; test_values has those.
huge = st.sampled_from([1, -1]).map(lambda sign: sign * 10**4000)
numbers = st.one_of(
    st.floats(),
    st.sampled_from([math.nan, math.inf, -math.inf, 0.5]),
    st.integers(),
    st.integers(-(10**400), 10**400),
    st.sampled_from([2**63, 2**64, 1e308, -0.0, 5e-324, np.float32("nan"), np.float16("inf")]),
    huge,
    st.booleans(),
    st.floats().map(str),
    st.integers().map(str),
    st.decimals(),
    st.fractions(),
    st.floats(-1e38, 1e38).map(np.float32),
    st.floats(-6e4, 6e4).map(np.float16),
    st.integers(-128, 127).map(np.int8),
    st.integers(0, 2**64 - 1).map(np.uint64),
    st.floats().map(np.longdouble),
    st.booleans().map(np.bool_),
    st.floats().map(np.array),
    st.floats().map(Tensor),
)
others = st.one_of(
    st.none(),
    any_text,
    st.binary(max_size=8),
    st.complex_numbers(),
    st.sampled_from(
        [Path("/x"), dt.date(2024, 1, 2), np.arange(3), Decimal("sNaN"), Fraction(1, 3)]
    ),
    st.builds(Raising),
    huge.map(lambda value: [value, {value: value}]),
    st.builds(lambda: (number for number in (1, 2))),
    st.frozensets(st.integers() | any_text, max_size=3),
)
values = st.recursive(
    st.one_of(numbers, others),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(keys, inner, max_size=3),
    ),
    max_leaves=4,
)
metrics_data = st.dictionaries(keys, st.one_of(numbers, numbers, values), max_size=6)
any_data = st.one_of(
    metrics_data,
    metrics_data,
    metrics_data,
    values,
    st.dictionaries(st.text("abc", min_size=1, max_size=3), values, max_size=3).map(
        lambda pairs: argparse.Namespace(**pairs)
    ),
)
counts = st.integers(0, 10**6)
steps = st.one_of(
    st.tuples(counts, counts),
    st.just(()),
    st.tuples(counts),
    counts,
    st.tuples(counts, counts, counts),
    st.sampled_from(["PARAMETER", "event", "HPARAMS", "infer", "12", ("Calibration", 3), [], [1]]),
    st.tuples(st.integers(), st.integers()),
    st.tuples(huge, counts),
    values,
)
metadata = st.one_of(
    st.fixed_dictionaries(
        {},
        optional={
            "unit": st.one_of(st.sampled_from(SEEN_UNITS), any_text),
            "GOAL": st.sampled_from(["MINIMIZE", "MAXIMIZE", "MIMIMIZE", "NONE", None, 3]),
            "STAGE": st.one_of(st.sampled_from(["TRAIN", "VAL", "TEST", "INFER"]), any_text),
            "format": st.sampled_from([":.3f", "0:.5f", ".3f", "%.3f", ":>3.2e", "{", None]),
            "name": values,
        },
    ),
    values,
)
calls = st.lists(
    st.one_of(
        st.tuples(st.just("log"), steps, any_data),
        st.tuples(st.just("log"), steps, any_data),
        st.tuples(st.just("metadata"), names, metadata),
        st.tuples(st.just("metadata"), keys, metadata),
        st.tuples(st.just("info"), any_data),
    ),
    min_size=1,
    max_size=8,
)


def granularity_of(step):
    """Say what the contract calls a step; None for hyper-parameters."""
    plain = to_plain(step)
    if isinstance(step, str) and step.strip().upper() in ("PARAMETER", "HPARAMS"):
        return None
    if isinstance(step, (tuple, list)):
        return ["run", "epoch", "iteration", "validation"][min(len(step), 3)]
    try:
        number = not isinstance(plain, (list, dict)) and plain is not None and float(plain)
        return "iteration" if math.isfinite(number) and number is not False else "run"
    except (ValueError, OverflowError):
        return "run"


def as_json(plain):
    """Write a value so that NaN equals NaN and 1 is not 1.0 or True."""
    return json.dumps(plain, sort_keys=True)


@contextmanager
def logger_on(*backends):
    """Close the Logger at the end, and keep what it prints to itself."""
    with contextlib.redirect_stdout(io.StringIO()), Logger(backends) as logger:
        yield logger


def series_of(page, parse):
    """Parse a page in which every series must be there once."""
    series = {}
    for family in parse(page):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in series
            series[key] = sample.value
    return series


def check_page(port, expected):
    """Check a page in both formats, and that the expected series are on it and no others."""
    text = series_of(ask(port).body.decode(), parse_text)
    openmetrics = series_of(ask(port, Accept=OPENMETRICS).body.decode(), parse_openmetrics)
    for series in (text, openmetrics):
        found = {}
        for (name, pairs), value in series.items():
            if name.startswith("dl_"):
                labels = dict(pairs)
                found[labels["metric"], labels["granularity"]] = value
        assert expected == found
    assert {key for key in text if key[0] != "dllogger_log_seconds_total"} == {
        key for key in openmetrics if key[0] != "dllogger_log_seconds_total"
    }
    return text


def promtool(port):
    """Let Prometheus' own check read a page; 3 stands for remarks on style."""
    page = ask(port).body
    result = subprocess.run(
        [find_program("promtool"), "check", "metrics"], input=page, capture_output=True, check=False
    )
    assert result.returncode in (0, 3), result.stderr.decode()[-2000:]


@pytest.fixture(scope="module")
def everything():
    """Make a Logger that is given the calls of all examples."""
    with Logger([PrometheusBackend(1, port=0, max_series=10**6, run="everything")]) as logger:
        yield logger


def expected_series(done):
    """Work out the last finite number of each metric and granularity."""
    expected = {}
    for name, *arguments in done:
        if name != "log":
            continue
        step, data = arguments
        granularity = granularity_of(step)
        if granularity is None:
            continue
        for metric, value in convert(data).numbers.items():
            expected[label_text(metric), granularity] = float(value)
    return {key: value for key, value in expected.items() if math.isfinite(value)}


@pytest.mark.slow
@EXAMPLES
@given(calls)
def test_anything_gives_one_line_each_and_a_valid_page(tmp_path_factory, everything, done):
    """No call raises; each is one line that parses; each finite number is on the page."""
    path = tmp_path_factory.mktemp("any") / "log"
    before = dict(DIAGNOSTICS.dropped)
    metrics = PrometheusBackend(1, port=0)
    with logger_on(StdOutBackend(1), JSONStreamBackend(1, path), metrics) as logger:
        for name, *arguments in done:
            getattr(logger, name)(*arguments)
            getattr(everything, name)(*arguments)
        text = check_page(metrics.endpoint.port, expected_series(done))
    assert before["backend_failed"] == DIAGNOSTICS.dropped["backend_failed"]
    assert before["series_limit"] == DIAGNOSTICS.dropped["series_limit"]
    check_lines(path.read_bytes(), done)
    counted = {
        dict(pairs)["type"]: value
        for (name, pairs), value in text.items()
        if name == "dllogger_records_total"
    }
    parameters = sum(name == "log" and granularity_of(rest[0]) is None for name, *rest in done)
    of_kind = [name for name, *_ in done]
    assert counted == {
        "log": of_kind.count("log") - parameters,
        "metadata": of_kind.count("metadata"),
        "info": of_kind.count("info"),
        "parameter": parameters,
    }


def check_lines(content, done):
    """Check that each call is one ASCII line of DLLogger's form, with its step and data."""
    lines = content.decode("ascii").splitlines()
    assert content.count(b"\n") == len(lines) == len(done)
    for line, (name, *arguments) in zip(lines, done, strict=True):
        entry = json.loads(line[5:])
        kind = {"log": "LOG", "metadata": "METADATA", "info": "INFO"}[name]
        assert kind == entry["type"]
        if name != "log":
            continue
        step, data = arguments
        assert (LOG_KEYS, "DLLL ") == (list(entry), line[:5])
        assert float(entry["timestamp"]) > 1e9
        assert dt.datetime.fromisoformat(entry["datetime"]).tzinfo is not None
        assert float(entry["elapsedtime"]) >= 0
        expected = as_json(to_plain(step)), as_json(convert(data).plain)
        assert expected == (as_json(entry["step"]), as_json(entry["data"]))


@pytest.mark.slow  # it needs the examples of the tests before it
def test_promtool_accepts_the_page_of_all_examples(everything):
    """Prometheus' own check reads the page of all calls of the examples above together."""
    port = everything.backends[0].endpoint.port
    promtool(port)
    page = ask(port).body.decode()
    assert len(series_of(page, parse_text)) > 100


@pytest.mark.parametrize("unit", [*SEEN_UNITS, 3, ["s"], {"a": 1}])
def test_every_name_with_every_unit_is_on_one_valid_page(unit, tmp_path):
    """All names at once, under one unit, with late and changed metadata as well."""
    metrics = PrometheusBackend(1, port=0)
    with logger_on(metrics, JSONStreamBackend(1, tmp_path / "log")) as logger:
        for name in SEEN_NAMES[::2]:
            logger.metadata(name, {"unit": unit, "STAGE": "TRAIN", "GOAL": "MINIMIZE"})
        for epoch in range(2):
            logger.log((epoch, 1), {name: index for index, name in enumerate(SEEN_NAMES)})
            check_page(
                metrics.endpoint.port,
                {(label_text(name), "iteration"): index for index, name in enumerate(SEEN_NAMES)},
            )
            for name in SEEN_NAMES[1::2]:
                logger.metadata(name, {"unit": unit, "STAGE": "VAL"})
        check_page(
            metrics.endpoint.port,
            {(label_text(name), "iteration"): index for index, name in enumerate(SEEN_NAMES)},
        )
        promtool(metrics.endpoint.port)
    assert 0 == DIAGNOSTICS.dropped["backend_failed"] + DIAGNOSTICS.dropped["instrument"]


@pytest.mark.slow
@pytest.mark.parametrize("letter", ["a", "\x00", "🔥", "\u2028", "a\n", "/", " ", "1"])
def test_names_of_a_megabyte(letter, tmp_path):
    """A name of 1 MB is whole in the log, and cut but different on the page."""
    metrics = PrometheusBackend(1, port=0)
    long = letter * (10**6 // len(letter))
    data = {long: 1.5, f"{long}x": 2.5, f"y{long}": 3.5}
    with logger_on(metrics, JSONStreamBackend(1, tmp_path / "log"), StdOutBackend(1)) as logger:
        logger.metadata(long, {"unit": long, "GOAL": long, "STAGE": long})
        logger.log(long, data)
        expected = {(label_text(name), "run"): value for name, value in data.items()}
        if letter == "1":  # a number, beyond the range of a float
            assert {key[1] for key in expected} == {"run"}
        check_page(metrics.endpoint.port, expected)
        promtool(metrics.endpoint.port)
        assert len(ask(metrics.endpoint.port).body) < 50_000
    lines = (tmp_path / "log").read_text().splitlines()
    assert (2, data) == (len(lines), json.loads(lines[1][5:])["data"])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, "nan", 10**400], ids=str)
def test_a_bad_value_takes_its_series_away_until_the_next_good_one(bad, tmp_path):
    """A diverged loss is not shown as the last good one; the others stay."""
    metrics = PrometheusBackend(1, port=0)
    with logger_on(metrics, JSONStreamBackend(1, tmp_path / "log")) as logger:
        port = metrics.endpoint.port
        logger.log((0, 1), {"loss": 0.5, "lr": 0.1})
        check_page(port, {("loss", "iteration"): 0.5, ("lr", "iteration"): 0.1})
        logger.log((0, 2), {"loss": bad, "lr": 0.2})
        series = check_page(port, {("lr", "iteration"): 0.2})
        logger.log((0, 3), {"loss": 0.25})
        check_page(port, {("loss", "iteration"): 0.25, ("lr", "iteration"): 0.2})
    (count,) = [
        value
        for (name, pairs), value in series.items()
        if name == "dllogger_nonfinite_total" and dict(pairs)["metric"] == "loss"
    ]
    assert 1 == count


@pytest.mark.parametrize(
    "step",
    [(10**5000, 1), (1, 10**5000), 10**5000, (10**400, 10**400, 3)],
    ids=["epoch", "iteration", "number", "validation"],
)
def test_a_step_of_any_size_keeps_the_page(step, tmp_path):
    """A step beyond any number costs neither the line nor the page's other figures."""
    metrics = PrometheusBackend(1, port=0)
    with logger_on(metrics, JSONStreamBackend(1, tmp_path / "log")) as logger:
        for number in (step, (0, 1), step, (0, 2), step):
            logger.log(number, {"loss": 0.5})
        page = series_of(ask(metrics.endpoint.port).body.decode(), parse_text)
    names_found = {name for name, _ in page}
    assert {"dllogger_epoch", "dllogger_iteration", "dllogger_steps_total"} <= names_found
    assert 0.5 in [value for (name, _), value in page.items() if name == "dl_loss"]
    assert 5 == len((tmp_path / "log").read_text().splitlines())
    assert 0 == DIAGNOSTICS.dropped["backend_failed"]
