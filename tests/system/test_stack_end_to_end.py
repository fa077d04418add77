"""Ranks with faults, the shipped Prometheus and dashboards: each fault is seen and told of.

A run of eight ranks, of which four have a fault each, and one of two ranks that finishes. The
rules run in time lapse, the dashboards are asked as Grafana asks them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil
import pytest
import yaml

from grafana.queries.dashboard import Dashboard
from grafana.queries.datasource import DataSource
from grafana.queries.interpolation import DashboardError
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
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from grafana.queries.datasource import Frame, Result
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
    *(Part(FINISHED, rank, 2, seconds=20) for rank in range(2)),
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


@dataclass(frozen=True)
class Shape:
    """Hold what the answer to a query must look like.

    Attributes:
        labels: Labels that every series has.
        series: How many there are; None is any number but 0.
        low: No value is below.
        high: No value is above.
        check: What else must hold, with its reason as the name of the function.
    """

    labels: tuple[str, ...] = ()
    series: int | None = None
    low: float | None = None
    high: float | None = None
    check: Callable[[list[Frame]], bool] | None = None

    def misfit(self, frames: list[Frame]) -> str | None:
        """Return what does not fit, None if all does."""
        values = [value for frame in frames for value in frame.finite]
        if not values:
            return "nothing to draw"
        if self.series not in (None, len(frames)):
            return f"{len(frames)} series instead of {self.series}"
        for frame in frames:
            missing = set(self.labels) - frame.labels.keys()
            if missing:
                return f"no label {sorted(missing)} in {frame.labels}"
        if self.low is not None and min(values) < self.low:
            return f"{min(values)} is below {self.low}"
        if self.high is not None and max(values) > self.high:
            return f"{max(values)} is above {self.high}"
        if self.check is not None and not self.check(frames):
            return f"not {self.check.__name__}"
        return None


def last(value: float) -> Callable[[list[Frame]], bool]:
    """Ask for the last value of the one series."""

    def ends_with(frames: list[Frame]) -> bool:
        return frames[0].finite[-1] == value

    ends_with.__name__ = f"ends_with_{value}"
    return ends_with


def reaches(value: float) -> Callable[[list[Frame]], bool]:
    """Ask that the greatest value is at least this."""

    def reached(frames: list[Frame]) -> bool:
        return max(value for frame in frames for value in frame.finite) >= value

    reached.__name__ = f"reached_{value}"
    return reached


def greatest_is(label: str, value: str) -> Callable[[list[Frame]], bool]:
    """Ask which series has the greatest last value."""

    def greatest(frames: list[Frame]) -> bool:
        return max(frames, key=lambda frame: frame.finite[-1]).labels[label] == value

    greatest.__name__ = f"greatest_{label}_{value}"
    return greatest


def only(label: str, *values: str) -> Callable[[list[Frame]], bool]:
    """Ask which values a label has."""

    def alone(frames: list[Frame]) -> bool:
        return {frame.labels.get(label, "") for frame in frames} == set(values)

    alone.__name__ = f"only_{label}_{values}"
    return alone


OVERVIEW, RANKS, COMPARE = "otel-dllogger-overview", "otel-dllogger-ranks", "otel-dllogger-compare"
STEP_S = 0.05  # of a rank that is not slow, which takes twice that
IPS = 640.0
SLOW, STOPPED = str(SLOW_RANK), str(STOPPED_RANK)
SLOW_FIRST = Shape(("run", "rank"), 5, check=greatest_is("rank", SLOW))
BOTH_RUNS = Shape(("run",), 2, check=only("run", RUN, FINISHED))

# By dashboard, panel and target. What is not here must draw something all the same.
SHAPES = {
    (OVERVIEW, "Ranks", "A"): Shape(("run",), 1, 1, WORLD_SIZE, last(WORLD_SIZE)),
    (OVERVIEW, "Epoch", "A"): Shape(("run",), low=0, check=reaches(5)),
    (OVERVIEW, "Iteration", "A"): Shape(("run",), low=0, high=160),
    (OVERVIEW, "Last record", "A"): Shape(("run",), 1, 0, check=reaches(30)),
    (OVERVIEW, "NaN and Inf", "A"): Shape(("run",), low=0, check=reaches(10)),
    (OVERVIEW, "Restarts", "A"): Shape(("run",), 1, 0, 1, last(1)),
    (OVERVIEW, "Dropped", "A"): Shape(("run",), 1, 0, 0),
    (OVERVIEW, "Finished", "A"): Shape(("run",), 1, 0, 0),
    (OVERVIEW, "Throughput", "A"): Shape(
        ("run", "metric"), 1, 0, (WORLD_SIZE + 1) * IPS, reaches(3 * IPS)
    ),
    (OVERVIEW, "Training loss", "B"): Shape(("run", "metric"), 2, 0.2, 2.4, only("stage", "train")),
    (OVERVIEW, "Training loss", "D"): Shape(("run", "rank"), 2, 0.2, 2.4, only("rank", "0")),
    (OVERVIEW, "Validation loss", "B"): Shape(("run", "metric"), 2, 0.2, 3, only("stage", "val")),
    (OVERVIEW, "Learning rate", "A"): Shape(("run",), 1, 0, 0.1),
    (OVERVIEW, "Best so far", "A"): Shape(("run", "metric", "goal"), 6),
    (OVERVIEW, "Best so far", "B"): Shape(("run", "metric", "goal"), 6),
    (OVERVIEW, "Throughput in total", "A"): Shape(
        ("run",), 1, 0, (WORLD_SIZE + 1) * IPS, reaches(3 * IPS)
    ),
    (OVERVIEW, "Processes", "A"): Shape(("run", "attempt"), 2, 1, WORLD_SIZE),
    (OVERVIEW, "Records", "A"): Shape(("run", "type"), 4),
    (OVERVIEW, "Parameters", "A"): Shape(("run", "name"), 4),
    (OVERVIEW, "Age of the last record", "A"): Shape(("run",), 1, 0, check=reaches(30)),
    (RANKS, "Slowest ranks", "A"): Shape(("run", "rank", "host", "local_rank"), 5),
    (RANKS, "Slowest ranks", "B"): SLOW_FIRST,
    (RANKS, "Slowest ranks", "C"): SLOW_FIRST,
    (RANKS, "Slowest ranks", "E"): Shape(("run", "rank"), 5, 0),
    (RANKS, "Slowest hosts", "A"): Shape(("run", "host"), 1, 1, 2),
    (RANKS, "Step time of the slowest", "A"): SLOW_FIRST,
    (RANKS, "The slowest over time", "A"): SLOW_FIRST,
    (RANKS, "Quiet ranks", "A"): Shape(("rank",), 5, check=greatest_is("rank", STOPPED)),
    (RANKS, "Ranks behind", "A"): Shape(("run", "rank"), 5, 0),
    (RANKS, "Dropped", "A"): Shape(("run",), 1, 0, 0),
    (RANKS, "Chosen ranks", "A"): Shape(("host", "pid", "attempt"), 1, 1, 1, only("rank", "0")),
    **{(COMPARE, "Runs", ref_id): BOTH_RUNS for ref_id in "ABCDEFG"},
    **{(COMPARE, "Losses by step", ref_id): Shape(("run", "metric"), 8) for ref_id in "AB"},
    (COMPARE, "Best values", "A"): Shape(("run", "metric"), 12),
    (COMPARE, "Parameters", "A"): Shape(("run", "name"), 8),
}

# By dashboard, panel and target: why there is nothing to draw in this run.
EMPTY_BY_DESIGN = {
    (OVERVIEW, "Parts of a step", "B"): "no duration is logged in milliseconds",
    (RANKS, "Dropped", "B"): "only reasons that occurred, and nothing was dropped",
    (RANKS, "Lost ranks", "A"): "the one rank that was killed came back",
    (RANKS, "Lost ranks", "B"): "the one rank that was killed came back",
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
    """The start, the restart and the NaN are marks of the run, and its end of the other run."""
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
        ("annotation NaN or Inf", RUN),
        ("annotation Finish", FINISHED),
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
        shown = [frame.samples[-1][1] for one in overview.run(figure) for frame in one.frames]
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
