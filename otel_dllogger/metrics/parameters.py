"""Hyper-parameters by name, without those that are nobody's business."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_DEPTH = 8
"""Levels of nesting that are looked into."""


def open_parameters(plain: object) -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested parameters as ``optimizer.lr``, lists and secrets left out.

    A parameter whose name speaks of a secret is left out as a whole. Where a secret stands
    within a text, as in a command line or a URL, ``[redacted]`` takes its place.

    Args:
        plain: Converted data; anything but a dict has no parameters.
    """
    from otel_dllogger.redaction import redact, redact_forms  # noqa: PLC0415 - 5 ms
    from otel_dllogger.secret_names import is_secret_name  # noqa: PLC0415 - as above

    for name, value in _leaves(plain, "", 0):
        if not is_secret_name(name, value):
            yield redact_forms(name), redact(value) if isinstance(value, str) else value


def _leaves(plain: object, prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    if not isinstance(plain, dict) or depth >= MAX_DEPTH:
        return
    for key, value in plain.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.", depth + 1)
        elif not isinstance(value, list):
            yield f"{prefix}{key}", value
