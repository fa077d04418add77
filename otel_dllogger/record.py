"""The entries that flow from a source to the backends, and what a step means."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from otel_dllogger.values import convert, is_finite, key_text, to_number, to_plain

if TYPE_CHECKING:
    from collections.abc import Mapping

ITERATION = "iteration"
EPOCH = "epoch"
VALIDATION = "validation"
RUN = "run"

GRANULARITIES = (RUN, EPOCH, ITERATION, VALIDATION)
"""The kinds of step, in the order of the length of the step's tuple."""

_PARAMETER_STEPS = frozenset(("PARAMETER", "PARAMETERS", "HPARAM", "HPARAMS", "HYPERPARAMETERS"))


Place = tuple[float | None, float | None] | tuple[()]
"""Epoch and iteration, each None if the step does not contain it; empty for the whole run."""


class Position(NamedTuple):
    """The place of a step in the training.

    Attributes:
        granularity: ``iteration``, ``epoch``, ``validation`` or ``run``.
        place: Epoch and iteration; ``()`` for the summary of the run.
    """

    granularity: str
    place: Place


def step_position(step: object) -> Position:
    """Read a step as DLLogger's documentation defines it.

    ``()`` is the summary of the run, ``(epoch,)`` the summary of an epoch, ``(epoch, iteration)``
    a training iteration, ``(epoch, iteration, validation_iteration)`` a validation iteration,
    and a bare number an iteration; an epoch that is None is not known. Text other than a number
    ("event", "infer") belongs to the run as a whole. A tuple that begins with text, such as
    ``("Calibration", 3)``, keeps the granularity of its length but has neither epoch nor iteration.
    What a rank's records show may change a tuple's meaning (``metrics.steps``).

    Args:
        step: What the user passed as ``step``; lists count as tuples.
    """
    kind = type(step)
    if kind is not tuple and issubclass(kind, (tuple, list)):
        step = to_plain(step)  # an object of a user's class may have methods of its own
    if type(step) is tuple or type(step) is list:
        length = len(step)
        if not length:
            return Position(RUN, ())
        granularity = GRANULARITIES[length] if length < len(GRANULARITIES) else VALIDATION
        epoch = _coordinate(step[0])
        if length == 1 or (epoch is None and step[0] is not None):
            return Position(granularity, (epoch, None))
        return Position(granularity, (epoch, _coordinate(step[1])))
    iteration = _coordinate(step)
    return Position(RUN if iteration is None else ITERATION, (None, iteration))


def _coordinate(value: object) -> float | None:
    """Return a finite number for an int, a float, a numpy integer or numeric text."""
    number = to_number(to_plain(value))
    return number if number is not None and is_finite(number) else None


def parse_rank(value: object) -> int | None:
    """Return the rank that a record names in its data, or None if the value is not a rank.

    If it is not, the record belongs to the rank of the process, or of the file.

    Args:
        value: The value of ``rank`` in the data: a whole number from 0, in any form that
            ``to_number`` reads, or TCAP DLLogger's -1 for a single card, which is rank 0.
    """
    plain = to_plain(value)
    number = None if isinstance(plain, bool) else to_number(plain)
    if number is None or not number.is_integer() or number < -1:
        return None
    return max(int(number), 0)


def is_parameter_step(step: object) -> bool:
    """Return whether a step marks hyper-parameters, as ``"PARAMETER"`` does."""
    return type(step) is str and step.strip().upper() in _PARAMETER_STEPS


class Timed:
    """The two times of an entry, in the forms that DLLogger's backends take."""

    __slots__ = ()
    time_us: int
    elapsed_us: int

    @property
    def timestamp(self) -> datetime:
        """Return the time of the call as a naive local datetime, as DLLogger passes it."""
        return datetime.fromtimestamp(self.time_us / 1e6)  # noqa: DTZ006 - naive by contract

    @property
    def elapsed_s(self) -> float:
        """Return the seconds from the creation of the Logger to the call."""
        return self.elapsed_us / 1e6


class Record(Timed):
    """One ``log`` call.

    The data are converted once for all backends, when the first of them asks. The result belongs
    to the record alone: the user may go on changing the data, and no method of a logged value is
    called later.

    Args:
        time_us: Microseconds since the Unix epoch, by the wall clock.
        elapsed_us: Microseconds since the Logger was made, by the monotonic clock.
        step: The step as the user passed it.
        data: The data as the user passed them.

    Attributes:
        is_pair: Whether the step is what it nearly always is, two ints: epoch and iteration.
    """

    # The class is not frozen, since freezing alone costs a microsecond.
    #
    # Class attributes until they are known, and so no slots: setting eight attributes would cost
    # more than setting five. ``values`` has the fields of ``Values``, once ``convert`` has been
    # called: a bare tuple, since an instance of a class takes several times as long to create.
    # ``encoded`` is the data as JSON, once ``encode_record`` has been called.
    values: tuple[Any, Mapping[str, float], bool, bool] | None = None
    encoded: bytes | None = None
    _position: Position | None = None

    def __init__(self, time_us: int, elapsed_us: int, step: Any, data: Any) -> None:
        self.time_us = time_us
        self.elapsed_us = elapsed_us
        self.step = step
        self.data = data
        self.is_pair = (
            type(step) is tuple and len(step) == 2 and type(step[0]) is int is type(step[1])
        )

    def convert(self) -> tuple[Any, Mapping[str, float], bool, bool]:
        """Convert the data, unless that was done before, and return the fields of ``Values``."""
        values = self.values
        if values is None:
            values = self.values = convert(self.data)
        return values

    @property
    def plain(self) -> Any:
        """Return a JSON-able copy of the data; a mapping becomes a dict whose keys are text."""
        return self.convert()[0]

    @property
    def numbers(self) -> Mapping[str, float]:
        """Return the metrics in the data by name, NaN and Inf included."""
        return self.convert()[1]

    @property
    def numbers_only(self) -> bool:
        """Return whether the data are a dict of finite numbers and nothing else."""
        plain, numbers, _finite, _flat = self.convert()
        return plain is numbers

    @property
    def is_parameter(self) -> bool:
        """Return whether the record holds hyper-parameters rather than the values of a step."""
        return not self.is_pair and is_parameter_step(self.step)

    @property
    def position(self) -> Position:
        """Return the place of the step in the training; the step is parsed only once."""
        if self._position is None:
            self._position = step_position(self.step)
        return self._position

    def reposition(self, granularity: str) -> Position:
        """Note of which kind the step is after all, and return its position."""
        self._position = Position(granularity, self.position.place)
        return self._position

    @property
    def granularity(self) -> str:
        """Return the kind of the step: ``iteration``, ``epoch``, ``validation`` or ``run``."""
        return ITERATION if self.is_pair else self.position.granularity

    def detach(self) -> Record:
        """Return a copy for the metrics that contains nothing that the user may change."""
        plain, numbers, finite, flat = self.convert()
        step = self.step if type(self.step) is str else to_plain(self.step)
        detached = Record(self.time_us, self.elapsed_us, step, None)
        detached.values = (plain if self.is_parameter else {}, numbers, finite, flat)
        return detached


@dataclasses.dataclass(frozen=True, slots=True)
class Metadata(Timed):
    """One ``metadata`` call.

    Attributes:
        time_us: Microseconds since the Unix epoch.
        elapsed_us: Microseconds since the Logger was created.
        metric: The metric's name as the user passed it.
        metadata: The metadata as the user passed it.
    """

    time_us: int
    elapsed_us: int
    metric: Any
    metadata: Any

    @property
    def name(self) -> str:
        """Return the metric's name as text, in the same form as in a record."""
        return key_text(self.metric)

    @property
    def plain(self) -> Any:
        """Return a JSON-able copy of the metadata, a dict unless the user passed something else."""
        return to_plain(self.metadata)

    def detach(self) -> Metadata:
        """Return a copy that contains nothing that the user may change."""
        return Metadata(self.time_us, self.elapsed_us, self.name, self.plain)


@dataclasses.dataclass(frozen=True, slots=True)
class Info(Timed):
    """One ``info`` call of TCAP DLLogger.

    Attributes:
        time_us: Microseconds since the Unix epoch.
        elapsed_us: Microseconds since the Logger was made.
        data: A string, a dict or an argparse Namespace, as the user passed it.
    """

    time_us: int
    elapsed_us: int
    data: Any

    @property
    def plain(self) -> Any:
        """Return a JSON-able copy of the data; text stays as it is."""
        return self.data if type(self.data) is str else convert(self.data).plain

    def detach(self) -> Info:
        """Return a copy that contains nothing that the user may change."""
        return Info(self.time_us, self.elapsed_us, self.plain)


OK, ERROR, INTERRUPTED, OPEN = "ok", "error", "interrupted", "open"
"""The outcomes of a phase: it ended, by an ``Exception``, by another ``BaseException`` such as
KeyboardInterrupt, or not yet."""

OUTCOMES = (OK, ERROR, INTERRUPTED)
"""The outcomes of a phase that ended."""

HANG = "hang"
"""The event that the stacks of a rank were written, since it logged nothing for too long."""


class Phase(Timed):
    """A phase that ended, or one in which something is logged before it ends.

    Args:
        time_us: When it ended or was announced, microseconds since the Unix epoch.
        elapsed_us: The same by the monotonic clock, microseconds since the Logger was made.
        name: What the process did.
        duration_us: Microseconds since it began.
        self_us: Those of them in which no inner phase was open.
        outcome: One of ``OUTCOMES``; ``OPEN`` for a phase that is announced before a record in it.
        step: The step as the user passed it, None if none was.
        is_overlapping: Whether it ran beside the training loop, on another thread.
    """

    # Not a dataclass, since a frozen one takes a microsecond longer.
    __slots__ = (
        "duration_us",
        "elapsed_us",
        "is_overlapping",
        "name",
        "outcome",
        "self_us",
        "step",
        "time_us",
    )

    def __init__(  # noqa: PLR0917 - keywords would take longer
        self,
        time_us: int,
        elapsed_us: int,
        name: str,
        duration_us: int,
        self_us: int,
        outcome: str = OK,
        step: Any = None,
        is_overlapping: bool = False,
    ) -> None:
        self.time_us = time_us
        self.elapsed_us = elapsed_us
        self.name = name
        self.duration_us = duration_us
        self.self_us = self_us
        self.outcome = outcome
        self.step = step
        self.is_overlapping = is_overlapping

    def detach(self) -> Phase:
        """Return a copy that contains nothing that the user may change."""
        return Phase(
            self.time_us,
            self.elapsed_us,
            self.name,
            self.duration_us,
            self.self_us,
            self.outcome,
            to_plain(self.step),
            self.is_overlapping,
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Event(Timed):
    """One ``event`` call.

    Attributes:
        time_us: Microseconds since the Unix epoch.
        elapsed_us: Microseconds since the Logger was made.
        name: What happened, as text.
        data: What is known of it, as the user passed it.
        step: The step as the user passed it, None if none was.
    """

    time_us: int
    elapsed_us: int
    name: str
    data: Any = None
    step: Any = None

    @property
    def plain(self) -> Any:
        """Return a JSON-able copy of the data; None if there are none."""
        return None if self.data is None else convert(self.data).plain

    def detach(self) -> Event:
        """Return a copy that contains nothing that the user may change."""
        return Event(self.time_us, self.elapsed_us, self.name, self.plain, to_plain(self.step))


@dataclasses.dataclass(frozen=True, slots=True)
class SeriesMetadata:
    """What is known about a metric from a source other than its own ``metadata`` call.

    Attributes:
        key: The name of its series in records.
        name: The name under which they were logged.
        metadata: Everything known about them so far, in the form of DLLogger's metadata:
            ``unit``, ``GOAL``, ``STAGE``. A store treats it like a later METADATA entry.
    """

    key: str
    name: str
    metadata: dict[str, Any]


Entry = Record | Metadata | Info | Phase | Event
"""What a Logger passes to its backends for one call."""


def microseconds(timestamp: datetime) -> int:
    """Return a naive local or an aware datetime as microseconds since the Unix epoch."""
    return round(timestamp.timestamp() * 1e6)
