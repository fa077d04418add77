"""Compare runs: the same metric of several runs, by time since the start and by step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana.source import promql, variables
from grafana.source.board import add_row, new_board
from grafana.source.graphs import curves
from grafana.source.health import rules_loaded
from grafana.source.panels import COUNT, RED, STATES, About, Query
from grafana.source.promql import LOSSES, RATES, RUN, RUNS, SCORES, each, last, of_run
from grafana.source.tables import Column, matrix, rows

if TYPE_CHECKING:
    from grafana.source.sdk import Builder, dashboard, models, xychart

UID = "otel-dllogger-compare"

_START = promql.start(window="[$__range] @ end()")
_NEWEST = f"topk by (job) ($newest, {_START})"

# When a run ends, its ranks leave one by one, and values over the remaining ranks mislead.
_DRAWN = (
    f"and on ({RUN}) {_NEWEST} unless on ({RUN}) (run:dllogger_state:last1h{{{RUNS}}} == 1"
    f" or run:dllogger_state:last1h{{{RUNS}}} == 3)"
)


def build() -> dashboard.Dashboard:
    """Return the dashboard on which a run is compared with others."""
    board = new_board(
        "Compare runs",
        UID,
        "The same metric of several runs, as the median over their ranks, by time since each run's "
        "start and by training step. Only the newest of the chosen runs are drawn.",
        [
            variables.datasource(),
            variables.job(),
            variables.run(several=True),
            variables.stage(),
            variables.granularity(),
            variables.metric(),
            variables.how_many(
                "newest", "Newest", "How many of the chosen runs are drawn, the newest first"
            ),
        ],
    )
    losses = f"{of_run('median', LOSSES)} {_DRAWN}"
    scores = f"{of_run('median', SCORES)} {_DRAWN}"
    throughput = f"{of_run('median', RATES)} {_DRAWN}"
    add_row(
        board,
        "Losses",
        _by_time("Losses", losses, " The run with the lower curve learns faster."),
        _by_step("Losses", losses, " The run with the lower curve learns more from each step."),
    )
    add_row(board, "Scores", _by_time("Scores", scores), _by_step("Scores", scores), folded=True)
    add_row(
        board,
        "Throughput",
        _by_time("Throughput of a rank", throughput),
        _by_step("Throughput of a rank", throughput),
    )
    add_row(board, "Figures", _figures(), rules_loaded(), _best(), _parameters())
    # Includes runs that are over: a value that is logged once, at the end, exists only then.
    every = f"{of_run('median')} and on ({RUN}) {_NEWEST}"
    add_row(
        board,
        "Every metric",
        _by_step("$metric", every).span(8).repeat("metric").repeat_direction("h").max_per_row(3),
        folded=True,
    )
    return board


def _by_time(title: str, of_runs: str, note: str = "") -> xychart.Panel:
    about = About(f"{title} by time", f"Each run from its own start: the median over ranks.{note}")
    x = f"({of_runs}) * 0 + on ({RUN}) group_left () (time() - {_START})"
    return curves(about, Query(x), Query(of_runs), x_label="since the start", x_unit="dthms")


def _by_step(title: str, of_runs: str, note: str = "") -> xychart.Panel:
    about = About(
        f"{title} by step",
        "Each run by the iteration that it logged, or by epochs if it logs nothing else: the "
        f"median over ranks.{note} A run that continues from a checkpoint continues its curve; "
        "where iterations begin again with each epoch, steps are counted from its last start.",
    )
    x = f"({of_runs}) * 0 + on ({RUN}) group_left () {promql.logged_step()}"
    return curves(
        about, Query(x), Query(of_runs), x_label="training steps, or epochs", x_unit="short"
    )


def _figures() -> Builder[models.Panel]:
    start = promql.start()
    logged_until = last("dllogger_last_log_timestamp_seconds")
    return rows(
        About("Runs", "Every chosen run, over the time range."),
        [
            Query(f"1000 * {start}"),
            Query(f"max by ({RUN}) ({logged_until}) - {start}"),
            Query(each(RUN, f"max_over_time(run:dllogger_ranks_up:count{{{RUNS}}}[$__range])")),
            Query(each(RUN, last("run:dllogger_steps_total:max"))),
            Query(
                each(RUN, f"avg_over_time(run:dllogger_step_seconds:median{{{RUNS}}}[$__range])")
            ),
            Query(promql.count("nonfinite", RUNS, by=RUN)),
            Query(each(RUN, last("run:dllogger_state:last1h"))),
        ],
        [
            Column("run", "Run"),
            Column("Value #A", "Started", unit="dateTimeAsIso"),
            Column("Value #B", "Logged for", unit="s"),
            Column("Value #C", "Ranks", unit=COUNT),
            Column("Value #D", "Steps", unit=COUNT),
            Column("Value #E", "Step time", unit="s"),
            Column("Value #F", "NaN and Inf", steps=((None, "transparent"), (1, RED))),
            Column("Value #G", "State", names=STATES),
            Column("job", "Job"),
        ],
        sort_by="Started",
        width=20,
        height=7,
    )


def _best() -> Builder[models.Panel]:
    best = promql.best(f'{RUNS}, metric=~"$metric", stage=~"$stage"', by=f"{RUN}, metric")
    return matrix(
        About(
            "Best values",
            "The best finite value of each metric with a GOAL, over all ranks and attempts.",
        ),
        Query(f"{best} and on ({RUN}) {_NEWEST}"),
        row="metric",
        column="run",
    )


def _parameters() -> Builder[models.Panel]:
    value = last("run:dllogger_parameter:max")
    return matrix(
        About("Parameters", "Numeric hyper-parameters of the runs, side by side."),
        Query(f"{value} and on ({RUN}) {_NEWEST}"),
        row="name",
        column="run",
    )
