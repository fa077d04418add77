"""What ranks are doing, and what is wrong, by the thresholds of the alert rules."""

from __future__ import annotations

import math

import pytest

from otel_dllogger.metrics import health
from otel_dllogger.view.assessment import assess, assess_past
from otel_dllogger.view.facts import note
from otel_dllogger.view.model import Counted, Model
from otel_dllogger.view.table import make_table

pytestmark = pytest.mark.newest_only

START_S = 1_000_000.0
LOSS = {"metric": "train.loss", "stage": "train", "granularity": "iteration", "kind": "loss"}
DATA_TIME = {**LOSS, "metric": "data_time", "kind": "duration", "unit": "s"}
SPEED = {**LOSS, "metric": "ips", "kind": "throughput", "unit": "items/s"}


class Training:
    """A run that the test lets go on, second by second, with a record of each rank each second."""

    def __init__(self, ranks: int = 4) -> None:
        self.model = Model()
        self.now_s = START_S
        self.step_s = dict.fromkeys(range(ranks), 1.0)
        self.ranks = [self.model.rank("r", number) for number in range(ranks)]
        for rank in self.ranks:
            rank.host, rank.local_rank = "node", str(rank.number)
            rank.start(START_S, 1)

    def train(self, seconds: int, *silent: int, **values: dict[int, float]) -> None:
        """Let ranks log, except the silent ones; values are of a rank's loss, speed, data_time."""
        for _ in range(seconds):
            self.now_s += 1.0
            for rank in self.ranks:
                if rank.number not in silent:
                    self._log(rank, values)

    def _log(self, rank, values) -> None:
        step_s = self.step_s[rank.number]
        rank.step_s += step_s if rank.steps else 0.0  # the first one has no duration
        rank.steps += 1
        rank.iteration = rank.steps
        rank.records += 1
        rank.last_log_s = self.now_s
        rank.axis.move(None, rank.iteration)
        for name, labels in (("loss", LOSS), ("data_time", DATA_TIME), ("speed", SPEED)):
            if name in values:
                series = self.model.series(rank, f"dl_{name}", labels)
                value = values[name].get(rank.number, values[name].get(-1, 1.0))
                series.history.append(value, (rank.axis.x, self.now_s, rank.axis.segment))
        rank.leave_trail(self.now_s)

    def status(self):
        return assess(self.model.runs["r"], self.now_s)

    def states(self) -> list[str]:
        return [each.state for each in self.status().ranks]

    def alerts(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for finding in self.status().findings:
            found.setdefault(finding.alert.removeprefix("DLLogger"), []).append(finding.words)
        return found


def test_a_healthy_run_has_no_findings() -> None:
    """All is well is said when it is."""
    run = Training()
    run.train(60, loss={}, data_time={-1: 0.1}, speed={})
    assert run.states() == [health.TRAINING] * 4
    assert run.status().state == health.TRAINING
    assert run.alerts() == {}
    assert run.status().step_s == pytest.approx(1.0)


def test_a_rank_that_does_not_log_is_quiet_and_then_stalled() -> None:
    """It is seen within ten of its intervals, long before an alert fires."""
    run = Training()
    run.train(60)
    run.train(11, 2)
    assert run.states() == [health.TRAINING, health.TRAINING, health.QUIET, health.TRAINING]
    assert run.alerts() == {}
    run.train(301, 2)
    assert run.states()[2] == health.STALLED
    (words,) = run.alerts()["RankStalled"]
    assert words == (
        "Rank 2 of run r on node (local rank 2) has not logged for 5m 12s, while others go on"
    )


def test_a_script_that_logs_rarely_is_not_stalled() -> None:
    """A record every five minutes is usual there."""
    run = Training(1)
    for _ in range(4):
        run.train(1)
        run.now_s += 299.0
    run.now_s += 301.0
    assert run.states() == [health.TRAINING]


def test_a_run_of_which_no_rank_logs_is_stalled_once() -> None:
    """Not once for each rank."""
    run = Training()
    run.train(60)
    run.now_s += 700.0
    assert run.status().state == health.STALLED
    assert run.alerts() == {"RunStalled": ["Run r is stalled: no rank logs any more; 4 did before"]}


def test_a_rank_in_a_phase_explains_that_all_are_silent() -> None:
    """For an hour: it may hang in its checkpoint. What is a part of a step explains nothing."""
    run = Training()
    for rank in run.ranks:
        rank.pid = "1"  # its page answers
    run.train(60)
    note(run.ranks[0], "dllogger_phase", {"phase": "data_wait"}, 1.0)
    run.now_s += 700.0
    assert run.status().state == health.STALLED
    note(run.ranks[0], "dllogger_phase", {"phase": "checkpoint"}, 1.0)
    assert run.states() == [health.TRAINING] * 4
    assert run.alerts() == {}
    run.now_s += 2901.0
    assert set(run.alerts()) == {"RunStalled"}
    run.now_s -= 2901.0
    note(run.ranks[0], "dllogger_phase", {"phase": "checkpoint"}, 0.0)
    assert set(run.alerts()) == {"RunStalled"}


def test_a_phase_of_a_rank_that_is_gone_explains_nothing() -> None:
    """It was killed in its checkpoint, and the others wait for ever."""
    run = Training()
    run.train(60)
    note(run.ranks[0], "dllogger_phase", {"phase": "checkpoint"}, 1.0)
    run.now_s += 700.0
    run.ranks[0].is_gone = True
    assert set(run.alerts()) == {"RunStalled", "RankVanished"}


def test_a_log_of_last_week_is_not_stalled() -> None:
    """It is over; whether it crashed is not known."""
    run = Training()
    run.train(60)
    run.now_s += 7 * 86_400
    assert run.states() == [health.UNFINISHED] * 4
    assert run.alerts() == {}


def test_a_rank_that_is_gone() -> None:
    """While others are there it is the rank, else it is the run."""
    run = Training()
    run.train(60)
    run.ranks[1].is_gone = True
    assert run.states()[1] == health.VANISHED
    (words,) = run.alerts()["RankVanished"]
    assert words.startswith("Rank 1 of run r on node (local rank 1), started 1970-01-12 13:46:40")
    for rank in run.ranks:
        rank.is_gone = True
    assert run.alerts() == {
        "RunVanished": [
            "Run r is gone: no process of it answers, and 4 of its ranks did not finish"
        ]
    }


def test_ends() -> None:
    """A run that finished or was told to end is neither stalled nor gone."""
    run = Training()
    run.train(60)
    run.ranks[0].finished = True
    assert run.status().state == health.TRAINING
    for rank in run.ranks[1:]:
        rank.terminated = True
    assert run.status().state == health.FINISHED
    run.ranks[0].finished, run.ranks[0].terminated = False, True
    assert run.status().state == health.TERMINATED
    assert list(run.alerts()) == ["RunTerminated"]


def test_a_slow_rank_by_its_own_step() -> None:
    """A quarter longer than the median is the threshold."""
    run = Training()
    run.step_s[3] = 1.2
    run.train(200)
    assert run.alerts() == {}
    run = Training()
    run.step_s[3] = 1.3
    run.train(200)
    (words,) = run.alerts()["Straggler"]
    assert words == (
        "Rank 3 of run r on node (local rank 3) is slow: its step is longer than the median of "
        "the ranks by 30% of a step"
    )


def test_a_slow_rank_by_a_part_of_its_step() -> None:
    """Where all wait for it in lock step, its own part tells which one it is."""
    run = Training()
    run.train(60, data_time={-1: 0.02, 3: 0.35})
    slow = run.status().ranks[3]
    assert (slow.is_straggler, slow.slow_part) == (True, "data_time")
    assert slow.slow_ratio == pytest.approx(0.33, abs=1e-6)
    assert [each.is_straggler for each in run.status().ranks[:3]] == [False] * 3


def test_noise_is_not_a_straggler() -> None:
    """Of a few values that vary by half, the median of one rank is higher by chance."""
    run = Training()
    for number in range(9):
        run.train(1, data_time={-1: 0.5 + 0.25 * (number % 3), 3: 0.5 + 0.25 * ((number + 1) % 4)})
    assert "Straggler" not in run.alerts()
    run.train(200, data_time={-1: 0.75, 3: 0.95})
    assert [each.is_straggler for each in run.status().ranks] == [False, False, False, True]


def test_two_ranks_do_not_say_which_is_slow() -> None:
    """A median of two is not one."""
    run = Training(2)
    run.step_s[1] = 3.0
    run.train(60)
    assert run.alerts() == {}


def test_what_was_slow_an_hour_ago_is_not_slow_now() -> None:
    """The last five minutes count, but all of a run that is over."""
    run = Training()
    run.step_s[3] = 2.0
    run.train(600)
    run.step_s[3] = 1.0
    run.train(400)
    assert run.alerts() == {}
    past = assess_past(run.model.runs["r"])
    assert [each.is_straggler for each in past.ranks] == [False, False, False, True]
    assert past.state == health.UNFINISHED


def test_nan_in_a_loss_is_found_and_forgotten() -> None:
    """As the alert ends five minutes later; the count stays in the table."""
    run = Training()
    run.train(60)
    run.ranks[2].nonfinite[Counted("train.loss", "train", "loss")] = 1.0
    run.ranks[2].nonfinite[Counted("grad_norm", "", "gradient_norm")] = 7.0
    run.train(30)
    assert run.alerts() == {
        "NonFiniteLoss": ["train.loss of run r, rank 2 was NaN or Inf once in 5 minutes"]
    }
    run.train(400)
    assert run.alerts() == {}
    assert run.status().ranks[2].nonfinite == 8


def test_a_crash_loop() -> None:
    """The third attempt within half an hour."""
    run = Training(1)
    for attempt in (2, 3):
        run.train(10)
        assert "CrashLoop" not in run.alerts()
        run.ranks[0].start(run.now_s, attempt)
    assert list(run.alerts()) == ["CrashLoop"]


def test_what_was_dropped_is_said_by_its_reason() -> None:
    """Of all ranks together, without what loses nothing."""
    run = Training()
    run.train(30)
    run.ranks[0].dropped = {"disk_full": 2.0, "torn_line": 3.0}
    run.ranks[1].dropped = {"disk_full": 1.0}
    run.train(10)
    assert run.alerts() == {
        "RecordsDropped": ["Run r lost something (disk_full): 3 times in 5 minutes"]
    }


def test_the_cost_of_logging() -> None:
    """The share of time that the slowest rank spends in log()."""
    run = Training()
    for _ in range(8):
        run.train(15)
        for rank in run.ranks:
            rank.log_s = (rank.log_s or 0.0) + 1.5
    (words,) = run.alerts()["LoggingOverhead"]
    assert words.startswith("Run r spends ")


def test_a_loss_that_diverges() -> None:
    """Worse for ten minutes than at any time in the hour before; noise does not do this."""
    run = Training(1)
    for minute in range(90):
        run.train(60, loss={-1: 2.0 + 0.1 * math.sin(minute)})
    assert run.alerts() == {}
    run.train(600, loss={-1: 5.0})
    assert run.alerts() == {
        "LossDiverging": ["train.loss of run r is at 5, worse than at any time in the hour before"]
    }


def test_a_throughput_that_drops() -> None:
    """Against the median of the last hour."""
    run = Training(1)
    run.train(3_600, speed={-1: 100.0})
    assert run.alerts() == {}
    run.train(301, speed={-1: 50.0})
    assert run.alerts() == {"ThroughputDrop": ["Run r trains at 50% of its usual speed, by ips"]}


def test_ranks_that_are_apart() -> None:
    """In seconds of training."""
    run = Training()
    run.train(100)
    run.ranks[1].iteration -= 90
    (words,) = run.alerts()["IterationSkew"]
    assert words == "The ranks of run r are 90 seconds of training apart"


def test_the_table_has_first_who_needs_help() -> None:
    """Gone, stalled, NaN, slow, quiet, and then by number."""
    run = Training(7)
    run.step_s[5] = 2.0
    run.train(60, 1)
    run.ranks[1].last_log_s = run.now_s - 20
    run.ranks[1].records, run.ranks[1].iteration = 50, 50.0
    run.ranks[6].is_gone = True
    run.ranks[4].nonfinite[Counted("x", "", "")] = 1.0
    table = make_table(run.status())
    assert [row.status.rank.number for row in table.rows] == [6, 4, 5, 1, 0, 2, 3]


def test_a_rank_without_a_step_is_starting() -> None:
    """One that announced itself, or logged its parameters only."""
    model = Model()
    rank = model.rank("r", 0)
    rank.start(START_S, 1)
    assert assess(model.runs["r"], START_S + 10).state == health.STARTING
    rank.last_log_s = START_S
    assert assess(model.runs["r"], START_S + 1_000).state == health.STARTING


def test_a_process_whose_page_answers_is_never_unfinished() -> None:
    """One that hangs over night is stalled; of a log, nobody knows whether somebody writes it."""
    training = Training()
    training.ranks[0].pid = "17"
    training.train(60)
    training.now_s += 2 * health.UNFINISHED_S
    assert training.states() == [health.STALLED, *[health.UNFINISHED] * 3]


def test_what_was_not_read_is_not_silence() -> None:
    """A page tells nothing between two readings, which may be some seconds apart if many are."""
    training = Training()
    training.train(60)
    training.now_s += 15.0
    assert set(training.states()) == {health.QUIET}
    for rank in training.ranks[:2]:
        rank.read_s = training.now_s - 9.0
    training.ranks[1].is_logged = True
    states = [health.TRAINING, health.QUIET, health.QUIET, health.QUIET]
    assert states == training.states()
    training.now_s += 20.0
    assert set(training.states()) == {health.QUIET}
