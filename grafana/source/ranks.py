"""Ranks: which one is slow, on which machine it runs, which one is behind or silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana.source import promql, variables
from grafana.source.board import add_row, new_board
from grafana.source.graphs import distribution, history, lines, tally
from grafana.source.panels import GREEN, RED, YELLOW, About, Query
from grafana.source.promql import CHOSEN, OF_RANGE, RANK, RANKS, RUN, RUNS, SERIES, THROUGHPUT
from grafana.source.tables import Column, rows

if TYPE_CHECKING:
    from grafana.source.sdk import Builder, dashboard, models

UID = "otel-dllogger-ranks"

_OF_MEDIAN = ((None, GREEN), (1.1, YELLOW), (1.25, RED))
_INFO = f"max by ({RANK}, host, local_rank) ({promql.last('dllogger_rank_info', RUNS)})"
_LOGGED = f"max by ({RANK}) ({promql.last('dllogger_last_log_timestamp_seconds', RUNS)})"
_ENDED = promql.ended(RUNS)
_LOST = (
    f"time() - {_LOGGED} unless on ({RANK}) group by ({RANK}) (dllogger_rank_info{{{RUNS}}})"
    f" unless on ({RANK}) {_ENDED}"
)
_STEP_TIME = promql.step_time(RUNS)
_RELATIVE = promql.over_median(_STEP_TIME)
_RELATIVE_OF_RANGE = promql.over_median(promql.step_time(RUNS, OF_RANGE))


def build() -> dashboard.Dashboard:
    """Return the dashboard for finding a slow, silent or lost rank."""
    board = new_board(
        "Ranks",
        UID,
        "Which rank is slow, and on which machine; which ranks are behind, silent or losing "
        "records. Only the worst ranks and the chosen ones are drawn.",
        [
            variables.datasource(),
            variables.job(),
            variables.run(several=False),
            variables.stage(),
            variables.granularity(),
            variables.metric(),
            variables.rank(),
            variables.how_many("worst", "Worst", "How many of the worst ranks are drawn"),
        ],
    )
    add_row(board, "Slowest", *_slowest())
    add_row(board, "Against the median", *_against_the_median())
    add_row(board, "Behind, silent or lost", *_behind(), _lost())
    add_row(board, "Logging itself", *_logging())
    return board


def _slowest() -> list[Builder[models.Panel]]:
    def worst(expression: str) -> str:
        return promql.of_the_slowest(expression, RUNS)

    return [
        rows(
            About(
                "Slowest ranks",
                "The ranks whose steps took longest over the time range, and where they run. If it "
                "is the same machine again and again, take it out. Ranks that wait for each other "
                "all have the same step time: look at the parts of a step below.",
            ),
            [
                Query(f"{_INFO} and on ({RANK}) {promql.slowest(RUNS)}"),
                Query(promql.slowest(RUNS)),
                Query(worst(_RELATIVE_OF_RANGE)),
                Query(worst(f"max by ({RANK}) ({promql.last('dllogger_steps_total', RUNS)})")),
                Query(worst(f"time() - {_LOGGED}")),
            ],
            [
                Column(
                    "rank",
                    "Rank",
                    link=f"/d/{UID}?${{__url_time_range}}"
                    "&var-datasource=${datasource}&var-job=${__data.fields.Job:percentencode}"
                    "&var-run=${__data.fields.Run:percentencode}&var-rank=${__value.text}",
                    width=70,
                ),
                Column("host", "Host"),
                Column("local_rank", "Local rank", width=90),
                Column("Value #B", "Step time", unit="s"),
                Column("Value #C", "Of median", unit="percentunit", steps=_OF_MEDIAN, decimals=0),
                Column("Value #D", "Steps"),
                Column(
                    "Value #E",
                    "Last record",
                    unit="s",
                    steps=((None, GREEN), (120, YELLOW), (300, RED)),
                ),
                Column("run", "Run"),
                Column("job", "Job"),
            ],
            sort_by="Step time",
            hidden=("Value #A",),
            width=16,
            height=8,
        ),
        rows(
            About(
                "Slowest hosts",
                "The mean step time of the ranks of a host, against the median of the run. If a "
                "whole host is slow, the cause is the host: heat, power, network, other jobs.",
            ),
            [
                Query(
                    f"topk by ({RUN}) ($worst, avg by ({RUN}, host) ({_RELATIVE_OF_RANGE}"
                    f" * on ({RANK}) group_left (host) topk by ({RANK}) (1, {_INFO})))"
                )
            ],
            [
                Column("host", "Host"),
                Column("Value", "Of median", unit="percentunit", steps=_OF_MEDIAN, decimals=0),
                Column("run", "Run"),
            ],
            sort_by="Of median",
            hidden=("job",),
            width=8,
            height=8,
        ),
    ]


def _lost() -> Builder[models.Panel]:
    return rows(
        About(
            "Lost ranks",
            "Ranks of the time range that neither finished nor were told to end and no longer "
            "answer, where they ran, and for how long they have logged nothing. To see why they "
            "died, look there: the end of the output, dmesg, the scheduler.",
            nothing="No rank is lost",
        ),
        [
            Query(_LOST),
            Query(
                f"max by ({RANK}, host, local_rank, pid)"
                f" ({promql.last('dllogger_rank_info', RUNS)}) and on ({RANK}) ({_LOST})"
            ),
        ],
        [
            Column("rank", "Rank", width=70),
            Column("host", "Host"),
            Column("local_rank", "Local rank", width=90),
            Column("pid", "Process"),
            Column("Value #A", "Silent for", unit="s", steps=((None, RED),)),
            Column("run", "Run"),
            Column("job", "Job"),
        ],
        sort_by="Silent for",
        hidden=("Value #B",),
        width=24,
        height=6,
    )


def _against_the_median() -> list[Builder[models.Panel]]:
    name = "{{metric}} {{granularity}} {{run}}"
    return [
        lines(
            About(
                "Step time of the slowest",
                "The slowest ranks of the time range, the chosen ranks, and the median of the run.",
                unit="s",
                minimum=0,
            ),
            Query(promql.of_the_slowest(_STEP_TIME, RUNS), "rank {{rank}} {{run}}"),
            Query(promql.quantile(0.5, _STEP_TIME, by=RUN), "median {{run}}", style="dashed"),
            Query(promql.step_time(RANKS), "chosen rank {{rank}} {{run}}", style="dashed"),
            worst_first=True,
        ),
        lines(
            About(
                "Throughput against the median",
                "The throughput that the ranks log, as a share of the median of the run: "
                "the worst ranks at the end of the time range, and the chosen ranks.",
                unit="percentunit",
                steps=((None, RED), (0.8, YELLOW), (0.9, GREEN)),
            ),
            Query(
                f"{_share()} and on ({RANK}, metric, granularity)"
                f" bottomk by ({RUN}) ($worst, {_share(' @ end()')})",
                f"rank {{{{rank}}}} {name}",
            ),
            Query(
                f"{_share()} and on ({RANK}) dllogger_rank_info{{{RANKS}}}",
                f"chosen rank {{{{rank}}}} {name}",
                style="dashed",
            ),
        ),
        distribution(
            About(
                "Step times of all ranks",
                "How many ranks take how much of the median step time, in classes of 10 %, from "
                "half to double. One band means that all are alike, a second one a group of slow "
                "ranks. A class without ranks is not shown.",
                unit="percentunit",
            ),
            Query(
                f'count_values by ({RUN}) ("of_median", clamp(round({_RELATIVE}, 0.1), 0.5, 2))',
                "{{of_median}}",
            ),
        ),
        history(
            About(
                "The slowest over time",
                "Step time of the slowest ranks of the time range, against the median of the run. "
                "Always red: a slow machine. Red now and then: data, checkpoints, other jobs.",
                unit="percentunit",
                steps=_OF_MEDIAN,
            ),
            Query(promql.of_the_slowest(_RELATIVE, RUNS), "rank {{rank}} {{run}}"),
        ),
        lines(
            About(
                "Parts of a step, over the median",
                "How much longer than the median a rank takes for any duration that it logs: the "
                "worst ranks at the end of the time range, and the chosen ranks. If ranks wait for "
                "each other, this finds the culprit: its time to read data is up, and so is the "
                "others' time to compute, which includes their waiting.",
                unit="s",
            ),
            Query(
                f"{_excess()} and on ({RANK}, metric, granularity)"
                f" topk by ({RUN}) ($worst, {_excess(' @ end()')})",
                f"rank {{{{rank}}}} {name}",
            ),
            Query(
                f"{_excess()} and on ({RANK}) dllogger_rank_info{{{RANKS}}}",
                f"chosen rank {{{{rank}}}} {name}",
                style="dashed",
            ),
            width=24,
        ),
    ]


def _share(moment: str = "") -> str:
    """Divide each rank's throughput by the median of its run."""
    throughput = f"{{{THROUGHPUT}, {RUNS}, {CHOSEN}}}{moment}"
    median = promql.quantile(0.5, throughput)
    return f"({throughput} / on ({SERIES}) group_left () {median})"


def _excess(moment: str = "") -> str:
    """Subtract the median of the run from each duration of each rank."""
    durations = _durations(moment)
    return (
        f"({durations} - on ({SERIES}) group_left () {promql.quantile(0.5, durations)}"
        f" unless on ({RUN}, metric) {_longer_than_a_step()})"
    )


def _durations(moment: str) -> str:
    """Select the times that are logged per iteration, in seconds."""
    return promql.durations(f'{RUNS}, {CHOSEN}, granularity="iteration"', moment)


def _longer_than_a_step() -> str:
    """Select times that are not part of a step: those since the start, or until the end."""
    return (
        f"(quantile by ({RUN}, metric) (0.5, {_durations(' @ end()')}) > on ({RUN}) group_left ()"
        f" 2 * {promql.quantile(0.5, promql.step_time(RUNS, OF_RANGE), by=RUN)})"
    )


def _behind() -> list[Builder[models.Panel]]:
    steps = promql.steps(RUNS)
    first = f"max by ({RUN}) (dllogger_steps_total{{{RUNS}}})"
    last = f"min by ({RUN}) ({steps})"
    behind = f"({first} - on ({RUN}) group_right () {steps})"

    return [
        lines(
            About(
                "Iteration skew",
                "How far the first rank is ahead of the last one, in time: iterations since the "
                "processes began, times the median step time. Up to two scrape intervals come from "
                "when ranks are scraped; if it grows, a rank is falling behind. A rank that was "
                "restarted alone begins at 0 again.",
                unit="s",
                steps=((None, GREEN), (60, RED)),
                minimum=0,
            ),
            Query(
                f"({first} - {last}) * on ({RUN}) {promql.quantile(0.5, _STEP_TIME, by=RUN)}",
                "{{run}}",
            ),
            width=8,
        ),
        lines(
            About(
                "Ranks behind",
                "Iterations behind the first rank, since the processes began: the ranks that are "
                "last at the end of the time range, and the chosen ones.",
                decimals=0,
                minimum=0,
            ),
            Query(
                f"{behind} and on ({RANK}) bottomk by ({RUN}) ($worst,"
                f" max by ({RANK}) (dllogger_steps_total{{{RUNS}}} @ end()) > 0)",
                "rank {{rank}} {{run}}",
            ),
            Query(
                f"{behind} and on ({RANK}) dllogger_rank_info{{{RANKS}}}",
                "chosen rank {{rank}} {{run}}",
                style="dashed",
            ),
            width=8,
            worst_first=True,
        ),
        lines(
            About(
                "Quiet ranks",
                "Time since the last record, of the ranks that have been quiet for longest at the "
                "end of the time range, and of the chosen ones. If all grow at once, a collective "
                "hangs: look at the first rank that went quiet. One that is gone grows older, for "
                "an hour.",
                unit="s",
                steps=((None, GREEN), (300, RED)),
                minimum=0,
            ),
            Query(
                f"{promql.age(RUNS)} and on ({RANK})"
                f" topk by ({RUN}) ($worst, {promql.age(RUNS, OF_RANGE)})",
                "rank {{rank}} {{run}}",
            ),
            Query(promql.age(RANKS), "chosen rank {{rank}} {{run}}", style="dashed"),
            width=8,
            worst_first=True,
        ),
    ]


def _logging() -> list[Builder[models.Panel]]:
    overhead = (
        f"{promql.rate('dllogger_log_seconds_total', RUNS)}"
        f" / ({promql.rate('dllogger_step_seconds_total', RUNS)} > 0)"
    )
    return [
        lines(
            About(
                "Logging, of the step time",
                "The share of the training time that is spent in log(). It is far below 1 % unless "
                "tensors on an accelerator are logged, which wait for it: then log every n-th "
                "step. It is wall-clock time: with more processes than cores, it includes waiting "
                "for a core.",
                unit="percentunit",
                minimum=0,
                steps=((None, GREEN), (0.01, YELLOW), (0.05, RED)),
            ),
            Query(f"max by ({RUN}) ({overhead})", "worst rank {{run}}"),
            Query(promql.quantile(0.5, overhead, by=RUN), "median {{run}}", style="dashed"),
        ),
        tally(
            "Dropped",
            "How many records and values were not written or not exported since the processes "
            "began: in total, and by reason if there are any. The README says what each reason "
            "means.",
            f"dllogger_dropped_total{{{RUNS}}}",
            by="reason",
            name="{{reason}}",
        ),
        rows(
            About(
                "Chosen ranks",
                "Where the chosen ranks run: process, attempt, port.",
            ),
            [Query(promql.last("dllogger_rank_info", RANKS))],
            [
                Column("rank", "Rank"),
                Column("host", "Host"),
                Column("local_rank", "Local rank"),
                Column("pid", "Process"),
                Column("attempt", "Attempt"),
                Column("world_size", "World size"),
                Column("instance", "Address"),
                Column("run", "Run"),
                Column("job", "Job"),
            ],
            width=24,
            height=5,
        ),
    ]
