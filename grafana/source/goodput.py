"""Panels on where the time of a run went: see ``docs/explanation/goodput.md``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana.source.graphs import figure, stack
from grafana.source.panels import GREEN, RED, YELLOW, About, Query
from grafana.source.promql import RANK, RANKS, RUN, RUNS
from grafana.source.tables import Column, matrix, rows

if TYPE_CHECKING:
    from grafana.source.sdk import Builder, models

_SHORT = (
    "Of a time range with fewer than 40 scrapes, which are 10 minutes, `otel-dllogger report` "
    "knows more."
)
STEPS = ((None, RED), (0.5, YELLOW), (0.8, GREEN))
"""Colours of a goodput: a guess, since what is usual differs from cluster to cluster."""


def share(part: str) -> str:
    """Return a share of the time of a run, over the time range.

    Args:
        part: A matcher for the part.
    """
    return f"sum by ({RUN}) ({_shares(part)})"


def _shares(part: str = "") -> str:
    """Return the shares of all parts, or of one, over the time range."""
    time = f"sum_over_time(run:dllogger_time:rate5m{{{RUNS}%s}}[$__range])"
    chosen, every = (time % more for more in (part and f", {part}", ""))
    return (
        f"clamp_min({chosen}, 0) / on ({RUN}) group_left () sum by ({RUN}) (clamp_min({every}, 0))"
    )


def where_the_time_went() -> list[Builder[models.Panel]]:
    """Return the panels of a run."""
    return [
        figure(
            About(
                "Goodput",
                "Of the time of all ranks in the time range, the share that was training that "
                "counts: not waiting, in no other phase, and not done again after a restart. "
                f"{_SHORT}",
                unit="percentunit",
                steps=STEPS,
                decimals=1,
                nothing="not measured",
            ),
            Query(share('part="productive"'), "{{run}}"),
            height=9,
            instant=True,
        ),
        stack(
            About(
                "Where the time went",
                "The time of all ranks by what it was, as a mean over five minutes. Productive: "
                "training; redone: training that was lost by a restart and done again; blocked: "
                "waiting for a checkpoint, a validation or the restoring of another rank; waiting: "
                "for the slowest rank, in phases named communication; stalled: what a step took "
                "beyond ten times the usual; down: ranks that are missing; other: what nobody has "
                "logged, such as a rank that hangs. Time counts when its phase or step has ended: "
                "until then it is blocked where a rank is waited for, else other.",
                unit="percentunit",
                minimum=0,
                nothing="not measured",
            ),
            Query(f"run:dllogger_time:ratio{{{RUNS}}}", "{{part}}{{phase}} {{run}}"),
            width=12,
        ),
        rows(
            About(
                "Shares",
                "The same over the time range: it adds up to 100 %. What was not measured is not "
                f"there. {_SHORT}",
                nothing="not measured",
            ),
            [Query(f"sort_desc({_shares()} > 0)")],
            [
                Column("part", "Part", width=110),
                Column("phase", "Phase", width=130),
                Column("Value", "Share", unit="percentunit", decimals=1),
                Column("run", "Run"),
            ],
            sort_by="Share",
            hidden=("job",),
            width=8,
        ),
    ]


def of_ranks() -> Builder[models.Panel]:
    """Return a table of the phases of the chosen ranks."""
    time = f"sum_over_time(rank:dllogger_phase_seconds_total:rate5m{{{RANKS}}}[$__range])"
    return matrix(
        About(
            "Where the time of the chosen ranks went",
            "The share of each phase in what the rank has logged of its time, over the time range. "
            "The rank with the least communication is the one that others wait for. " + _SHORT,
            unit="percentunit",
            decimals=1,
            nothing="not measured",
        ),
        Query(f"{time} / on ({RANK}) group_left () sum by ({RANK}) ({time})"),
        row="rank",
        column="phase",
        width=24,
        height=7,
    )
