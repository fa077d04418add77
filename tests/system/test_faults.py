"""Faults of real ranks, scripted from outside: what panels and alerts say, and what was true.

Five runs train while the shipped Prometheus watches in time lapse. The fixture ``scenario`` does
to them what happens to real ones and keeps the moments at which something has to be visible.
Each test then asks for one thing, at one of these moments, as Grafana asks. The truth is what the
test did, or what is in the JSON logs of the ranks.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from tests.support.fault_scenario import (
    BEST_LOSS,
    COMPARE,
    CRASHING,
    DATA_S,
    FACTOR,
    FIRST_PARTS,
    FLEET,
    INTERVAL_S,
    ITERATIONS,
    KILLED_RANK,
    LOST_AGAIN_RANK,
    MAIN,
    NAN_RANK,
    OF_ALL_IMAGES,
    OF_RANK_IMAGES,
    OVERVIEW,
    RANK_0,
    RANKS,
    RUNS,
    SAME_PORTS,
    SLOW_DATA_S,
    SLOW_RANK,
    STEP_S,
    STOPPED_RANK,
    STOPPED_S,
    TOKENS,
    UNITS,
    VALUES,
    WORLD_SIZE,
    Scenario,
    play,
)
from tests.support.training_run import TrainingRun

if TYPE_CHECKING:
    from collections.abc import Iterator

    from grafana.queries.datasource import Frame

pytestmark = [pytest.mark.newest_only, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenario]:
    """Play what happens to the runs."""
    with TrainingRun(tmp_path_factory.mktemp("faults"), FIRST_PARTS, factor=FACTOR) as training:
        scenario = Scenario(training)
        play(scenario)
        yield scenario


def last_by(frames: list[Frame], label: str) -> dict[str, float]:
    """Return the last value of each series by a label, which must not repeat."""
    values = {frame.labels[label]: frame.samples[-1][1] for frame in frames}
    assert len(values) == len(frames), frames
    return values


# ---------------------------------------------------------------------------- a slow rank


def test_a_slow_data_loader_is_first_among_the_slowest_ranks(scenario: Scenario) -> None:
    """By its data_time, which has no metadata."""
    shown = scenario.ask("killed", RANKS, "Slowest ranks", MAIN)["A"]
    first = max(shown, key=lambda frame: frame.samples[-1][1])
    assert (str(SLOW_RANK), "data_time") == (first.labels["rank"], first.labels["metric"])
    assert (SLOW_DATA_S - DATA_S) / STEP_S == pytest.approx(first.samples[-1][1], rel=0.2)


def test_no_rank_has_a_longer_step_where_ranks_wait_for_each_other(scenario: Scenario) -> None:
    """Neither the slow one nor another."""
    shown = last_by(scenario.ask("trains", RANKS, "Slowest ranks", MAIN)["C"], "rank")
    assert str(SLOW_RANK) in shown
    assert max(shown.values()) < 1.1 * min(shown.values())


def test_a_slow_data_loader_is_told_of(scenario: Scenario) -> None:
    """Of that rank alone."""
    stragglers = {alert for alert in scenario.alerts() if alert[0] == "DLLoggerStraggler"}
    assert {("DLLoggerStraggler", MAIN, str(SLOW_RANK))} == stragglers


# ---------------------------------------------------------------------------- NaN


@pytest.mark.parametrize("moment", ["trains", "restarted"])
def test_nan_is_counted_exactly(scenario: Scenario, moment: str) -> None:
    """As many as are in the log, also after the process is gone."""
    logged = sum(math.isnan(loss) for _, _, loss in scenario.logged(MAIN, NAN_RANK))
    assert logged > 5
    assert logged == scenario.figure(moment, "NaN and Inf", MAIN)


def test_the_rank_with_nan_is_named(scenario: Scenario) -> None:
    """It alone, with how often and since when."""
    shown = scenario.ask("trains", RANKS, "Ranks with NaN", MAIN)
    times_s = [time_s for time_s, _, loss in scenario.logged(MAIN, NAN_RANK) if math.isnan(loss)]
    assert {str(NAN_RANK): len(times_s)} == last_by(shown["B"], "rank")
    (since_ms,) = last_by(shown["A"], "rank").values()
    assert times_s[0] <= since_ms / 1000 <= times_s[0] + 4 * INTERVAL_S


def test_the_loss_has_a_gap_where_it_was_nan(scenario: Scenario) -> None:
    """Values before and after, none in between; the other ranks have no gap."""
    shown = scenario.ask("trains", OVERVIEW, "Training loss", MAIN, rank=[str(NAN_RANK)])
    (of_rank,) = [frame for frame in shown["D"] if frame.labels["metric"] == "loss"]
    (median,) = [frame for frame in shown["B"] if frame.labels["metric"] == "loss"]
    nan_s = [time_s for time_s, _, loss in scenario.logged(MAIN, NAN_RANK) if math.isnan(loss)]

    def during(frame: Frame) -> list[float]:
        # The scrape that sees it comes an interval later, and may fail once.
        return [at_s for at_s, _ in frame.samples if nan_s[0] + 2 * INTERVAL_S < at_s < nan_s[-1]]

    assert of_rank.samples[0][0] < nan_s[0]
    assert of_rank.samples[-1][0] > nan_s[-1]
    assert [] == during(of_rank)
    assert during(median)


def test_nan_is_told_of(scenario: Scenario) -> None:
    """At once, and of its rank alone."""
    nonfinite = {one for one in scenario.alerts(until="trains") if "NonFinite" in one[0]}
    assert {("DLLoggerNonFiniteLoss", MAIN, str(NAN_RANK))} == nonfinite


# ---------------------------------------------------------------------------- a killed rank


def test_a_killed_rank_is_missing(scenario: Scenario) -> None:
    """Before that all ranks answer; how many there should be stays."""
    before = scenario.ask("trains", OVERVIEW, "Ranks", MAIN, kind="stat")
    after = scenario.ask("killed", OVERVIEW, "Ranks", MAIN, kind="stat")
    answer = [shown["A"][0].samples[-1][1] for shown in (before, after)]
    assert [WORLD_SIZE, WORLD_SIZE - 1] == answer
    assert WORLD_SIZE == after["B"][0].samples[-1][1]


def test_a_killed_rank_is_listed_as_lost(scenario: Scenario) -> None:
    """It alone, with its process."""
    assert [] == scenario.ask("trains", RANKS, "Lost ranks", MAIN)["A"]
    shown = scenario.ask("killed", RANKS, "Lost ranks", MAIN)
    assert {str(KILLED_RANK)} == last_by(shown["A"], "rank").keys()
    (where,) = shown["B"]
    pid = str(scenario.ranks(MAIN)[KILLED_RANK].process.pid)
    assert (str(KILLED_RANK), pid) == (where.labels["rank"], where.labels["pid"])


def test_a_rank_that_is_lost_after_a_restart_is_listed_once(scenario: Scenario) -> None:
    """With its last process, not with the one that was restarted."""
    shown = scenario.ask("end", RANKS, "Lost ranks", SAME_PORTS)
    assert {str(LOST_AGAIN_RANK)} == last_by(shown["A"], "rank").keys()
    pid = str(scenario.ranks(SAME_PORTS, 1)[LOST_AGAIN_RANK].process.pid)
    assert [(str(LOST_AGAIN_RANK), pid)] == [
        (one.labels["rank"], one.labels["pid"]) for one in shown["B"]
    ]


def test_a_killed_rank_is_the_quietest(scenario: Scenario) -> None:
    """As long as its log says; the healthy ones logged a moment ago."""
    shown = last_by(scenario.ask("killed", RANKS, "Quiet ranks", MAIN)["A"], "rank")
    quiet_s = shown.pop(str(KILLED_RANK))
    logged_s = scenario.logged(MAIN, KILLED_RANK)[-1][0]
    assert scenario.at_s["killed"] - logged_s == pytest.approx(quiet_s, abs=3 * INTERVAL_S)
    assert max(shown.values()) < 4 * INTERVAL_S < quiet_s


def test_the_age_of_the_last_record_grows_for_a_killed_rank(scenario: Scenario) -> None:
    """Second by second, and it is the run's quietest, not its median."""
    shown = scenario.ask(
        "killed", OVERVIEW, "Age of the last record", MAIN, rank=[str(KILLED_RANK)]
    )
    quietest, median, of_rank = (shown[ref_id][0].samples for ref_id in "ABC")
    logged_s = scenario.logged(MAIN, KILLED_RANK)[-1][0]
    ages_s = [age_s for at_s, age_s in of_rank if at_s > logged_s + 2 * INTERVAL_S]
    assert len(ages_s) > 5
    assert ages_s == sorted(ages_s)
    assert quietest[-1][1] == of_rank[-1][1]
    assert median[-1][1] < 4 * INTERVAL_S


def test_a_killed_rank_is_told_of(scenario: Scenario) -> None:
    """It alone, and not as a run that is gone."""
    vanished = {one for one in scenario.alerts(until="killed") if "Vanished" in one[0]}
    assert {("DLLoggerRankVanished", MAIN, str(KILLED_RANK))} == vanished


# ---------------------------------------------------------------------------- a stopped rank


def test_the_age_of_a_stopped_rank_grows_and_falls(scenario: Scenario) -> None:
    """While SIGSTOP holds it, and after SIGCONT."""

    def age_s(moment: str) -> float:
        shown = scenario.ask(
            moment, OVERVIEW, "Age of the last record", MAIN, rank=[str(STOPPED_RANK)]
        )
        return shown["C"][0].samples[-1][1]

    assert age_s("trains") < 4 * INTERVAL_S
    assert age_s("stopped") > STOPPED_S - INTERVAL_S
    assert age_s("continued") < 4 * INTERVAL_S


def test_a_stopped_rank_that_goes_on_is_not_told_of(scenario: Scenario) -> None:
    """No alert is about it."""
    assert set() == {one for one in scenario.alerts() if one[2] == str(STOPPED_RANK)}


# ---------------------------------------------------------------------------- restarts


RESTARTED = pytest.mark.parametrize(
    ("run", "world_size", "moment"),
    [(MAIN, WORLD_SIZE, "restarted"), (SAME_PORTS, 2, "killed")],
)


def test_a_run_was_restarted_on_its_ports(scenario: Scenario) -> None:
    """The other run's processes have other ports."""
    first, second = scenario.ports
    assert first == second


@RESTARTED
def test_restarts_are_counted(scenario: Scenario, run: str, world_size: int, moment: str) -> None:
    """One is one, and all ranks are back."""
    assert 0 == scenario.figure("trains", "Restarts", run)
    assert 1 == scenario.figure(moment, "Restarts", run)
    shown = scenario.ask(moment, OVERVIEW, "Ranks", run, kind="stat")
    assert world_size == shown["A"][0].samples[-1][1]


@RESTARTED
def test_the_best_of_all_attempts_stays(
    scenario: Scenario, run: str, world_size: int, moment: str
) -> None:
    """The second attempt continues from an earlier checkpoint, and is not as good again."""
    assert BEST_LOSS == min(loss for _, _, loss in scenario.logged(run, 0))
    assert BEST_LOSS < min(
        loss for rank in range(world_size) for _, _, loss in scenario.logged(run, rank, 1)
    )
    shown = scenario.ask(moment, OVERVIEW, "Best so far", run)
    assert {"loss": BEST_LOSS} == last_by(shown["A"], "metric")


@RESTARTED
def test_the_curve_by_step_continues_at_the_step_that_was_logged(
    scenario: Scenario, run: str, world_size: int, moment: str
) -> None:
    """It goes back to the checkpoint, and neither to 0 nor on from the end of the first attempt."""
    shown = scenario.ask(moment, COMPARE, "Losses by step", run)
    assert len(shown["A"]) == len(shown["B"])
    (steps,) = [frame.samples for frame in shown["A"] if frame.labels["metric"] == "loss"]
    logged = scenario.logged(run, 0, 1)
    settled_s = logged[0][0] + 3 * INTERVAL_S
    wrong = []
    for at_s, step in steps:
        # What was logged up to a scrape and two evaluations before; of the furthest rank.
        known = [one for time_s, one, _ in logged if at_s - 3 * INTERVAL_S <= time_s <= at_s]
        if at_s > settled_s and not known[0] <= step <= known[-1] + 1:
            wrong.append((at_s, step, known))
    assert [] == wrong
    assert steps[-1][0] > settled_s


# ---------------------------------------------------------------------------- preemption


def test_a_run_that_is_told_to_end_is_terminated(scenario: Scenario) -> None:
    """SIGTERM reached all of its ranks."""
    states = [scenario.figure(moment, "State", MAIN) for moment in ("trains", "restarted", "end")]
    assert [0, 0, 3] == states


def test_a_run_that_is_told_to_end_is_told_of(scenario: Scenario) -> None:
    """As terminated, and not as vanished, not even for a moment."""
    assert ("DLLoggerRunTerminated", MAIN, None) in scenario.alerts(since="restarted")
    ended = scenario.alerts(since="restarted", state="pending") | scenario.alerts(since="restarted")
    assert set() == {one for one in ended if "RunVanished" in one[0]}
    assert [] == scenario.ask("end", RANKS, "Lost ranks", MAIN)["A"]


# ---------------------------------------------------------------------------- a crash loop


def test_a_crash_loop_is_told_of_after_the_third_attempt(scenario: Scenario) -> None:
    """And not after the second; a run that was restarted once is not one."""
    loops = [
        {one for one in scenario.alerts(until=moment) if one[0] == "DLLoggerCrashLoop"}
        for moment in ("crashed once", "end")
    ]
    assert [set(), {("DLLoggerCrashLoop", CRASHING, None)}] == loops


# ---------------------------------------------------------------------------- only rank 0 logs


def test_ranks_that_log_nothing_but_parameters_are_not_quiet(scenario: Scenario) -> None:
    """Longer than it would take a rank that trains to be stalled."""
    ((_, stalled_s),) = scenario.training.prometheus.query("dllogger:threshold:stalled_seconds")
    began_s = scenario.logged(RANK_0, 0)[0][0]
    assert scenario.at_s["end"] - began_s > 1.5 * stalled_s
    shown_s = scenario.figure("end", "Last record", RANK_0)
    assert shown_s is not None
    assert shown_s < 4 * INTERVAL_S
    assert 0 == scenario.figure("end", "State", RANK_0)
    assert 3 == scenario.ask("end", OVERVIEW, "Ranks", RANK_0)["A"][0].samples[-1][1]


@pytest.mark.parametrize("state", ["pending", "firing"])
def test_no_alert_is_about_a_run_in_which_only_rank_0_logs(scenario: Scenario, state: str) -> None:
    """Not even a pending one."""
    assert set() == {one for one in scenario.alerts(state=state) if one[1] == RANK_0}


# ---------------------------------------------------------------------------- units and names


def test_throughput_of_all_ranks_adds_up_what_its_scope_says(scenario: Scenario) -> None:
    """Of each rank summed, of all of them not; without SCOPE with its condition."""
    shown = scenario.ask("trains", OVERVIEW, "Throughput of all ranks", UNITS)
    assert {"own_images": 2 * OF_RANK_IMAGES} == last_by(shown["A"], "metric")
    assert {"all_images": OF_ALL_IMAGES} == last_by(shown["B"], "metric")
    assert {"tokens": 2 * TOKENS} == last_by(shown["C"], "metric")


def test_throughput_of_a_rank_is_the_median(scenario: Scenario) -> None:
    """Of everything that is logged per second, iterations as well."""
    shown = scenario.ask("trains", OVERVIEW, "Throughput of a rank", UNITS)
    expected = {
        "all_images": OF_ALL_IMAGES,
        "own_images": OF_RANK_IMAGES,
        "tokens": TOKENS,
        "speed": ITERATIONS,
    }
    assert expected == last_by(shown["B"], "metric")


@pytest.mark.parametrize(
    ("title", "ref_id", "expected"),
    [
        ("Learning rate", "A", {"learning-rate": VALUES["learning-rate"]}),
        ("Throughput of a rank", "B", {"tps": VALUES["tps"]}),
        ("Throughput of all ranks", "C", {"tps": WORLD_SIZE * VALUES["tps"]}),
        ("Parts of a step", "A", {"data_time": DATA_S, "iter_time_ms": STEP_S}),
    ],
)
def test_names_without_metadata_are_in_their_panels(
    scenario: Scenario, title: str, ref_id: str, expected: dict[str, float]
) -> None:
    """Nothing else is there; milliseconds are seconds."""
    shown = scenario.ask("trains", OVERVIEW, title, MAIN)
    assert pytest.approx(expected) == last_by(shown[ref_id], "metric")


def test_perplexity_is_among_the_losses(scenario: Scenario) -> None:
    """Without metadata, next to the loss."""
    shown = last_by(scenario.ask("trains", OVERVIEW, "Training loss", MAIN)["B"], "metric")
    assert {"loss", "perplexity"} == shown.keys()
    assert VALUES["perplexity"] == shown["perplexity"]


# ---------------------------------------------------------------------------- a clean end


def test_a_clean_end_is_seen_with_default_settings(scenario: Scenario) -> None:
    """The processes ended by themselves, but not before a scrape had seen it."""
    assert {0} == {one.process.wait(60) for one in scenario.ranks(UNITS).values()}
    states = [scenario.figure(moment, "State", UNITS) for moment in ("trains", "killed", "end")]
    assert [0, 1, 1] == states
    assert [] == scenario.ask("end", RANKS, "Lost ranks", UNITS)["A"]
    assert ("DLLoggerRunFinished", UNITS, None) in scenario.alerts()


# ---------------------------------------------------------------------------- all of it


def test_nothing_else_is_told_of(scenario: Scenario) -> None:
    """Each fault has one alert, and what is not a fault has none."""
    assert {
        ("DLLoggerNonFiniteLoss", MAIN, str(NAN_RANK)),
        ("DLLoggerStraggler", MAIN, str(SLOW_RANK)),
        ("DLLoggerRankVanished", MAIN, str(KILLED_RANK)),
        ("DLLoggerRankVanished", SAME_PORTS, str(LOST_AGAIN_RANK)),
        ("DLLoggerRunTerminated", MAIN, None),
        ("DLLoggerCrashLoop", CRASHING, None),
        ("DLLoggerRunFinished", UNITS, None),
    } == scenario.alerts()


def test_the_fleet_shows_each_run_in_its_state(scenario: Scenario) -> None:
    """Two of the five have ended, each in its way."""
    shown = {}
    for run in RUNS:
        shown |= last_by(scenario.ask("end", FLEET, "Runs", run, kind="table")["A"], "run")
    assert {MAIN: 3, SAME_PORTS: 0, CRASHING: 0, RANK_0: 0, UNITS: 1} == shown


def test_the_ranks_say_nothing_on_standard_error(scenario: Scenario) -> None:
    """Whatever was done to them."""
    assert {} == {one.part: one.errors() for one in scenario.training.ranks if one.errors()}
