"""Measure and print the tables of the README: ``python -m benchmarks``."""

from __future__ import annotations

import platform
import tempfile
from pathlib import Path

from benchmarks import import_time, log_call, memory


def main() -> None:
    """Run every benchmark and print Markdown."""
    print(
        f"Python {platform.python_version()}, {platform.machine()}; medians of interleaved rounds\n"
    )
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


if __name__ == "__main__":
    main()
