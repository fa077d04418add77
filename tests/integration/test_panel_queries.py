"""What the dashboards' shared queries say of series over time, by promtool."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
import yaml

from grafana.source import promql
from tests.support.prometheus import find_program

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.newest_only

RUN = 'run="r"'
BEST = 'dllogger_best{job="j",instance="%s",run="r",rank="%s",metric="%s",goal="%s"}'
NAN = 'dllogger_nonfinite_total{job="j",instance="a",run="r",rank="0",metric="loss"}'


def ask(
    tmp_path: Path, series: dict[str, str], query: str, at: str, expected: dict[str, float]
) -> None:
    """Compare what a query says at a time with the values by labels; samples are 15 s apart."""
    test = {
        "interval": "15s",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": query.replace("$__range", "20m"),
                "eval_time": at,
                "exp_samples": [{"labels": k, "value": v} for k, v in expected.items()],
            }
        ],
    }
    path = tmp_path / "test.yml"
    path.write_text(yaml.safe_dump({"evaluation_interval": "15s", "tests": [test]}))
    done = subprocess.run(
        [find_program("promtool"), "test", "rules", path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("second", ["a", "b"], ids=["same port", "other port"])
def test_the_best_of_a_run_survives_a_restart(tmp_path, second):
    """The second attempt begins anew, on the port of the first or on another one."""
    top1, loss = ("val.top1", "maximize"), ("loss", "minimize")
    series = {
        BEST % ("a", "0", *top1): "20+4x4 stale",
        BEST % ("a", "1", *loss): "3-0.5x4 stale",
    }
    again = {BEST % (second, "0", *top1): "10+4x4", BEST % (second, "1", *loss): "9-0.5x4"}
    if second == "a":
        series = {name: f"{values} {again[name]}" for name, values in series.items()}
    else:
        series |= {name: f"_x6 {values}" for name, values in again.items()}
    labels = '{metric="%s", goal="%s"}'
    expected = {labels % top1: 36, labels % loss: 1}
    ask(tmp_path, series, promql.best(RUN, by="metric, goal"), "3m", expected)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ("0+0x9 1+0x70", 1),  # increase() says 1 or 2, as the scrapes happen to lie
        ("_x9 3+0x70", 3),
        ("2+0x9 3+0x70", 3),
        ("0+0x9 1+0x20 stale", 1),
        ("0+0x9 4+0x9 0+0x9 1+0x40", 5),  # another process, which began again at 0
        ("0+0x80", 0),
    ],
)
def test_a_count_is_the_counters_own(tmp_path, values, expected):
    """Of the time range, also if the counter began within it."""
    query = promql.count("dllogger_nonfinite_total", RUN, "$__range", by="metric")
    ask(tmp_path, {NAN: values}, query, "17m", {'{metric="loss"}': expected})


def test_a_rank_that_is_gone_grows_older_and_one_that_never_trained_has_no_age(tmp_path):
    """Rank 1 dies after a minute; rank 2 logged its parameters alone; 3 and 4 have ended."""
    rank = '{job="j",instance="%s",run="r",rank="%s"}'
    series = {}
    for number, lasts, iterations, finished, terminated in (
        ("0", "0+15x40", "0+1x40", "0x40", "0x40"),
        ("1", "0+15x4 stale", "0+1x4 stale", "0x4 stale", "0x4 stale"),
        ("2", "0x40", "_x40", "0x40", "0x40"),
        ("3", "0+15x4 60x36", "0+1x4 4x36", "0x4 1x36", "0x40"),
        ("4", "0+15x4 stale", "0+1x4 stale", "0x5 stale", "0x4 1 stale"),
    ):
        labels = rank % (number, number)
        series[f"dllogger_last_log_timestamp_seconds{labels}"] = lasts
        series[f"dllogger_iteration{labels}"] = iterations
        series[f"dllogger_run_finished{labels}"] = finished
        series[f"dllogger_run_terminated{labels}"] = terminated
    expected = {'{job="j", run="r", rank="0"}': 0, '{job="j", run="r", rank="1"}': 150}
    ask(tmp_path, series, promql.age(RUN), "3m30s", expected)


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        ({"0": ("0x40", "0x40"), "1": ("1x40", "0x40")}, 0),
        ({"0": ("1x40", "0x40"), "1": ("1x40", "0x40")}, 1),
        ({"0": ("0x8 1 stale", "0x9 stale")}, 1),
        ({"0": ("0x9 stale", "0x9 stale")}, 2),
        ({"0": ("0x40", "0x9 1x30"), "1": ("0x40", "1x40")}, 3),
        ({"0": ("0x40", "0x40"), "1": ("0x40", "1x40")}, 0),
        ({"0": ("0x9 stale", "0x8 1 stale"), "1": ("0x9 stale", "0x8 1 stale")}, 3),
        ({"0": ("0x9 stale", "0x8 1 stale"), "1": ("0x9 stale", "0x9 stale")}, 2),
        ({"0": ("0x9 stale", "0x8 1 stale"), "1": ("0x8 1 stale", "0x9 stale")}, 1),
    ],
    ids=[
        "a rank trains",
        "finished",
        "finished and gone",
        "gone",
        "told to end",
        "one was told to end",
        "told to end and gone",
        "one crashed and the rest was told to end",
        "one finished and the rest was told to end",
    ],
)
def test_the_state_of_a_run(tmp_path, ranks, expected):
    """It trains, has finished, is gone, or was told to end; of its ranks the worst counts."""
    series = {}
    for number, (finished, terminated) in ranks.items():
        labels = f'{{job="j",instance="{number}",run="r",rank="{number}"}}'
        series[f"dllogger_run_finished{labels}"] = finished
        series[f"dllogger_run_terminated{labels}"] = terminated
    ask(tmp_path, series, promql.state(RUN), "7m", {'{job="j", run="r"}': expected})


@pytest.mark.parametrize(
    ("iteration", "steps", "expected"),
    [
        ("0+10x9 50+10x20", "1+10x9 1+10x20", 130),  # continues from a checkpoint
        ("0+10x9 0+10x20", "1+10x29", 181),  # again from 0 in each epoch
    ],
)
def test_a_run_that_continues_continues_its_curve(tmp_path, iteration, steps, expected):
    """By its iterations, unless these begin again."""
    labels = '{job="j",instance="a",run="r",rank="0"}'
    series = {f"dllogger_iteration{labels}": iteration, f"dllogger_steps_total{labels}": steps}
    ask(tmp_path, series, promql.logged_step(RUN), "4m30s", {'{job="j", run="r"}': expected})
