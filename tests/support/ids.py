"""Ids of parametrized tests that are the same in each process."""

from __future__ import annotations

import re


def repr_without_address(value: object) -> str:
    """Return the repr of a value without its address in memory."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))
