"""The history of one scalar, and statistics over its last values.

A drop-in for MMEngine's ``HistoryBuffer`` (``mmengine/logging/history_buffer.py`` 0.10.7):
the same arrays, the same results. What differs is the cost: an update takes the same time at
any length, and so do means of a window.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import threading
import warnings
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np

from otel_dllogger.faults import FAULTS
from otel_dllogger.training.device_block import DeviceBlock, DeviceValue
from otel_dllogger.training.faults import MisuseError
from otel_dllogger.training.number_series import NumberSeries
from otel_dllogger.values import to_number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

_Method = TypeVar("_Method", bound="Callable[..., Any]")

_INT64 = 2**63

_MAX_NEW = 4096
"""Updates that wait to be put into the arrays, unless they wait for a device."""


class HistoryBuffer:
    """Keep the values of a scalar, each with how many it is the sum of.

    Several threads may update one buffer and ask it.

    Args:
        log_history: The values so far.
        count_history: How many values each is the sum of, such as a batch's size; as many.
        max_length: Values that are kept; of more the last ones.

    Raises:
        MisuseError: If there are not as many counts as values, or ``max_length`` is no
            number of values.

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
            raise MisuseError(f"max_length={max_length!r} is no whole number from 1 up")
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
        self._renew_locks()
        _alive.add(self)
        self._block: DeviceBlock | None = None
        self._new: deque[Any] = deque()  # updates that are not in the arrays yet
        self._most_new = _MAX_NEW
        # Counts are nearly always 1: then there is no array of them.
        self._counts: NumberSeries | None = None
        self._count_dtype = counts.dtype
        self._taken = len(values)
        self._marks: dict[str, int] = {}
        self._keep(values, None if np.all(counts == 1) else counts)

    def _renew_locks(self) -> None:
        # An update takes none of them, and what holds the first alone may wait for a device.
        self._lock = threading.RLock()
        self._device_lock = threading.Lock()
        self._count_lock = threading.RLock()  # of what is counted as new or as taken
        self._is_fixed = False

    def _keep(self, values: NDArray[Any], counts: NDArray[Any] | None) -> None:
        """Begin anew with the last values."""
        kept = slice(max(len(values) - self.max_length, 0), None)
        self._values = NumberSeries(values[kept].copy(), np.add, np.minimum, np.maximum)
        if counts is not None:
            self._counts = NumberSeries(counts[kept].copy(), np.add)

    def update(self, log_val: float, count: float = 1) -> None:
        """Add a value.

        Args:
            log_val: The value.
            count: How many values it is the sum of; a mean is divided by all counts.

        Raises:
            TypeError: If one of them is no number.
        """
        item: Any = log_val if type(log_val) is float else _number("log_val", log_val)
        if type(count) is not int or count != 1:
            item = (item, _number("count", count))
        new = self._new
        new.append(item)  # whole, whatever other threads do
        if len(new) >= self._most_new:
            self._overflow()

    def update_on_device(self, value: Any, count: int = 1) -> None:
        """Add a value that an accelerator may not have computed yet, without waiting for it.

        Args:
            value: A tensor with one element; what it holds now is kept.
            count: As for ``update``.
        """
        with self._device_lock:
            block = self._block
            place = None if block is None else block.put(value)
            if block is None or place is None:
                self._block = block = DeviceBlock(value)
                place = block.put(value)
            if place is None:  # a device that takes no copies
                self._new.append((_number("value", value.item()), count))
            else:
                self._new.append((DeviceValue(block, place), count))
        if len(self._new) >= self._most_new:
            self._overflow()

    def mark(self, moment: str) -> None:
        """Note how many values there have been by now; copies and checkpoints know it as well.

        Args:
            moment: What to ask ``since`` for.
        """
        self._marks[moment] = self._updates()

    def since(self, moment: str | None = None) -> int:
        """Return how many values there have been since a moment, or at all.

        Those that are no longer kept count as well. Nothing is read from a device.

        Args:
            moment: What ``mark`` was called with; one without a mark was before all values.
        """
        return self._updates() - (0 if moment is None else self._marks.get(moment, 0))

    def _updates(self) -> int:
        with self._count_lock:
            return self._taken + len(self._new)

    @property
    def data(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the values and their counts."""
        with self._lock:
            self._length()
            with self._unchanged():
                return self._log_history, self._count_history

    @property
    def _log_history(self) -> NDArray[Any]:
        """Return the values: what registered statistics read."""
        with self._lock:
            length = self._length()
            return _read_only(self._values.last(length))

    @property
    def _count_history(self) -> NDArray[Any]:
        """Return the counts: what registered statistics read."""
        with self._lock:
            length = self._length()
            if self._counts is not None:
                return _read_only(self._counts.last(length))
            return np.broadcast_to(np.ones((), self._count_dtype), length)

    @classmethod
    def register_statistics(cls, method: _Method) -> _Method:
        """Make a function a statistic of all buffers, under its name.

        Args:
            method: Called with the buffer and what ``statistics`` was given. It reads
                ``self._log_history[-n:]`` and ``self._count_history[-n:]``, numpy arrays.

        Raises:
            MisuseError: If there is a statistic of that name.
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
        """Return the function of a statistic, None where there is none of that name."""
        return cls._statistics_methods.get(name)

    def statistics(self, method_name: str, *args: Any, **kwargs: Any) -> Any:
        """Return a statistic by name.

        Args:
            method_name: ``mean``, ``min``, ``max``, ``current``, or a registered one.
            *args: What it takes.
            **kwargs: What it takes by name.

        Raises:
            KeyError: If there is no statistic of that name.
        """
        try:
            method = self._statistics_methods[method_name]
        except KeyError:
            known = ", ".join(self._statistics_methods)
            raise KeyError(
                f"{method_name!r} is no statistic of HistoryBuffer: there are {known}; others come "
                "with @HistoryBuffer.register_statistics"
            ) from None
        with self._lock:
            self._length()
            with self._unchanged():  # it may read the values and then their counts
                return method(self, *args, **kwargs)

    def mean(self, window_size: int | None = None) -> Any:
        """Return the sum of the last values divided by the sum of their counts.

        Args:
            window_size: How many; all by default, or where there are fewer.

        Raises:
            MisuseError: If it is no int.
        """
        with self._lock:
            window = self._window(window_size)
            if self._counts is None:
                return self._values.total(np.add, window) / window
            return self._values.total(np.add, window) / self._counts.total(np.add, window)

    def max(self, window_size: int | None = None) -> Any:
        """Return the greatest of the last values; arguments as for ``mean``.

        Raises:
            MisuseError: If ``window_size`` is no int.
            ValueError: If there is no value.
        """
        with self._lock:
            return self._values.total(np.maximum, self._window(window_size))

    def min(self, window_size: int | None = None) -> Any:
        """Return the least of the last values; arguments as for ``mean``.

        Raises:
            MisuseError: If ``window_size`` is no int.
            ValueError: If there is no value.
        """
        with self._lock:
            return self._values.total(np.minimum, self._window(window_size))

    def current(self) -> Any:
        """Return the last value.

        Raises:
            ValueError: If there is none.
        """
        with self._lock:
            if not self._length():
                raise ValueError(
                    "HistoryBuffer._log_history is an empty array! please call update first"
                )
            return self._values.last(1)[0]

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            values, counts = self.data
            return {
                "others": {k: v for k, v in self.__dict__.items() if k not in _OWN_ATTRIBUTES},
                "max_length": self.max_length,
                "updates": self._taken,
                "marks": dict(self._marks),
                "log_history": values.copy(),
                "count_history": counts.copy(),
                "statistics_methods": _picklable(self._statistics_methods),
            }

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, method in state["statistics_methods"].items():
            self._statistics_methods.setdefault(name, method)
        self.__dict__.update(state["others"])  # those of a derived class
        self.max_length = state["max_length"]
        self._fill(state["log_history"], state["count_history"])
        self._taken = state.get("updates", self._taken)  # which the first versions did not have
        self._marks = state.get("marks", {})

    def _window(self, window_size: int | None) -> int:
        """Return how many of the last values count, once all are in the arrays."""
        length = self._length()
        if type(window_size) is int and 0 < window_size < length:
            return window_size
        if window_size is None:
            return length
        if not isinstance(window_size, int):
            raise MisuseError(
                f"window_size={window_size!r} is no int: pass how many of the last values count, "
                "or None for all"
            )
        # As slices have it: [-0:] is everything, [3:] all but the first three.
        return min(window_size, length) if window_size > 0 else max(length + window_size, 0)

    @contextlib.contextmanager
    def _unchanged(self) -> Iterator[None]:
        """Keep updates out of the arrays, where several things are read that belong together."""
        before, self._is_fixed = self._is_fixed, True
        try:
            yield
        finally:
            self._is_fixed = before

    def _length(self) -> int:
        """Put all updates into the arrays, and return how many values count."""
        if self._new and not self._is_fixed:
            items = self._pop(len(self._new))
            try:
                self._take(items)
            except BaseException:  # a device that failed, Ctrl-C: nothing else must go with it
                with self._count_lock:
                    self._taken -= len(items)
                    self._new.extendleft(reversed(items))
                raise
            self._most_new = _MAX_NEW
        length = self._values.length
        return length if length <= self.max_length else self.max_length  # noqa: FURB136 - faster

    def _pop(self, count: int) -> list[Any]:
        """Take the first of the new updates, which count as taken from now on."""
        with self._count_lock:
            items = [self._new.popleft() for _ in range(count)]
            self._taken += len(items)
            return items

    def _overflow(self) -> None:
        """Put into the arrays what needs no device, so that a long history stays compact.

        Of what does, no more is kept than counts.
        """
        if self._lock.acquire(blocking=False):  # else whoever has it does so
            try:
                if self._is_fixed:
                    return
                new, ready = self._new, []
                with self._count_lock:
                    while new and not _is_on_device(new[0]):
                        ready.append(new.popleft())
                    self._taken += len(ready)
                if ready:
                    self._take(ready)
                self._pop(len(new) - self.max_length)
                self._most_new = max(2 * len(new), _MAX_NEW)
            finally:
                self._lock.release()

    def _take(self, items: list[Any]) -> None:
        """Put updates into the arrays; waits for the device that holds one."""
        counts: list[float] | None = None
        try:
            self._values.extend(items)
        except (TypeError, ValueError):  # there are counts, or values on a device
            counts = self._extend_counted(items)
        if self._counts is not None:
            self._counts.extend([1] * len(items) if counts is None else counts)
        length = self._values.length
        if length > 2 * self.max_length + _MAX_NEW:
            kept_counts = None if self._counts is None else self._counts.last(length)
            self._keep(self._values.last(length), kept_counts)

    def _extend_counted(self, items: list[Any]) -> list[float]:
        """Add updates of which some are more than a number; return the counts of all."""
        pairs = [item if type(item) is tuple else (item, 1) for item in items]
        counts = [count for _, count in pairs]
        if self._counts is None and any(type(count) is not int or count != 1 for count in counts):
            self._counts = NumberSeries(np.ones(self._values.length, self._count_dtype), np.add)
        self._values.extend(
            [
                value.block.read(value.place) if type(value) is DeviceValue else value
                for value, _ in pairs
            ]
        )
        return counts


_alive: weakref.WeakSet[HistoryBuffer] = weakref.WeakSet()


def _renew_locks() -> None:
    """Let a forked child ask, whatever other threads of its parent were about."""
    for buffer in list(_alive):
        buffer._renew_locks()  # noqa: SLF001


os.register_at_fork(after_in_child=_renew_locks)

for _method in (HistoryBuffer.min, HistoryBuffer.max, HistoryBuffer.current, HistoryBuffer.mean):
    HistoryBuffer.register_statistics(_method)


def _number(name: str, value: Any) -> Any:
    """Return a number as Python's own."""
    if isinstance(value, float):  # np.float64 is one
        return float(value)
    if isinstance(value, int):
        return value if -_INT64 <= value < _INT64 else to_number(int(value))
    if isinstance(value, np.floating):
        return float(value)
    if isinstance(value, np.number) and isinstance(item := value.item(), (int, float)):
        return item
    raise TypeError(
        f"{name}={value!r} is no number but {type(value).__name__}: pass an int or a float, as "
        "value.item() gives"
    )


def _is_on_device(item: Any) -> bool:
    return type(item) is tuple and type(item[0]) is DeviceValue


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    array.flags.writeable = False  # totals of it are kept
    return array


def _picklable(methods: dict[str, Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
    """Return the registered statistics that another process can find.

    A checkpoint must not fail because one of them is a lambda.
    """
    found = {}
    for name, method in methods.items():
        if name in _OWN:
            continue
        try:
            pickle.dumps(method)
            found[name] = method
        except Exception as error:
            FAULTS.warn(
                f"statistic {name}",
                f"the statistic {name!r} is not in the checkpoint ({error}): define it at the top "
                "of a module, where another process can import it",
            )
    return found


_OWN_ATTRIBUTES = frozenset(HistoryBuffer().__dict__)
_OWN = frozenset(HistoryBuffer._statistics_methods)  # noqa: SLF001
