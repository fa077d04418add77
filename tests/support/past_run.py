"""Logs of a run that is over, as DLLogger writes them, with all that a report has to show."""

from __future__ import annotations

import json
import math
import random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

START_S = 1_760_000_000
METADATA = {
    "train.loss": {"GOAL": "MINIMIZE", "STAGE": "TRAIN"},
    "train.ips": {"unit": "imgs/s", "STAGE": "TRAIN", "GOAL": "MAXIMIZE"},
    "train.step_time": {"unit": "s", "STAGE": "TRAIN"},
    "train.lr": {"STAGE": "TRAIN"},
    "val.accuracy": {"STAGE": "VAL", "GOAL": "MAXIMIZE", "unit": "%"},
}
HOSTILE = "<img src=x onerror=alert(1)></script>"


class _Log:
    """One rank's log, whose processes start one after the other."""

    def __init__(self, path: Path) -> None:
        self._lines: list[str] = []
        self._path = path
        self.time_s = self.start_s = float(START_S)

    def start(self, time_s: float) -> None:
        self.time_s = self.start_s = time_s

    def write(self, kind: str, **fields: Any) -> None:
        entry = {
            "timestamp": f"{self.time_s:.6f}",
            "elapsedtime": f"{self.time_s - self.start_s:.6f}",
            "datetime": "x",
            "type": kind,
            **fields,
        }
        self._lines.append(f"DLLL {json.dumps(entry)}\n")

    def save(self) -> None:
        self._path.write_text("".join(self._lines))


def write_past_run(
    folder: Path,
    *,
    run: str = "resnet",
    ranks: int = 4,
    steps: int = 400,
    slow: int | None = 2,
    nan: int | None = 1,
    restart: bool = True,
    hostile: bool = False,
    extra: int = 0,
) -> None:
    """Write a log for each rank.

    Args:
        folder: Where to; it is made.
        run: The run's name.
        ranks: How many ranks.
        steps: Training steps.
        slow: The rank whose steps take twice as long.
        nan: The rank that meets NaN three times.
        restart: Whether all are started again from three quarters, and repeat a tenth.
        hostile: Whether metrics and parameters have names that a browser could take for HTML.
        extra: How many more metrics are logged in each step.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for rank in range(ranks):
        chance = random.Random(rank)
        log = _Log(folder / f"{run}_rank{rank}.json")
        for name, metadata in METADATA.items():
            log.write("METADATA", metric=name, metadata=metadata)
        parameters: dict[str, Any] = {"lr": 0.1, "batch_size": 256, "optimizer": "sgd"}
        if hostile:
            parameters |= {HOSTILE: 1, "note": HOSTILE}
        log.write("LOG", step="PARAMETER", data=parameters)
        passes = [(0, steps)]
        if restart:
            passes = [(0, steps * 3 // 4), (steps * 13 // 20, steps)]
        for number, (first, last) in enumerate(passes):
            if number:
                log.start(log.time_s + 90.0)
            log.time_s += 5.0
            for step in range(first, last):
                step_s = (0.52 if rank == slow else 0.25) * chance.uniform(0.95, 1.05)
                log.time_s += step_s
                loss = 0.3 + 2.5 * math.exp(-4 * step / steps) * chance.uniform(0.9, 1.1)
                if rank == nan and step in (steps // 2, steps // 2 + 1, steps - 20):
                    loss = math.nan
                data = {
                    "train.loss": loss,
                    "train.ips": 64 / step_s,
                    "train.step_time": step_s,
                    "train.lr": 0.1 * (1 - step / steps),
                }
                if hostile:
                    data[HOSTILE] = chance.random()
                for number_of in range(extra):
                    data[f"noise_{number_of:02}"] = chance.gauss(0, 1)
                log.write("LOG", step=[0, step], data=data)
                if step % (steps // 8) == 0 and rank == 0:
                    log.time_s += 2.0
                    accuracy = 100 * (1 - math.exp(-3 * step / steps))
                    log.write("LOG", step=[0], data={"val.accuracy": accuracy})
        log.write("LOG", step=[], data={"train.loss": 0.3})
        log.save()
