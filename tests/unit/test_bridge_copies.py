"""Logs that are replaced by older copies of themselves: no line counts twice in silence."""

from __future__ import annotations

import shutil
import threading

import pytest

from otel_dllogger.diagnostics import DIAGNOSTICS
from tests.support.bridge import LOOKS, append, log_line, open_bridge, read_page, steps, value_of
from tests.support.collector import HTTPCollector
from tests.support.otlp_forwarder import START_US, open_forwarder

pytestmark = pytest.mark.newest_only

LATER_US = START_US + 10**9


def replace(log, lines, way):
    """Put other lines in the place of a log, on the same inode or on another one."""
    if way == "in place":
        log.write_bytes(lines)
    elif way == "new inode":
        other = log.with_name("other")
        other.write_bytes(lines)
        other.replace(log)


def figures(page):
    """Return steps, records and attempt of the only rank, and how many files were copies."""
    (info,) = (key for key in page if key[0] == "dllogger_rank_info")
    return (
        value_of(page, "dllogger_steps_total"),
        value_of(page, "dllogger_records_total", "type=log"),
        next(label for label in info if label.startswith("attempt=")),
        value_of(page, "dllogger_bridge_unusual_total", "reason=repeated"),
    )


@pytest.mark.parametrize("way", ["in place", "new inode"])
@pytest.mark.parametrize("is_live", [True, False])
def test_an_older_copy_of_a_log_counts_once(tmp_path, caplog, way, is_live):
    """Restored from a backup, while the bridge runs or between two: figures begin at 0."""
    log, checkpoint = tmp_path / "logs" / "job_rank0.json", tmp_path / "checkpoint"
    append(log, steps(0, 100))
    with open_bridge(log, checkpoint=checkpoint) as bridge:
        assert (100, 100, "attempt=1", 0) == figures(read_page(bridge))
        if is_live:
            replace(log, steps(0, 40), way)
            page = read_page(bridge)
        else:
            bridge._tailer.close()
            with open_bridge(log, checkpoint=checkpoint) as another:
                replace(log, steps(0, 40), way)
                page = read_page(another)
    assert (40, 40, "attempt=1", 1) == figures(page)
    assert "job_rank0.json has lines that are older than the last one" in caplog.text
    # The next bridge goes on with these figures, and a job that writes on counts on.
    with open_bridge(log, checkpoint=checkpoint) as bridge:
        append(log, steps(40, 50))
        assert (50, 50, "attempt=1", 0) == figures(read_page(bridge))


@pytest.mark.parametrize("way", ["in place", "new inode"])
def test_a_log_that_a_job_begins_anew_goes_on(tmp_path, way):
    """Its lines are later than all that were read: they are added, as attempt 2."""
    log, checkpoint = tmp_path / "logs" / "job_rank0.json", tmp_path / "checkpoint"
    append(log, steps(0, 100))
    with open_bridge(log, checkpoint=checkpoint) as bridge:
        read_page(bridge)
    replace(log, steps(50, 60, start_us=LATER_US), way)
    with open_bridge(log, checkpoint=checkpoint) as bridge:
        assert (110, 110, "attempt=2", 0) == figures(read_page(bridge))


def test_a_checkpoint_that_is_ahead_of_all_files_counts_nothing_twice(tmp_path):
    """The logs of several ranks, one file of two of them, as a snapshot of the disk has them."""
    logs, checkpoint = tmp_path / "logs", tmp_path / "checkpoint"
    both = b"".join(
        log_line([0, number], {"rank": rank, "loss": 1}, time_us=START_US + number * 1_000)
        for number in range(50)
        for rank in (1, 2)
    )
    append(logs / "job_rank0.json", steps(0, 30))
    append(logs / "job.json", both[: len(both) // 2])
    snapshot = tmp_path / "snapshot"
    shutil.copytree(logs, snapshot)
    append(logs / "job_rank0.json", steps(30, 60))
    append(logs / "job.json", both[len(both) // 2 :])
    with open_bridge(logs, checkpoint=checkpoint) as bridge:
        read_page(bridge)
    shutil.rmtree(logs)
    shutil.copytree(snapshot, logs)
    with open_bridge(logs, checkpoint=checkpoint) as bridge:
        page = read_page(bridge)
        counts = [
            value_of(page, "dllogger_records_total", f"rank={rank}", "type=log")
            for rank in (0, 1, 2)
        ]
    assert [30, 25, 25] == counts
    assert 2 == value_of(page, "dllogger_bridge_unusual_total", "reason=repeated")


def test_a_log_that_is_moved_away_and_back_counts_once(tmp_path):
    """It was gone from the files that are followed: all of it is read again."""
    log = tmp_path / "logs" / "job_rank0.json"
    append(log, steps(0, 100))
    with open_bridge(log.parent) as bridge:
        read_page(bridge)
        log.rename(tmp_path / "away")
        read_page(bridge)
        assert [] == bridge._tailer.files
        (tmp_path / "away").rename(log)
        assert (100, 100, "attempt=1", 1) == figures(read_page(bridge))


def test_a_copy_of_one_of_two_logs_of_a_rank_is_counted(tmp_path, caplog):
    """The rank cannot begin at 0, for the other log's lines would be lost: it is said."""
    logs = tmp_path / "logs"
    append(logs / "rank0.json", steps(0, 100))
    append(logs / "rank0.log", steps(0, 100, start_us=START_US + 50, other=1))
    with open_bridge(logs) as bridge:
        # Their times overlap, which is nothing unusual.
        assert (200, 0) == figures(read_page(bridge))[1::2]
        replace(logs / "rank0.json", steps(0, 40), "in place")
        assert (240, 1) == figures(read_page(bridge))[1::2]
    assert "they now count twice" in caplog.text


def test_an_older_copy_is_delivered_with_figures_from_0(tmp_path):
    """Over OTLP, too, a counter does not go on by lines that it knew."""
    log, checkpoint = tmp_path / "logs" / "job_rank0.json", tmp_path / "checkpoint"
    append(log, steps(0, 100))
    with HTTPCollector() as collector:
        for lines, expected in ((None, 100), (steps(0, 40), 40), (None, 40)):
            if lines is not None:
                replace(log, lines, "in place")
            forwarder = open_forwarder(log.parent, collector.url, checkpoint)
            forwarder._exporter._stopping = threading.Event()
            for _ in range(LOOKS):
                forwarder.poll()
            forwarder.run_to_end()
            assert 1 == len(forwarder._exporter._encoder._resources) or lines is None
            forwarder.close()
            assert expected == collector.values("dllogger.steps")[-1]
    assert 0 == DIAGNOSTICS.dropped["backend_failed"]
