"""How long a silence is a hang, by how often a rank logs."""

from __future__ import annotations

from collections import deque

LEAST_LIMIT_S, MOST_LIMIT_S = 60.0, 300.0
"""The shortest and the longest limit, in seconds: PyTorch ends a process that hangs after 480."""

_INTERVALS = 10
_SLOW_INTERVALS = 2  # a guess, for those who log once in minutes: one interval is not a hang
_LEAST_GAPS = 5
_MOST_GAPS = 100


class UsualInterval:
    """The usual interval between records, as far as looks at certain times show it."""

    def __init__(self) -> None:
        self._gaps_s: deque[float] = deque(maxlen=_MOST_GAPS)

    def add(self, gap_s: float) -> None:
        """Note the time between two looks that found something new, in seconds."""
        self._gaps_s.append(gap_s)

    def limit_s(self) -> float:
        """Return how long a silence is a hang: ten usual intervals, but 1 to 5 minutes.

        Where two intervals take longer than that, as for those who log once per epoch, it is two.
        """
        gaps_s = sorted(self._gaps_s)
        if not gaps_s:
            return MOST_LIMIT_S
        usual_s = gaps_s[len(gaps_s) // 2]
        if len(gaps_s) < _LEAST_GAPS:
            return max(_SLOW_INTERVALS * usual_s, MOST_LIMIT_S)
        limit_s = min(max(_INTERVALS * usual_s, LEAST_LIMIT_S), MOST_LIMIT_S)
        return max(_SLOW_INTERVALS * usual_s, limit_s)
