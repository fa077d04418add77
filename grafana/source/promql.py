"""PromQL that several panels share.

The dashboards query the metrics themselves, not the recording rules, so that they work with
any Prometheus that scrapes the ranks. Every expression aggregates over ``instance``: a rank
that was restarted on another port is the same rank.
"""

from __future__ import annotations

RUNS = 'job=~"$job", run=~"$run"'
"""Matchers for the selected runs."""

RANKS = f'{RUNS}, rank=~"$rank"'
"""Matchers for the selected ranks."""

CHOSEN = 'metric=~"$metric", stage=~"$stage", granularity=~"$granularity"'
"""Matchers for the selected metrics."""

LOGGED = '__name__=~"dl_.+"'
"""A matcher for everything that was logged, without the package's internal metrics."""

THROUGHPUT = f'{LOGGED}, kind="throughput"'
"""Matchers for what counts samples, tokens or the like per time, and for MFU."""

LEARNING_RATE = f'{LOGGED}, kind="learning_rate"'

SERIES = "job, run, stage, metric, granularity"
"""The labels that distinguish the metrics of a run, apart from the rank."""

RANK = "job, run, rank"
RUN = "job, run"


def losses(runs: str, *, stage: str = "") -> str:
    """Select losses: by GOAL and unit, else by their names.

    Args:
        runs: Matchers for the runs, and optionally for ranks.
        stage: A further matcher.
    """
    more = f"{runs}, {CHOSEN}" + (f", {stage}" if stage else "")
    return f'{{{LOGGED}, kind="loss", {more}}}'


def durations(matchers: str, moment: str = "") -> str:
    """Select durations, in seconds. The unit is in the name, or in a label if it is guessed.

    Args:
        matchers: Which of them.
        moment: An offset or a modifier such as ``@ end()``.
    """

    def of(unit: str, name: str) -> str:
        duration = f'kind="duration", {matchers}'
        return (
            f'{{__name__=~"dl_(.+_)?{name}", unit="", {duration}}}{moment}'
            f' or {{{LOGGED}, unit="{unit}", {duration}}}{moment}'
        )

    return (
        f"({of('s', 'seconds')} or ({of('ms', 'milliseconds')}) / 1000"
        f" or ({of('us', 'microseconds')}) / 1000000)"
    )


def in_total(matchers: str, *, by: str) -> str:
    """Return the throughput of runs: the sum over ranks, or the median if each logs the run's.

    Args:
        matchers: Which of it.
        by: The labels to keep.
    """
    of_run = quantile(0.5, f'{{{THROUGHPUT}, scope="global", {matchers}}}', by=by)
    return f'{of_run} or sum by ({by}) ({{{THROUGHPUT}, scope!="global", {matchers}}})'


RECENT = "[$__rate_interval]"
"""A window over the latest scrapes before each point."""

OF_RANGE = "[$__range] @ end()"
"""A window over the whole time range, the same at each point."""


def rate(counter: str, matchers: str, window: str = RECENT, *, by: str = RANK) -> str:
    """Return the increase of a counter per second, across restarts and changes of port.

    Args:
        counter: Its name.
        matchers: Which of its series.
        window: The time window.
        by: The labels to keep.
    """
    return f"sum by ({by}) (rate({counter}{{{matchers}}}{window}))"


def step_time(matchers: str, window: str = RECENT) -> str:
    """Return seconds per training step of each rank; a rank without steps has none.

    Args:
        matchers: Which ranks.
        window: The time window.
    """
    return (
        f"({rate('dllogger_step_seconds_total', matchers, window)}"
        f" / ({rate('dllogger_steps_total', matchers, window)} > 0))"
    )


def over_median(expression: str) -> str:
    """Divide the values of ranks by the median over the ranks of their run.

    Args:
        expression: One value per rank.
    """
    return f"({expression} / on ({RUN}) group_left () {quantile(0.5, expression, by=RUN)})"


def quantile(share: float, expression: str, *, by: str = SERIES) -> str:
    """Return a quantile over ranks.

    Args:
        share: From 0 to 1.
        expression: One value per rank.
        by: The labels to keep.
    """
    return f"quantile by ({by}) ({share:g}, {expression})"


def slowest(matchers: str) -> str:
    """Return the k ranks of a run whose steps took longest over the time range."""
    return f"topk by ({RUN}) ($worst, {step_time(matchers, OF_RANGE)})"


def of_the_slowest(expression: str, matchers: str) -> str:
    """Keep the series of the k slowest ranks: k lines, however many ranks there are."""
    return f"{expression} and on ({RANK}) {slowest(matchers)}"


def last(metric: str, matchers: str) -> str:
    """Return the last value of a metric in the time range, also for ranks that are gone."""
    return f"last_over_time({metric}{{{matchers}}}[$__range])"


def best(matchers: str, *, by: str) -> str:
    """Return the best value of each metric with a goal, over all attempts of a run.

    A process that starts again, on the same port or another one, knows only its own best.

    Args:
        matchers: Which ranks and metrics.
        by: The labels to keep: with ``rank``, the best of each rank.
    """

    def extreme(function: str, goal: str) -> str:
        series = f'dllogger_best{{{matchers}, goal="{goal}"}}[$__range]'
        return f"{function} by ({by}) ({function}_over_time({series}))"

    return f"({extreme('min', 'minimize')} or {extreme('max', 'maximize')})"


def count(counter: str, matchers: str, window: str, *, by: str) -> str:
    """Return how often something was counted, including the value that a counter began with.

    It is the counter's own difference: ``increase`` extrapolates, so that one NaN becomes two, and
    does not see what was counted before the first scrape, which is when torn lines and many NaNs
    are counted. It is taken, rounded, only for a counter that another process began again.

    Args:
        counter: Its name.
        matchers: Which of its series.
        window: The time window.
        by: The labels to keep.
    """
    series = f"{counter}{{{matchers}}}[{window}]"
    now, before = f"last_over_time({series})", f"last_over_time({series} offset {window})"
    grown = f"{now} - ({before} <= {now})"
    began = f"{now} unless {before} <= {now}"
    again = f"round(increase({series}) and resets({series}) > 0)"
    return f"sum by ({by}) ({again} or ({grown}) or ({began}))"


def state(matchers: str) -> str:
    """Return the state of each run.

    It is 0 while a rank trains, 1 if its ranks have finished, 3 if SIGTERM or SIGINT told all of
    them to end, and 2 if a rank of it is gone without either. A rank that was told to end after
    others had finished belongs to their end.
    """
    finished, terminated = (f"dllogger_run_{word}" for word in ("finished", "terminated"))
    now = f"min by ({RUN}) ({finished}{{{matchers}}} + 3 * {terminated}{{{matchers}}})"
    at_last = f"min by ({RUN}) ({last(finished, matchers)} + 3 * {last(terminated, matchers)})"
    return f"{now} or {at_last} > 0 or 2 + {at_last}"


def ended(matchers: str, window: str = "[$__range]") -> str:
    """Return 1 for each rank that has finished or was told to end.

    Args:
        matchers: Which ranks.
        window: For how long a rank that is gone is remembered.
    """
    words = [
        f"max by ({RANK}) (last_over_time(dllogger_run_{word}{{{matchers}}}{window})) == 1"
        for word in ("finished", "terminated")
    ]
    return f"({' or '.join(words)})"


def steps(matchers: str) -> str:
    """Return the training steps of each rank that has any: in many scripts only one rank logs."""
    return f"(max by ({RANK}) (dllogger_steps_total{{{matchers}}}) > 0)"


def age(matchers: str, window: str = "[1h]") -> str:
    """Return seconds since the last record of each rank that trains, and has not ended.

    A rank that is gone grows older as well. Those that only logged their parameters, as all but
    rank 0 in many scripts, say nothing about the training.

    Args:
        matchers: Which ranks.
        window: For how long a rank that is gone is remembered.
    """

    def last(metric: str) -> str:
        return f"last_over_time({metric}{{{matchers}}}{window})"

    return (
        f"time() - (max by ({RANK}) ({last('dllogger_last_log_timestamp_seconds')})"
        f" and on ({RANK}) ({last('dllogger_iteration')} or {last('dllogger_epoch')})"
        f" unless on ({RANK}) {ended(matchers, window)})"
    )


def logged_step(matchers: str) -> str:
    """Return how far each run is: its iteration, or the steps of its furthest process.

    The iteration is that of the script, and a run that continues from a checkpoint continues it.
    Where iterations begin again with each epoch, fewer were logged than steps were made.

    Args:
        matchers: Which runs.
    """
    made = f"max by ({RUN}) ({steps(matchers)})"
    iteration = f"max by ({RUN}) (dllogger_iteration{{{matchers}}})"
    return f"({iteration} > on ({RUN}) {made} or {made})"
