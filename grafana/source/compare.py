"""Compare runs: the same metric of several runs, by time since the start and by step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana.source import promql, variables
from grafana.source.board import add_row, new_board
from grafana.source.graphs import curves
from grafana.source.panels import RED, STATES, About, Query
from grafana.source.promql import CHOSEN, LOGGED, OF_RANGE, RANK, RUN, RUNS, SERIES
from grafana.source.tables import Column, matrix, rows

if TYPE_CHECKING:
    from grafana.source.sdk import Builder, dashboard, models, xychart

UID = "otel-dllogger-compare"

_START = (
    f"min by ({RUN}) (min_over_time("
    f"dllogger_run_start_timestamp_seconds{{{RUNS}}}[$__range] @ end()))"
)
_NEWEST = f"topk by (job) ($newest, {_START})"

# When a run ends, its ranks leave one by one, and values over the remaining ranks mislead.
_DRAWN = (
    f"and on ({RUN}) {_NEWEST}"
    f" unless on ({RUN}) (max by ({RUN}) (dllogger_run_finished{{{RUNS}}}) == 1"
    f" or max by ({RUN}) (dllogger_run_terminated{{{RUNS}}}) == 1)"
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
    losses = f"{promql.quantile(0.5, promql.losses(RUNS))} {_DRAWN}"
    throughput = f"({promql.in_total(f'{RUNS}, {CHOSEN}', by=SERIES)}) {_DRAWN}"
    summed = "the sum over ranks, or the median of what each logs for the run (SCOPE global)"
    add_row(
        board,
        "Losses",
        _by_time("Losses", "the median over ranks", losses, sooner="in the same time"),
        _by_step("Losses", "the median over ranks", losses, sooner="from each step"),
    )
    add_row(
        board,
        "Throughput",
        _by_time("Throughput", summed, throughput),
        _by_step("Throughput", summed, throughput),
    )
    add_row(board, "Figures", _figures(), _best(), _parameters())
    # Includes runs that are over: a value that is logged once, at the end, exists only then.
    every = promql.quantile(0.5, f"{{{LOGGED}, {RUNS}, {CHOSEN}}}") + f" and on ({RUN}) {_NEWEST}"
    add_row(
        board,
        "Every metric",
        _by_step("$metric", "the median over ranks", every)
        .span(8)
        .repeat("metric")
        .repeat_direction("h")
        .max_per_row(3),
        folded=True,
    )
    return board


def _by_time(title: str, what: str, of_run: str, *, sooner: str = "") -> xychart.Panel:
    about = About(
        f"{title} by time", f"Each run from its own start: {what}.{_lower_sooner(sooner)}"
    )
    x = f"({of_run}) * 0 + on ({RUN}) group_left () (time() - {_START})"
    return curves(about, Query(x), Query(of_run), x_label="since the start", x_unit="dthms")


def _by_step(title: str, what: str, of_run: str, *, sooner: str = "") -> xychart.Panel:
    about = About(
        f"{title} by step",
        f"Each run by the iteration that it logged, or by epochs if it logs nothing else: {what}."
        f"{_lower_sooner(sooner)} A run that continues from a checkpoint continues its curve; "
        "where iterations begin again with each epoch, steps are counted from its last start.",
    )
    steps = f"({promql.logged_step(RUNS)} or max by ({RUN}) (dllogger_epoch{{{RUNS}}}))"
    x = f"({of_run}) * 0 + on ({RUN}) group_left () {steps}"
    return curves(
        about, Query(x), Query(of_run), x_label="training steps, or epochs", x_unit="short"
    )


def _lower_sooner(gained: str) -> str:
    return gained and f" A loss that is lower sooner means a run that learns more {gained}."


def _figures() -> Builder[models.Panel]:
    step_time = promql.quantile(0.5, promql.step_time(RUNS, OF_RANGE), by=RUN)
    lasted = (
        f"max by ({RUN}) ({promql.last('dllogger_last_log_timestamp_seconds', RUNS)}) - {_START}"
    )
    return rows(
        About("Runs", "Every chosen run, over the time range."),
        [
            Query(f"1000 * {_START}"),
            Query(lasted),
            Query(
                f"count by ({RUN}) (group by ({RANK}) ({promql.last('dllogger_rank_info', RUNS)}))"
            ),
            Query(f"max by ({RUN}) ({promql.last('dllogger_steps_total', RUNS)})"),
            Query(step_time),
            Query(promql.count("dllogger_nonfinite_total", RUNS, "$__range", by=RUN)),
            Query(promql.state(RUNS)),
        ],
        [
            Column("run", "Run"),
            Column("Value #A", "Started", unit="dateTimeAsIso"),
            Column("Value #B", "Logged for", unit="s"),
            Column("Value #C", "Ranks"),
            Column("Value #D", "Steps"),
            Column("Value #E", "Step time", unit="s"),
            Column("Value #F", "NaN and Inf", steps=((None, "transparent"), (1, RED))),
            Column("Value #G", "State", names=STATES),
            Column("job", "Job"),
        ],
        sort_by="Started",
        width=24,
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
    value = f"max by ({RUN}, name) ({promql.last('dllogger_parameter', RUNS)})"
    return matrix(
        About("Parameters", "Numeric hyper-parameters of the runs, side by side."),
        Query(f"{value} and on ({RUN}) {_NEWEST}"),
        row="name",
        column="run",
    )
