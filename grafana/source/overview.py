"""Training overview: is it learning, how fast, how far is it, is it healthy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana.source import promql, variables
from grafana.source.board import add_row, new_board
from grafana.source.graphs import figure, lines, named_figure, tally
from grafana.source.panels import BLUE, GREEN, RED, STATES, YELLOW, About, Query
from grafana.source.promql import CHOSEN, LOGGED, RANK, RANKS, RUN, RUNS, SERIES, THROUGHPUT
from grafana.source.tables import Column, rows

if TYPE_CHECKING:
    from grafana.source.sdk import Builder, dashboard, models

UID = "otel-dllogger-overview"

_THROUGHPUT = f"{{{THROUGHPUT}, {RUNS}, {CHOSEN}}}"
_NONFINITE = f'{RUNS}, metric=~"$metric", stage=~"$stage"'
_AGE_NOW = promql.age(RUNS, "[$__range]")
_PLAIN = ((None, BLUE),)  # green would say that the value was judged to be good
_RATE_MATCHERS = 'metric=~"(?i)(.*[^a-z])?(lr|learning_?rate)([^a-z].*)?"'


def build() -> dashboard.Dashboard:
    """Return the dashboard for following a run."""
    board = new_board(
        "Training overview",
        UID,
        "Is the run learning, how fast, how far is it, is it healthy? Bands over all ranks, and "
        "the chosen ranks next to them.",
        [
            variables.datasource(),
            variables.job(),
            variables.run(several=False),
            variables.stage(),
            variables.granularity(),
            variables.metric(),
            variables.rank(),
        ],
    )
    add_row(board, "Now", *_now())
    add_row(board, "Learning", *_learning())
    add_row(board, "Speed", *_speed())
    add_row(board, "Progress and health", *_health())
    add_row(board, "Parameters", *_parameters())
    add_row(board, "Every metric", _every_metric(), folded=True)
    return board


def _band(of_all: str, of_rank: str, by: str, name: str) -> tuple[Query, ...]:
    """Return queries for minimum, median and maximum over ranks, and for single ranks."""
    return (
        Query(f"max by ({by}) ({of_all})", f"max {name}", style="edge"),
        Query(promql.quantile(0.5, of_all, by=by), f"median {name}"),
        Query(f"min by ({by}) ({of_all})", f"min {name}", style="edge"),
        Query(of_rank, f"rank {{{{rank}}}} {name}"),
    )


def _now() -> list[Builder[models.Panel]]:
    step_time = promql.step_time(RUNS)
    return [
        figure(
            About(
                "Ranks",
                "Ranks that answer at the end of the time range. If there are fewer than were "
                "started, the dashboard Ranks shows those that are lost.",
                steps=((None, RED), (1, BLUE)),
            ),
            Query(
                f"count by ({RUN}) (group by ({RANK}) (dllogger_rank_info{{{RUNS}}}))"
                f" or 0 * count by ({RUN}) ({promql.last('dllogger_rank_info', RUNS)})",
                "{{run}}",
            ),
            instant=True,
        ),
        figure(
            About("Epoch", "The epoch of the furthest rank.", steps=_PLAIN),
            Query(f"max by ({RUN}) (dllogger_epoch{{{RUNS}}})", "{{run}}"),
        ),
        figure(
            About(
                "Iteration",
                "The iteration of the furthest rank, as it was logged: it may start again with "
                "each epoch.",
                steps=_PLAIN,
            ),
            Query(f"max by ({RUN}) (dllogger_iteration{{{RUNS}}})", "{{run}}"),
        ),
        figure(
            About(
                "Step time",
                "Seconds per training step, the median over ranks.",
                unit="s",
                steps=_PLAIN,
            ),
            Query(promql.quantile(0.5, step_time, by=RUN), "{{run}}"),
        ),
        figure(
            About(
                "Last record",
                "Time since the rank that has been quiet for longest logged anything. If it is "
                "more than a few minutes, the rank hangs, is gone, or logs rarely. Ranks that "
                "finished or were told to end, or that only logged parameters, do not count.",
                unit="s",
                steps=((None, GREEN), (120, YELLOW), (300, RED)),
                decimals=0,
            ),
            Query(f"max by ({RUN}) ({_AGE_NOW})", "{{run}}"),
            instant=True,
        ),
        figure(
            About(
                "NaN and Inf",
                "Values of the chosen metrics that were not finite, over the time range. A loss "
                "that is not finite seldom recovers: stop, and continue from a checkpoint.",
                steps=((None, GREEN), (1, RED)),
                decimals=0,
            ),
            Query(
                promql.count("dllogger_nonfinite_total", _NONFINITE, "$__range", by=RUN),
                "{{run}}",
            ),
            instant=True,
        ),
        named_figure(
            About(
                "Throughput",
                "All ranks together, for every chosen metric that has a unit per second.",
                steps=_PLAIN,
            ),
            Query(f"sum by ({SERIES}) ({_THROUGHPUT})", "{{metric}} {{granularity}} {{run}}"),
        ),
        figure(
            About(
                "Steps per second",
                "Training steps per second, the median over ranks that make any.",
                steps=_PLAIN,
            ),
            Query(
                promql.quantile(
                    0.5,
                    f"{promql.rate('dllogger_steps_total', RUNS)} and on ({RANK})"
                    f" {promql.steps(RUNS)}",
                    by=RUN,
                ),
                "{{run}}",
            ),
        ),
        figure(
            About(
                "Restarts",
                "How often the most restarted rank was started again, over the time range: the "
                "number of processes seen of one rank, minus one.",
                steps=((None, GREEN), (1, YELLOW), (3, RED)),
                decimals=0,
            ),
            Query(
                f"max by ({RUN}) (count by ({RANK}) (count by ({RANK}, host, pid, attempt)"
                f" (last_over_time(dllogger_rank_info{{{RUNS}}}[$__range]))) - 1)",
                "{{run}}",
            ),
            instant=True,
        ),
        figure(
            About(
                "Dropped",
                "Records or values that were not written or not exported, over the time range. The "
                "dashboard Ranks says why.",
                steps=((None, GREEN), (1, RED)),
                decimals=0,
            ),
            Query(
                promql.count("dllogger_dropped_total", RUNS, "$__range", by=RUN),
                "{{run}}",
            ),
            instant=True,
        ),
        figure(
            About(
                "State",
                "Finished if the run's summary was logged on all ranks, or all of them closed; "
                "terminated if SIGTERM or SIGINT told them to end, as scancel, preemption and "
                "Ctrl-C do; gone if neither was seen of a rank. What comes between two scrapes is "
                "not seen: see linger_s in the README.",
                steps=_PLAIN,
                names=STATES,
            ),
            Query(promql.state(RUNS), "{{run}}"),
            instant=True,
        ),
    ]


def _learning() -> list[Builder[models.Panel]]:
    goals = f"{RUN}, stage, metric, goal"
    name = "{{metric}} {{granularity}} {{run}}"

    def loss(title: str, stage: str, which: str) -> Builder[models.Panel]:
        about = About(
            title,
            f"Losses {which}: metrics with GOAL minimize and no unit, or with loss in their name. "
            "The median over ranks with minimum and maximum, and the chosen ranks. A gap is a "
            "value that was NaN or Inf.",
            unit="short",
        )
        of_all, of_rank = promql.losses(RUNS, stage=stage), promql.losses(RANKS, stage=stage)
        return lines(about, *_band(of_all, of_rank, SERIES, name))

    return [
        loss("Training loss", 'stage!~"val|test"', "of training, or of no stage"),
        loss("Validation loss", 'stage=~"val|test"', "of validation and test"),
        lines(
            About(
                "Learning rate",
                "What was logged as lr or learning rate. Ranks are scraped up to a scrape interval "
                "apart, so minimum and maximum differ a little while it changes. If they differ "
                "more, the schedule of one rank is wrong.",
                unit="sci",
                decimals=2,
            ),
            Query(
                f"max by ({SERIES}) ({{{LOGGED}, {RUNS}, {CHOSEN}, {_RATE_MATCHERS}}})",
                f"max {name}",
            ),
            Query(
                f"min by ({SERIES}) ({{{LOGGED}, {RUNS}, {CHOSEN}, {_RATE_MATCHERS}}})",
                f"min {name}",
                style="dashed",
            ),
        ),
        rows(
            About(
                "Best so far",
                "The best finite value of each metric with a GOAL, over all attempts of the run: "
                "of all ranks, and the median of the ranks' own best.",
            ),
            [
                Query(promql.best(_NONFINITE, by=goals)),
                Query(promql.quantile(0.5, promql.best(_NONFINITE, by=f"{goals}, rank"), by=goals)),
            ],
            [
                Column("run", "Run"),
                Column("metric", "Metric"),
                Column("stage", "Stage"),
                Column("goal", "Goal"),
                Column("Value #A", "Best of all ranks"),
                Column("Value #B", "Median of ranks"),
                Column("job", "Job"),
            ],
        ),
    ]


def _speed() -> list[Builder[models.Panel]]:
    name = "{{metric}} {{granularity}} {{run}}"
    of_rank = _THROUGHPUT.replace(RUNS, RANKS)
    return [
        lines(
            About(
                "Throughput in total",
                "The sum over ranks. A metric that is already a total on each rank is counted once "
                "for each rank.",
                minimum=0,
            ),
            Query(f"sum by ({SERIES}) ({_THROUGHPUT})", name),
        ),
        lines(
            About(
                "Throughput per rank",
                "Metrics with a unit per second. A minimum far below the median is a slow rank.",
                minimum=0,
            ),
            *_band(_THROUGHPUT, of_rank, SERIES, name),
        ),
        lines(
            About(
                "Step time",
                "Seconds from one training step to the next, including validation in between. "
                "Ranks that wait for each other all show the time of the slowest.",
                unit="s",
                minimum=0,
            ),
            *_band(promql.step_time(RUNS), promql.step_time(RANKS), RUN, "{{run}}"),
        ),
        lines(
            About(
                "Parts of a step",
                "Every duration that is logged, as the median over ranks: compute time, time to "
                "wait for data. All are shown in seconds, whatever their unit.",
                unit="s",
                minimum=0,
            ),
            Query(
                f'quantile by ({SERIES}) (0.5, {{__name__=~"dl_.+_seconds", {RUNS}, {CHOSEN}}})',
                name,
            ),
            Query(
                f"quantile by ({SERIES}) "
                f'(0.5, {{__name__=~"dl_.+_milliseconds", {RUNS}, {CHOSEN}}}) / 1000',
                name,
            ),
        ),
    ]


def _health() -> list[Builder[models.Panel]]:
    return [
        lines(
            About("Epoch", "The epochs of the first and of the last rank.", decimals=0),
            Query(f"max by ({RUN}) (dllogger_epoch{{{RUNS}}})", "first {{run}}"),
            Query(f"min by ({RUN}) (dllogger_epoch{{{RUNS}}})", "last {{run}}", style="dashed"),
            width=8,
        ),
        lines(
            About(
                "Training steps",
                "The steps of the first and of the last rank since their processes began. They are "
                "scraped up to a scrape interval apart, so that a small difference means nothing. "
                "A growing one means that the ranks are not in step.",
                decimals=0,
            ),
            Query(f"max by ({RUN}) (dllogger_steps_total{{{RUNS}}})", "first {{run}}"),
            Query(f"min by ({RUN}) ({promql.steps(RUNS)})", "last {{run}}", style="dashed"),
            width=8,
        ),
        lines(
            About(
                "Age of the last record",
                "Time since a rank that trains logged anything: the quietest rank, the median, and "
                "the chosen ranks. A rank that is gone grows older, for an hour.",
                unit="s",
                steps=((None, GREEN), (300, RED)),
                minimum=0,
            ),
            Query(f"max by ({RUN}) ({promql.age(RUNS)})", "quietest {{run}}"),
            Query(promql.quantile(0.5, promql.age(RUNS), by=RUN), "median {{run}}", style="dashed"),
            Query(promql.age(RANKS), "rank {{rank}} {{run}}"),
            width=8,
        ),
        tally(
            "NaN and Inf",
            "How many values of the chosen metrics were not finite since the processes began: in "
            "total, and for each metric that has any.",
            f"dllogger_nonfinite_total{{{_NONFINITE}}}",
            by="metric, stage",
            name="{{metric}}",
            width=8,
        ),
        lines(
            About(
                "Processes",
                "Processes that answer, by attempt. A new attempt is a restart.",
                decimals=0,
            ),
            Query(
                f"count by ({RUN}, attempt) (dllogger_rank_info{{{RUNS}}})",
                "attempt {{attempt}} {{run}}",
            ),
            width=8,
        ),
        lines(
            About(
                "Records",
                "Calls of log() per second, all ranks together, by kind: metrics, metadata, "
                "information, parameters.",
            ),
            Query(
                f"sum by ({RUN}, type) (rate(dllogger_records_total{{{RUNS}}}[$__rate_interval]))",
                "{{type}} {{run}}",
            ),
            width=8,
        ),
    ]


def _parameters() -> list[Builder[models.Panel]]:
    return [
        rows(
            About(
                "Parameters",
                "Numeric hyper-parameters, as logged with PARAMETER. If the ranks of a run differ, "
                "the smallest and the largest value are not the same.",
            ),
            [
                Query(f"min by ({RUN}, name) ({promql.last('dllogger_parameter', RUNS)})"),
                Query(f"max by ({RUN}, name) ({promql.last('dllogger_parameter', RUNS)})"),
            ],
            [
                Column("run", "Run"),
                Column("name", "Parameter"),
                Column("Value #A", "Smallest of ranks"),
                Column("Value #B", "Largest of ranks"),
                Column("job", "Job"),
            ],
            width=24,
            height=7,
        ),
    ]


def _every_metric() -> Builder[models.Panel]:
    def of(runs: str) -> str:
        return f"{{{LOGGED}, {runs}, {CHOSEN}}}"

    about = About(
        "$metric",
        "The median over ranks with minimum and maximum, and the chosen ranks.",
    )
    name = "{{stage}} {{granularity}} {{run}}"
    panel = lines(about, *_band(of(RUNS), of(RANKS), SERIES, name), width=8)
    return panel.repeat("metric").repeat_direction("h").max_per_row(3)
