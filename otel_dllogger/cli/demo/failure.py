"""The failure of the demo: one rank is killed, and restarted as a launcher would do it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from otel_dllogger.cli.terminal import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_dllogger.cli.demo.ranks import Rank

_AT = 0.55
_LATEST = 0.7
"""The shares of the training time between which it happens: later, too little would follow."""

_DOWN_S = 4.0
_DOWN_SHARE = 1 / 15
"""How long the rank is away: seconds, or a share of the training time if that is less."""

_LOST_S = 1.2
"""Seconds of training that are lost at least: those since the checkpoint."""


class Failure:
    """The failure of the rank in the middle.

    Args:
        ranks: The ranks.
        seconds: How long they train.
    """

    def __init__(self, ranks: Sequence[Rank], seconds: float) -> None:
        self._rank = ranks[0] if len(ranks) < 3 else ranks[len(ranks) // 2]
        self._seconds = seconds
        self._down_s = min(_DOWN_S, _DOWN_SHARE * seconds)
        self._restart_s: float | None = None
        self._is_over = False

    @property
    def happened(self) -> bool:
        """Return whether the rank was killed."""
        return self._restart_s is not None

    def advance(self, passed_s: float) -> None:
        """Kill the rank or restart it, if it is time for that.

        Nothing happens to one that has not saved a checkpoint by then.

        Args:
            passed_s: Seconds since the training began.

        Raises:
            UserError: If it cannot be restarted.
        """
        if self._is_over:
            return
        if self._restart_s is not None:
            if passed_s >= self._restart_s:
                self._is_over = True
                try:
                    self._rank.restart(passed_s)
                except OSError as error:
                    raise UserError(
                        f"rank {self._rank.number} cannot be restarted: {error}; pass fewer --ranks"
                    ) from error
        elif passed_s > _LATEST * self._seconds:
            self._is_over = True
        elif passed_s > _AT * self._seconds and self._rank.runs and self._loses_steps():
            self._rank.fail()
            self._restart_s = passed_s + self._down_s

    def _loses_steps(self) -> bool:
        try:
            saved_s = self._rank.checkpoint.stat().st_mtime
        except FileNotFoundError:
            return False
        return time.time() - saved_s > _LOST_S
