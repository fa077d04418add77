"""The values that flow from a source to the backends, and what a step means."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import Any, NamedTuple

from otel_dllogger.values import Values, convert, to_number, to_plain

ITERATION = "iteration"
EPOCH = "epoch"
VALIDATION = "validation"
RUN = "run"

GRANULARITIES = (RUN, EPOCH, ITERATION, VALIDATION)
"""The kinds of step, in the order of a tuple's length."""

_PARAMETER_STEPS = frozenset(("PARAMETER", "PARAMETERS", "HPARAM", "HPARAMS", "HYPERPARAMETERS"))


Place = tuple[float | None, float | None] | tuple[()]
"""Epoch and iteration, each None where a step does not say it; empty for the whole run."""


class Position(NamedTuple):
    """Say where in the training a step is.

    Attributes:
        granularity: ``iteration``, ``epoch``, ``validation`` or ``run``.
        place: Epoch and iteration; ``()`` for the summary of the run.
    """

    granularity: str
    place: Place


def step_position(step: object) -> Position:
    """Read a step as DLLogger's documentation defines it.

    ``()`` is the summary of the run, ``(epoch,)`` of an epoch, ``(epoch, iteration)`` a
    training iteration, ``(epoch, iteration, validation_iteration)`` one of validation,
    and a bare number an iteration. Text other than a number ("event", "infer") belongs
    to the run as a whole. A tuple that begins with text, as ``("Calibration", 3)``,
    keeps the granularity of its length but says nothing about epoch and iteration.

    Args:
        step: What the user passed as ``step``; lists count as tuples.
    """
    kind = type(step)
    if kind is not tuple and issubclass(kind, (tuple, list)):
        step = to_plain(step)  # one of a class of the user's may have methods of its own
    if type(step) is tuple or type(step) is list:
        length = len(step)
        if not length:
            return Position(RUN, ())
        granularity = GRANULARITIES[length] if length < len(GRANULARITIES) else VALIDATION
        epoch = _coordinate(step[0])
        if epoch is None or length == 1:
            return Position(granularity, (epoch, None))
        return Position(granularity, (epoch, _coordinate(step[1])))
    iteration = _coordinate(step)
    return Position(RUN if iteration is None else ITERATION, (None, iteration))


def _coordinate(value: object) -> float | None:
    """Return a finite number for an int, a float, a numpy integer or numeric text."""
    number = to_number(to_plain(value))
    return number if number is not None and number - number == 0.0 else None


def parse_rank(value: object) -> int | None:
    """Return the rank that a record names among its data, None where that is not a rank.

    The rank of such a record is then the process's own, or the file's.

    Args:
        value: What the data hold as ``rank``: a whole number from 0, in any form that
            ``to_number`` reads, or TCAP DLLogger's -1 for a single card, which is rank 0.
    """
    plain = to_plain(value)
    number = None if isinstance(plain, bool) else to_number(plain)
    if number is None or not number.is_integer() or number < -1:
        return None
    return max(int(number), 0)


def is_parameter_step(step: object) -> bool:
    """Tell whether a step marks hyper-parameters, as ``"PARAMETER"`` does."""
    return type(step) is str and step.strip().upper() in _PARAMETER_STEPS


class Timed:
    """Give the two times of an entry in the forms of DLLogger's backends."""

    __slots__ = ()
    time_us: int
    elapsed_us: int

    @property
    def timestamp(self) -> datetime:
        """Return the time of the call as a naive local datetime, as DLLogger passes it."""
        return datetime.fromtimestamp(self.time_us / 1e6)  # noqa: DTZ006 - naive by contract

    @property
    def elapsed_s(self) -> float:
        """Return the seconds since the Logger was made."""
        return self.elapsed_us / 1e6


class Record(Timed):
    """Hold one ``log`` call. Not frozen, since freezing alone costs a microsecond.

    What was logged is converted once, by the first backend that asks, and only as far
    as it asks. What it is converted to is the record's own: the user may go on changing the
    data, and no method of a logged value is called later.

    Attributes:
        time_us: Microseconds since the Unix epoch, by the wall clock.
        elapsed_us: Microseconds since the Logger was made, by the monotonic clock.
        step: The step exactly as the user passed it.
        data: The data as the user passed it, or an equal copy if they are numbers only.
        is_pair: Whether the step is what it nearly always is, two ints: epoch, iteration.
        values: The converted data, once ``convert`` was called.
        encoded: The data as JSON, once ``encode_record`` was called.
        numbers_only: Whether encoding found a dict of finite numbers and nothing else.
    """

    # Of the class until they are known: no slots, since setting seven costs more than four.
    values: Values | None = None
    encoded: bytes | None = None
    numbers_only = False

    def __init__(self, time_us: int, elapsed_us: int, step: Any, data: Any) -> None:
        self.time_us = time_us
        self.elapsed_us = elapsed_us
        self.step = step
        self.data = data
        self.is_pair = (
            type(step) is tuple and len(step) == 2 and type(step[0]) is int is type(step[1])
        )

    def convert(self) -> Values:
        """Convert the data, once for all backends."""
        values = self.values
        if values is None:
            if self.numbers_only:
                values = Values(self.data, self.data, True, True)
            else:
                values = convert(self.data)
            self.values = values
        return values


@dataclasses.dataclass(frozen=True, slots=True)
class Metadata(Timed):
    """Hold one ``metadata`` call.

    Attributes:
        time_us: Microseconds since the Unix epoch.
        elapsed_us: Microseconds since the Logger was made.
        metric: The metric's name as the user passed it.
        metadata: The metadata as the user passed it.
    """

    time_us: int
    elapsed_us: int
    metric: Any
    metadata: Any


@dataclasses.dataclass(frozen=True, slots=True)
class Info(Timed):
    """Hold one ``info`` call of TCAP DLLogger.

    Attributes:
        time_us: Microseconds since the Unix epoch.
        elapsed_us: Microseconds since the Logger was made.
        data: A string, a dict or an argparse Namespace, as the user passed it.
    """

    time_us: int
    elapsed_us: int
    data: Any


def microseconds(timestamp: datetime) -> int:
    """Return a naive local or an aware datetime as microseconds since the Unix epoch."""
    return round(timestamp.timestamp() * 1e6)
