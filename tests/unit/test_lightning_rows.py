"""Lightning's metrics.csv: rows with holes, of a file that is written anew for each column."""

from __future__ import annotations

import pytest

from otel_dllogger.logs.parsers.context import FileContext
from otel_dllogger.logs.parsers.detect import parse_line
from otel_dllogger.logs.ranks import LoggedRank
from otel_dllogger.metrics.rank_state import RankState
from tests.support.bridge import open_bridge, read_page, value_of

pytestmark = pytest.mark.newest_only


def csv_lines(head, rows):
    """Return the text of a CSV file."""
    return "".join(",".join(map(str, cells)) + "\n" for cells in (head, *rows))


def pairs_of_rows(first, last, more=()):
    """Return what LearningRateMonitor and the training log of each fourth step."""
    rows = []
    for step in range(first, last, 4):
        rows += [("", "", step, 0.5, *more), (step // 24, 0.25, step, "", *more)]
    return rows


HEAD = ("epoch", "loss", "step", "lr-Adam")


def counts(page):
    return (
        value_of(page, "dllogger_steps_total"),
        value_of(page, "dllogger_records_total", "type=log"),
    )


def test_a_row_without_an_epoch_is_no_step_of_its_own():
    """Steps that come with an epoch and without one in turn are the same steps."""
    context = FileContext(name="version_0/metrics.csv")
    rank = LoggedRank("version_0", 0, "host")
    for line in csv_lines(HEAD, pairs_of_rows(4, 52)).splitlines(keepends=True):
        for record in parse_line(line.encode(), context):
            rank.take(record)
    assert (24, 48 - 3) == (rank.state.logs, rank.state.steps)
    assert (2, 48) == (rank.state.epoch, rank.state.iteration)


def test_an_epoch_counts_its_own_iterations_nevertheless():
    """One that says so has as many as the one before."""
    state = RankState(0, 0)
    for epoch, iteration in ((None, 4), (0, 4), (0, 8), (None, 8), (1, 8), (1, 8), (2, 8)):
        state.advance(epoch, iteration, 0)
    assert 1 + 4 + 4 + 4 == state.steps


@pytest.mark.parametrize("is_live", [True, False])
def test_a_file_that_is_written_anew_for_a_column_counts_once(tmp_path, is_live):
    """While the bridge runs, or between two; what is new in it counts."""
    log, checkpoint = tmp_path / "version_0" / "metrics.csv", tmp_path / "checkpoint"
    log.parent.mkdir()
    log.write_text(csv_lines(HEAD, pairs_of_rows(4, 24)))
    more = csv_lines(("val_loss", *HEAD), [("", *row) for row in pairs_of_rows(4, 32)])
    most = csv_lines(("acc", "val_loss", *HEAD), [("", "", *r) for r in pairs_of_rows(4, 40)])
    with open_bridge(log, checkpoint=checkpoint) as bridge:
        assert (17, 10) == counts(read_page(bridge))
        if is_live:
            log.write_text(more)
            assert (25, 14) == counts(read_page(bridge))
            log.write_text(most)
            assert (33, 18) == counts(read_page(bridge))
            return
        bridge._tailer.close()
    log.write_text(more)
    with open_bridge(log, checkpoint=checkpoint) as bridge:
        assert (25, 14) == counts(read_page(bridge))


def test_a_process_that_begins_the_file_again_counts(tmp_path):
    """With the same columns, or fewer; it may learn of another column later."""
    log = tmp_path / "version_0" / "metrics.csv"
    log.parent.mkdir()
    log.write_text(csv_lines(HEAD, pairs_of_rows(4, 24)))
    with open_bridge(log) as bridge:
        assert (17, 10) == counts(read_page(bridge))
        log.write_text(csv_lines(HEAD, pairs_of_rows(4, 12)))
        assert 14 == counts(read_page(bridge))[1]
        more = csv_lines(("val_loss", *HEAD), [("", *row) for row in pairs_of_rows(4, 16)])
        log.write_text(more)
        assert 16 == counts(read_page(bridge))[1]
