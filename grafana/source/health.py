"""Panels on the state of runs, and on what watches them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana.source.graphs import figure
from grafana.source.panels import BLUE, GREEN, RED, STATES, YELLOW, About, Query
from grafana.source.promql import RUNS, last
from grafana.source.tables import Column, rows

if TYPE_CHECKING:
    from grafana.source.sdk import Builder, models

SEVERITIES = (("critical", "critical", RED), ("warning", "warning", YELLOW), ("info", "info", BLUE))


def run_state() -> Builder[models.Panel]:
    """Return a panel with the state of the run."""
    return figure(
        About(
            "State",
            "Training while any rank trains; finished if all ranks logged the run's summary or "
            "closed; terminated if SIGTERM or SIGINT told them to end, as scancel, preemption and "
            "Ctrl-C do; vanished if no rank answers and one of them did neither; stalled if no "
            "rank logs any more. What happens between two scrapes is not seen: see linger_s in "
            "docs/reference/settings.md.",
            steps=((None, BLUE),),
            names=STATES,
            nothing="unknown",
        ),
        Query(last("run:dllogger_state:last1h"), "{{run}}"),
        instant=True,
    )


def rules_loaded() -> Builder[models.Panel]:
    """Return a panel that says whether Prometheus evaluates the rules that the panels read."""
    return figure(
        About(
            "Recording rules",
            "The panels show what Prometheus computes by the rules in prometheus/rules. If these "
            "are not loaded, most panels are empty: add them to rule_files, see "
            "docs/how-to/prometheus.md.",
            steps=((None, RED), (1, GREEN)),
            names=(("0", "NOT LOADED", RED), ("1", "loaded", GREEN)),
        ),
        Query("group(dllogger:threshold:stalled_seconds) or vector(0)", "rules"),
        instant=True,
    )


def alert_list(*, width: int = 24, height: int = 6) -> Builder[models.Panel]:
    """Return a table of the alerts of the chosen runs.

    It asks Prometheus: Grafana's own list of alerts needs to be told which of its data sources
    have any.

    Args:
        width: In columns of the dashboard, which has 24.
        height: In units of the dashboard's grid.
    """
    alerts = f'{{{RUNS}, alertstate="firing"}}'
    return rows(
        About(
            "Alerts",
            "The alerts that fire at the end of the time range, and since when. "
            "docs/reference/alerts.md says what each alert means and what to do.",
            nothing="No alert fires",
        ),
        [Query(f"1000 * ALERTS_FOR_STATE{{{RUNS}}} and ignoring (alertstate) ALERTS{alerts}")],
        [
            Column("alertname", "Alert"),
            Column("severity", "Severity", names=SEVERITIES),
            Column("run", "Run"),
            Column("rank", "Rank", width=70),
            Column("metric", "Metric"),
            Column("Value", "Since", unit="dateTimeFromNow"),
        ],
        sort_by="Since",
        hidden=(
            *("job", "host", "local_rank", "stage", "goal", "granularity", "reason", "unit"),
            *("kind", "scope"),
        ),
        width=width,
        height=height,
    )
