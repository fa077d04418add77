"""``otel-dllogger bridge``: other people's logs on one page, as the backend would have it."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from otel_dllogger import JSONStreamBackend, Logger, PrometheusBackend
from tests.support.bridge import (
    BridgeProcess,
    append,
    of_ranks,
    parse_page,
    steps,
    value_of,
)
from tests.support.command import environment
from tests.support.http import ask
from tests.support.paths import TESTS
from tests.support.prometheus import check_metrics, wait_for

pytestmark = pytest.mark.newest_only

DATA = TESTS / "data"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
RECORDS = {"nvidia_resnet_log": 38, "nvidia_stdout_log": 46, "mmengine_epoch": 15,
           "mmengine_iter": 15, "samples": 8}  # fmt: skip
"""Records of steps of rank 0, as ``tests.support.parsers`` counts them, by run."""

LINE = steps(0, 1)
BAD = (
    ("torn", b"DLLL {"),
    ("missing_fields", b'DLLL {"type": "LOG"}'),
    ("torn", LINE[:100]),
    ("not_a_record", b"Epoch 3 done"),
    ("nested_too_deep", LINE.replace(b"8.0", b"[" * 20_000 + b"]" * 20_000).rstrip()),
    ("number_too_long", LINE.replace(b"8.0", b"1" * 5_000).rstrip()),
    ("line_too_long", b"x" * 1_100_000),
)
"""Lines that give no record, and as what they are counted."""


@pytest.fixture
def logs(tmp_path):
    """Copy the sample logs, changed just now."""
    folder = tmp_path / "samples"
    shutil.copytree(DATA, folder, ignore=shutil.ignore_patterns("formats"))
    for path in folder.rglob("*"):
        path.touch()
    return folder


@pytest.mark.slow
def test_the_page_of_real_logs_is_valid_and_holds_all(logs, tmp_path, prometheus):
    """Every sample log's ranks, for promtool, for OpenMetrics and for a real Prometheus."""
    with BridgeProcess(
        logs, "--timezone", "UTC", folder=tmp_path, variables=environment()
    ) as bridge:
        for run, count in RECORDS.items():
            labels = (f"run={run}", "rank=0", "type=log")
            bridge.wait_for_value(count, "dllogger_records_total", *labels)
        answer = ask(bridge.port)
        checked = check_metrics(answer.body)
        assert (0, "", "") == (checked.returncode, checked.stdout, checked.stderr)
        openmetrics = ask(bridge.port, Accept=OPENMETRICS)
        assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")
        families = list(parse_openmetrics(openmetrics.body.decode()))
        page = bridge.page()
        assert len(page) == sum(len(family.samples) for family in families)
        target = [{"targets": [f"127.0.0.1:{bridge.port}"]}]
        (prometheus.discovery / "bridge.json").write_text(json.dumps(target))
        expected = len(of_ranks(page))
        found = wait_for(lambda: prometheus.query('count({run!=""})'), bool)
        assert [({}, expected)] == found
        assert [1.0] == [value for _labels, value in prometheus.query("up")]
        assert bridge.stop() < 10
    doubts = ["more than one record: several writers", "all 4 iteration steps are the same"]
    said = "\n".join(bridge.complaints())
    assert (len(doubts), []) == (said.count("\n") + 1, [one for one in doubts if one not in said])


@pytest.mark.slow
def test_mmengine_writes_its_metrics_three_times_and_they_count_once(logs, tmp_path):
    """Of the text log and the copies in vis_data, one is read, from the start and as it grows."""
    run = logs / "mmengine_iter"
    with BridgeProcess(run, folder=tmp_path) as bridge:
        count = RECORDS["mmengine_iter"]
        bridge.wait_for_value(count, "dllogger_records_total", "type=log")
        (scalars,) = (run / "vis_data").glob("*.json")
        line = scalars.read_bytes().splitlines(keepends=True)[-1]
        append(scalars, line * 3)
        text = next(
            line
            for line in (run / "train.log").read_bytes().splitlines(keepends=True)
            if b"Iter(train)" in line
        )
        append(run / "train.log", text)
        page = bridge.wait_for_value(count + 1, "dllogger_records_total", "type=log")
        assert value_of(page, "dllogger_bridge_files") > 1


def train(folder, rank):
    """Log all kinds of things with both backends; return the logger and its page's port."""
    page = PrometheusBackend(1, port=0, run="myrun", rank=rank, step_histogram=True)
    log = JSONStreamBackend(1, str(folder / f"log_rank{rank}.json"))
    logger = Logger([log, page])
    logger.metadata("train.loss", {"unit": None, "GOAL": "MINIMIZE", "STAGE": "TRAIN"})
    logger.metadata("train.ips", {"unit": "images/s", "GOAL": "MAXIMIZE", "STAGE": "TRAIN"})
    logger.metadata("val_accuracy", {"unit": "%", "GOAL": "MAXIMIZE", "STAGE": "VAL"})
    logger.metadata("memory", {"unit": "MiB", "GOAL": "NONE"})
    logger.log("PARAMETER", {"lr": 0.1, "layers": 50 + rank, "optimizer": "sgd", "flag": True})
    logger.info({"seed": 7})
    logger.info("training begins")
    for epoch in range(3):
        for iteration in range(0, 50, 5):
            loss = math.nan if (epoch, iteration) == (1, 15) else 5 / (epoch + iteration + 1)
            values = {"train.loss": loss, "train.ips": 100.5 + iteration, "memory": 2**34 + 0.25}
            logger.log((epoch, iteration), values)
        logger.log((epoch, 45, 3), {"val_accuracy": 60 + epoch})
        logger.log((epoch,), {"train.loss": 1 / (epoch + 1), "val_accuracy": "61.5"})
    logger.log((2, 50), {"train.loss": math.inf, "train.ips": 7, "note": "text", "big": 10**30})
    if rank == 0:
        logger.log((), {"val_accuracy": 63})
    return logger, page.endpoint.port


def compared(page):
    """Split a page into what must be equal, and what is a time."""
    exact, times = {}, {}
    for key, value in page.items():
        name, *labels = key
        if name in ("dllogger_dropped_total", "dllogger_log_seconds_total", "target_info"):
            continue
        if name == "dllogger_rank_info":
            labels = [
                label for label in labels if not label.startswith(("host=", "pid=", "local_rank="))
            ]
        is_time = name.endswith(("_timestamp_seconds", "step_seconds_total", "_seconds_sum"))
        wanted = times if is_time else exact
        wanted[(name, *labels)] = value
    return exact, times


def test_a_log_gives_what_the_training_process_itself_shows(tmp_path, monkeypatch):
    """Every series of two ranks, name by name, label by label and value by value."""
    folder = tmp_path / "myrun"
    folder.mkdir()
    trained = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in (0, 1):
        monkeypatch.setenv("RANK", str(rank))
        trained.append(train(folder, rank))
    expected = {}
    for _logger, port in trained:
        expected |= parse_page(ask(port).body.decode())
    options = ("--no-conventions", "--step-histogram")
    with BridgeProcess(folder, *options, folder=tmp_path) as bridge:
        for rank, count in (("rank=0", 38), ("rank=1", 37)):
            bridge.wait_for_value(count, "dllogger_records_total", rank, "type=log")
        page = of_ranks(bridge.page())
    for logger, _port in trained:
        logger.close()
    exact, times = compared(expected)
    found_exact, found_times = compared(page)
    assert exact == found_exact
    assert len(exact) > 50
    assert times.keys() == found_times.keys()
    # A process starts when its backend is made, a log when its Logger is.
    for key in [key for key in times if key[0] == "dllogger_run_start_timestamp_seconds"]:
        assert 0 <= found_times.pop(key) - times.pop(key) < 5
    # Times and elapsed times are rounded to microseconds in the log, as in the process.
    assert {key: pytest.approx(value, abs=1.5e-6) for key, value in times.items()} == found_times


@pytest.mark.slow
def test_200_000_lines_half_of_them_damaged(tmp_path):
    """Of two ranks: each good line is on the page, each bad one counted, in 256 MiB."""
    good = 50_000
    skipped = Counter()
    for rank in (0, 1):
        lines = []
        for number in range(good):
            reason, bad = BAD[number % len(BAD)]
            if number % 100 and len(bad) > 1_000:  # long ones now and then, or it is gigabytes
                reason, bad = BAD[0]
            skipped[reason] += 1
            lines += [LINE.replace(b"[0, 0]", b"[0, %d]" % number), bad, b"\n"]
        append(tmp_path / "logs" / f"job_rank{rank}.json", b"".join(lines))
    with BridgeProcess(tmp_path / "logs", "--run", "job", folder=tmp_path) as bridge:
        for rank in ("rank=0", "rank=1"):
            bridge.wait_for_value(good, "dllogger_records_total", rank, "type=log")
        page = bridge.page()
        assert value_of(page, "dllogger_iteration", "rank=1") == good - 1
        assert bridge.peak_bytes() < 256 << 20
        assert bridge.stop() < 10
    found = {
        key[1].removeprefix("reason="): value
        for key, value in page.items()
        if key[0] in ("dllogger_bridge_skipped_total", "dllogger_bridge_unusual_total") and value
    }
    assert skipped == found
    for rank in ("rank=0", "rank=1"):
        dropped = value_of(page, "dllogger_dropped_total", rank, "reason=torn")
        assert dropped == skipped["torn"] / 2
