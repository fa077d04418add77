"""The place of each record on an axis of training steps that never starts again at 0.

Many scripts log ``(epoch, iteration)`` with an iteration that counts from 0 in each epoch. Their
epochs are laid one after the other. A run that was continued from a checkpoint does some of its
steps again: these get their old places, in a segment of their own.
"""

from __future__ import annotations

from otel_dllogger.metrics.internal import in_range

_MAX_EPOCHS = 10_000
_EXACT = 2**53
_GREATEST = 1e300
"""The greatest step, so that the difference of any two is a float; plots take many of them."""


class StepAxis:
    """The axis of one rank.

    Attributes:
        x: The place of the last training step.
        segment: How many times the rank was started, or went back to an earlier step, before.
        epochs: Where each epoch begins: its first place, and its number.
    """

    __slots__ = (
        "_base",
        "_epoch",
        "_iteration",
        "_offset",
        "_offsets",
        "_stride",
        "epochs",
        "segment",
        "x",
    )

    def __init__(self) -> None:
        self._epoch: float | None = None
        self._iteration: float | None = None
        self._stride = 1.0
        self._offset = 0.0
        self._offsets: dict[float, float] = {}  # of the iterations of each epoch
        self._base: float | None = None  # the place of the first step of this process
        self.x = 0.0
        self.segment = 0
        self.epochs: list[tuple[float, float]] = []

    @property
    def has_iterations(self) -> bool:
        """Return whether a record with an iteration was seen."""
        return self._iteration is not None

    def start(self) -> None:
        """Note that another process begins."""
        self._base = None
        if self._iteration is not None or self.epochs:
            self.segment += 1

    def move(self, epoch: float | None, iteration: float | None) -> None:
        """Note the step of a training record.

        Args:
            epoch: Its epoch, None if it has none.
            iteration: Its iteration, None if it has none.
        """
        last = self._iteration
        if (
            last is not None
            and epoch == self._epoch
            and type(iteration) is int
            and last < iteration < _EXACT
            and (epoch is None or self.epochs[-1][1] == epoch)
        ):  # the next step of the same epoch, as nearly always
            self._stride = iteration - last
            self._iteration = float(iteration)
            self.x = self._offset + iteration
            return
        epoch = None if epoch is None else _bounded(epoch)
        if iteration is None:
            if epoch is not None:
                self._enter(epoch)
                if self._iteration is None:
                    self._go_to(epoch)
            return
        iteration = _bounded(iteration)
        if last is not None:
            self._choose_offset(epoch, iteration, last)
            if iteration > last:
                self._stride = iteration - last
        self._place(epoch, iteration)

    def find(self, epoch: float | None, iteration: float | None) -> float | None:
        """Return the place of a step, None if that cannot be told."""
        if iteration is None:
            return epoch if self._iteration is None else None
        offset = self._offset if epoch is None else self._offsets.get(_bounded(epoch))
        return None if offset is None else offset + _bounded(iteration)

    def follow(self, epoch: float | None, iteration: float | None, steps: float) -> None:
        """Note the step of a page, which is read now and then and not from the beginning.

        Whole epochs may pass between two readings, so what the process counted says how far it is.

        Args:
            epoch: Its epoch, None if it has none.
            iteration: Its iteration, None if it has none.
            steps: How many steps its process has made.
        """
        if epoch is None or iteration is None:
            self.move(epoch, iteration)
            return
        epoch, iteration = _bounded(epoch), _bounded(iteration)
        known = self._offsets.get(epoch)
        if known is not None:
            self._offset = known
        else:
            base = self.x if self._base is None else self._base
            self._offset = max(base + _bounded(steps) - 1 - iteration, 0.0)
        self._place(epoch, iteration)
        if self._base is None:
            self._base = self.x - (_bounded(steps) - 1)

    def _place(self, epoch: float | None, iteration: float) -> None:
        self._go_to(self._offset + iteration)
        if epoch is not None:
            self._enter(epoch)
            if len(self._offsets) < _MAX_EPOCHS:
                self._offsets.setdefault(epoch, self._offset)
            self._epoch = epoch
        self._iteration = iteration

    def _choose_offset(self, epoch: float | None, iteration: float, last: float) -> None:
        if epoch is None or self._epoch is None or epoch == self._epoch:
            return
        known = self._offsets.get(epoch)
        if known is not None:
            self._offset = known
        elif epoch > self._epoch and iteration <= last:  # it counts from 0 again
            self._offset = self.x + self._stride - iteration
        elif epoch < self._epoch:  # back to an epoch that was not seen
            self._offset = min(self._offsets.values(), default=0.0)

    def _go_to(self, x: float) -> None:
        x = _bounded(x)
        if x < self.x:
            self.segment += 1
        self.x = x

    def _enter(self, epoch: float) -> None:
        if self.epochs and self.epochs[-1][1] == epoch:
            return
        while self.epochs and self.epochs[-1][0] > self.x:  # these are done again
            self.epochs.pop()
        if self.epochs and self.epochs[-1][0] == self.x:
            self.epochs[-1] = (self.x, epoch)
        elif not self.epochs or self.epochs[-1][1] != epoch:
            self.epochs.append((self.x, epoch))
        if len(self.epochs) > _MAX_EPOCHS:
            del self.epochs[1::2]


def _bounded(step: float) -> float:
    """Return a step, which may be an int of any size, as a float within the bounds of the axis."""
    return min(max(in_range(step), -_GREATEST), _GREATEST)
