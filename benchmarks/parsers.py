"""Lines per second that the parser of each format reads, compared with the JSON decoder alone.

Processor time is measured, since the machines are shared. The results are medians over rounds in
which all cases take turns.
"""

from __future__ import annotations

import gc
import json
import random
import statistics
import time
from typing import TYPE_CHECKING

from orjson import loads

from otel_dllogger.logs.parsers.context import FileContext
from otel_dllogger.logs.parsers.detect import parse_line

if TYPE_CHECKING:
    from collections.abc import Callable

TARGETS = {
    "DLLogger JSON": 150_000,
    "TCAP JSON": 30_000,
    "DLLogger text": 60_000,
    "TCAP text": 60_000,
}
"""The least lines per second."""

ROUNDS = 15
LINES = 4_000
DECODER = "orjson.loads of DLLogger's lines"

_TIMES = '"timestamp": "{0}.842053", "datetime": "2019-10-10 14:15:21.842053+00:00"'
_NAMES = ("train.loss", "train.total_ips", "train.data_time", "train.compute_time")


def run() -> list[tuple[str, float, int | None]]:
    """Measure all formats.

    Returns:
        Rows of (case, lines per second, least wanted).
    """
    logs = _logs()
    cases: dict[str, Callable[[], object]] = {
        DECODER: lambda: [loads(line[5:]) for line in logs["DLLogger JSON"]]
    }
    for name, lines in logs.items():
        cases[name] = _parse(lines)
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(ROUNDS + 1):
        for name, call in cases.items():
            gc.collect()
            start_s = time.process_time()
            call()
            seconds[name].append(time.process_time() - start_s)
    return [
        (name, LINES / statistics.median(times[1:]), TARGETS.get(name))
        for name, times in seconds.items()
    ]


def _parse(lines: list[bytes]) -> Callable[[], object]:
    def parse() -> None:
        context = FileContext(zone="UTC", name="vis_data/scalars.json")
        for line in lines:
            parse_line(line, context)
        if context.skips:
            raise AssertionError(f"these lines are good, but: {context.skipped}")

    return parse


def _logs() -> dict[str, list[bytes]]:
    """Return a log in each format, with four values per line."""
    values = random.Random(1)
    lines: dict[str, list[str]] = {}
    for number in range(LINES):
        data = {name: values.uniform(0, 1000) for name in _NAMES}
        step = f'"type": "LOG", "step": [1, {number}], "data"'
        times = _TIMES.format(1570716921 + number)
        elapsed = f'"elapsedtime": "{number}.5"'
        diverged = json.dumps({**data, "train.loss": float("nan")})
        text = repr({name: str(value) for name, value in data.items()})
        pairs = " ".join(f"{name} : {value} s" for name, value in data.items())
        printed = " ".join(f"{name} : {value} " for name, value in data.items())
        by_hand = " ".join(f"{name}: {value} s" for name, value in data.items())
        mmengine = "  ".join(f"{name}: {value:.4f}" for name, value in data.items())
        for name, line in {
            "DLLogger JSON": f"DLLL {{{times}, {elapsed}, {step}: {json.dumps(data)}}}",
            "DLLogger JSON, no elapsedtime": f"DLLL {{{times}, {step}: {json.dumps(data)}}}",
            "DLLogger JSON, NaN": f"DLLL {{{times}, {elapsed}, {step}: {diverged}}}",
            "DLLogger text": f"DLL 2019-10-10 14:15:21.842053 - (1, {number}) {pairs}",
            "TCAP text": (
                f"TCAPPDLL 2019-10-10 14:15:21.842053 - Epoch: 1 Iteration: {number}  {printed}"
            ),
            "TCAP text, by hand": (
                f"TCAPPDLL 2019-10-10 14:15:21.842053 - Epoch: 1 Iteration: {number}  {by_hand}"
            ),
            "TCAP JSON": f"TCAPPDLL {{{times}, {elapsed}, {step}: {json.dumps(text)}}}",
            "TCAP JSON, None among the data": (
                f"TCAPPDLL {{{times}, {step}: {json.dumps(text.replace('}', ', 7: None}'))}}}"
            ),
            "MMEngine text": (
                "2019/10/10 14:15:21 - mmengine - INFO - "
                f"Epoch(train) [1][{number}/{LINES}]  lr: 1.0e-02  eta: 0:00:09  {mmengine}"
            ),
            "MMEngine scalars": json.dumps({**data, "iter": number, "step": number}),
        }.items():
            lines.setdefault(name, []).append(f"{line}\n")
    return {name: [line.encode() for line in log] for name, log in lines.items()}


def main() -> None:
    """Measure and print Markdown."""
    print("| one line of four values | lines a second | target |")
    print("|---|---:|---:|")
    for name, rate, target in run():
        wanted = "" if target is None else f"at least {target:,}"
        print(f"| {name} | {rate:,.0f} | {wanted} |")


if __name__ == "__main__":
    main()
