"""Fleet: all runs at a glance, those that need help first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana.source import goodput, overview, promql, variables
from grafana.source.board import add_row, new_board
from grafana.source.graphs import figure, lines
from grafana.source.health import alert_list, rules_loaded
from grafana.source.panels import BLUE, COUNT, GREEN, RED, STATES, YELLOW, About, Query
from grafana.source.promql import RUN, RUNS, each, last
from grafana.source.tables import Column, rows
from grafana.source.thresholds import STALLED_S

if TYPE_CHECKING:
    from grafana.source.sdk import Builder, dashboard, models

UID = "otel-dllogger-fleet"

_STATE = each(RUN, last("run:dllogger_state:last1h"))


def build() -> dashboard.Dashboard:
    """Return the dashboard with all runs."""
    board = new_board(
        "Fleet",
        UID,
        "All runs of the time range: which of them need help, how far they are, and how fast.",
        [variables.datasource(), variables.job(), variables.run(several=True)],
    )
    add_row(board, "Now", *_now())
    add_row(board, "Runs", _runs(), alert_list())
    add_row(board, "Over time", *_over_time())
    return board


def _now() -> list[Builder[models.Panel]]:
    return [
        *(
            figure(
                About(
                    f"Runs: {text}",
                    f'Runs whose state at the end of the time range is "{text}".',
                    steps=((None, color),)
                    if color in (BLUE, GREEN)
                    else ((None, GREEN), (1, color)),
                    unit=COUNT,
                    decimals=0,
                ),
                Query(f"count({_STATE} == {value}) or vector(0)", text),
                instant=True,
            )
            for value, text, color in STATES
        ),
        rules_loaded(),
    ]


def _firing(severity: str) -> str:
    alerts = f'ALERTS{{{RUNS}, alertstate="firing", severity="{severity}"}}'
    return f"sum by ({RUN}) ({alerts}) or on ({RUN}) 0 * {_STATE}"


def _runs() -> Builder[models.Panel]:
    """Return the table: each query has one value per run, or one with a name beside it."""
    loss = last("run:dl:median", f'{RUNS}, kind="loss", stage=~"train|"')
    throughput = f'run:dl:median{{{RUNS}, kind="throughput", stage=~"train|"}}'
    return rows(
        About(
            "Runs",
            "Every run of the time range, those with critical alerts first. If a run logs several "
            "training losses, the largest is shown, which is usually the total; it is the median "
            "over ranks. Throughput is the largest that is logged, as the median over ranks; with "
            "SCOPE global it is that of the whole run. Done and Left are estimates, from the "
            "parameters that say how long a run will be. Goodput is the share of the time of all "
            "ranks that was training that counts. A click on a run opens its overview.",
            nothing="No run in the time range",
        ),
        [
            Query(_STATE),
            Query(_firing("critical")),
            Query(_firing("warning")),
            Query(each(RUN, f"run:dllogger_ranks_up:count{{{RUNS}}} or on ({RUN}) 0 * {_STATE}")),
            Query(each(RUN, last("run:dllogger_world_size:max"))),
            Query(each(RUN, last("run:dllogger_progress:ratio"))),
            Query(each(RUN, f"run:dllogger_remaining_seconds:estimate{{{RUNS}}}")),
            Query(each(f"{RUN}, metric", f"topk by ({RUN}) (1, {loss})")),
            Query(each(f"{RUN}, unit, scope", f"topk by ({RUN}) (1, {throughput})")),
            Query(each(RUN, f"run:dllogger_silence_seconds:max{{{RUNS}}}")),
            Query(f"1000 * {promql.start()}"),
            Query(each(RUN, goodput.share('part="productive"'))),
        ],
        [
            Column(
                "run",
                "Run",
                link=f"/d/{overview.UID}?${{__url_time_range}}&var-datasource=${{datasource}}"
                "&var-job=${__data.fields.Job:percentencode}&var-run=${__value.text}",
            ),
            Column("Value #A", "State", names=STATES, width=110),
            Column("Value #B", "Critical", steps=((None, "transparent"), (1, RED)), width=100),
            Column("Value #C", "Warnings", steps=((None, "transparent"), (1, YELLOW)), width=115),
            Column("Value #D", "Ranks", unit=COUNT, width=85),
            Column("Value #E", "of", unit=COUNT, width=60),
            Column("Value #F", "Done", unit="percentunit", decimals=0, width=80),
            Column("Value #G", "Left", unit="s", width=90),
            Column(
                "Value #L",
                "Goodput",
                unit="percentunit",
                decimals=0,
                steps=((None, "transparent"), (0, RED), *goodput.STEPS[1:]),
                width=95,
            ),
            Column("metric", "Loss of"),
            Column("Value #H", "Loss", width=85),
            Column("Value #I", "Throughput", width=120),
            Column("unit", "in", width=95),
            Column("scope", "SCOPE", width=80),
            Column(
                "Value #J",
                "Last record",
                unit="s",
                steps=(
                    (None, "transparent"),
                    (0, GREEN),
                    (STALLED_S / 2, YELLOW),
                    (STALLED_S, RED),
                ),
                width=130,
            ),
            Column("Value #K", "Started", unit="dateTimeAsIso", width=175),
            Column("job", "Job"),
        ],
        sort_by=("Critical", "Warnings", "Last record", "Started"),
        width=24,
        height=12,
    )


def _over_time() -> list[Builder[models.Panel]]:
    return [
        lines(
            About(
                "Ranks",
                "Ranks that answer. A line that falls before its run has ended means that a rank "
                "was lost.",
                unit=COUNT,
                decimals=0,
                minimum=0,
            ),
            Query(f"run:dllogger_ranks_up:count{{{RUNS}}}", "{{run}}"),
            width=8,
        ),
        lines(
            About(
                "Step time",
                "Seconds per training step over five minutes, the median over ranks.",
                unit="s",
                minimum=0,
            ),
            Query(f"run:dllogger_step_seconds:median{{{RUNS}}}", "{{run}}"),
            width=8,
        ),
        lines(
            About(
                "Last record",
                "How long ago the quietest rank that trains logged anything.",
                unit="s",
                minimum=0,
                steps=((None, GREEN), (STALLED_S, RED)),
            ),
            Query(f"run:dllogger_silence_seconds:max{{{RUNS}}}", "{{run}}"),
            width=8,
        ),
    ]
