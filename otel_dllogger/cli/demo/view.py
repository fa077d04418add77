"""The demo's table: one row per rank, redrawn as the pages change."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from otel_dllogger.cli.demo.ranks import Rank, age_s

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

_SLOW_BELOW = 0.75
"""The share of the median throughput below which a rank is called slow."""

_COLOURS = {"training": "green", "finished": "cyan", "starting": "dim", "stopping": "yellow"}


def draw(
    ranks: Sequence[Rank],
    *,
    elapsed_s: float,
    total_s: float,
    notes: Sequence[str] = (),
    bar: bool = True,
) -> RenderableType:
    """Draw the ranks, their progress, and a few lines below.

    Args:
        ranks: The ranks, with their last readings.
        elapsed_s: Seconds since the training began.
        total_s: Seconds that it takes.
        notes: The lines below.
        bar: Whether to draw the progress as a bar, or else in a line of text.
    """
    elapsed_s = min(elapsed_s, total_s)
    clock = f"{elapsed_s:.0f} of {total_s:.0f} s"
    progress: RenderableType = Text(clock)
    if bar:
        row = Table.grid(padding=(0, 2))
        row.add_row(ProgressBar(total=total_s, completed=elapsed_s, width=48), clock)
        progress = row
    return Group(_table(ranks), progress, *(Text(note) for note in notes))


def _table(ranks: Sequence[Rank]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1))
    for title in ("rank", "epoch", "step", "loss", "samples/s", "last log", "NaN"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    rates = [rank.reading.samples_per_s for rank in ranks if rank.runs]
    typical = median([rate for rate in rates if rate is not None] or [0.0])
    for rank in ranks:
        _add_row(table, rank, typical)
    return table


def _add_row(table: Table, rank: Rank, typical: float) -> None:
    reading = rank.reading
    state = rank.state()
    slow = (
        state == "training"
        and reading.samples_per_s is not None
        and reading.samples_per_s < _SLOW_BELOW * typical
    )
    style = "bold red" if rank.died else "yellow" if slow else _COLOURS.get(state, "")
    age = age_s(reading) if rank.runs else None
    loss = _number(reading.loss, ".4f")
    if reading.loss is None and reading.nonfinite:
        loss = "NaN"
    table.add_row(
        str(rank.number),
        _number(reading.epoch, ".0f"),
        _number(reading.iteration, ".0f"),
        loss,
        _number(reading.samples_per_s, ",.0f"),
        "-" if age is None else f"{age:.1f} s ago",
        Text(f"{reading.nonfinite:.0f}", "bold red" if reading.nonfinite else ""),
        Text(f"{state}, slow" if slow else state, style),
    )


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
