"""Who is on the page, and for how long: logs that do not grow, end, come back or are deleted."""

from __future__ import annotations

import json
import threading

import pytest

from otel_dllogger.bridge import service
from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.metrics.rank_state import RankState
from tests.support.bridge import (
    BridgeProcess,
    append,
    log_line,
    open_bridge,
    read_page,
    set_age,
    steps,
    value_of,
)
from tests.support.http import ask

pytestmark = pytest.mark.newest_only

START_US = 1_700_000_000_000_000
END = log_line([], {"top1": 0.5}, time_us=START_US + 10**9, elapsed_us=10**9)
LOGGED = ("dllogger_records_total", "type=log")
FILES = 300
SERIES = 100


def counts(page):
    """Return the steps that each rank on a page has logged, by run."""
    return {
        key[2].removeprefix("run="): value
        for key, value in page.items()
        if (key[0], key[-1]) == LOGGED
    }


@pytest.mark.slow
def test_a_rank_whose_log_stops_leaves_the_page_and_comes_back_with_all(tmp_path):
    """Its counters go on where they were when the log grows again; the others stay."""
    with BridgeProcess(tmp_path, "--expire", "4s", folder=tmp_path) as bridge:
        assert bridge.port  # however long it takes to start, the log is not older than that
        append(tmp_path / "stops_rank0.json", steps(0, 50))
        bridge.wait_for_value(50, *LOGGED)
        gone = bridge.wait_for_value(None, *LOGGED)
        assert {"dllogger_bridge"} == {key[0][:15] for key in gone}
        assert json.loads(ask(bridge.port, "/health").body)["ranks"] == 0
        append(tmp_path / "stops_rank0.json", steps(50, 60))
        bridge.wait_for_value(60, *LOGGED)


def test_finished_runs_retire_before_the_others(tmp_path):
    """A run that said its end leaves after two minutes, one that may go on after --expire."""
    for name, age_s, more in (
        ("early", service.RETIRE_S + 5, END),
        ("late", service.RETIRE_S - 60, END),
        ("silent", service.RETIRE_S + 5, b""),
        ("lost", 895, b""),
    ):
        append(tmp_path / f"{name}_rank0.json", steps(0, 5) + more)
        set_age(tmp_path / f"{name}_rank0.json", age_s)
    with open_bridge(tmp_path, expire_s=890) as bridge:
        assert {"late": 6, "silent": 5} == counts(read_page(bridge))
    with open_bridge(tmp_path, expire_s=900) as bridge:
        page = read_page(bridge)
        assert {"late": 6, "silent": 5, "lost": 5} == counts(page)
        assert value_of(page, "dllogger_bridge_lines_total") == 22
        # A job that goes on after its summary is back.
        append(tmp_path / "early_rank0.json", steps(5, 7, start_us=START_US + 10**10))
        assert {"early": 8, "late": 6, "silent": 5, "lost": 5} == counts(read_page(bridge))


def test_an_old_log_is_not_read_until_it_grows(tmp_path):
    """Last month's runs cost nothing; one that is taken up again is read as a whole."""
    for name in ("old", "new"):
        append(tmp_path / f"{name}_rank0.json", steps(0, 10))
    set_age(tmp_path / "old_rank0.json", 901)
    with open_bridge(tmp_path) as bridge:
        page = read_page(bridge)
        assert {"new": 10} == counts(page)
        figures = ("dllogger_bridge_files", "dllogger_bridge_lines_total")
        assert [1, 10] == [value_of(page, name) for name in figures]
        append(tmp_path / "old_rank0.json", steps(10, 12))
        page = read_page(bridge)
        assert {"new": 10, "old": 12} == counts(page)
        assert [2, 22] == [value_of(page, name) for name in figures]


def test_what_is_deleted_and_off_the_page_is_forgotten(tmp_path):
    """Weeks of runs do not pile up; a log that is still there keeps its rank."""
    for name in ("deleted", "kept"):
        append(tmp_path / f"{name}_rank0.json", steps(0, 10))
        set_age(tmp_path / f"{name}_rank0.json", 890)
    checkpoint = tmp_path / "checkpoint"
    with open_bridge(tmp_path, checkpoint=checkpoint) as bridge:
        assert {"deleted": 10, "kept": 10} == counts(read_page(bridge))
        (tmp_path / "deleted_rank0.json").unlink()
        assert {"deleted": 10, "kept": 10} == counts(read_page(bridge))
        bridge._expire_s = 880
        bridge._expire_at_s = 0
        assert {} == counts(read_page(bridge))
        assert ["kept"] == [rank.run for rank in bridge._ranks]
        assert {} == bridge._page._texts
    (saved,) = json.loads(checkpoint.read_bytes())["files"]
    assert saved["path"].endswith("kept_rank0.json")
    # The next bridge knows it from the checkpoint, though there is nothing more to read.
    with open_bridge(tmp_path, checkpoint=checkpoint) as bridge:
        page = read_page(bridge)
        assert {"kept": 10} == counts(page)
        assert value_of(page, "dllogger_bridge_lines_total") == 0
        (tmp_path / "kept_rank0.json").unlink()
        bridge._expire_s = 880
        bridge._expire_at_s = 0
        assert {} == counts(read_page(bridge))
        bridge._expire_at_s = 0
        read_page(bridge)
        assert [] == list(bridge._ranks)


def test_a_fault_in_one_line_or_one_file_stops_no_other(tmp_path, monkeypatch, counted):
    """An error that nobody foresaw is counted for the rank and said once."""
    append(tmp_path / "a_rank0.json", steps(0, 10))
    append(tmp_path / "b_rank0.json", steps(0, 10))
    advance = RankState.advance

    def fail(state, epoch, iteration, elapsed_us):
        if iteration == 4:
            raise ZeroDivisionError
        advance(state, epoch, iteration, elapsed_us)

    monkeypatch.setattr(RankState, "advance", fail)
    with open_bridge(tmp_path) as bridge:
        identity = bridge._ingest._logs.identities.of

        def of(path):
            if "a_rank0" in path:
                raise ZeroDivisionError
            return identity(path)

        monkeypatch.setattr(bridge._ingest._logs.identities, "of", of)
        page = read_page(bridge)
    assert {"b": 10} == counts(page)
    assert value_of(page, "dllogger_iteration") == 9
    assert value_of(page, "dllogger_dropped_total", "run=b", "reason=backend_failed") == 1
    assert {"backend_failed": 2} == counted()


@pytest.mark.slow
def test_the_page_is_whole_while_hundreds_of_files_grow(tmp_path):
    """Each scrape has every series of each rank that it has at all, and all in the end."""
    paths = [tmp_path / f"big_rank{number}.json" for number in range(FILES)]
    names = [f"metric_{number}" for number in range(SERIES)]
    stopping = threading.Event()

    def grow():
        for step in range(3):
            for path in paths:
                values = dict.fromkeys(names, step)
                append(path, log_line([0, step], values, time_us=START_US + step * 10**6))
        stopping.set()

    with BridgeProcess(tmp_path, folder=tmp_path) as bridge:
        assert bridge.port
        grower = threading.Thread(target=grow)
        grower.start()
        while not stopping.is_set():
            page = bridge.page()
            series = sum(key[0].startswith("dl_") for key in page)
            ranks = sum(key[0] == "dllogger_rank_info" for key in page)
            assert series % SERIES == 0
            assert ranks - 1 <= series // SERIES <= ranks
        grower.join()
        bridge.wait_for(
            lambda page: (
                sum((key[0][:3], value) == ("dl_", 2) for key, value in page.items())
                == FILES * SERIES
            )
        )
        assert bridge.stop() < 10


def test_the_series_limit_is_said(tmp_path, caplog):
    """What does not fit is no silent loss."""
    append(tmp_path / "a_rank0.json", steps(0, 10))
    with open_bridge(tmp_path) as bridge:
        bridge._ranks._max_series = 40
        values = {f"metric_{number}": number for number in range(60)}
        append(tmp_path / "b_rank0.json", log_line(0, values, time_us=START_US))
        read_page(bridge)
    assert DIAGNOSTICS.dropped["series_limit"] > 0
    assert "more than 40 series" in caplog.text
