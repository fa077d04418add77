"""The contract of names and labels, as tables: from what was logged to what is exported."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry

from otel_dllogger.metrics.naming import (
    MAX_LABEL_CHARACTERS,
    MetricMetadata,
    label_text,
    map_metric,
    parse_goal,
    parse_metadata,
    parse_stage,
    parse_unit,
    unit_suffix,
)

# As scripts give it: (UCUM, what Prometheus shows).
UNITS = {
    None: ("", ""),
    "": ("", ""),
    "  ": ("", ""),
    "1": ("", ""),
    "None": ("", ""),
    "-": ("", ""),
    7: ("", ""),
    "s": ("s", "seconds"),
    "sec": ("s", "seconds"),
    " Seconds ": ("s", "seconds"),
    "ms": ("ms", "milliseconds"),
    "us": ("us", "microseconds"),
    "ns": ("ns", "nanoseconds"),
    "min": ("min", "minutes"),
    "h": ("h", "hours"),
    "day": ("d", "days"),
    "%": ("%", "percent"),
    "pct": ("%", "percent"),
    "GB": ("GBy", "gigabytes"),
    "MiB": ("MiBy", "mebibytes"),
    "W": ("W", "watts"),
    "°C": ("Cel", "celsius"),
    "images/s": ("{image}/s", "per_second"),
    "img/s": ("{image}/s", "per_second"),
    "imgs/s": ("{image}/s", "per_second"),
    "Imgs / S": ("{image}/s", "per_second"),
    "images/sec": ("{image}/s", "per_second"),
    "images per second": ("{image}/s", "per_second"),
    "samples/s": ("{sample}/s", "per_second"),
    "samples / s": ("{sample}/s", "per_second"),
    "sequences/s": ("{sequence}/s", "per_second"),
    "tokens/s": ("{token}/s", "per_second"),
    "items/s": ("{item}/s", "per_second"),
    "frames/s": ("{frame}/s", "per_second"),
    "fps": ("{frame}/s", "per_second"),
    "it/s": ("{iteration}/s", "per_second"),
    "speeds/s": ("{speed}/s", "per_second"),
    "loss/s": ("{loss}/s", "per_second"),
    "/s": ("/s", "per_second"),
    "tokens/min": ("{token}/min", "per_min"),
    "epochs/h": ("{epoch}/h", "per_hour"),
    "samples/day": ("{sample}/d", "per_day"),
    "GB/s": ("GBy/s", "gigabytes_per_second"),
    "GiB/s": ("GiBy/s", "gibibytes_per_second"),
    "ms/step": ("{ms/step}", ""),
    "nat": ("{nat}", ""),
    "bleu": ("{bleu}", ""),
    "BLEU": ("{BLEU}", ""),
    "x": ("{x}", ""),
    "{image}": ("{image}", ""),
    "lr * 1e3": ("{lr * 1e3}", ""),
    "µ": ("", ""),
    "a\nb": ("{a b}", ""),
    "\x00": ("", ""),
    "a{b": ("", ""),
}


@pytest.mark.parametrize("raw", UNITS, ids=repr)
def test_units(raw):
    """Every spelling of a unit is one UCUM code, with the suffix that Prometheus shows."""
    unit = parse_unit(raw)
    assert (unit, unit_suffix(unit)) == UNITS[raw]


@pytest.mark.parametrize("length", [57, 58, 1000])
def test_a_long_unit_is_cut_to_what_opentelemetry_allows(length):
    """A unit has at most 63 characters, and annotations are cut to it."""
    assert parse_unit("a" * length) == f"{{{'a' * 57}}}"
    assert len(parse_unit("a" * length + "/min")) <= 63


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("MINIMIZE", "minimize"),
        ("MIMIMIZE", "minimize"),
        ("minimise", "minimize"),
        ("min", "minimize"),
        ("MAXIMIZE", "maximize"),
        (" Maximize ", "maximize"),
        ("MAX", "maximize"),
        ("NONE", None),
        ("", None),
        ("best", None),
        (None, None),
        (1, None),
        (["MINIMIZE"], None),
    ],
)
def test_goals(raw, expected):
    """A goal is minimize or maximize, known typos included; absent where unknown."""
    assert parse_goal(raw) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("TRAIN", "train"),
        ("Training", "train"),
        ("VAL", "val"),
        ("VALID", "val"),
        ("VALIDATION", "val"),
        ("EVAL", "val"),
        (" test ", "test"),
        ("INFER", "infer"),
        ("Calibration", "calibration"),
        ("a\nB", f"{'a'}\\u000ab~"),
        ("", None),
        ("NONE", None),
        (None, None),
        (3, None),
    ],
)
def test_stages(raw, expected):
    """A stage is one of four, else in lower case as it was given."""
    found = parse_stage(raw)
    assert (found[:-16] if found and "~" in found else found) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({}, MetricMetadata()),
        (None, MetricMetadata()),
        ("unit", MetricMetadata()),
        ([("unit", "s")], MetricMetadata()),
        (
            {"unit": "imgs/s", "GOAL": "MAXIMIZE", "STAGE": "TRAIN", "format": ":.3f"},
            MetricMetadata("{image}/s", "maximize", "train", unit_text="imgs/s"),
        ),
        ({"unit": "s", "goal": "min", "stage": "val"}, MetricMetadata("s", "minimize", "val")),
        ({"GOAL": "NONE", "goal": "min"}, MetricMetadata()),
        ({"name": None, "unit": None, "GOAL": None, "STAGE": None}, MetricMetadata()),
        ({"unit": ["s"], "GOAL": {"a": 1}, "STAGE": np.ones(2)}, MetricMetadata()),
        ({b"unit": "s", 1: 2}, MetricMetadata()),
    ],
)
def test_metadata(raw, expected):
    """What makes no sense in metadata counts as absent, the rest still holds."""
    assert parse_metadata(raw) == expected


# (name, unit, stage in the metadata): (Prometheus, stage label)
NAMES = {
    ("train.loss", "", "TRAIN"): ("dl_loss", "train"),
    ("train.loss", "", None): ("dl_loss", "train"),
    ("train/loss", "", None): ("dl_loss", "train"),
    ("train_loss", "", None): ("dl_loss", "train"),
    ("val.loss", "", "VALID"): ("dl_loss", "val"),
    ("valid.loss", "", None): ("dl_loss", "val"),
    ("validation/loss", "", None): ("dl_loss", "val"),
    ("eval_loss", "", "VAL"): ("dl_loss", "val"),
    ("test.loss", "", None): ("dl_loss", "test"),
    ("Train.Loss", "", None): ("dl_loss", "train"),
    # a token that does not agree with the stage stays in the name
    ("val_loss", "", "TRAIN"): ("dl_val_loss", "train"),
    ("train.loss", "", "VAL"): ("dl_train_loss", "val"),
    ("test_acc", "", "INFER"): ("dl_test_acc", "infer"),
    ("train_loss", "", "Calibration"): ("dl_train_loss", "calibration"),
    # only one token, only in front, only a whole one, and never all of the name
    ("train.val_loss", "", None): ("dl_val_loss", "train"),
    ("loss_train", "", None): ("dl_loss_train", None),
    ("value", "", None): ("dl_value", None),
    ("trainer.step", "", None): ("dl_trainer_step", None),
    ("evaluation_loss", "", None): ("dl_evaluation_loss", None),
    ("train", "", None): ("dl_train", None),
    ("train.", "", None): ("dl_train", None),
    ("infer_latency", "ms", None): ("dl_infer_latency_milliseconds", None),
    # names and units seen in the wild
    ("eval_90%_latency", "ms", None): ("dl_90_latency_milliseconds", "val"),
    ("90%_fastpitch_latency", "ms", None): ("dl_90_fastpitch_latency_milliseconds", None),
    ("hr@10", "", None): ("dl_hr_10", None),
    ("final_ndcg@100", "", None): ("dl_final_ndcg_100", None),
    ("total time", "s", None): ("dl_total_time_seconds", None),
    ("steps:", "", None): ("dl_steps", None),
    ("learning_rate changed", "", None): ("dl_learning_rate_changed", None),
    ("RTF@1", "x", None): ("dl_rtf_1", None),
    ("data+dnn_latency_0.99", "s", None): ("dl_data_dnn_latency_0_99_seconds", None),
    ("val_items/s", "items/s", None): ("dl_items_per_second", "val"),
    ("val_items/s", "", None): ("dl_items_per_second", "val"),
    ("mAP", "", None): ("dl_map", None),
    ("map", "", None): ("dl_map", None),
    ("F1", "", "VAL"): ("dl_f1", "val"),
    ("f1", "", "VAL"): ("dl_f1", "val"),
    ("train.ips", "imgs/s", "TRAIN"): ("dl_ips_per_second", "train"),
    ("train.compute_time", "s", None): ("dl_compute_time_seconds", "train"),
    ("val.top1", "%", None): ("dl_top1_percent", "val"),
    ("bleu", "bleu", None): ("dl_bleu", None),
    ("loss", "nat", None): ("dl_loss", None),
    # a unit is not said twice
    ("time_seconds", "s", None): ("dl_time_seconds", None),
    ("time_sec", "s", None): ("dl_time_seconds", None),
    ("time_s", "s", None): ("dl_time_seconds", None),
    ("latency_ms", "ms", None): ("dl_latency_milliseconds", None),
    ("accuracy_percent", "%", None): ("dl_accuracy_percent", None),
    ("accuracy %", "%", None): ("dl_accuracy_percent", None),
    ("tokens_per_sec", "tokens/s", None): ("dl_tokens_per_second", None),
    ("tokens_per_second", "tokens/s", None): ("dl_tokens_per_second", None),
    ("tokens/sec", "tokens/s", None): ("dl_tokens_per_second", None),
    ("mem_gb", "GB", None): ("dl_mem_gigabytes", None),
    ("seconds", "s", None): ("dl_seconds", None),
    ("train.ms", "ms", None): ("dl_milliseconds", "train"),
    ("per_second", "items/s", None): ("dl_per_second", None),
    # but a unit that the name does not end in stays
    ("seconds_left", "min", None): ("dl_seconds_left_minutes", None),
    ("loss_ms", "s", None): ("dl_loss_ms_seconds", None),
    ("rates", "s", None): ("dl_rates_seconds", None),
    # what cannot be in a name
    ("", "", None): ("dl_unnamed", None),
    ("%", "", None): ("dl_unnamed", None),
    ("损失", "", None): ("dl_unnamed", None),
    ("Größe", "", None): ("dl_gro_e", None),
    ("é", "", None): ("dl_e", None),
    ("__loss__", "", None): ("dl_loss", None),
    ("a" * 300, "", None): ("dl_" + "a" * 200, None),
    ("\ud800x", "", None): ("dl_x", None),
}


@pytest.mark.parametrize(("name", "unit", "stage"), NAMES, ids=repr)
def test_names(name, unit, stage):
    """A metric is exported under the name and with the stage that the contract says."""
    metadata = parse_metadata({"unit": unit, "STAGE": stage})
    mapped = map_metric(name, metadata)
    assert (mapped.prometheus_name, mapped.stage) == NAMES[name, unit, stage]
    assert mapped.metric == label_text(name)
    assert mapped.unit == metadata.unit


def test_the_metric_label_is_the_name_exactly_as_logged():
    """Names that merge when they are sanitised stay two series."""
    mapped = [map_metric(name, MetricMetadata()) for name in ("mAP", "map", "m a p")]
    assert [m.metric for m in mapped] == ["mAP", "map", "m a p"]
    assert [m.otel_name for m in mapped] == ["dl.map", "dl.map", "dl.m_a_p"]


def test_attributes():
    """What is known of a metric is in labels, and what is not is absent."""
    known = MetricMetadata("{image}/s", "maximize", "train", "rank", "imgs/s")
    assert map_metric("x", known).attributes == {
        "metric": "x",
        "stage": "train",
        "goal": "maximize",
        "kind": "throughput",
        "unit": "imgs/s",
        "scope": "rank",
    }
    known = MetricMetadata("", "minimize", "train")
    assert map_metric("train.loss", known).attributes == {
        "metric": "train.loss",
        "stage": "train",
        "goal": "minimize",
        "kind": "loss",
    }
    assert map_metric("memory", MetricMetadata()).attributes == {"metric": "memory"}


def scraped_names(metrics):
    """Return the names under which OpenTelemetry's own exporter shows instruments."""
    registry = CollectorRegistry()
    reader = PrometheusMetricReader(
        disable_target_info=True, scope_info_enabled=False, registry=registry
    )
    provider = MeterProvider([reader])
    for number, metric in enumerate(metrics):
        # A meter each, so that instruments of one name do not meet.
        meter = provider.get_meter(f"meter{number}")
        meter.create_gauge(metric.otel_name, metric.unit).set(1.0)
    names = {sample.name for family in registry.collect() for sample in family.samples}
    provider.shutdown()
    return names


def test_the_names_are_those_of_opentelemetrys_exporter():
    """Units and suffixes are what a scrape of the real exporter shows."""
    units = {parse_unit(raw) for raw in UNITS}
    units |= {f"{p}By" for p in ("", "K", "M", "G", "T", "Ki", "Mi", "Gi", "Ti")}
    units |= {"W", "J", "Hz", "Cel", "d", "h", "min", "By/s", "TiBy/s", "KBy/h", "GBy/d"}
    mapped = [map_metric(f"x{n}", MetricMetadata(unit)) for n, unit in enumerate(sorted(units))]
    mapped += [map_metric(n, parse_metadata({"unit": u, "STAGE": s})) for n, u, s in NAMES]
    assert scraped_names(mapped) == {metric.prometheus_name for metric in mapped}


# Whatever scripts pass

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=5,
)
PARTS = st.sampled_from([*(u for u in UNITS if isinstance(u, str)), "/", " per ", "s", "{", "}"])
TEXT = st.text() | st.lists(PARTS).map("".join)


@given(ANYTHING | TEXT)
@example("/")
@example("{}/s")
@example("a" * 100 + "/min")
def test_no_unit_raises_and_each_is_one_that_opentelemetry_takes(raw):
    """Any unit becomes one of at most 63 ASCII characters, with a suffix that is a name."""
    unit = parse_unit(raw)
    assert (unit.isascii(), len(unit) <= 63) == (True, True)
    suffix = unit_suffix(unit)
    assert suffix == "" or suffix.replace("_", "").isalpha()
    assert parse_unit(unit) in {unit, "", f"{{{unit}}}"} or "/" in unit


@given(ANYTHING, ANYTHING | TEXT, ANYTHING | TEXT)
def test_no_metadata_raises(unit, goal, stage):
    """Metadata in any state of repair is read."""
    metadata = parse_metadata({"unit": unit, "GOAL": goal, "STAGE": stage})
    assert metadata.goal in {None, "minimize", "maximize"}
    assert metadata.stage is None or metadata.stage == label_text(metadata.stage)
    assert parse_metadata([unit]) == MetricMetadata()


@given(st.text() | st.lists(PARTS).map("".join), TEXT, st.none() | st.text())
def test_every_name_is_one_that_opentelemetry_and_prometheus_take(name, unit, stage):
    """Any name becomes letters, digits and single underscores, and not too many."""
    mapped = map_metric(name, parse_metadata({"unit": unit, "STAGE": stage}))
    base = mapped.otel_name.removeprefix("dl.")
    assert base
    assert base.isascii()
    assert base.replace("_", "").isalnum()
    assert base == base.lower().strip("_")
    assert "__" not in mapped.prometheus_name
    assert len(mapped.prometheus_name) < 255


# Labels


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("train.loss", "train.loss"),
        ("", ""),
        ("eval_90%_latency", "eval_90%_latency"),
        ('quote " and \\ and 损失', 'quote " and \\ and 损失'),
        ("a" * MAX_LABEL_CHARACTERS, "a" * MAX_LABEL_CHARACTERS),
        (None, "null"),
        (True, "true"),
        (3, "3"),
        (0.5, "0.5"),
        ((0, "a"), "(0, 'a')"),
    ],
)
def test_labels_that_stay_as_they_are(value, expected):
    """Printable text of a fair length is exactly what was logged, and keys are JSON's."""
    assert label_text(value) == expected


@pytest.mark.parametrize(
    ("value", "beginning"),
    [
        ("a\nb", "a\\u000ab~"),
        ("\x00", "\\u0000~"),
        ("tab\t", "tab\\u0009~"),
        ("\x7f\x85", "\\u007f\\u0085~"),
        ("\u2028", "\\u2028~"),
        ("\ud800", "\\ud800~"),
        ("a" * 257, "a" * 239 + "~"),
        ("\n" * 300, "\\u000a" * 39 + "\\u000~"),
    ],
    ids=repr,
)
def test_labels_that_are_made_safe(value, beginning):
    """Control characters and lone surrogates are escaped, long text is cut, a hash follows."""
    found = label_text(value)
    assert found[:-16] == beginning
    assert len(found) <= MAX_LABEL_CHARACTERS
    assert int(found[-16:], 16) >= 0


@given(st.text(st.characters()), st.text(st.characters()))
@example("a" * 300, "a" * 299 + "b")
@example("a\nb", "a\\u000ab")
@example("\ud800", "\\ud800")
@example("\ud800", "\udfff")
def test_different_text_has_different_labels(first, second):
    """A label is valid UTF-8 of a bounded length, and what was different stays different."""
    assume(first != second)
    labels = [label_text(first), label_text(second)]
    assert labels[0] != labels[1]
    assert all(len(label) <= MAX_LABEL_CHARACTERS for label in labels)
    assert all(label.encode().decode() == label for label in labels)


@given(st.text(min_size=1), st.integers(250, 400))
def test_long_text_of_one_beginning_has_different_labels(text, length):
    """Names that differ in their last letter alone are two series."""
    long = (text * length)[:length]
    assert label_text(long + "a") != label_text(long + "b")


def test_long_names_that_differ_stay_two_series():
    """Names of over 256 characters are told apart even where 32 bits of a checksum are equal."""
    one, other = ("x" * 300 + end for end in ("ac0f3f98a177", "1f9349a4066f"))
    assert zlib.crc32(one.encode()) == zlib.crc32(other.encode())
    assert label_text(one) != label_text(other)
    assert len(label_text(one)) == MAX_LABEL_CHARACTERS
