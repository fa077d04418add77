"""Statistics at the top of a module, where another process finds them."""

from __future__ import annotations


def spread(history, window):
    """Return the greatest less the least of the last values."""
    return history.max(window) - history.min(window)
