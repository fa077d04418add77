"""PromQL that several panels share.

What is of a whole run comes from the recording rules in ``prometheus/rules``, so that a panel
costs the same with 1 rank and with 1,024. Only single ranks that were chosen are asked directly.
"""

from __future__ import annotations

RUNS = 'job=~"$job", run=~"$run"'
"""Matchers for the selected runs."""

RANKS = f'{RUNS}, rank=~"$rank"'
"""Matchers for the selected ranks."""

CHOSEN = 'metric=~"$metric", stage=~"$stage", granularity=~"$granularity"'
"""Matchers for the selected metrics."""

LOSSES = 'kind="loss"'
SCORES = 'kind="score"'
RATES = 'kind=~"throughput|step_rate"'
"""Matchers for metrics by what they are, see ``otel_dllogger.metrics.kinds``."""

SERIES = "job, run, stage, metric, granularity, unit"
"""The labels that distinguish the metrics of a run, apart from the rank."""

RANK = "job, run, rank"
RUN = "job, run"

RECENT = "[$__rate_interval]"
"""A window over the latest scrapes before each point."""

OF_RANGE = "[$__range]"
"""A window over the whole time range, for what is asked at its end alone."""


def of_run(operation: str, kind: str = "", *, more: str = CHOSEN) -> str:
    """Select what ranks logged, as one value per run.

    Args:
        operation: Over the ranks: ``min``, ``median`` or ``max``.
        kind: A matcher for what the metrics are.
        more: Further matchers.
    """
    return f"run:dl:{operation}{{{_join(RUNS, more, kind)}}}"


def of_rank(kind: str = "", *, more: str = CHOSEN) -> str:
    """Select what the chosen ranks logged.

    Args:
        kind: A matcher for what the metrics are.
        more: Further matchers.
    """
    return f'{{{_join(f"""__name__=~"dl_.+", {RANKS}""", more, kind)}}}'


def _join(*matchers: str) -> str:
    return ", ".join(filter(None, matchers))


def step_time(matchers: str) -> str:
    """Return seconds per training step of each rank; a rank without steps has none.

    Args:
        matchers: Which ranks.
    """
    seconds, steps = (
        f"sum by ({RANK}) (rate({counter}{{{matchers}}}{RECENT}))"
        for counter in ("dllogger_step_seconds_total", "dllogger_steps_total")
    )
    return f"({seconds} / ({steps} > 0))"


def step_quantile(share: float) -> str:
    """Return the time that a share of the steps of all ranks stayed below, at each point.

    Args:
        share: From 0 to 1, which asks for the bound below which all of them stayed.
    """
    return _step_quantile(share, "avg_over_time", RECENT)


def longest_step() -> str:
    """Return the bound below which all steps of the whole time range stayed."""
    return _step_quantile(1, "sum_over_time", OF_RANGE)


def _step_quantile(share: float, function: str, window: str) -> str:
    buckets = f"run:dllogger_step_duration_seconds_bucket:rate1m{{{RUNS}}}{window}"
    return f"histogram_quantile({share:g}, {function}({buckets})) > 0"


def last(metric: str, matchers: str = RUNS) -> str:
    """Return the last value of a metric in the time range, also for ranks that are gone."""
    return f"last_over_time({metric}{{{matchers}}}{OF_RANGE})"


def each(labels: str, expression: str) -> str:
    """Return an expression by labels alone: a table merges no rows that have different names.

    Args:
        labels: The labels to keep, by which there is one series.
        expression: A selection, or what keeps the names of its series.
    """
    return f"max by ({labels}) ({expression})"


def start(matchers: str = RUNS, window: str = OF_RANGE) -> str:
    """Return when each run began: its first attempt within the window."""
    attempts = f"run:dllogger_attempt_start_timestamp_seconds:min{{{matchers}}}{window}"
    return f"min by ({RUN}) (min_over_time({attempts}))"


def best(matchers: str, *, by: str) -> str:
    """Return the best value of each metric with a goal, over all attempts of a run.

    Args:
        matchers: Which runs and metrics.
        by: The labels to keep.
    """

    def extreme(function: str, goal: str) -> str:
        series = f'run:dllogger_best:best{{{matchers}, goal="{goal}"}}{OF_RANGE}'
        return f"{function} by ({by}) ({function}_over_time({series}))"

    return f"({extreme('min', 'minimize')} or {extreme('max', 'maximize')})"


def count(counter: str, matchers: str, *, by: str, window: str = "$__range") -> str:
    """Return how often something was counted, including the value that a counter began with.

    It is the counter's own difference: ``increase`` extrapolates, so that one NaN becomes two, and
    does not see what was counted before the first scrape, which is when torn lines and many NaNs
    are counted. Each process has its own series, so that none begins again.

    Args:
        counter: ``nonfinite`` or ``dropped``.
        matchers: Which of its series.
        by: The labels to keep.
        window: The time window.
    """
    series = f"rank:dllogger_{counter}_total:nonzero{{{matchers}}}[{window}]"
    now, before = f"last_over_time({series})", f"last_over_time({series} offset {window})"
    return f"sum by ({by}) ({now} - {before} or {now})"


def logged_step() -> str:
    """Return how far each run is: its iteration, or the steps of its furthest process, or epochs.

    The iteration is that of the script, and a run that continues from a checkpoint continues it.
    Where iterations begin again with each epoch, fewer were logged than steps were made. For a
    moment after a restart there may be an epoch and no step yet: that is not a run that logs
    nothing but epochs.
    """
    made, iteration = (
        f"run:dllogger_{what}:max{{{RUNS}}}" for what in ("steps_total", "iteration")
    )
    has_steps = f"max_over_time({made}[$__range]) > 0"
    epoch = f"run:dllogger_epoch:max{{{RUNS}}} unless on ({RUN}) ({has_steps})"
    return f"({iteration} > on ({RUN}) {made} or {made} > 0 or ({epoch}))"


def gpus(matchers: str = RUNS) -> str:
    """Select the GPUs of ranks, as far as these know which they have.

    Args:
        matchers: Which ranks.
    """
    return f'dllogger_gpu_info{{{matchers}, UUID!=""}}'


def of_gpu(metric: str, *, by: str, ranks: str = "") -> str:
    """Return what dcgm-exporter says of the GPU of each rank.

    There may be several ranks to a GPU, and under MIG several series of a GPU for its instances.

    Args:
        metric: What is asked: a metric of dcgm-exporter, or a function of one.
        by: The labels to keep.
        ranks: Those of ``gpus``, or a function of them; by default of all ranks.
    """
    joined = f"{ranks or gpus()} * on (UUID) group_left () max by (UUID) ({metric})"
    return f"max by ({by}) ({joined})"
