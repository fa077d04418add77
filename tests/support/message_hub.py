"""A helper of the tests of MessageHub."""

from __future__ import annotations


def data_of(hub, key):
    """Return a scalar's values and counts as lists."""
    values, counts = hub.get_scalar(key).data
    return values.tolist(), counts.tolist()
