"""``otel-dllogger stacks``: where the ranks of this host stand."""

from __future__ import annotations

import dataclasses
import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import click

from otel_dllogger.cli.stacks.places import format_ranks, groups_of, place_of
from otel_dllogger.cli.stacks.py_spy import LookError, find_program, look
from otel_dllogger.cli.stacks.ranks_here import RankHere, find_ranks, world_size_of
from otel_dllogger.cli.terminal import EXIT_CODE, UserError, note
from otel_dllogger.errors import count_of, installing, printable

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from otel_dllogger.cli.stacks.py_spy import Look, Thread

EXIT_SOME_MISSING = 1

_PID = re.compile("[0-9]{1,10}")
_AT_ONCE = 8
_MOST_SHOWN = 5


@dataclasses.dataclass(frozen=True, slots=True)
class StacksOptions:
    """The options of ``stacks``.

    Attributes:
        target: A process or a run.
        folder: The discovery folder, None for those that ranks take by default.
        is_native: Whether to include frames of native code.
        is_full: Whether to print all frames of all threads.
    """

    target: str
    folder: Path | None = None
    is_native: bool = False
    is_full: bool = False


def show_stacks(options: StacksOptions) -> int:
    """Print where the ranks stand.

    Returns:
        The exit code.

    Raises:
        UserError: If there is nothing to look at, or py-spy is missing.
    """
    program = find_program()
    if program is None:
        raise UserError(f"this needs py-spy: {installing('stacks')}")
    ranks = find_ranks(options.folder)
    of_run = [one for one in ranks if one.run == options.target]
    if not of_run and _PID.fullmatch(options.target):
        return _show_process(program, int(options.target), ranks, options)
    if not of_run:
        raise UserError(_no_run(options.target, ranks))
    here = sorted((one for one in of_run if one.is_here), key=lambda one: one.rank)
    if not here:
        hosts = ", ".join(sorted({printable(one.host) for one in of_run})[:_MOST_SHOWN])
        raise UserError(
            f"no rank of run {printable(options.target)} can be looked at from here: "
            f"{count_of(len(of_run), 'rank')} on {hosts}; run this there, in the same container"
        )
    return _show_run(program, here, options)


def _show_process(program: str, pid: int, ranks: Iterable[RankHere], options: StacksOptions) -> int:
    whose = next((one for one in ranks if one.is_here and one.pid == pid), None)
    name = f"process {pid}"
    if whose is not None:
        name = f"rank {whose.rank} of run {printable(whose.run)} ({name})"
    try:
        seen = look(program, pid, is_native=options.is_native)
    except LookError as error:
        raise UserError(printable(str(error))) from None
    click.echo(f"{name}: {printable(place_of(seen))}")
    if options.is_full:
        _print_threads(seen.threads)
    return 0


def _show_run(program: str, here: list[RankHere], options: StacksOptions) -> int:
    def look_at(rank: RankHere) -> Look | LookError:
        try:
            return look(program, rank.pid, is_native=options.is_native)
        except LookError as error:
            return error

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        looks = dict(zip(here, pool.map(look_at, here), strict=True))
    seen = {rank: found for rank, found in looks.items() if not isinstance(found, LookError)}
    for group in groups_of({rank.rank: place_of(found) for rank, found in seen.items()}):
        click.echo(f"{format_ranks(group.ranks)}: {printable(group.place)}")
    if options.is_full:
        for rank, found in seen.items():
            click.echo(f"\nrank {rank.rank} (process {rank.pid})")
            _print_threads(found.threads)
    for rank, missed in looks.items():
        if isinstance(missed, LookError):
            note(f"rank {rank.rank}: {printable(str(missed))}")
    _note_others(here, options.target)
    return (0 if len(seen) == len(looks) else EXIT_SOME_MISSING) if seen else EXIT_CODE


def _note_others(here: list[RankHere], run: str) -> None:
    """Say how many ranks of a run were not looked at, as far as that is known."""
    sizes = [size for size in (world_size_of(one.pid) for one in here) if size is not None]
    others = max(sizes, default=0) - len(here)
    if others > 0:
        verb = "is" if others == 1 else "are"
        note(
            f"{count_of(others, 'rank')} of run {printable(run)} {verb} not known here, and "
            "may be on other hosts or in other containers: run this there as well"
        )


def _no_run(target: str, ranks: list[RankHere]) -> str:
    names = sorted({printable(one.run) for one in ranks if one.is_here})
    shown = ", ".join(names[:_MOST_SHOWN]) + (", ..." if len(names) > _MOST_SHOWN else "")
    known = f"the runs here are {shown}" if names else "no run is known here"
    return (
        f"no run {printable(target)!r} on this host: {known}; pass one of these, the pid of a "
        "process, or --discovery-dir with the folder in which its ranks announce themselves"
    )


def _print_threads(threads: Iterable[Thread]) -> None:
    for thread in threads:
        holds = ", holds the GIL" if thread.holds_gil else ""
        click.echo(f"  thread {printable(thread.name) or 'without a name'}{holds}")
        for frame in thread.frames:
            line = f":{frame.line}" if frame.line else ""
            click.echo(f"    {printable(frame.function)} ({printable(frame.path)}{line})")
