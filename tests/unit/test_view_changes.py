"""What pages get of a model: the changes are, together, the whole; and work is bounded."""

from __future__ import annotations

import json
import math
import random

import pytest

from otel_dllogger.view.model import Model
from otel_dllogger.view.server.board import FEW_RANKS, MAX_LINES, Board, Reading
from otel_dllogger.view.server.changes import changes, encode, whole
from otel_dllogger.view.server.selection import ALL, Selection
from tests.support.view import merge

pytestmark = pytest.mark.newest_only

LABELS = {"metric": "loss", "granularity": "iteration", "kind": "loss", "goal": "minimize"}
LOSS = 'dl_loss{granularity="iteration",metric="loss"}'
SELECTION = Selection(metrics=(LOSS,))
NOW_S = 1_800_000_000.0


def log(model, run, number, value):
    """Log one step of a rank, as its log would."""
    rank = model.rank(run, number)
    if rank.start_s is None:
        rank.start(NOW_S, 1)
    rank.iteration = 0.0 if rank.iteration is None else rank.iteration + 1
    rank.axis.move(None, rank.iteration)
    rank.records += 1
    rank.last_log_s = NOW_S + rank.records
    series = model.series(rank, "dl_loss", LABELS)
    series.history.append(value, (rank.axis.x, rank.last_log_s, rank.axis.segment))
    model.revision += 1


def look(board, selection=SELECTION):
    board.begin()
    return board.look(selection)


def as_read(message):
    return json.loads(encode(message))


@pytest.mark.parametrize("seed", range(12))
def test_changes_are_together_the_whole(seed) -> None:
    """After any steps, NaN, restarts and ranks that come late, in as many parts as one likes."""
    chance = random.Random(seed)
    model = Model()
    board = Board(model, "a test", Reading)
    ranks = chance.choice((2, FEW_RANKS, FEW_RANKS + 3))
    log(model, "run", 0, 1.0)
    before = look(board)
    known = as_read(whole(before))
    for _ in range(40):
        for _ in range(chance.choice((0, 1, 3, 300))):
            value = chance.choice((math.nan, math.inf, chance.random(), chance.gauss(0, 1e6)))
            log(model, "run", chance.randrange(ranks), value)
        if chance.random() < 0.1:
            rank = model.rank("run", chance.randrange(ranks))
            rank.start(NOW_S, rank.attempt + 1)
            rank.iteration = max((rank.iteration or 0) - 5, 0)
        after = look(board)
        known = merge(known, as_read(changes(before, after)))
        assert known == {**as_read(whole(after)), "curves": known["curves"]}
        assert known["curves"] == as_read(whole(after))["curves"]
        before = after


def test_one_step_more_is_little() -> None:
    """It costs what is new, however long the curve is."""
    model = Model()
    board = Board(model, "a test", Reading)
    for step in range(900):
        log(model, "run", step % 2, 1 / (1 + step))
    before = look(board)
    log(model, "run", 0, 0.5)
    (tail,) = changes(before, look(board))["curves"]
    assert (tail["first"], len(tail["places"])) == (450, 1)
    assert tail["lines"][0]["mean"].tolist() == [0.5]


def test_nothing_new_is_nothing() -> None:
    """A page of a run that is over gets the time."""
    model = Model()
    board = Board(model, "a test", Reading)
    log(model, "run", 0, 1.0)
    model.rank("run", 0).finished = True
    before = look(board)
    found = changes(before, look(board))
    assert set(found) - {"now_s"} == {"is_whole", "curves"}  # in the same millisecond without it
    assert found["curves"] == []


def test_pages_that_show_the_same_share_the_work() -> None:
    """The curves are the same objects."""
    model = Model()
    board = Board(model, "a test", Reading)
    log(model, "run", 0, 1.0)
    board.begin()
    one, other = board.look(SELECTION), board.look(SELECTION)
    assert one.curves[0] is other.curves[0]


def test_of_many_ranks_those_farthest_from_the_median_have_lines() -> None:
    """And the chosen ones; with all lines there is a limit."""
    model = Model()
    board = Board(model, "a test", Reading)
    for _ in range(8):
        for rank in range(MAX_LINES + 10):
            log(model, "run", rank, 100.0 if rank in (7, 70, 200) else rank / 1000)

    def ranks(selection):
        (curve,) = look(board, selection).curves
        assert curve["bands"][0]["ranks"] == MAX_LINES + 10
        return [line["rank"] for line in curve["lines"]]

    assert ranks(SELECTION) == [7, 70, 200]
    assert ranks(SELECTION._replace(ranks=(("run", 3),))) == [3, 7, 70, 200]
    assert len(ranks(SELECTION._replace(lines=ALL))) == MAX_LINES


def test_without_a_choice_the_run_that_logged_last_is_shown() -> None:
    """A run that is asked for and is not there is left out."""
    model = Model()
    board = Board(model, "a test", Reading)
    assert look(board).fields["shown"] == []
    log(model, "old", 0, 1.0)
    log(model, "new", 0, 1.0)
    log(model, "new", 0, 1.0)
    assert [run["name"] for run in look(board).fields["shown"]] == ["new"]
    chosen = look(board, SELECTION._replace(runs=("old", "none"))).fields
    assert [run["name"] for run in chosen["shown"]] == ["old"]
    assert [run["name"] for run in chosen["runs"]] == ["old", "new"]


def test_places_in_the_middle_are_not_a_tail() -> None:
    """A rank that logs late what others logged long ago changes the axis: all is sent."""
    model = Model()
    board = Board(model, "a test", Reading)
    for _ in range(9):
        log(model, "run", 0, 1.0)
    before = look(board)
    rank = model.rank("run", 0)
    rank.series[next(iter(rank.series))].history.append(2.0, (3.5, NOW_S, rank.axis.segment))
    model.revision += 1
    (curve,) = changes(before, look(board))["curves"]
    assert curve["first"] == 0
    assert 3.5 in curve["places"]
