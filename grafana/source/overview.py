"""Training overview: is it learning, how fast, how far is it, is it healthy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana.source import goodput, promql, variables
from grafana.source.board import add_row, new_board
from grafana.source.graphs import figure, figures, lines, tally
from grafana.source.health import alert_list, rules_loaded, run_state
from grafana.source.panels import BLUE, COUNT, GREEN, RED, YELLOW, About, Query
from grafana.source.promql import LOSSES, RANKS, RATES, RUN, RUNS, SCORES, of_rank, of_run
from grafana.source.tables import Column, rows
from grafana.source.thresholds import ATTEMPTS, STALLED_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from grafana.source.sdk import Builder, dashboard, models

UID = "otel-dllogger-overview"

_COUNTED = f'{RUNS}, metric=~"$metric", stage=~"$stage"'
_WITH_GOAL = f'{_COUNTED}, goal!=""'
_ATTEMPTS = promql.last("run:dllogger_attempt_start_timestamp_seconds:min")
_PLAIN = ((None, BLUE),)  # green would say that the value was judged to be good
_NAME = "{{metric}} {{granularity}} {{run}}"
_NO_STEP_TIMES = "OTEL_DLLOGGER_STEP_HISTOGRAM=1 exports it: see docs/reference/metrics.md"
_RATE_NAME = "{{metric}} {{unit}} {{granularity}} {{run}}"


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
    add_row(board, "Validation", *_validation())
    add_row(board, "Speed", *_speed())
    add_row(board, "Where the time went", *goodput.where_the_time_went())
    add_row(board, "Progress and health", *_health())
    add_row(board, "Parameters", *_parameters())
    add_row(board, "Every metric", _every_metric(), folded=True)
    return board


def _band(of_all: Callable[[str], str], of_single: str, name: str) -> tuple[Query, ...]:
    """Return queries for minimum, median and maximum over ranks, and for single ranks.

    Args:
        of_all: Takes ``min``, ``median`` or ``max``, and returns that over all ranks.
        of_single: The values of the chosen ranks.
        name: The legend of each series, after which of these it is.
    """
    return (
        Query(of_all("max"), f"max {name}", style="edge"),
        Query(of_all("median"), f"median {name}"),
        Query(of_all("min"), f"min {name}", style="edge"),
        Query(of_single, f"rank {{{{rank}}}} {name}"),
    )


def _logged(kind: str = "", stage: str = "", name: str = _NAME) -> tuple[Query, ...]:
    """Return the queries of a band of what was logged.

    Args:
        kind: A matcher for what the metrics are.
        stage: A matcher for their stage.
        name: The legend of each series.
    """
    more = f"{promql.CHOSEN}, {stage}" if stage else promql.CHOSEN
    return _band(
        lambda operation: of_run(operation, kind, more=more), of_rank(kind, more=more), name
    )


def _now() -> list[Builder[models.Panel]]:
    return [
        run_state(),
        figures(
            About(
                "Ranks",
                "Ranks that answer, and how many the run was started with. If some are missing "
                "before the run has ended, the dashboard Ranks shows which, and where they ran.",
                unit=COUNT,
                steps=_PLAIN,
            ),
            Query(
                f"run:dllogger_ranks_up:count{{{RUNS}}}"
                f" or 0 * {promql.last('run:dllogger_ranks_up:count')}",
                "answer",
            ),
            Query(promql.last("run:dllogger_world_size:max"), "of"),
        ),
        figure(
            About("Epoch", "The epoch of the furthest rank.", unit=COUNT, steps=_PLAIN),
            Query(f"run:dllogger_epoch:max{{{RUNS}}}", "{{run}}"),
        ),
        figure(
            About(
                "Iteration",
                "The iteration of the furthest rank, as it was logged: it may start again with "
                "each epoch.",
                unit=COUNT,
                steps=_PLAIN,
            ),
            Query(f"run:dllogger_iteration:max{{{RUNS}}}", "{{run}}"),
        ),
        figure(
            About(
                "Step time",
                "Seconds per training step over five minutes, the median over ranks.",
                unit="s",
                steps=_PLAIN,
            ),
            Query(f"run:dllogger_step_seconds:median{{{RUNS}}}", "{{run}}"),
        ),
        figure(
            About(
                "Last record",
                "How long ago the quietest rank logged anything. If that is more than a few "
                "minutes, the rank hangs, is gone, or logs rarely. Ranks that finished or were "
                "told to end, or that only logged parameters, do not count.",
                unit="s",
                steps=((None, GREEN), (STALLED_S / 2, YELLOW), (STALLED_S, RED)),
                decimals=0,
                nothing="no rank trains",
            ),
            Query(f"run:dllogger_silence_seconds:max{{{RUNS}}}", "{{run}}"),
            instant=True,
        ),
        figure(
            About(
                "NaN and Inf",
                "Values of the chosen metrics that were not finite, over the time range. A loss "
                "that is not finite seldom recovers: stop, and continue from a checkpoint.",
                unit=COUNT,
                steps=((None, GREEN), (1, RED)),
                decimals=0,
                nothing="none",
            ),
            Query(promql.count("nonfinite", _COUNTED, by=RUN), "{{run}}"),
            instant=True,
        ),
        figures(
            About(
                "Throughput",
                "The median over ranks of what is logged per second. For the throughput of the "
                "whole run, see Throughput of all ranks.",
                steps=_PLAIN,
                nothing="not logged",
            ),
            Query(of_run("median", RATES), _RATE_NAME),
        ),
        figure(
            About(
                "Restarts",
                "How often the run was started again in the time range.",
                unit=COUNT,
                steps=((None, GREEN), (1, YELLOW), (ATTEMPTS, RED)),
                decimals=0,
            ),
            Query(
                f"count by ({RUN}) ({_ATTEMPTS}) - 1",
                "{{run}}",
            ),
            instant=True,
        ),
        figure(
            About(
                "Dropped",
                "Records or values that were not written or not exported, over the time range. The "
                "dashboard Ranks says why.",
                unit=COUNT,
                steps=((None, GREEN), (1, RED)),
                decimals=0,
                nothing="none",
            ),
            Query(promql.count("dropped", RUNS, by=RUN), "{{run}}"),
            instant=True,
        ),
        rules_loaded(),
        figure(
            About(
                "Done",
                "How much of the run is done: an estimate, for runs whose parameters say how long "
                "they will be, such as epochs or max_steps. A run that has finished is done.",
                unit="percentunit",
                steps=_PLAIN,
                decimals=0,
                nothing="unknown",
            ),
            Query(f"run:dllogger_progress:ratio{{{RUNS}}}", "{{run}}"),
        ),
        figure(
            About(
                "Time left",
                "At the speed of the last quarter of an hour: an estimate, like Done.",
                unit="s",
                steps=_PLAIN,
                decimals=0,
                nothing="unknown",
            ),
            Query(f"run:dllogger_remaining_seconds:estimate{{{RUNS}}}", "{{run}}"),
            instant=True,
        ),
        alert_list(width=20, height=4),
    ]


def _learning() -> list[Builder[models.Panel]]:
    goals = f"{RUN}, stage, metric, goal"
    return [
        lines(
            About(
                "Training loss",
                "Losses of training, or of no stage: metrics with GOAL MINIMIZE and no unit, or "
                "with the name of a loss. The median over ranks with minimum and maximum, and the "
                "chosen ranks. A gap means that the value was NaN or Inf.",
                unit="short",
            ),
            *_logged(LOSSES, 'stage!~"val|test"'),
        ),
        rows(
            About(
                "Best so far",
                "The best finite value of each metric with a GOAL, over all ranks and attempts, "
                "and its last value, as the median over ranks.",
                nothing="No metric has a GOAL: see docs/reference/metrics.md",
            ),
            [
                Query(promql.best(_COUNTED, by=goals)),
                Query(promql.each(goals, promql.last("run:dl:median", _WITH_GOAL))),
            ],
            [
                Column("metric", "Metric"),
                Column("stage", "Stage", width=80),
                Column("goal", "Goal", width=100),
                Column("Value #A", "Best", width=100),
                Column("Value #B", "Last", width=100),
                Column("run", "Run"),
                Column("job", "Job"),
            ],
        ),
        lines(
            About(
                "Learning rate",
                "What was logged as lr or learning rate. Ranks are scraped up to a scrape interval "
                "apart, so minimum and maximum differ a little while it changes. If they differ "
                "more, the schedule of one rank is wrong.",
                unit="sci",
                decimals=2,
                nothing="No learning rate is logged",
            ),
            Query(of_run("max", 'kind="learning_rate"'), f"max {_NAME}"),
            Query(of_run("min", 'kind="learning_rate"'), f"min {_NAME}", style="dashed"),
        ),
        lines(
            About(
                "Gradient norm",
                "What was logged as the norm of the gradients. A jump comes before a loss that "
                "diverges. In mixed precision it is infinite now and then, which shows as a gap.",
                unit="short",
                minimum=0,
                nothing="No norm of the gradients is logged",
            ),
            *_logged('kind="gradient_norm"'),
        ),
    ]


def _validation() -> list[Builder[models.Panel]]:
    return [
        lines(
            About(
                "Validation loss",
                "Losses of validation and test: lower is better. If it rises while the training "
                "loss falls, the model overfits.",
                unit="short",
                nothing="No loss of validation is logged",
            ),
            *_logged(LOSSES, 'stage=~"val|test"'),
        ),
        lines(
            About(
                "Scores",
                "Metrics with GOAL MAXIMIZE, or with the name of one, such as accuracy, mAP or "
                "BLEU, of all stages: higher is better.",
                unit="short",
                nothing="No metric with GOAL MAXIMIZE is logged",
            ),
            *_logged(SCORES, name="{{stage}} " + _NAME),
        ),
    ]


def _speed() -> list[Builder[models.Panel]]:
    def total(scope: str) -> str:
        return f'run:dl_throughput:sum{{{RUNS}, {promql.CHOSEN}, scope="{scope}"}}'

    return [
        lines(
            About(
                "Throughput of a rank",
                "What is logged per second, as each rank logs it. A minimum far below the median "
                "means that a rank is slow.",
                minimum=0,
                nothing="Nothing is logged per second",
            ),
            *_logged(RATES, name=_RATE_NAME),
        ),
        lines(
            About(
                "Throughput of all ranks",
                'If the metadata has "SCOPE": "rank", the sum over ranks; with "global", the '
                "median of what they log. Without SCOPE, it is not known whether ranks add up: the "
                "sum is right if each rank logs its own throughput. Iterations per second are not "
                "shown, since they never add up. A rank that is stalled does not count.",
                minimum=0,
                nothing="Nothing is logged per second",
            ),
            Query(total("rank"), f"sum {_RATE_NAME}"),
            Query(total("global"), _RATE_NAME),
            Query(total(""), f"sum, if each rank logs its own: {_RATE_NAME}", style="dashed"),
        ),
        lines(
            About(
                "Step time",
                "Seconds from one training step to the next, over five minutes, without what is "
                "logged as a phase that interrupts training, such as a validation. Ranks that wait "
                "for each other all show the time of the slowest.",
                unit="s",
                minimum=0,
            ),
            *_band(
                lambda operation: f"run:dllogger_step_seconds:{operation}{{{RUNS}}}",
                promql.step_time(RANKS),
                "{{run}}",
            ),
        ),
        lines(
            About(
                "Parts of a step",
                "Every duration that is logged, as the median over ranks and five minutes: compute "
                "time, waiting for data. All are in seconds, whatever they were logged in.",
                unit="s",
                minimum=0,
                nothing="No duration is logged per iteration",
            ),
            Query(
                f'run:dl_duration_seconds:median{{{RUNS}, metric=~"$metric", stage=~"$stage"}}',
                "{{metric}} {{run}}",
            ),
        ),
        lines(
            About(
                "Step time distribution",
                "The time that half of the steps of all ranks stayed below, 95 and 99 of 100, and "
                "all of them. If the longest jumps while the median stays, a step was stalled: by "
                "a checkpoint, a file system, a collective that waited. All are estimated from "
                "buckets, and the longest is rounded up to the bound of its bucket.",
                unit="s",
                minimum=0,
                nothing=_NO_STEP_TIMES,
            ),
            Query(promql.step_quantile(0.5), "half of the steps {{run}}"),
            Query(promql.step_quantile(0.95), "95 % {{run}}"),
            Query(promql.step_quantile(0.99), "99 % {{run}}"),
            Query(promql.step_quantile(1), "longest {{run}}", style="dashed"),
            width=16,
        ),
        figure(
            About(
                "Longest step",
                "No step of any rank took longer in the time range. It is the bound of a bucket, "
                "such as 30 s, 1 or 2 minutes, and 10 minutes stand for all that is longer. If it "
                "is far above the step time, Step time distribution shows when that was.",
                unit="s",
                steps=_PLAIN,
                nothing="not exported",
            ),
            Query(promql.longest_step(), "{{run}}"),
            width=8,
            height=9,
            instant=True,
        ),
    ]


def _health() -> list[Builder[models.Panel]]:
    return [
        lines(
            About("Epoch", "The epochs of the first and of the last rank.", unit=COUNT, decimals=0),
            Query(f"run:dllogger_epoch:max{{{RUNS}}}", "first {{run}}"),
            Query(f"run:dllogger_epoch:min{{{RUNS}}}", "last {{run}}", style="dashed"),
            width=8,
        ),
        lines(
            About(
                "Training steps",
                "The steps of the first and of the last rank since their processes began. They are "
                "scraped up to a scrape interval apart, so that a small difference means nothing. "
                "A growing one means that the ranks are not in step.",
                unit=COUNT,
                decimals=0,
            ),
            Query(f"run:dllogger_steps_total:max{{{RUNS}}}", "first {{run}}"),
            Query(f"run:dllogger_steps_total:min{{{RUNS}}}", "last {{run}}", style="dashed"),
            width=8,
        ),
        lines(
            About(
                "Age of the last record",
                "Time since a rank that trains logged anything: the quietest rank, the median, and "
                "the chosen ranks. For a rank that is gone, it goes on rising for an hour.",
                unit="s",
                steps=((None, GREEN), (STALLED_S, RED)),
                minimum=0,
            ),
            Query(f"run:dllogger_silence_seconds:max{{{RUNS}}}", "quietest {{run}}"),
            Query(
                f"run:dllogger_silence_seconds:median{{{RUNS}}}", "median {{run}}", style="dashed"
            ),
            Query(f"rank:dllogger_silence_seconds:last1h{{{RANKS}}}", "rank {{rank}} {{run}}"),
            width=8,
        ),
        tally(
            "NaN and Inf",
            "How many values of the chosen metrics were not finite since the processes began: in "
            "total, and for each metric that has any.",
            f"rank:dllogger_nonfinite_total:nonzero{{{_COUNTED}}}",
            by="metric, stage",
            name="{{metric}}",
            width=8,
        ),
        lines(
            About(
                "Processes",
                "Processes that answer, by attempt. A new attempt is a restart.",
                unit=COUNT,
                decimals=0,
            ),
            Query(f"run:dllogger_processes:count{{{RUNS}}}", "attempt {{attempt}} {{run}}"),
            width=8,
        ),
        lines(
            About(
                "Records",
                "Calls per second, of all ranks together, by type: log, metadata, info, parameter.",
            ),
            Query(f"run:dllogger_records_total:rate1m{{{RUNS}}}", "{{type}} {{run}}"),
            width=8,
        ),
    ]


def _parameters() -> list[Builder[models.Panel]]:
    return [
        rows(
            About(
                "Parameters",
                "Numeric hyper-parameters, as logged with PARAMETER. The smallest and the largest "
                "value differ if the ranks of a run do not agree.",
                nothing="No parameters are logged",
            ),
            [
                Query(promql.each(f"{RUN}, name", promql.last("run:dllogger_parameter:min"))),
                Query(promql.each(f"{RUN}, name", promql.last("run:dllogger_parameter:max"))),
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
    about = About(
        "$metric",
        "The median over ranks with minimum and maximum, and the chosen ranks.",
    )
    panel = lines(about, *_logged(name="{{stage}} {{granularity}} {{run}}"), width=8)
    return panel.repeat("metric").repeat_direction("h").max_per_row(3)
