"""The history of one scalar, and statistics over its last values.

A drop-in for MMEngine's ``HistoryBuffer`` (``mmengine/logging/history_buffer.py`` 0.10.7):
the same arrays, the same results. What differs is the cost: an update takes the same time at
any length, and so does the mean over a window.

There is no lock. Updates wait in a dict until a reader needs them. The reader then makes longer
arrays with them, and replaces the previous arrays in one atomic step that only one reader can win.
A signal handler or another thread that comes in between starts from the same arrays and does the
same; whichever is too late starts over.
"""

from __future__ import annotations

import itertools
import pickle
import warnings
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np

from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.errors import MisuseError
from otel_dllogger.training.device import DeviceBlock, DeviceValue
from otel_dllogger.training.number_series import NumberSeries
from otel_dllogger.values import to_number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

_Method = TypeVar("_Method", bound="Callable[..., Any]")

_INT64 = 2**63

_MAX_NEW = 4096
"""Updates that may wait to be put into the arrays, unless they wait for a device."""


class _Kept:
    """The arrays of a history after some of its updates.

    Attributes:
        values: The values.
        counts: Their counts; None while all of them are 1.
        taken: How many updates there had been at that point.
        folded: The keys of the updates that are in these arrays and may still be in the dict.
        after: The arrays that replaced these, under the key None.
    """

    __slots__ = ("after", "counts", "folded", "taken", "values")

    def __init__(
        self,
        values: NumberSeries,
        counts: NumberSeries | None,
        taken: int,
        folded: Sequence[int] = (),
    ) -> None:
        self.values, self.counts, self.taken, self.folded = values, counts, taken, folded
        self.after: dict[None, _Kept] = {}


# What a running statistic reads, by the id of its history: one consistent state of it.
_READ: ContextVar[Mapping[int, _Kept]] = ContextVar("_READ", default={})  # noqa: B039 - never changed


class HistoryBuffer:
    """The values of a scalar, each with a count: the number of values that it is the sum of.

    Several threads may update and read one buffer.

    Args:
        log_history: The values so far.
        count_history: How many values each is the sum of, such as the batch size; one for each.
        max_length: How many values are kept; if there are more, the last ones.

    Raises:
        MisuseError: If there are not as many counts as values, or ``max_length`` is not a
            positive integer.

    Examples:
        >>> buffer = HistoryBuffer([1, 2, 3], [1, 1, 1])
        >>> buffer.update(4)
        >>> buffer.mean(2), buffer.max(), buffer.current()
        (np.float64(3.5), np.int64(4), np.int64(4))
    """

    _statistics_methods: ClassVar[dict[str, Callable[..., Any]]] = {}

    def __init__(
        self,
        log_history: Sequence[Any] | NDArray[Any] = (),
        count_history: Sequence[Any] | NDArray[Any] = (),
        max_length: int = 1_000_000,
    ) -> None:
        if len(log_history) != len(count_history):
            raise MisuseError(
                f"log_history has {len(log_history)} values, count_history {len(count_history)}: "
                "pass a count for each value"
            )
        if not isinstance(max_length, int) or max_length < 1:
            raise MisuseError(f"max_length={max_length!r} is not a whole number from 1 up")
        self.max_length = max_length
        if len(log_history) > max_length:
            warnings.warn(
                f"The length of history buffer({len(log_history)}) exceeds the "
                f"max_length({max_length}), the first few elements will be ignored.",
                stacklevel=2,
            )
        kept = slice(max(len(log_history) - max_length, 0), None)
        self._fill(np.array(log_history[kept]), np.array(count_history[kept]))

    def _fill(self, values: NDArray[Any], counts: NDArray[Any]) -> None:
        self._block: DeviceBlock | None = None
        # Updates that are not in the arrays yet, in order, under keys that are never used twice.
        self._new: dict[int, Any] = {}
        self._keys = itertools.count()
        self._most_new = _MAX_NEW
        self._marks: dict[str, int] = {}
        self._count_dtype = counts.dtype
        # Counts are nearly always 1; then there is no array for them.
        self._kept = _Kept(
            _series_of(values.copy()),
            None if np.all(counts == 1) else NumberSeries(counts.copy(), np.add),
            len(values),
        )

    def update(self, log_val: float, count: float = 1) -> None:
        """Add a value.

        Args:
            log_val: The value.
            count: How many values it is the sum of; a mean divides by the sum of the counts.

        Raises:
            TypeError: If one of them is not a number.
        """
        item: Any = log_val if type(log_val) is float else _number("log_val", log_val)
        if type(count) is not int or count != 1:
            item = (item, _number("count", count))
        new = self._new
        new[next(self._keys)] = item  # atomic, whatever other threads do
        if len(new) >= self._most_new:
            self._overflow()

    def update_on_device(self, value: Any, count: int = 1) -> None:
        """Add a value that an accelerator may not have computed yet, without waiting for it.

        Args:
            value: A tensor with one element; its present value is kept.
            count: As for ``update``.
        """
        block = self._block
        place = None if block is None else block.put(value)
        if block is None or place is None:
            block = DeviceBlock(value)
            place = block.put(value)
            if place is not None:
                self._block = block
        item = _number("value", value.item()) if place is None else DeviceValue(block, place)
        self._new[next(self._keys)] = (item, _number("count", count))
        if len(self._new) >= self._most_new:
            self._overflow()

    def mark(self, moment: str) -> None:
        """Note how many values there have been so far; copies and checkpoints keep the mark.

        Args:
            moment: The name of the mark, to pass to ``since``.
        """
        self._marks[moment] = self._updates()

    def since(self, moment: str | None = None) -> int:
        """Return how many values there have been since a mark, or in total.

        Values that are no longer kept count as well. Nothing is read from a device.

        Args:
            moment: What ``mark`` was called with; a mark that was never set is before all values.
        """
        return self._updates() - (0 if moment is None else self._marks.get(moment, 0))

    def _updates(self) -> int:
        kept, new = self._look()
        return kept.taken + len(new)

    @property
    def data(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the values and their counts."""
        kept = self._now()
        return self._values_of(kept), self._counts_of(kept)

    @property
    def _log_history(self) -> NDArray[Any]:
        """Return the values, for registered statistics."""
        return self._values_of(self._now())

    @property
    def _count_history(self) -> NDArray[Any]:
        """Return the counts, for registered statistics."""
        return self._counts_of(self._now())

    def _values_of(self, kept: _Kept) -> NDArray[Any]:
        return _read_only(kept.values.last(self._length(kept)))

    def _counts_of(self, kept: _Kept) -> NDArray[Any]:
        length = self._length(kept)
        if kept.counts is not None:
            return _read_only(kept.counts.last(length))
        return np.broadcast_to(np.ones((), self._count_dtype), length)

    @classmethod
    def register_statistics(cls, method: _Method) -> _Method:
        """Register a function as a statistic of all buffers, under its own name.

        Args:
            method: Called with the buffer and the arguments of ``statistics``. It reads
                ``self._log_history[-n:]`` and ``self._count_history[-n:]``, numpy arrays.

        Raises:
            MisuseError: If there is already a statistic of that name.
        """
        name = method.__name__
        if name in cls._statistics_methods:
            raise MisuseError(
                f"the statistic {name!r} cannot be registered twice: give the function another name"
            )
        cls._statistics_methods[name] = method
        return method

    @classmethod
    def find_statistics(cls, name: str) -> Callable[..., Any] | None:
        """Return the function of a statistic; None if there is none of that name."""
        return cls._statistics_methods.get(name)

    def statistics(self, method_name: str, *args: Any, **kwargs: Any) -> Any:
        """Return a statistic by name.

        Args:
            method_name: ``mean``, ``min``, ``max``, ``current``, or a registered one.
            *args: Its positional arguments.
            **kwargs: Its keyword arguments.

        Raises:
            KeyError: If there is no statistic of that name.
        """
        try:
            method = self._statistics_methods[method_name]
        except KeyError:
            known = ", ".join(self._statistics_methods)
            raise KeyError(
                f"{method_name!r} is not a statistic of HistoryBuffer: there are {known}; add "
                "others with @HistoryBuffer.register_statistics"
            ) from None
        return copy_context().run(self._call, method, self._now(), args, kwargs)

    def _call(
        self, method: Callable[..., Any], kept: _Kept, args: Any, kwargs: Mapping[str, Any]
    ) -> Any:
        """Call a statistic so that the values and the counts that it reads are of one state."""
        _READ.set({**_READ.get(), id(self): kept})  # in a context that ends with this call
        return method(self, *args, **kwargs)

    def mean(self, window_size: int | None = None) -> Any:
        """Return the sum of the last values divided by the sum of their counts.

        Args:
            window_size: How many; by default, or if there are fewer, all.

        Raises:
            MisuseError: If ``window_size`` is not an int.
        """
        kept = self._now()
        window = self._window(window_size, kept)
        total = kept.values.total(np.add, window)
        return total / (window if kept.counts is None else kept.counts.total(np.add, window))

    def max(self, window_size: int | None = None) -> Any:
        """Return the greatest of the last values; the arguments are those of ``mean``.

        Raises:
            MisuseError: If ``window_size`` is not an int.
            ValueError: If there are no values.
        """
        kept = self._now()
        return kept.values.total(np.maximum, self._window(window_size, kept))

    def min(self, window_size: int | None = None) -> Any:
        """Return the least of the last values; the arguments are those of ``mean``.

        Raises:
            MisuseError: If ``window_size`` is not an int.
            ValueError: If there are no values.
        """
        kept = self._now()
        return kept.values.total(np.minimum, self._window(window_size, kept))

    def current(self) -> Any:
        """Return the last value.

        Raises:
            ValueError: If there are no values.
        """
        kept = self._now()
        if not kept.values.length:
            raise ValueError(
                "HistoryBuffer._log_history is an empty array! please call update first"
            )
        return kept.values.last(1)[0]

    def __getstate__(self) -> dict[str, Any]:
        kept = self._now()
        return {
            "others": {k: v for k, v in self.__dict__.items() if k not in _OWN_ATTRIBUTES},
            "max_length": self.max_length,
            "updates": kept.taken,
            "marks": dict(self._marks),
            "log_history": self._values_of(kept).copy(),
            "count_history": self._counts_of(kept).copy(),
            "statistics_methods": _picklable(dict(self._statistics_methods)),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, method in state["statistics_methods"].items():
            self._statistics_methods.setdefault(name, method)
        self.__dict__.update(state["others"])  # attributes of a derived class
        self.max_length = state["max_length"]
        self._fill(state["log_history"], state["count_history"])
        self._kept.taken = state.get("updates", self._kept.taken)  # not in the first versions
        self._marks = state.get("marks", {})

    def _window(self, window_size: int | None, kept: _Kept) -> int:
        """Return how many of the last values count."""
        length = self._length(kept)
        if type(window_size) is int and 0 < window_size < length:
            return window_size
        if window_size is None:
            return length
        if not isinstance(window_size, int):
            raise MisuseError(
                f"window_size={window_size!r} is not an int: pass how many of the last values "
                "count, or None for all"
            )
        # As with slices: [-0:] is everything, [3:] is all but the first three.
        return min(window_size, length) if window_size > 0 else max(length + window_size, 0)

    def _length(self, kept: _Kept) -> int:
        """Return how many values count."""
        length = kept.values.length
        return length if length <= self.max_length else self.max_length  # noqa: FURB136 - faster

    def _now(self) -> _Kept:
        """Return the arrays with all updates; inside a statistic, those it was called with."""
        read = _READ.get().get(id(self))
        if read is not None:
            return read
        kept = self._kept
        if not self._new and not kept.after:
            return kept
        while True:
            kept, new = self._look()
            if not new:
                return kept
            # If this raises, for example because a device failed, the updates stay where they are.
            values, counts = self._extended(kept, new.values())
            after = _Kept(values, counts, kept.taken + len(new), (*kept.folded, *new))
            if self._put_in_place(kept, after):
                self._most_new = _MAX_NEW
                return after

    def _look(self) -> tuple[_Kept, dict[int, Any]]:
        """Return the arrays, and the updates that are not in them yet."""
        while True:
            kept = self._kept
            while kept.after:
                kept = kept.after[None]
            folded = kept.folded  # read first: it is emptied once they have left the dict
            new = self._new.copy()
            if not kept.after:
                self._kept = kept
                for key in folded:
                    new.pop(key, None)
                return kept, new

    def _put_in_place(self, kept: _Kept, after: _Kept) -> bool:
        """Replace the present arrays, and return whether nobody else was quicker."""
        if kept.after.setdefault(None, after) is not after:
            return False
        self._kept = after
        pop = self._new.pop
        for key in after.folded:
            pop(key, None)
        after.folded = ()
        return True

    def _overflow(self) -> None:
        """Move updates that need no device into the arrays, so that a long history stays compact.

        Of the updates that do, only as many are kept as can still count.
        """
        kept, new = self._look()
        ready = list(itertools.takewhile(lambda key: not _is_on_device(new[key]), new))
        waiting = len(new) - len(ready)
        lost = max(waiting - self.max_length, 0)  # too old to count
        if not ready and not lost:
            self._most_new = max(2 * waiting, _MAX_NEW)
            return
        values, counts = self._extended(kept, [new[key] for key in ready])
        if lost:
            # In new arrays: others may be writing all of the updates to these.
            values, counts = self._compact(values, counts)
        gone = [*itertools.islice(new, len(ready) + lost)]
        after = _Kept(values, counts, kept.taken + len(gone), (*kept.folded, *gone))
        if self._put_in_place(kept, after):
            self._most_new = max(2 * (waiting - lost), _MAX_NEW)

    def _extended(
        self, kept: _Kept, items: Iterable[Any]
    ) -> tuple[NumberSeries, NumberSeries | None]:
        """Return values and counts with updates appended; wait for a device that holds one."""
        numbers, added = list(items), None
        if tuple in map(type, numbers):  # there are counts, or values on a device
            pairs = [item if type(item) is tuple else (item, 1) for item in numbers]
            added = [count for _, count in pairs]
            numbers = [
                value.block.read(value.place) if type(value) is DeviceValue else value
                for value, _ in pairs
            ]
        values, counts = kept.values.extended(numbers), kept.counts
        if counts is None and added and any(type(c) is not int or c != 1 for c in added):
            counts = NumberSeries(np.ones(kept.values.length, self._count_dtype), np.add)
        if counts is not None:
            counts = counts.extended([1] * len(numbers) if added is None else added)
        if values.length > 2 * self.max_length + _MAX_NEW:
            return self._compact(values, counts)
        return values, counts

    def _compact(
        self, values: NumberSeries, counts: NumberSeries | None
    ) -> tuple[NumberSeries, NumberSeries | None]:
        """Return the values and counts that still count, in new arrays."""
        length = min(values.length, self.max_length)
        last = None if counts is None else NumberSeries(counts.last(length).copy(), np.add)
        return _series_of(values.last(length).copy()), last


def _series_of(values: NDArray[Any]) -> NumberSeries:
    return NumberSeries(values, np.add, np.minimum, np.maximum)


for _method in (HistoryBuffer.min, HistoryBuffer.max, HistoryBuffer.current, HistoryBuffer.mean):
    HistoryBuffer.register_statistics(_method)


def _number(name: str, value: Any) -> Any:
    """Return a number as a plain Python number."""
    # No method of a user-defined class is called: not now, nor when its number is needed.
    if isinstance(value, float):  # np.float64 is one
        return float.__float__(value)
    if isinstance(value, int):
        number = value if type(value) is bool else int.__index__(value)
        return number if -_INT64 <= number < _INT64 else to_number(number)
    if isinstance(value, np.floating):
        return float(value)
    if isinstance(value, np.number) and isinstance(item := value.item(), (int, float)):
        return item
    raise TypeError(
        f"{name}={value!r} is not a number but {type(value).__name__}: pass an int or a float, as "
        "value.item() returns"
    )


def _is_on_device(item: Any) -> bool:
    return type(item) is tuple and type(item[0]) is DeviceValue


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    array.flags.writeable = False  # since totals of it are cached
    return array


def _picklable(methods: dict[str, Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
    """Return the registered statistics that another process can import.

    A checkpoint must not fail because one of them is a lambda.
    """
    found = {}
    for name, method in methods.items():
        if name in _OWN:
            continue
        try:
            pickle.dumps(method)
            found[name] = method
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            DIAGNOSTICS.warn(
                f"statistic {name}",
                f"the statistic {name!r} is not in the checkpoint ({error}): define it at the top "
                "of a module, where another process can import it",
            )
        except Exception as error:  # from a user-defined object
            DIAGNOSTICS.caught("backend_failed", f"the statistic {name!r} cannot be pickled", error)
    return found


_OWN_ATTRIBUTES = frozenset(HistoryBuffer().__dict__)
_OWN = frozenset(HistoryBuffer._statistics_methods)  # noqa: SLF001
