"""What a parser knows beside the line: ranks, names and conventions, and how that is kept."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import subprocess
import sys

import pytest

from otel_dllogger.logs.parsers.context import FileContext
from otel_dllogger.logs.parsers.detect import parse_line
from otel_dllogger.logs.parsers.formats import (
    DLLOGGER_JSON,
    MMENGINE_SCALARS,
    MMENGINE_TEXT,
    TCAP_JSON,
    TCAP_TEXT,
    conventional_metadata,
)
from otel_dllogger.metrics.naming import MetricMetadata, map_metric, parse_metadata
from tests.support.parsers import (
    DATA,
    END_US,
    MMENGINE,
    SAMPLES,
    SCALARS,
    START_US,
    TEXT,
    log_line,
    read,
    read_one,
    read_sample,
    rows,
    tcap_line,
)

pytestmark = pytest.mark.newest_only


@pytest.mark.parametrize(
    ("data", "rank"),
    [
        ({"rank": "1_0"}, 7),
        ({"rank": "\u0663"}, 7),
        ({"rank": 3}, 3),
        ({"rank": "3"}, 3),
        ({"rank": -1}, 0),
        ({"rank": 1.5}, 7),
        ({"rank": "one"}, 7),
        ({"loss": 1}, 7),
        ([], 7),
    ],
)
def test_the_rank_is_the_records_or_the_files(data, rank):
    """As in the store: -1 is 0, and what is no whole number is the file's."""
    assert rank == read_one(log_line(json.dumps(data)), rank=7).rank
    if isinstance(data, dict):
        assert rank == read_one(tcap_line(repr(data)), rank=7).rank


def test_the_stage_of_a_summary_is_left_to_its_names():
    """Epochs, runs and parameters hold metrics of all stages."""
    stages = [read_one(log_line(step=step)).stage for step in ("[1]", "[]", '"PARAMETER"', "3")]
    assert [None, None, None, "train"] == stages


def test_numbers_are_converted_no_further():
    """A record of finite numbers passes as it is; text and NaN are converted when asked for."""
    assert read_one(log_line()).numbers_only
    for data in ('{"a": NaN}', '{"a": "1"}', '{"a": null}', "[1]", '{"a": 1e308, "b": 1e308}'):
        record = read_one(log_line(data))
        assert not record.numbers_only
        assert set(record.numbers) <= {"a", "b"}
    assert {"loss": 4.5} == read_one(tcap_line("{'loss': '4.5'}")).numbers


def test_a_context_goes_through_a_checkpoint():
    """All of it is JSON, and a file read in two parts gives what it gives in one."""
    for name in SAMPLES:
        lines = (DATA / name).read_bytes().splitlines(keepends=True)
        whole, end = read_sample(name, run_start_us=START_US, modified_us=END_US)
        context = dataclasses.replace(
            FileContext(zone="UTC", name=SCALARS, run_start_us=START_US, modified_us=END_US),
            size_bytes=end.size_bytes,
        )
        parts = []
        for number, line in enumerate(lines):
            if number == len(lines) // 2:
                context = FileContext(**json.loads(json.dumps(dataclasses.asdict(context))))
                context = pickle.loads(pickle.dumps(context))
            parts += parse_line(line, context)
        assert end == context
        assert [(e.time_us, e.elapsed_us) for e in whole] == [
            (e.time_us, e.elapsed_us) for e in parts
        ]
        assert [getattr(e, "step", e) for e in whole] == [getattr(e, "step", e) for e in parts]


def test_entries_are_counted_by_format():
    """A report on a file says who wrote it; INFO lines are several writers'."""
    info = 'INFO {"datetime": "2024-08-29 06:21:57.3", "type": "INFO", "data": 1}'
    _, context = read([log_line(), log_line(), tcap_line("{}"), TEXT, MMENGINE, *rows(1), info])
    counts = dict.fromkeys((TCAP_JSON, TCAP_TEXT, MMENGINE_TEXT, MMENGINE_SCALARS, ""), 1)
    assert {DLLOGGER_JSON: 2, **counts} == context.entries


@pytest.mark.parametrize(
    ("name", "metadata"),
    [
        ("train.loss", {"GOAL": "MINIMIZE"}),
        ("loss_cls", {"GOAL": "MINIMIZE"}),
        ("logLoss2", {"GOAL": "MINIMIZE"}),
        ("losses", {"GOAL": "MINIMIZE"}),
        ("dynamic_loss_scale", {}),
        ("loss_weight", {}),
        ("lossless", {}),
        ("train.compute_ips", {"GOAL": "MAXIMIZE"}),
        ("IPS", {"GOAL": "MAXIMIZE"}),
        ("decoder_throughput_total", {"GOAL": "MAXIMIZE"}),
        ("clips", {}),
        ("time", {}),
        ("lr", {}),
    ],
)
def test_names_say_what_files_do_not(name, metadata):
    """Losses are minimized and throughputs maximized; elsewhere nothing is known."""
    assert metadata == conventional_metadata(name, DLLOGGER_JSON)
    assert metadata == conventional_metadata(name, TCAP_TEXT, "train")


def test_conventions_of_mmengine_name_seconds_memory_and_stage():
    """Its names have neither unit nor stage: the first is in its source, the other in a line."""
    for log_format in (MMENGINE_TEXT, MMENGINE_SCALARS):
        for name, unit in {"time": "s", "train/data_time": "s", "eta": "s", "memory": "By"}.items():
            found = conventional_metadata(name, log_format, "train")
            assert "TRAIN" == found["STAGE"]
            assert parse_metadata(found).unit == ("MiBy" if unit == "By" else unit)
    record = read_one(MMENGINE.replace("train", "val").replace("[10", "[60"))
    found = conventional_metadata("loss", record.log_format, record.stage)
    mapped = map_metric("loss", parse_metadata(found))
    assert ("dl_loss", "val", "minimize") == (mapped.prometheus_name, mapped.stage, mapped.goal)


def test_a_files_metadata_go_over_conventions():
    """An explicit NONE holds; what the file leaves out is filled in."""
    usual = conventional_metadata("train.loss", TCAP_JSON)
    assert MetricMetadata("", None, "train") == parse_metadata(
        {**usual, "unit": "", "GOAL": "NONE", "STAGE": "TRAIN"}
    )
    usual = conventional_metadata("train.compute_ips", DLLOGGER_JSON)
    said = parse_metadata({**usual, "unit": "img/s"})
    assert MetricMetadata("{image}/s", "maximize", unit_text="img/s") == said


def test_importing_the_parsers_loads_none_of_the_metrics():
    """They stand below the logger: neither OpenTelemetry nor a backend comes with them."""
    code = (
        "import sys; import otel_dllogger.record; before = set(sys.modules);"
        "import otel_dllogger.logs.parsers.detect;"
        "print([m for m in set(sys.modules) - before if m.startswith(('opentelemetry', 'otel_d'))])"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True, env=environment
    )
    assert done.stdout.count("otel_dllogger.logs") == done.stdout.count("'") // 2
