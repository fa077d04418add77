"""The time of one ``log`` call of ten values, by type of the values and by backends."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from benchmarks.baseline import BaselineLogger, BufferedJSONBackend
from benchmarks.measure import median_us
from otel_dllogger import JSONStreamBackend, Logger, PrometheusBackend

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

NAMES = [f"train.metric_{i}" for i in range(10)]
LABELS = {"run": "bench", "rank": "0", "stage": "train"}

TARGETS = {
    "JSON": 0.35,
    "JSON + Prometheus": 0.45,
    "JSON + Prometheus, 10 numpy scalars": 1.2,
    "JSON + Prometheus, 10 CPU tensors": 1.2,
}
"""The most time that each case may take, as a share of the baseline."""

OTEL_TARGET = 12.0
"""How many times faster than the baseline with ten ``Gauge.set`` a call must be at least."""


def run(folder: Path) -> tuple[list[tuple[str, float, float, float | None]], float]:
    """Measure all cases in one interleaved run.

    Args:
        folder: An empty folder for the log files.

    Returns:
        Rows of (case, microseconds per call, ratio to the baseline, most allowed), and how
        many times faster JSON + Prometheus is than baseline + OpenTelemetry's gauges.
    """
    values = random.Random(1)
    data = {name: values.uniform(0, 10) for name in NAMES}
    prometheus = PrometheusBackend(1, port=0, run="bench")
    goals = PrometheusBackend(1, port=0, run="bench-goals")
    loggers = {
        "JSON": Logger([JSONStreamBackend(1, folder / "json")]),
        "JSON + Prometheus": Logger([JSONStreamBackend(1, folder / "both"), prometheus]),
        "JSON + Prometheus, every metric with a GOAL": Logger(
            [JSONStreamBackend(1, folder / "goals"), goals]
        ),
    }
    for name in NAMES:
        loggers["JSON + Prometheus, every metric with a GOAL"].metadata(name, {"GOAL": "MINIMIZE"})
    baseline = BaselineLogger([BufferedJSONBackend(1, folder / "baseline")])
    cases: dict[str, Callable[[int], object]] = {
        "baseline": lambda i: baseline.log((1, i), data),
        "baseline + 10 OpenTelemetry Gauge.set": _baseline_and_gauges(folder, data),
    }
    for name, logger in loggers.items():
        cases[name] = _logs(logger, data)
    both = loggers["JSON + Prometheus"]
    for kind, values in _scalars(data).items():
        cases[f"JSON + Prometheus, 10 {kind}"] = _logs(both, values)
    times_us = median_us(cases)
    for logger in loggers.values():
        logger.close()
    base_us = times_us["baseline"]
    rows = [(name, us, us / base_us, TARGETS.get(name)) for name, us in times_us.items()]
    faster = times_us["baseline + 10 OpenTelemetry Gauge.set"] / times_us["JSON + Prometheus"]
    return rows, faster


def _logs(logger: Logger, data: Mapping[str, Any]) -> Callable[[int], object]:
    return lambda i: logger.log((1, i), data)


def _baseline_and_gauges(folder: Path, data: Mapping[str, float]) -> Callable[[int], object]:
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader  # noqa: PLC0415

    meter = MeterProvider([InMemoryMetricReader()]).get_meter("bench")
    gauges = [(meter.create_gauge(name.replace(".", "_")), name) for name in NAMES]
    logger = BaselineLogger([BufferedJSONBackend(1, folder / "gauges")])

    def log(i: int) -> None:
        logger.log((1, i), data)
        for gauge, name in gauges:
            gauge.set(data[name], LABELS)

    return log


def _scalars(data: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """Return the data as numpy scalars, and as tensors where torch is installed."""
    import numpy as np  # noqa: PLC0415

    kinds = {"numpy scalars": {name: np.float32(value) for name, value in data.items()}}
    try:
        import torch  # noqa: PLC0415
    except ImportError:
        return kinds
    kinds["CPU tensors"] = {name: torch.tensor(value) for name, value in data.items()}
    return kinds
