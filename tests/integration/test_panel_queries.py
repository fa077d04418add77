"""What the dashboards' queries say of ranks over time, through the recording rules, by promtool."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest
import yaml

from grafana.source import promql
from tests.support.paths import ROOT
from tests.support.prometheus import find_program

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.newest_only

RUN = 'run="r"'
FILES = [ROOT / "prometheus" / "rules" / f"{name}.yml" for name in ("alerts", "recording")]
FILES.append(ROOT / "prometheus" / "rules" / "dashboards.yml")
GROUPS = [
    *("dllogger_thresholds", "dllogger_logged", "dllogger_ranks", "dllogger_progress"),
    *("dllogger_runs", "dllogger_against_the_median", "dllogger_counts", "dllogger_alerts"),
]
BEST = 'dllogger_best{job="j",instance="%s",run="r",rank="%s",metric="%s",goal="%s"}'
NAN = 'dllogger_nonfinite_total{job="j",instance="a",run="r",rank="0",metric="loss"}'


def process(instance: str, rank: str, seen: str, *, pid: str = "1", start_s: int = 0):
    """Return what each process has, where ``seen`` has a sample at each scrape that found it."""
    target = f'job="j",instance="{instance}",run="r",rank="{rank}"'
    known = f'{target},host="h{rank}",local_rank="0",attempt="1",pid="{pid}"'
    return {
        f"dllogger_run_start_timestamp_seconds{{{target}}}": seen.replace("1", str(start_s)),
        f"dllogger_rank_info{{{known}}}": seen,
    }


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
    rules = {"rule_files": [str(file) for file in FILES], "group_eval_order": GROUPS}
    path.write_text(yaml.safe_dump({"evaluation_interval": "15s", "tests": [test], **rules}))
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
        ("0+0x80", None),
    ],
)
def test_a_count_is_the_counters_own(tmp_path, values, expected):
    """Of the time range, also if the counter began within it."""
    series = {NAN: values, **process("a", "0", re.sub(r"\d\+0x", "1x", values))}
    labels = {} if expected is None else {'{metric="loss"}': expected}
    ask(tmp_path, series, promql.count("nonfinite", RUN, by="metric"), "17m", labels)


def test_a_process_that_takes_a_port_again_counts_from_0(tmp_path):
    """Its NaN are added to those of the process before it."""
    series = {NAN: "0+0x9 4+0x9 1+0x9 3+0x40"}
    series |= process("a", "0", "1x19 stale")
    series |= {
        name: values
        for name, values in process("a", "0", "_x20 1x60", pid="2").items()
        if "info" in name
    }
    query = promql.count("nonfinite", RUN, by="metric")
    ask(tmp_path, series, query, "17m", {'{metric="loss"}': 7})


@pytest.mark.parametrize("restarts", [False, True], ids=["one process", "restarted"])
def test_one_stall_of_half_a_minute_is_seen_where_the_mean_hides_it(tmp_path, restarts):
    """Most steps of two ranks take a second, and one of each takes half a minute."""
    target = 'job="j",instance="a",run="r",rank="%s"'
    bucket = f'dllogger_step_duration_seconds_bucket{{{target},le="%s"}}'
    stalled = "0+15x30 450 450 _x0"  # two scrapes in which no step ended
    short = stalled.replace("_x0", "450+15x48")
    every = stalled.replace("_x0", "451+15x48")  # with the one step that took so long
    if restarts:  # after the stall, another process counts from 0
        short += " 0+15x5"
        every += " 0+15x5"
    series = {
        bucket % (rank, le): values
        for rank in ("0", "1")
        for le, values in {
            **dict.fromkeys(("0.5", "0.2"), "0+0x86"),
            **dict.fromkeys(("1.0", "2.0", "30.0"), short),
            **dict.fromkeys(("60.0", "120.0", "+Inf"), every),
        }.items()
    }
    for query, expected in ((promql.longest_step(), 60), (promql.step_quantile(0.99), 0.995)):
        of_run = query.replace(promql.RUNS, RUN).replace("$__rate_interval", "1m")
        ask(tmp_path, series, of_run, "20m", {'{job="j",run="r"}': expected})


def test_a_rank_that_is_gone_grows_older_and_one_that_never_trained_has_no_age(tmp_path):
    """Rank 1 dies after a minute; 2 logged its parameters alone; 3 and 4 ended; 5 was restarted."""
    rank = '{job="j",instance="%s",run="r",rank="%s"}'
    series = {}
    for number, instance, lasts, iterations, finished, terminated in (
        ("0", "0", "0+15x40", "0+1x40", "0x40", "0x40"),
        ("1", "1", "0+15x4 stale", "0+1x4 stale", "0x4 stale", "0x4 stale"),
        ("2", "2", "0x40", "_x40", "0x40", "0x40"),
        ("3", "3", "0+15x4 60x36", "0+1x4 4x36", "0x4 1x36", "0x40"),
        ("4", "4", "0+15x4 stale", "0+1x4 stale", "0x5 stale", "0x4 1 stale"),
        ("5", "5", "0+15x4 stale", "0+1x4 stale", "0x5 stale", "0x4 1 stale"),
        ("5", "6", "_x6 90+15x40", "_x6 0+1x40", "_x6 0x40", "_x6 0x40"),
    ):
        labels = rank % (instance, number)
        series[f"dllogger_last_log_timestamp_seconds{labels}"] = lasts
        series[f"dllogger_iteration{labels}"] = iterations
        series[f"dllogger_run_finished{labels}"] = finished
        series[f"dllogger_run_terminated{labels}"] = terminated
        seen = re.sub(r"\b[01]x", "1x", finished).replace("1 ", "1 ")
        series |= process(instance, number, seen, start_s=90 if instance == "6" else 1)
    expected = {
        f'rank:dllogger_silence_seconds:last1h{{job="j", run="r", rank="{number}"}}': age
        for number, age in (("0", 0), ("1", 150), ("5", 0))
    }
    ask(tmp_path, series, "rank:dllogger_silence_seconds:last1h", "3m30s", expected)


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
        ({"0": ("0x4 stale", "0x4 stale"), "0 again": ("_x5 0x4 1 stale", "_x5 0x5 stale")}, 1),
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
        "crashed, and finished on another port",
    ],
)
def test_the_state_of_a_run(tmp_path, ranks, expected):
    """It trains, has finished, is gone, or was told to end; of its ranks the worst counts."""
    series = {}
    for number, (finished, terminated) in ranks.items():
        rank = number[0]
        labels = f'{{job="j",instance="{number}",run="r",rank="{rank}"}}'
        series[f"dllogger_run_finished{labels}"] = finished
        series[f"dllogger_run_terminated{labels}"] = terminated
        series |= process(number, rank, "_x5 1x5 stale" if "_x5" in finished else "1x9 stale")
        if "again" in number:
            name = f"dllogger_run_start_timestamp_seconds{labels}"
            series[name] = "_x5 75x5 stale"
    query = promql.each(promql.RUN, promql.last("run:dllogger_state:last1h", RUN))
    ask(tmp_path, series, query, "7m", {'{job="j", run="r"}': expected})


def test_a_run_that_stands_still_is_stalled(tmp_path):
    """Its only rank logs nothing for six minutes, after a minute of a record every 15 s."""
    labels = '{job="j",instance="a",run="r",rank="0"}'
    series = {
        f"dllogger_last_log_timestamp_seconds{labels}": "0+15x4 60x40",
        f"dllogger_iteration{labels}": "0+1x4 4x40",
        f"dllogger_run_finished{labels}": "0x45",
        f"dllogger_run_terminated{labels}": "0x45",
        'dllogger_records_total{job="j",instance="a",run="r",rank="0",type="log"}': "0+1x4 400x40",
        **process("a", "0", "1x45"),
    }
    query = promql.each(promql.RUN, promql.last("run:dllogger_state:last1h", RUN))
    ask(tmp_path, series, query, "5m", {'{job="j", run="r"}': 0})
    ask(tmp_path, series, query, "9m", {'{job="j", run="r"}': 4})


@pytest.mark.parametrize(
    ("finished", "parameters", "expected"),
    [
        ("0x20", {'name="epochs"': 4}, 0.75),
        ("0x20", {'name="train.max_steps"': 1000, 'name="epochs"': 4}, 0.2),
        ("0x20", {'name="epochs"': 2}, 1),
        ("0x20", {'name="warmup_epochs"': 4}, None),
        ("0x20", {'name="epochs",value="four"': 1}, None),  # one that is text
        ("0x10 1x10", {'name="epochs"': 4}, 1),  # its last epoch is 3, since it counts from 0
        ("0x10 1x10", {}, 1),
    ],
)
def test_how_much_of_a_run_is_done(tmp_path, finished, parameters, expected):
    """By the number of its steps or epochs, if it says so; all of it, once it has finished."""
    labels = 'job="j",instance="a",run="r",rank="0"'
    series = {
        f"dllogger_run_finished{{{labels}}}": finished,
        f"dllogger_run_terminated{{{labels}}}": "0x20",
        f"dllogger_iteration{{{labels}}}": "200x20",
        f"dllogger_epoch{{{labels}}}": "3x20",
        **process("a", "0", "1x20"),
    }
    for parameter, value in parameters.items():
        series[f"dllogger_parameter{{{labels},{parameter}}}"] = f"{value}x20"
    query = promql.each(promql.RUN, promql.last("run:dllogger_progress:ratio", RUN))
    ask(tmp_path, series, query, "4m", {} if expected is None else {'{job="j", run="r"}': expected})


@pytest.mark.parametrize("scope", ["rank", "global", ""])
def test_a_stalled_rank_has_no_throughput(tmp_path, scope):
    """It shows its last value for ever; the other one goes on."""
    goes_on, stops = ("0+1x45", "0+15x45", 100), ("0+1x4 4x40", "0+15x4 60x40", 300)
    series = {}
    for rank, (iterations, logged, value) in {"0": goes_on, "1": stops}.items():
        labels = f'job="j",instance="{rank}",run="r",rank="{rank}"'
        more = f'metric="ips",kind="throughput",scope="{scope}",granularity="iteration"'
        series |= {
            f"dl_ips{{{labels},{more}}}": f"{value}x45",
            f"dllogger_last_log_timestamp_seconds{{{labels}}}": logged,
            f"dllogger_iteration{{{labels}}}": iterations,
            f'dllogger_records_total{{{labels},type="log"}}': "400x45",
            **process(rank, rank, "1x45"),
        }
    labels = '{run="r"}'
    query = "sum by (run) (run:dl_throughput:sum)"
    ask(tmp_path, series, query, "4m", {labels: 200 if scope == "global" else 400})
    ask(tmp_path, series, query, "9m", {labels: 100})


def test_parameters_that_are_text_have_no_number(tmp_path):
    """They are always 1, and would be shown as if that was their value."""
    labels = 'job="j",instance="a",run="r",rank="0"'
    series = {
        f'dllogger_parameter{{{labels},name="lr"}}': "0.1x20",
        f'dllogger_parameter{{{labels},name="optimizer",value="sgd"}}': "1x20",
    }
    for operation in ("min", "max"):
        query = promql.each("name", promql.last(f"run:dllogger_parameter:{operation}", RUN))
        ask(tmp_path, series, query, "4m", {'{name="lr"}': 0.1})


@pytest.mark.parametrize(
    ("iteration", "steps", "expected"),
    [
        ("0+10x9 50+10x20", "1+10x9 1+10x20", 130),  # continues from a checkpoint
        ("0+10x9 0+10x20", "1+10x29", 181),  # again from 0 in each epoch
        ("_x30", "0x30", 3),  # epochs alone
        ("0+10x9 stale", "1+10x9 0x20", None),  # no step since the restart, which is not epoch 3
    ],
)
def test_a_run_that_continues_continues_its_curve(tmp_path, iteration, steps, expected):
    """By its iterations, unless these begin again."""
    labels = '{job="j",instance="a",run="r",rank="0"}'
    series = {f"dllogger_iteration{labels}": iteration, f"dllogger_steps_total{labels}": steps}
    series[f"dllogger_epoch{labels}"] = "3x30"
    query = promql.logged_step().replace('job=~"$job", run=~"$run"', RUN)
    query = query.replace("$__range", "10m")
    name = {181: "run:dllogger_steps_total:max", 3: "run:dllogger_epoch:max"}.get(expected, "")
    found = {} if expected is None else {f'{name}{{job="j", run="r"}}': expected}
    ask(tmp_path, series, query, "4m30s", found)
