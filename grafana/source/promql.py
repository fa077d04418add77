"""PromQL that several panels share.

The dashboards ask the metrics themselves, not the recording rules, so that they work on
any Prometheus that scrapes the ranks. Every expression aggregates over ``instance``: a rank
that was restarted on another port is the same rank.
"""

from __future__ import annotations

RUNS = 'job=~"$job", run=~"$run"'
"""Matchers for the runs that are chosen."""

RANKS = f'{RUNS}, rank=~"$rank"'
"""Matchers for the ranks that are chosen."""

CHOSEN = 'metric=~"$metric", stage=~"$stage", granularity=~"$granularity"'
"""Matchers for the metrics that are chosen."""

LOGGED = '__name__=~"dl_.+"'
"""A matcher for everything that was logged, and nothing that the package knows itself."""

THROUGHPUT = (
    '__name__=~"dl_.+_per_second|dl_(.+_)?(ips|fps|throughput)|dl_.+_per_s(ec)?", goal!="minimize"'
)
"""Matchers for what was logged with a unit per second; or, without metadata, is named so."""

SERIES = "job, run, stage, metric, granularity"
"""What tells the metrics of a run apart, whatever the rank."""

RANK = "job, run, rank"
RUN = "job, run"

_UNITS = "seconds|milliseconds|microseconds|nanoseconds|minutes|hours|percent|bytes|per_second"


def losses(runs: str, *, stage: str = "") -> str:
    """Select what a run wants small and what is no time or size: losses, perplexity, errors.

    Scripts without metadata are served by the name: what contains ``loss`` is one.

    Args:
        runs: Matchers for the runs, and ranks if wanted.
        stage: A further matcher.
    """
    more = f"{runs}, {CHOSEN}" + (f", {stage}" if stage else "")
    return (
        f'({{{LOGGED}, __name__!~"dl_.+_({_UNITS})", goal="minimize", {more}}}'
        f' or {{__name__=~"dl_.*loss.*", {more}}})'
    )


RECENT = "[$__rate_interval]"
"""The scrapes up to each moment."""

OF_RANGE = "[$__range] @ end()"
"""The time that is looked at, the same window at each of its moments."""


def rate(counter: str, matchers: str, window: str = RECENT, *, by: str = RANK) -> str:
    """Return the increase of a counter per second, restarts and ports aside.

    Args:
        counter: Its name.
        matchers: Which series of it.
        window: Over which time.
        by: What to tell apart.
    """
    return f"sum by ({by}) (rate({counter}{{{matchers}}}{window}))"


def step_time(matchers: str, window: str = RECENT) -> str:
    """Return seconds per training step of each rank; a rank without steps has none.

    Args:
        matchers: Which ranks.
        window: Over which time.
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
        by: What to tell apart.
    """
    return f"quantile by ({by}) ({share:g}, {expression})"


def slowest(matchers: str) -> str:
    """Return the k ranks of a run whose steps took longest over the time looked at."""
    return f"topk by ({RUN}) ($worst, {step_time(matchers, OF_RANGE)})"


def of_the_slowest(expression: str, matchers: str) -> str:
    """Keep what belongs to the k slowest ranks: k lines, however many ranks there are."""
    return f"{expression} and on ({RANK}) {slowest(matchers)}"


def last(metric: str, matchers: str) -> str:
    """Return what a metric was last, over the time looked at: of what is over or gone as well."""
    return f"last_over_time({metric}{{{matchers}}}[$__range])"


def count(counter: str, matchers: str, window: str, *, by: str) -> str:
    """Return how often something was counted, what a counter began with included.

    ``increase`` does not see what was counted before the first scrape, which is where torn
    lines and many a NaN are. A counter that was not there in the window before began in this
    one.

    Args:
        counter: Its name.
        matchers: Which series of it.
        window: Over which time.
        by: What to tell apart.
    """
    series = f"{counter}{{{matchers}}}[{window}]"
    grown = f"sum by ({by}) (increase({series}))"
    first = (
        f"sum by ({by}) (min_over_time({series}) unless last_over_time({series} offset {window}))"
    )
    return f"round(({grown} or 0 * {first}) + ({first} or 0 * {grown}))"


def finished(matchers: str) -> str:
    """Return for each run 0 while it trains, 1 when it is over, 2 when it is gone otherwise."""
    ended = f"min by ({RUN}) ({last('dllogger_run_finished', matchers)})"
    return (
        f"min by ({RUN}) (dllogger_run_finished{{{matchers}}}) or {ended} == 1 or 2 + 0 * {ended}"
    )


def steps(matchers: str) -> str:
    """Return the training steps of each rank that makes any: in many scripts one rank logs."""
    return f"(max by ({RANK}) (dllogger_steps_total{{{matchers}}}) > 0)"


def age(matchers: str) -> str:
    """Return seconds since the last record of each rank of a run that is not over."""
    return (
        f"time() - (max by ({RANK}) (dllogger_last_log_timestamp_seconds{{{matchers}}})"
        f" unless on ({RANK}) (max by ({RANK}) (dllogger_run_finished{{{matchers}}}) == 1))"
    )
