"""Ranks with faults, the shipped Prometheus and dashboards: each fault is seen and told of.

A run of eight ranks, of which four have a fault each, and one of two ranks that finishes. The
rules run in time lapse, the dashboards are asked as Grafana asks them.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import psutil
import pytest
import yaml

from grafana.queries.dashboard import Dashboard
from grafana.queries.datasource import DataSource
from grafana.queries.interpolation import DashboardError
from tests.support.panel_shapes import (
    Shape,
    each_run,
    greatest_is,
    includes,
    last,
    least_is,
    only,
    reaches,
)
from tests.support.paths import ROOT
from tests.support.prometheus import wait_for
from tests.support.training_run import (
    DISCOVERY,
    SCRAPE_INTERVAL_S,
    SHIPPED,
    Part,
    TrainingRun,
    lapse,
    shipped_configuration,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from grafana.queries.datasource import Result
    from tests.support.training_run import AlertHistory

FOLDER = ROOT / "grafana" / "dashboards"
DASHBOARDS = sorted(FOLDER.glob("*.json"))

RUN, FINISHED = "resnet", "bert"
WORLD_SIZE = 8
NAN_RANK, STOPPED_RANK, RESTARTED_RANK, SLOW_RANK = 2, 3, 5, 7
LOST_RANK = 1  # at the very end
DIAGNOSTICS = {
    NAN_RANK: {"fault": "nan", "at_s": 25, "for_s": 5},
    STOPPED_RANK: {"fault": "stops", "at_s": 28},
    RESTARTED_RANK: {"fault": "restart", "at_s": 18},
    SLOW_RANK: {"fault": "slow"},
}
PARTS = [
    *(Part(RUN, rank, WORLD_SIZE, **DIAGNOSTICS.get(rank, {})) for rank in range(WORLD_SIZE)),
    *(Part(FINISHED, rank, 2, epochs=2) for rank in range(2)),
]
FACTOR = 10.0
WITHIN_S = 180.0

# What has to be told of, and of which rank; nothing else may be.
EXPECTED_ALERTS = {
    ("DLLoggerNonFiniteLoss", RUN, str(NAN_RANK)),
    ("DLLoggerRankStalled", RUN, str(STOPPED_RANK)),
    ("DLLoggerStraggler", RUN, str(SLOW_RANK)),
    ("DLLoggerIterationSkew", RUN, None),
    ("DLLoggerRunFinished", FINISHED, None),
}

pytestmark = [pytest.mark.newest_only, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrainingRun]:
    """Train until all that has to be told of is told, or the time is up."""
    folder = tmp_path_factory.mktemp("stack")
    with TrainingRun(folder, PARTS, factor=FACTOR) as run:
        run.watch(lambda: fired(run) >= EXPECTED_ALERTS, within_s=WITHIN_S)
        yield run


@pytest.fixture(scope="module")
def source(training: TrainingRun) -> DataSource:
    """Look at the whole run, as a user who opens a dashboard at its end."""
    return DataSource(
        training.prometheus.url,
        start_s=training.start_s,
        end_s=training.end_s,
        scrape_interval_s=SCRAPE_INTERVAL_S / FACTOR,
        annotation_step_s=60.0 / FACTOR,
    )


def fired(run: TrainingRun) -> set[tuple[str, str | None, str | None]]:
    """Return the alerts that have fired so far, with run and rank."""
    return {
        (one.name, one.labels.get("run"), one.labels.get("rank"))
        for one in run.alerts()
        if one.state == "firing"
    }


# ---------------------------------------------------------------------------- dashboards


FLEET, OVERVIEW, RANKS, COMPARE = (
    f"otel-dllogger-{name}" for name in ("fleet", "overview", "ranks", "compare")
)
STEP_S = 0.05  # of a rank that is not slow, which takes twice that
IPS = 640.0
EPOCHS = Part.epochs  # of the run, if it went on to its end
SLOW, STOPPED, BROKEN = str(SLOW_RANK), str(STOPPED_RANK), str(NAN_RANK)
TRAINING_LOSS = Shape(("run", "metric"), 2, 0.2, 2.4, only("metric", "train.loss"))
VALIDATION_LOSS = Shape(("run", "metric"), 2, 0.2, 3, only("metric", "val.loss"))
SCORE = Shape(("run", "metric"), 2, 0, 100, only("metric", "val.top1"))
GRADIENT_NORM = Shape(("run", "metric"), 1, 1, 3, only("metric", "grad_norm"))
LEARNING_RATE = Shape(("run", "metric"), 1, 0, 0.1, only("metric", "lr"))
RATES = Shape(
    ("run", "metric", "unit"),
    3,
    0,
    check=only("metric", "train.ips", "train.global_ips", "train.tokens_per_s"),
)
TIMES = Shape(
    ("run", "metric"),
    3,
    0,
    1,  # in seconds, whatever was logged
    only("metric", "train.data_time", "train.compute_time", "train.forward_ms"),
)
FIVE_RANKS = Shape(("run", "rank"), 5, 0)
IS_TRAINING = Shape(("run",), 1, 0, 0)
RULES_ARE_LOADED = Shape((), 1, 1, 1)
FIRING = Shape(("alertname", "severity", "run"), check=includes("alertname", "DLLoggerRankStalled"))
BOTH_RUNS = Shape(("run",), 2, check=only("run", RUN, FINISHED))

# By dashboard, panel and target. What is not here must draw something all the same.
SHAPES = {
    (FLEET, "Runs: training", "A"): Shape((), 1, 1, 1),
    (FLEET, "Runs: finished", "A"): Shape((), 1, 1, 1),
    **{
        (FLEET, f"Runs: {state}", "A"): Shape((), 1, 0, 0)
        for state in ("vanished", "terminated", "stalled")
    },
    (FLEET, "Recording rules", "A"): RULES_ARE_LOADED,
    (FLEET, "Runs", "A"): Shape(("run",), 2, check=each_run(**{RUN: 0, FINISHED: 1})),
    (FLEET, "Runs", "B"): Shape(("run",), 2, 0, check=greatest_is("run", RUN)),
    (FLEET, "Runs", "C"): Shape(("run",), 2, 0, check=greatest_is("run", RUN)),
    (FLEET, "Runs", "D"): Shape(("run",), 2, check=each_run(**{RUN: WORLD_SIZE, FINISHED: 0})),
    (FLEET, "Runs", "E"): Shape(("run",), 2, check=each_run(**{RUN: WORLD_SIZE, FINISHED: 2})),
    (FLEET, "Runs", "F"): Shape(("run",), 2, 5 / EPOCHS, 1, reaches(1)),
    (FLEET, "Runs", "G"): Shape(("run",), 1, 1, check=only("run", RUN)),
    (FLEET, "Runs", "H"): Shape(("run", "metric"), 2, 0.2, 2.4, only("metric", "train.loss")),
    (FLEET, "Runs", "I"): Shape(("unit",), 1, check=only("unit", "tokens/s")),
    (FLEET, "Runs", "J"): Shape(("run",), 1, 30, check=only("run", RUN)),
    (FLEET, "Runs", "K"): BOTH_RUNS,
    (FLEET, "Alerts", "A"): FIRING,
    **{(FLEET, title, "A"): BOTH_RUNS for title in ("Ranks", "Step time", "Last record")},
    (OVERVIEW, "State", "A"): IS_TRAINING,
    (OVERVIEW, "Recording rules", "A"): RULES_ARE_LOADED,
    (OVERVIEW, "Alerts", "A"): FIRING,
    (OVERVIEW, "Ranks", "A"): Shape(("run",), 1, 1, WORLD_SIZE, last(WORLD_SIZE)),
    (OVERVIEW, "Ranks", "B"): Shape(("run",), 1, WORLD_SIZE, WORLD_SIZE),
    (OVERVIEW, "Epoch", "A"): Shape(("run",), 1, 0, EPOCHS, reaches(5)),
    (OVERVIEW, "Epoch", "B"): Shape(("run",), 1, 0, check=last(2, 4)),
    (OVERVIEW, "Iteration", "A"): Shape(("run",), 1, 0, 160),
    (OVERVIEW, "Step time", "A"): Shape(("run",), 1, STEP_S, 1),
    **{(OVERVIEW, "Step time", ref_id): Shape(("run",), 1, 0.9 * STEP_S, 1) for ref_id in "BCD"},
    (OVERVIEW, "Last record", "A"): Shape(("run",), 1, 30),
    (OVERVIEW, "NaN and Inf", "A"): Shape(("run",), 1, 1, 5 / STEP_S, reaches(10)),
    (OVERVIEW, "NaN and Inf", "B"): Shape(("metric",), 1, 1, check=only("metric", "train.loss")),
    (OVERVIEW, "Throughput", "A"): RATES,
    (OVERVIEW, "Restarts", "A"): Shape(("run",), 1, 1, 1),
    (OVERVIEW, "Done", "A"): Shape(("run",), 1, 0, 1, last(5 / EPOCHS, 0.5)),
    (OVERVIEW, "Time left", "A"): Shape(("run",), 1, 100, 3000),
    **{(OVERVIEW, "Training loss", ref_id): TRAINING_LOSS for ref_id in "ABCD"},
    **{(OVERVIEW, "Validation loss", ref_id): VALIDATION_LOSS for ref_id in "ABCD"},
    **{(OVERVIEW, "Scores", ref_id): SCORE for ref_id in "ABCD"},
    **{(OVERVIEW, "Gradient norm", ref_id): GRADIENT_NORM for ref_id in "ABCD"},
    **{(OVERVIEW, "Learning rate", ref_id): LEARNING_RATE for ref_id in "AB"},
    **{(OVERVIEW, "Best so far", ref_id): Shape(("metric", "goal"), 7) for ref_id in "AB"},
    **{(OVERVIEW, "Throughput of a rank", ref_id): RATES for ref_id in "ABCD"},
    # At the end of six ranks and the slow one, which is half a rank: not of the stopped one.
    (OVERVIEW, "Throughput of all ranks", "A"): Shape(
        ("metric", "scope"), 1, 0, (WORLD_SIZE + 1) * IPS, last(IPS, 6.9 * IPS)
    ),
    (OVERVIEW, "Throughput of all ranks", "B"): Shape(
        ("metric", "scope"), 1, 0, 1.1 * WORLD_SIZE * IPS, reaches(3 * IPS)
    ),
    (OVERVIEW, "Throughput of all ranks", "C"): Shape(("metric", "unit"), 1, 0),
    (OVERVIEW, "Parts of a step", "A"): TIMES,
    (OVERVIEW, "Training steps", "A"): Shape(("run",), 1, 0, check=reaches(800)),
    (OVERVIEW, "Training steps", "B"): Shape(("run",), 1, 0, 28 / STEP_S),
    (OVERVIEW, "Age of the last record", "A"): Shape(("run",), 1, 0, check=reaches(30)),
    **{(OVERVIEW, "Age of the last record", ref_id): Shape(("run",), 1, 0, 10) for ref_id in "BC"},
    (OVERVIEW, "Processes", "A"): Shape(("run", "attempt"), 2, 1, WORLD_SIZE),
    (OVERVIEW, "Records", "A"): Shape(("run", "type"), 4),
    **{(OVERVIEW, "Parameters", ref_id): Shape(("run", "name"), 4) for ref_id in "AB"},
    (RANKS, "State", "A"): IS_TRAINING,
    (RANKS, "Recording rules", "A"): RULES_ARE_LOADED,
    (RANKS, "Alerts", "A"): FIRING,
    (RANKS, "Slowest ranks", "A"): Shape(("rank",), 5, check=greatest_is("rank", SLOW)),
    (RANKS, "Slowest ranks", "B"): Shape(("run", "rank", "host", "local_rank"), 5),
    # The stopped rank may be among them for a part of its last step, and has no step time.
    (RANKS, "Slowest ranks", "C"): Shape(
        ("rank",), None, 0.9 * STEP_S, 1, greatest_is("rank", SLOW)
    ),
    (RANKS, "Slowest ranks", "D"): FIVE_RANKS,
    (RANKS, "Slowest hosts", "A"): Shape(("run", "host"), 1, 0, 1),
    (RANKS, "Longer than the median", "A"): Shape(("rank",), 5, check=greatest_is("rank", SLOW)),
    (RANKS, "Longer than the median", "B"): Shape(("rank",), 4, check=only("rank", "0")),
    (RANKS, "Throughput against the median", "A"): Shape(
        ("rank", "metric"), 5, 0, check=includes("rank", SLOW)
    ),
    (RANKS, "Throughput against the median", "B"): Shape(
        ("rank", "metric"), 3, 0, check=only("rank", "0")
    ),
    (RANKS, "Step times of all ranks", "A"): Shape(("run", "of_median"), None, 1, WORLD_SIZE),
    (RANKS, "Step time of the chosen ranks", "A"): Shape(("rank",), 1, 0.9 * STEP_S, 1),
    (RANKS, "Step time of the chosen ranks", "B"): Shape(("run",), 1, STEP_S, 1),
    (RANKS, "Step time of the chosen ranks", "C"): Shape(
        ("run",), 1, STEP_S, 1, reaches(2 * STEP_S)
    ),
    (RANKS, "Iteration skew", "A"): Shape(("run",), 1, 0, check=reaches(20)),
    (RANKS, "Ranks behind", "A"): Shape(("rank",), 5, 1, check=least_is("rank", STOPPED)),
    (RANKS, "Ranks behind", "B"): Shape(("rank",), 5, 0, check=greatest_is("rank", STOPPED)),
    (RANKS, "Quiet ranks", "A"): Shape(("rank",), 5, check=greatest_is("rank", STOPPED)),
    (RANKS, "Quiet ranks", "B"): Shape(("rank",), 1, 0, 10, only("rank", "0")),
    **{
        (RANKS, "Ranks with NaN", ref_id): Shape(
            ("rank", "host", "metric"), 1, 1, check=only("rank", BROKEN)
        )
        for ref_id in "AB"
    },
    **{(RANKS, "Logging", ref_id): Shape(("run",), 1, 0, 0.5) for ref_id in "AB"},
    (RANKS, "Chosen ranks", "A"): Shape(("host", "pid", "attempt"), 1, 1, 1, only("rank", "0")),
    **{
        (COMPARE, f"Losses by {x}", ref_id): Shape(("run", "metric"), 8)
        for x in ("time", "step")
        for ref_id in "AB"
    },
    **{
        (COMPARE, f"Scores by {x}", ref_id): Shape(("run", "metric"), 4)
        for x in ("time", "step")
        for ref_id in "AB"
    },
    **{
        (COMPARE, f"Throughput of a rank by {x}", ref_id): Shape(("run", "metric", "unit"), 6)
        for x in ("time", "step")
        for ref_id in "AB"
    },
    **{(COMPARE, "Runs", ref_id): BOTH_RUNS for ref_id in "ABE"},
    (COMPARE, "Runs", "C"): Shape(("run",), 2, check=each_run(**{RUN: WORLD_SIZE, FINISHED: 2})),
    (COMPARE, "Runs", "D"): Shape(("run",), 2, 320, check=greatest_is("run", RUN)),
    (COMPARE, "Runs", "F"): Shape(("run",), 1, 10, 5 / STEP_S, only("run", RUN)),
    (COMPARE, "Runs", "G"): Shape(("run",), 2, check=each_run(**{RUN: 0, FINISHED: 1})),
    (COMPARE, "Best values", "A"): Shape(("run", "metric"), 14),
    (COMPARE, "Parameters", "A"): Shape(("run", "name"), 8),
}

_NOTHING_DROPPED = "nothing was dropped"
_CAME_BACK = "the one rank that was killed came back"
_NO_EXPORTER = "neither node_exporter nor dcgm-exporter is scraped, and no rank has a GPU"

# By dashboard, panel and target: why there is nothing to draw in this run.
EMPTY_BY_DESIGN = {
    (OVERVIEW, "Dropped", "A"): _NOTHING_DROPPED,
    (RANKS, "Dropped", "A"): _NOTHING_DROPPED,
    (RANKS, "Dropped", "B"): _NOTHING_DROPPED,
    (RANKS, "Lost ranks", "A"): _CAME_BACK,
    (RANKS, "Lost ranks", "B"): _CAME_BACK,
    (RANKS, "Processor", "A"): _NO_EXPORTER,
    (RANKS, "Memory", "A"): _NO_EXPORTER,
    **{(RANKS, "GPUs of the slowest ranks", letter): _NO_EXPORTER for letter in "ABCDEFG"},
    **{(RANKS, "How busy GPUs are", letter): _NO_EXPORTER for letter in "ABC"},
    **{(RANKS, "Temperature of GPUs", letter): _NO_EXPORTER for letter in "AB"},
    (RANKS, "XID errors", "A"): _NO_EXPORTER,
}


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_every_variable_of_a_dashboard_has_a_value(path: Path, source: DataSource) -> None:
    """Each variable resolves, in the order of its needs, to at least one option."""
    board = Dashboard.load(path, source)
    assert {} == {name: one for name, one in board.variables.items() if not one.value}
    assert {} == {name: one for name, one in board.variables.items() if not one.options}


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_every_target_of_a_dashboard_answers_as_it_should(path: Path, source: DataSource) -> None:
    """Every target of every panel draws what the run has to show, or says why it does not."""
    board = Dashboard.load(path, source)
    wrong, asked = [], set()
    for panel in board.panels:
        try:
            results = board.run(panel)
        except DashboardError as error:
            wrong.append(str(error))
            continue
        for result in results:
            key = board.uid, panel.title, result.query.ref_id
            asked.add(key)
            if misfit := _misfit(key, result):
                wrong.append(f"{key}: {misfit}\n    {result.query.expression}")
    assert not wrong, "\n".join(wrong)
    expected = {key for key in SHAPES.keys() | EMPTY_BY_DESIGN.keys() if key[0] == board.uid}
    assert expected <= asked


def _misfit(key: tuple[str, str, str], result: Result) -> str | None:
    if key in EMPTY_BY_DESIGN:
        return "draws something, though it should be empty" if result.frames else None
    return SHAPES.get(key, Shape()).misfit(result.frames)


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_annotations_mark_what_happened(path: Path, source: DataSource) -> None:
    """Start, restart, NaN, events and alerts are marks of a run, and so is its end."""
    board = Dashboard.load(path, source, run=[RUN, FINISHED])
    found = {
        (query.panel, frame.labels["run"])
        for query in board.annotation_queries()
        for frame in source.run(query).frames
    }
    assert {
        ("annotation Start", RUN),
        ("annotation Start", FINISHED),
        ("annotation Restart", RUN),
        ("annotation Events", RUN),
        ("annotation Events", FINISHED),
        ("annotation NaN or Inf", RUN),
        ("annotation Finish", FINISHED),
        ("annotation Alert", RUN),
    } == found


def test_a_dashboard_shows_the_run_that_is_chosen(source: DataSource) -> None:
    """With the other run chosen, nothing of the first one is drawn, and its two ranks are."""
    for path in DASHBOARDS:
        board = Dashboard.load(path, source, run=[FINISHED])
        frames = [
            frame
            for panel in board.panels
            for result in board.run(panel)
            for frame in result.frames
        ]
        assert {FINISHED} == {frame.labels["run"] for frame in frames if "run" in frame.labels}
        ranks = {frame.labels["rank"] for frame in frames if "rank" in frame.labels}
        assert ranks <= {"0", "1"}


def test_a_nan_is_dated(training: TrainingRun, source: DataSource) -> None:
    """The table says since when a rank logs NaN, to a scrape and an evaluation."""
    board = Dashboard.load(FOLDER / "ranks.json", source)
    (table,) = [panel for panel in board.panels if panel.title == "Ranks with NaN"]
    since, _times = board.run(table)
    ((_, since_ms),) = since.frames[0].samples
    happened_s = training.when("nan", rank=NAN_RANK, run=RUN)
    assert happened_s is not None
    assert 0 <= since_ms / 1000 - happened_s <= 3 * SCRAPE_INTERVAL_S / FACTOR


# ---------------------------------------------------------------------------- alerts


def test_each_fault_raises_its_alert_and_nothing_else_does(training: TrainingRun) -> None:
    """Every fault is told of with its rank; the restart and the clean end raise no alarm."""
    assert EXPECTED_ALERTS == fired(training)


def test_alerts_fire_when_their_time_is_up(training: TrainingRun) -> None:
    """From pending to firing passes what ``for`` says, and one evaluation at most."""
    rules = _timing(training)
    histories = training.alerts(at_s=training.end_s)
    pending = {_key(one): one.times_s for one in histories if one.state == "pending"}
    late = []
    for one in histories:
        duration_s, interval_s = rules[one.name]
        if one.state == "firing" and duration_s:
            fires_s = min(one.times_s)
            waited_s = fires_s - _since(pending[_key(one)], until_s=fires_s, gap_s=2 * interval_s)
            if not duration_s <= waited_s <= duration_s + interval_s:
                late.append((one.name, one.labels, waited_s))
    assert [] == late


@pytest.mark.parametrize(
    ("alert", "run", "event", "rank", "threshold"),
    [
        ("DLLoggerNonFiniteLoss", RUN, "nan", NAN_RANK, None),
        ("DLLoggerRankStalled", RUN, "stops", STOPPED_RANK, "stalled_seconds"),
        ("DLLoggerRunFinished", FINISHED, "finished", None, None),
    ],
)
def test_a_fault_is_told_of_within_two_evaluations(
    training: TrainingRun,
    alert: str,
    run: str,
    event: str,
    rank: int | None,
    threshold: str | None,
) -> None:
    """A scrape and an evaluation after threshold and ``for`` have passed, the alert fires."""
    ranks = range(2) if rank is None else [rank]
    happened_s = max(training.when(event, rank=one, run=run) for one in ranks)
    wait_s, interval_s = _timing(training)[alert]
    if threshold:
        ((_, threshold_s),) = training.prometheus.query(f"dllogger:threshold:{threshold}")
        wait_s += threshold_s
    fired_s = min(
        min(one.times_s)
        for one in training.alerts(at_s=training.end_s)
        if (one.name, one.state, one.labels["run"]) == (alert, "firing", run)
    )
    delay_s = fired_s - happened_s - wait_s
    assert -interval_s <= delay_s <= 2 * interval_s


def _timing(training: TrainingRun) -> dict[str, tuple[float, float]]:
    """Return ``for`` and the interval of the evaluations, by alert, in seconds of the lapse."""
    return {
        rule["name"]: (rule["duration"], group["interval"])
        for group in training.rules()
        for rule in group["rules"]
        if rule["type"] == "alerting"
    }


def _since(times_s: list[float], *, until_s: float, gap_s: float) -> float:
    """Return when the last time without a gap began: an alert may be pending twice."""
    since_s = until_s
    for time_s in reversed(times_s):
        if time_s < since_s and since_s - time_s < gap_s:
            since_s = time_s
    return since_s


def _key(history: AlertHistory) -> tuple[str, frozenset[tuple[str, str]]]:
    return history.name, frozenset(history.labels.items())


def test_rules_are_evaluated_without_an_error(training: TrainingRun) -> None:
    """Not one rule is refused, nor one sample of a rank."""
    rules = [rule for group in training.rules() for rule in group["rules"]]
    assert [] == [(rule["name"], rule["lastError"]) for rule in rules if rule["health"] != "ok"]
    assert [] == training.prometheus.query("sum(prometheus_rule_evaluation_failures_total) > 0")


# ---------------------------------------------------------------------------- the time lapse


@pytest.mark.parametrize("path", sorted(SHIPPED.rglob("*.yml")), ids=lambda path: path.name)
def test_time_lapse_leaves_everything_else_as_it_is(path: Path) -> None:
    """By 1 nothing changes; by 10 the same rules remain, and their names and labels."""
    text = path.read_text()
    assert text == lapse(text, 1)
    faster = yaml.safe_load(lapse(text, 10))
    assert yaml.safe_load(text).keys() == faster.keys()
    for group, other in zip(
        yaml.safe_load(text).get("groups", []), faster.get("groups", []), strict=True
    ):
        for rule, fast in zip(group["rules"], other["rules"], strict=True):
            same = rule.keys() - {"expr", "for"}
            assert {key: rule[key] for key in same} == {key: fast[key] for key in same}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("scrape_interval: 15s", "scrape_interval: 1500ms"),
        ("  scrape_timeout: 10s", "  scrape_timeout: 1s"),
        ("      - interval: 1m # of 5m", "      - interval: 6s # of 5m"),
        ("    for: 5m", "    for: 30s"),
        ("expr: rate(x_total[5m])", "expr: rate(x_total[30s])"),
        ("x offset 1h > 5m", "x offset 6m > 5m"),
        ("max_over_time(x[1h:15s])", "max_over_time(x[6m:1500ms])"),
        ("x[10m:] offset -5m", "x[1m:] offset -30s"),
        ("- record: last_5m\n  expr: vector(300)", "- record: last_5m\n  expr: vector(300)"),
        ("- record: a:b_seconds\n  expr: vector(300)", "- record: a:b_seconds\n  expr: vector(30)"),
        ("- record: a:b_ratio\n  expr: vector(3)", "- record: a:b_ratio\n  expr: vector(3)"),
        ("summary: 3 times in 5m for 5m", "summary: 3 times in 5m for 5m"),
        ("  annotations:\n    a: >-\n      x[5m]\n\n      y\n", None),
        (
            "  annotations:\n    a: x[5m]\n  - expr: x[5m]\n    annotations: {a: y[5m]}\n",
            "  annotations:\n    a: x[5m]\n  - expr: x[30s]\n    annotations: {a: y[5m]}\n",
        ),
    ],
)
def test_time_lapse_divides_durations(text: str, expected: str | None) -> None:
    """Durations where they count are divided by ten, and those in words are not."""
    assert (text if expected is None else expected) == lapse(text, 10)
    assert text == lapse(text, 1)


def test_the_shipped_configuration_is_what_is_tested(tmp_path: Path) -> None:
    """The copy differs from what is shipped in the discovery folder alone."""
    copy = shipped_configuration(tmp_path / "copy", discovery=tmp_path / "found")
    shipped = (SHIPPED / "prometheus.yml").read_text()
    assert 1 == shipped.count(DISCOVERY)
    assert shipped == copy.read_text().replace(str(tmp_path / "found"), DISCOVERY)
    rules = {path.name: path.read_text() for path in (SHIPPED / "rules").glob("*.yml")}
    assert rules == {path.name: path.read_text() for path in (copy.parent / "rules").glob("*.yml")}


# ---------------------------------------------------------------------------- the end


def test_a_rank_that_is_lost_is_found(training: TrainingRun) -> None:
    """A killed rank is missing from the figure of ranks, and listed with where it ran."""
    (lost,) = [one for one in training.ranks if (one.part.run, one.part.rank) == (RUN, LOST_RANK)]
    lost.process.kill()
    lost.process.wait()

    def look() -> tuple[set[str], list[float]]:
        source = DataSource(
            training.prometheus.url,
            start_s=training.start_s,
            end_s=time.time(),
            scrape_interval_s=SCRAPE_INTERVAL_S / FACTOR,
        )
        ranks = Dashboard.load(FOLDER / "ranks.json", source)
        (table,) = [panel for panel in ranks.panels if panel.title == "Lost ranks"]
        listed = [frame.labels for result in ranks.run(table) for frame in result.frames]
        overview = Dashboard.load(FOLDER / "training-overview.json", source)
        (figure,) = [panel for panel in overview.panels if panel.title == "Ranks"]
        answer, _of = overview.run(figure)
        shown = [frame.samples[-1][1] for frame in answer.frames]
        return {labels["rank"] for labels in listed}, shown

    wait_for(look, lambda seen: seen == ({str(LOST_RANK)}, [WORLD_SIZE - 1.0]))


def test_nothing_is_left_running(training: TrainingRun) -> None:
    """Every process ends by its own id, ranks cleanly, and withdraws its discovery file."""
    pids = {one.process.pid for one in training.ranks} | {training.prometheus.pid}
    began_s = time.monotonic()
    training.stop()
    assert time.monotonic() - began_s < 30
    assert set() == pids & {process.pid for process in psutil.Process().children(recursive=True)}
    codes = {
        (one.part.run, one.part.rank, one.attempt): one.process.returncode for one in training.ranks
    }
    killed = {(RUN, RESTARTED_RANK, 0), (RUN, LOST_RANK, 0)}
    assert {key: -9 if key in killed else 0 for key in codes} == codes
    assert 1 == len(list(training.discovery.glob("*.json")))  # of the one that was lost
    assert {} == {one.part: one.errors() for one in training.ranks if one.errors()}
