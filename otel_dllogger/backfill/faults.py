"""What ends a backfill before its end."""

from __future__ import annotations


class BackfillError(Exception):
    """Say in one line what is wrong and what to do next; the backfill can be run again."""
