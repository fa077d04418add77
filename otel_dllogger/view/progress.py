"""The training of one rank that counts: what was done again after a failure is taken out.

A run that fails goes on from a checkpoint, so the steps after that were made for nothing. The
steps that are logged again say which they are: training is a stack of stretches, and a process
that goes on from an earlier step cuts off what lies beyond it.
"""

from __future__ import annotations

_MAX_STRETCHES = 1_000


class Progress:
    """The training of one rank, in stretches whose steps follow each other.

    Attributes:
        kept_us: The training time that counts, microseconds.
        lost_us: The training time of steps that were done again, microseconds.
        lost_steps: How many steps were done again.
    """

    __slots__ = ("_stretches", "kept_us", "lost_steps", "lost_us")

    def __init__(self) -> None:
        self._stretches: list[tuple[float, float, int]] = []  # first step, last step, time
        self.kept_us = 0
        self.lost_us = 0
        self.lost_steps = 0.0

    @property
    def is_empty(self) -> bool:
        """Return whether nothing is known of any step."""
        return not self._stretches

    @property
    def end(self) -> float:
        """Return the last step, 0 if there is none."""
        return self._stretches[-1][1] if self._stretches else 0.0

    def begin(self, step: float) -> None:
        """Begin a stretch.

        Args:
            step: Its first step.
        """
        self._stretches.append((step, step, 0))
        if len(self._stretches) > _MAX_STRETCHES:
            (first, _, time_us), (_, last, more_us) = self._stretches[:2]
            self._stretches[:2] = [(first, last, time_us + more_us)]

    def extend(self, step: float, time_us: int) -> None:
        """Go on with the last stretch.

        Args:
            step: How far it came.
            time_us: The training time since it was extended last, microseconds.
        """
        if not self._stretches:
            self.begin(step)
        first, last, before_us = self._stretches[-1]
        self._stretches[-1] = (first, max(step, last), before_us + time_us)
        self.kept_us += time_us

    def cut_to_step(self, step: float) -> None:
        """Take out the steps after one, which are done again."""
        self.lost_steps += max(self.end - step, 0.0)
        stretches = self._stretches
        while stretches and stretches[-1][1] > step:
            first, last, time_us = stretches.pop()
            if first < step:
                self._keep(first, step, time_us, round(time_us * ((step - first) / (last - first))))
                return
            self._lose(time_us)

    def cut_to_time(self, kept_us: int) -> None:
        """Take out the latest training, until as much is left as there was at a checkpoint.

        Args:
            kept_us: What ``kept_us`` was then.
        """
        stretches, end = self._stretches, self.end
        while stretches and self.kept_us > kept_us:
            first, last, time_us = stretches.pop()
            before_us = self.kept_us - time_us
            if before_us < kept_us:
                part_us = kept_us - before_us
                step = first + (last - first) * (part_us / time_us)
                self._keep(first, step, time_us, part_us)
            else:
                self._lose(time_us)
        self.lost_steps += max(end - self.end, 0.0)

    def _keep(self, first: float, last: float, time_us: int, part_us: int) -> None:
        self._stretches.append((first, last, part_us))
        self._lose(time_us - part_us)

    def _lose(self, time_us: int) -> None:
        self.kept_us -= time_us
        self.lost_us += time_us
