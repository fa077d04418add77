"""Measure and print the tables of the documentation: ``python -m benchmarks [TABLE]...``."""

from __future__ import annotations

import argparse
import platform
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import (
    backfill,
    follow,
    import_time,
    live_page,
    log_call,
    memory,
    otlp,
    page,
    parsers,
    phases,
    reading,
    training,
    training_rate,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmarks that were asked for, and print Markdown."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure what logging, reading logs and showing runs cost, and print Markdown.",
    )
    parser.add_argument(
        "tables",
        metavar="TABLE",
        nargs="*",
        help=f"what to measure, by default everything: {', '.join(TABLES)}",
    )
    tables = parser.parse_args(arguments).tables
    for table in tables:
        if table not in TABLES:
            parser.error(f"there is no table {table!r}; choose from {', '.join(TABLES)}")
    print(
        f"Python {platform.python_version()}, {platform.machine()}; medians of interleaved rounds"
    )
    for name, measure in TABLES.items():
        if not tables or name in tables:
            print()
            measure()


def _print_log_call() -> None:
    """Print the cost of logging and of the import."""
    with tempfile.TemporaryDirectory() as folder:
        rows, faster = log_call.run(Path(folder))
    print("| one `log` of ten values | us a call | of the baseline | target |")
    print("|---|---:|---:|---:|")
    for name, us, ratio, target in rows:
        wanted = "" if target is None else f"at most {target:g}"
        print(f"| {name} | {us:.2f} | {ratio:.2f} | {wanted} |")
    print(
        f"\nJSON + Prometheus is {faster:.1f} times as fast as the baseline with ten OpenTelemetry "
        f"`Gauge.set` (target: at least {log_call.OTEL_TARGET:g})."
    )
    growth_kib = memory.growth_bytes() / 1024
    print(f"Resident memory over {memory.CALLS:,} calls: {growth_kib:+,.0f} KiB.")
    print(
        f"`import otel_dllogger`: {import_time.import_ms():.0f} ms "
        f"(target: under {import_time.TARGET_MS:g})."
    )


def _print_live_page() -> None:
    """Print the cost of showing a run to many."""
    page = live_page.run()
    print(
        f"A live page of {live_page.RANKS} ranks, {live_page.METRICS} metrics and "
        f"{live_page.STEPS:,} steps opens in {page.open_s:.1f} s (target: under "
        f"{live_page.OPEN_TARGET_S:g}). While {live_page.PAGES} of them are open: "
        f"{page.cpu:.2f} cores ({live_page.CPU_TARGET:g}), updates within {page.lag_s:.1f} s "
        f"({live_page.LAG_TARGET_S:g}), {page.memory_mib:.0f} MiB "
        f"({live_page.MEMORY_TARGET_MIB:g}), {page.event_kib:.0f} KiB an update."
    )


def _print_log_files() -> None:
    """Print the cost of reading and following other people's logs."""
    print("| log lines read | lines/s | target |")
    print("|---|---:|---:|")
    for name, rate, target in parsers.run():
        print(f"| {name} | {rate:,.0f} | {'' if target is None else f'at least {target:,}'} |")
    with tempfile.TemporaryDirectory() as folder:
        growth = follow.growth(Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        poll_ms, _ = follow.discovery_ms(Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        ours, plain = follow.reading_rate(Path(folder))
    print(
        f"\nA file that is there is followed at {ours:,.0f} MB/s, {ours / plain:.2f} of Python's "
        "own loop over its lines."
    )
    print(
        f"\n{follow.FILES:,} files that grow by {follow.LINES_A_SECOND} lines/s: lag p99 "
        f"{growth.lag_p99_s:.2f} s (target: {follow.LAG_TARGET_S:g}), {growth.cpu:.2f} cores "
        f"({follow.CPU_TARGET:g}), {growth.descriptors} descriptors ({follow.DESCRIPTORS_TARGET})."
    )
    print(
        f"A poll of {follow.DISCOVERED_FILES:,} files at rest: {poll_ms:.0f} ms "
        f"(target: {follow.DISCOVERY_TARGET_MS:g})."
    )
    with tempfile.TemporaryDirectory() as folder:
        kib_a_second, kib_a_line = follow.written_kib_a_second(Path(folder))
    print(
        f"`bridge --otlp` with {follow.DELIVERED_FILES} files, of which one gets a line "
        f"{follow.DELIVERED_LINES_A_SECOND} times a second: {kib_a_second:,.0f} KiB/s written, "
        f"{kib_a_line:,.0f} KiB a line."
    )


TABLES = {
    "training-rate": training_rate.main,
    "log-call": _print_log_call,
    "phases": phases.main,
    "otlp": otlp.main,
    "training": training.main,
    "log-files": _print_log_files,
    "page": page.main,
    "backfill": backfill.main,
    "reading": reading.main,
    "live-page": _print_live_page,
}
"""What can be measured, in the order of the whole output."""


if __name__ == "__main__":
    main()
