"""Lines of ``watch``: what fits a terminal, and what is left out where it does not."""

from __future__ import annotations

import math
import re

import pytest
from rich.cells import cell_len

from otel_dllogger.view.assessment import assess_now
from otel_dllogger.view.facts import note
from otel_dllogger.view.model import Counted, Model
from otel_dllogger.view.plain import plain_run
from otel_dllogger.view.table import draw_curve
from otel_dllogger.view.terminal.characters import ASCII, UNICODE
from otel_dllogger.view.terminal.frame import Size, draw_runs
from otel_dllogger.view.terminal.run_line import plain_line
from otel_dllogger.view.terminal.watched import WatchedRuns

NOW_S = 1_000_000.0
LOSS = {"metric": "train.loss", "stage": "train", "granularity": "iteration", "kind": "loss"}
SPEED = {**LOSS, "metric": "ips", "kind": "throughput", "unit": "imgs/s"}


@pytest.fixture(autouse=True)
def now(monkeypatch):
    """Let the time be that of the last record."""
    monkeypatch.setattr("time.time", lambda: NOW_S)


def add_run(model, name="r", *, ranks=4, scope="rank", loss=lambda number, step: 2 / (step + 1)):
    """Add a run of ranks that made 20 steps, and return the ranks."""
    added = []
    for number in range(ranks):
        rank = model.rank(name, number)
        rank.host, rank.local_rank, rank.world_size = f"node{number // 8}", str(number % 8), ranks
        rank.start(NOW_S - 20, 1)
        for step in range(20):
            rank.epoch, rank.iteration, rank.records, rank.steps = (
                1.0,
                float(step),
                step,
                step + 1.0,
            )
            rank.step_s, rank.last_log_s = float(step), NOW_S - 19 + step
            rank.axis.move(rank.epoch, rank.iteration)
            place = (rank.axis.x, rank.last_log_s, rank.axis.segment)
            model.series(rank, "dl_loss", LOSS).history.append(loss(number, step), place)
            speed = model.series(rank, "dl_ips_per_second", {**SPEED, "scope": scope})
            speed.history.append(100.0 + number, place)
            rank.leave_trail(rank.last_log_s)
        added.append(rank)
    return added


def draw(model, columns=120, lines=40, characters=UNICODE, sort="need"):
    """Return the lines of all runs."""
    found = draw_runs(WatchedRuns(model, sort).look(), Size(columns, lines), characters)
    return [line.plain.rstrip() for line in found]


@pytest.mark.parametrize("columns", [20, 40, 79, 120, 199])
@pytest.mark.parametrize("lines", [4, 10, 24, 49])
@pytest.mark.parametrize("ranks", [1, 4, 100])
@pytest.mark.parametrize("runs", [1, 2, 30])
def test_a_frame_fits_every_terminal(columns, lines, ranks, runs):
    """Whatever there is to show, no line is too long, and there are not too many."""
    model = Model()
    for number in range(runs):
        for rank in add_run(model, f"run-{number}-with-a-long-name", ranks=ranks):
            rank.is_gone = rank.number % 3 == 1
    drawn = draw(model, columns, lines)
    assert len(drawn) <= lines
    assert max(map(cell_len, drawn)) <= columns
    assert drawn[1].startswith("run-0"), drawn


def test_a_run_is_a_line_and_each_rank_a_row():
    """State, ranks, place, mean loss and summed throughput; then each rank with its curves."""
    model = Model()
    add_run(model)
    heading, run, *rows = draw(model, 160)
    titles = ["rank", "host", "step", "loss", "imgs/s", "slower", "age", "NaN", "state"]
    assert heading.split() == titles
    assert (
        run == "r  training · 4 ranks · epoch 1 · step 19 · loss 0.1 · 406 imgs/s · 20s · 1 s/step"
    )
    assert rows[2].split()[:5] == ["2", "node0", "1/19", "0.1", "█▄▃▂▂▂▂▂▁▁▁▁▁▁▁▁▁▁▁▁"]
    assert rows[2].split()[5:] == ["102", "████████████████████", "+0%", "0.0s", "0", "training"]
    assert len(rows) == 4


def test_a_global_throughput_is_not_summed():
    """Each rank says what all of them do."""
    model = Model()
    add_run(model, scope="global")
    assert " · 102 imgs/s · " in draw(model)[1]


def test_what_a_silent_rank_did_is_not_counted():
    """It does nothing now, although its last value is known."""
    model = Model()
    add_run(model)[3].is_gone = True
    run = draw(model, 160)[1]
    assert " · 303 imgs/s · " in run
    assert " · 1 finding · 1 vanished" in run


def test_restarts_are_counted_by_attempt():
    """Ranks that a launcher restarts together are one restart."""
    model = Model()
    ranks = add_run(model)
    assert "restart" not in draw(model, 160)[1]
    for rank in ranks:
        rank.start(NOW_S - 1, 2)
    assert " · 1 restart · " in draw(model, 160)[1]
    ranks[0].start(NOW_S, 3)
    assert " · 2 restarts · " in draw(model, 160)[1]


def test_all_ranks_have_one_scale():
    """A rank whose loss is higher than that of the others has a higher curve."""
    model = Model()
    add_run(model, loss=lambda number, _step: 1.0 + number)
    curves = [line.split()[4] for line in draw(model, 160)[2:6]]
    assert [set(curve) for curve in curves] == [{"▁"}, {"▃"}, {"▆"}, {"█"}]


def test_nan_is_a_mark_in_the_curve_and_in_words():
    """One NaN of twenty values is seen, in fewer characters than values as well."""
    model = Model()
    ranks = add_run(model, loss=lambda number, step: math.nan if (number, step) == (1, 4) else 1.0)
    ranks[1].nonfinite[Counted("train.loss", "train", "loss")] = 1.0
    for columns in (79, 160):
        lines = draw(model, columns)
        (row,) = [line for line in lines if line.startswith("   1 ")]
        assert row.split()[4].count("x") == 1
        assert row.split()[-2] == "1", "the column NaN"
        assert any("was NaN or Inf once" in line for line in lines)
    assert "1 with NaN" in draw(model, 160)[1]
    for rank in ranks:
        model.series(rank, "dl_loss", LOSS).history.append(math.nan, (20.0, NOW_S, 0))
    assert " · loss NaN · " in draw(model, 160)[1]


def test_one_nan_of_many_values_is_seen():
    """The values of a long history are kept together, and one NaN among them is not averaged."""
    model = Model()
    (rank,) = add_run(model, ranks=1)
    series = model.series(rank, "dl_loss", LOSS)
    for step in range(20, 10_000):
        series.history.append(math.nan if step == 7_000 else 1.0, (float(step), NOW_S, 0))
    curve = draw_curve(rank, series.metric, 10)
    assert [math.isnan(value) for value in curve].index(True) == 7
    assert sum(map(math.isnan, curve)) == 1


def test_ascii_is_ascii():
    """Also in what comes from a log."""
    model = Model()
    add_run(model, "größe\x1b[2J")
    drawn = "\n".join(draw(model, characters=ASCII))
    assert drawn.isascii()
    assert "gr??e?[2J  training, 4 ranks, " in drawn
    assert " #:-..." in drawn


def test_ranks_that_do_not_fit_are_counted():
    """The last line about a run has how many there are, and their spread."""
    model = Model()
    ranks = add_run(model, ranks=100, loss=lambda number, _step: float(number))
    ranks[99].is_gone = ranks[98].is_gone = True
    lines = draw(model, 79, 24)
    shown = [line.split()[0] for line in lines if line.endswith((" training", " vanished"))]
    assert shown[:3] == ["98", "99", "0"]
    text, rows = " ".join(" ".join(lines).split()), len(shown)
    assert f"{100 - rows} others: training; min/median/max: step 19/19/19; loss " in text
    assert f"loss {rows - 2}/{(rows - 2 + 97) / 2:g}/97; imgs/s " in text


def test_runs_that_train_come_first_and_have_the_room():
    """What is over is below; what does not fit is counted."""
    model = Model()
    for number in range(30):
        for rank in add_run(model, f"run{number}", ranks=2):
            rank.finished = number != 7
    lines = draw(model, 79, 24)
    assert lines[1].startswith("run7  training")
    assert lines[2].endswith(" training")
    assert re.search(r"^\d\d more runs: \d\d finished$", "\n".join(lines), re.MULTILINE)


def test_findings_are_below_the_worst_first():
    """As many as there is room for, with how many there are else."""
    model = Model()
    for rank in add_run(model, ranks=30):
        rank.is_gone = rank.number > 3
        rank.dropped["disk_full"] = 1.0
    below = draw(model, 79, 24)[-8:]
    starts = [line.partition(":")[0] for line in below if line and not line.startswith(" ")]
    assert starts[-1].endswith("more findings")
    assert {"critical"} == set(starts[:-1][-2:])
    some = Model()
    add_run(some)[0].terminated = True
    add_run(some, "s")[2].is_gone = True
    lines = draw(some, 79, 40)
    assert lines[-2].startswith("critical: Rank 2 of run s on node0 (local rank 2), started ")
    assert [line for line in lines if "more findings" in line] == []


def test_a_line_for_a_pipe_says_the_worst():
    """All of a run in one line, with what is wrong most."""
    model = Model()
    add_run(model)[1].is_gone = True
    (run,) = WatchedRuns(model).look()
    line = plain_line(*run)
    assert line.startswith("r: training, 4 ranks, epoch 1, step 19, loss 0.1, 305 imgs/s, 20s, ")
    assert "; critical: Rank 1 of run r on node0 (local rank 1), started " in line
    assert "\n" not in line


def test_a_straggler_is_said_in_words():
    """Not by its colour alone, whatever it does besides."""
    model = Model()
    ranks = add_run(model)
    for rank in ranks:
        rank.trail.clear()
        rank.leave_trail(NOW_S - 19)
        rank.steps, rank.step_s = rank.steps + 20, rank.step_s + (40 if rank.number == 3 else 20)
    (row,) = [line.split() for line in draw(model) if line.startswith("   3 ")]
    assert row[-4:] == ["+51%", "0.0s", "0", "straggler"]
    ranks[3].finished = True
    (row,) = [line.split() for line in draw(model) if line.startswith("   3 ")]
    assert row[-2:] == ["finished,", "slow"]


def test_a_rank_in_a_phase_says_so_beside_its_state() -> None:
    """One that interrupts the training, for as long as it has been seen; of a past one nothing."""
    model = Model()
    first, second, *_ = add_run(model)
    first.read_s = NOW_S - 12
    for name in ("data_wait", "validation"):
        note(first, "dllogger_phase", {"phase": name}, 1)
    note(second, "dllogger_phase", {"phase": "checkpoint"}, 1)
    note(second, "dllogger_phase", {"phase": "checkpoint"}, 0)
    assert any("training, validation 12s" in line for line in draw(model))
    assert "checkpoint" not in " ".join(draw(model))
    first.read_s = NOW_S
    note(first, "dllogger_phase", {"phase": "checkpoint"}, 1)  # within the validation
    assert any("training, checkpoint 0" in line for line in draw(model))
    (run,) = model.runs.values()
    rows = plain_run(assess_now(run, NOW_S + 3))["rows"]
    assert [(row["phase"], row["phase_s"]) for row in rows[:2]] == [("checkpoint", 3), ("", 0)]
    first.start(NOW_S, 2)
    assert "checkpoint" not in " ".join(draw(model))
