"""Format a series, and the header of a metric, in Prometheus' text formats.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/ and
https://prometheus.io/docs/specs/om/open_metrics_spec/
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


def format_series(name: str, labels: Iterable[tuple[str, str]]) -> str:
    """Return a series as in text formats and queries, ``name{label="value"}``.

    Args:
        name: The Prometheus name.
        labels: Names and values, in the order in which they are written.
    """
    pairs = ",".join(f'{label}="{value.translate(_ESCAPES)}"' for label, value in labels)
    return f"{name}{{{pairs}}}" if pairs else name


def format_head(name: str, kind: str, text: str, unit: str, *, open_metrics: bool) -> str:
    """Return the lines that come before the series of a metric.

    Args:
        name: The Prometheus name; that of a counter includes ``_total``.
        kind: ``gauge``, ``counter``, ``histogram`` or, in OpenMetrics, ``unknown``.
        text: The description, without quotation marks, which only OpenMetrics escapes.
        unit: The unit with which the Prometheus name ends, ``seconds``; empty if there is none.
        open_metrics: Whether the format is OpenMetrics, which has counters without ``_total``,
            and units.
    """
    if open_metrics and kind == "counter":
        name = name.removesuffix("_total")
    head = f"# HELP {name} {text.translate(_ESCAPES)}\n# TYPE {name} {kind}\n"
    if open_metrics and unit and name.endswith(f"_{unit}"):
        head += f"# UNIT {name} {unit}\n"
    return head
