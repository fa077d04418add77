"""``MessageHub``: histories of scalars and current facts, shared by the parts of a training.

A drop-in for MMEngine's ``MessageHub`` (``mmengine/logging/message_hub.py`` 0.10.7). What
differs: a value that an accelerator has yet to compute is not waited for, several threads may
write, and the contents of a hub can be logged to a Logger.
"""

from __future__ import annotations

import copy
import dataclasses
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np

from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.errors import MisuseError
from otel_dllogger.training.history_buffer import HistoryBuffer
from otel_dllogger.training.named_instance import NamedInstance
from otel_dllogger.training.records import send
from otel_dllogger.training.results import copied
from otel_dllogger.training.scope import MOMENTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_dllogger.logger import Logger
    from otel_dllogger.training.log_processor import LogProcessor
    from otel_dllogger.training.loop_state import LoopState

_PARTS = ("log_scalars", "runtime_info", "resumed_keys")


class MessageHub(NamedInstance):
    """Scalars with their histories, and facts of which only the latest value is kept.

    Args:
        name: Its name.
        log_scalars: Histories by name, such as ``train/loss``.
        runtime_info: Facts by name, such as ``iter``.
        resumed_keys: Whether ``state_dict`` includes a name, by name.

    Raises:
        TypeError: If one of the last three is neither a dict nor None.
        MisuseError: If a history is not a ``HistoryBuffer``, or if ``resumed_keys`` has a name
            that the others do not have.

    Examples:
        >>> hub = MessageHub("toy")
        >>> hub.update_scalar("train/loss", 1)
        >>> hub.update_scalar("train/loss", 3)
        >>> hub.get_scalar("train/loss").mean()
        np.float64(2.0)
    """

    _first_name = "mmengine"

    def __init__(
        self,
        name: str,
        log_scalars: Mapping[str, HistoryBuffer] | None = None,
        runtime_info: Mapping[str, Any] | None = None,
        resumed_keys: Mapping[str, bool] | None = None,
    ) -> None:
        super().__init__(name)
        self._log_scalars: OrderedDict[str, HistoryBuffer] = _ordered("log_scalars", log_scalars)
        self._runtime_info: OrderedDict[str, Any] = _ordered("runtime_info", runtime_info)
        self._resumed_keys: OrderedDict[str, bool] = _ordered("resumed_keys", resumed_keys)
        for key, value in self._log_scalars.items():
            if not isinstance(value, HistoryBuffer):
                raise MisuseError(
                    f"log_scalars[{key!r}] is not a HistoryBuffer but {type(value).__name__}: "
                    "wrap it, as in HistoryBuffer([value], [1])"
                )
        for key in self._resumed_keys:
            if key not in self._log_scalars and key not in self._runtime_info:
                raise MisuseError(
                    f"resumed_keys has {key!r}, which is in neither log_scalars nor runtime_info: "
                    "leave it out, or give its value"
                )

    def update_scalar(self, key: str, value: Any, count: int = 1, resumed: bool = True) -> None:
        """Add a value to the history of a scalar.

        Args:
            key: Its name. It is logged if the name begins with ``train``, ``val`` or ``test``.
            value: A number, or an array or a tensor with one element. A tensor on an
                accelerator is copied there, and read when a statistic is requested: nothing
                waits now.
            count: How many values it is the sum of, such as the batch size: a mean is the sum
                of the values divided by the sum of the counts.
            resumed: Whether ``state_dict`` includes it; the same for all values of a name.

        Raises:
            MisuseError: If the value has more than one element, the count is not an int, or
                ``resumed`` differs from before.
        """
        if type(count) is not int and not isinstance(count, int):
            raise MisuseError(
                f"count={count!r} of {key!r} is not an int but {type(count).__name__}: pass how "
                "many the value stands for"
            )
        is_late = False
        if type(value) is not float:
            is_late = _is_on_device(value)
            if not is_late:
                value = _number(key, value)
        if self._resumed_keys.get(key) is not resumed:
            if not isinstance(key, str):
                raise MisuseError(f"key={key!r} is not text: pass a name such as 'train/loss'")
            self._set_resumed(key, resumed)
        buffer = self._log_scalars.get(key)
        if buffer is None:
            new = _new_buffer(value)  # others see it only once it has a value
            _add(new, value, count, is_late=is_late)
            buffer = self._log_scalars.setdefault(key, new)
            if buffer is new:
                return
        _add(buffer, value, count, is_late=is_late)

    def update_scalars(self, log_dict: Mapping[str, Any], resumed: bool = True) -> None:
        """Add a value to each of several scalars.

        Args:
            log_dict: Values by name; a dict as a value has ``value`` and may have ``count``.
            resumed: As for ``update_scalar``.

        Raises:
            MisuseError: As for ``update_scalar``, or if ``log_dict`` is not a dict, or a dict
                in it has no ``value``.
        """
        _check_dict("log_dict", log_dict)
        for key, value in log_dict.items():
            if not isinstance(value, dict):
                self.update_scalar(key, value, 1, resumed)
            elif "value" in value:
                count = _number(key, value.get("count", 1))
                self.update_scalar(key, value["value"], count, resumed)
            else:
                raise MisuseError(
                    f"{key!r} has {value!r}, without a value: pass dict(value=..., count=...)"
                )

    def update_info(self, key: str, value: Any, resumed: bool = True) -> None:
        """Set a fact, and replace its previous value.

        Args:
            key: Its name.
            value: Anything.
            resumed: As for ``update_scalar``.

        Raises:
            MisuseError: If ``resumed`` differs from before.
        """
        if self._resumed_keys.get(key) is not resumed:
            self._set_resumed(key, resumed)
        self._runtime_info[key] = value

    def update_info_dict(self, info_dict: Mapping[str, Any], resumed: bool = True) -> None:
        """Set several facts.

        Args:
            info_dict: Facts by name.
            resumed: As for ``update_scalar``.

        Raises:
            MisuseError: As for ``update_info``, or if ``info_dict`` is not a dict.
        """
        _check_dict("info_dict", info_dict)
        for key, value in info_dict.items():
            self.update_info(key, value, resumed=resumed)

    def is_resumed(self, key: str) -> bool:
        """Return whether ``state_dict`` includes a name; by default it would include a new one."""
        return self._resumed_keys.get(key, True)

    def pop_info(self, key: str, default: Any = None) -> Any:
        """Remove a fact and return it; return the default if there is none."""
        return self._runtime_info.pop(key, default)

    def get_scalar(self, key: str) -> HistoryBuffer:
        """Return the history of a scalar: the hub's own, not a copy.

        Raises:
            KeyError: If there is no such scalar.
        """
        try:
            return self._log_scalars[key]
        except KeyError:
            raise KeyError(
                f"{key!r} is not a scalar of the hub {self.instance_name!r}: it has "
                f"{', '.join(list(self._log_scalars)) or 'none'}"
            ) from None

    def get_info(self, key: str, default: Any = None) -> Any:
        """Return a fact; return the default if there is none."""
        return self._runtime_info.get(key, default)

    @property
    def log_scalars(self) -> OrderedDict[str, HistoryBuffer]:
        """Return all histories by name: the hub's own, not a copy."""
        return self._log_scalars

    @property
    def runtime_info(self) -> OrderedDict[str, Any]:
        """Return all facts by name: the hub's own, not a copy."""
        return self._runtime_info

    def log_to(
        self, logger: Logger, state: LoopState, processor: LogProcessor | None = None
    ) -> str:
        """Log what the hub has for the state's mode, as one ordinary record.

        The record holds the numbers that the processor computes, under names with their stage
        such as ``train/loss``, with ETA and memory where they are known. Its step is
        ``(epoch, iteration)`` or the iteration in training, ``(epoch,)`` for the results of a
        validation, ``()`` for those of a test.

        Args:
            logger: Gets the record, and once for each name the metadata that the name implies.
            state: The position of the training. With ``batch_idx=None`` these are the results
                of a validation or a test, otherwise the statistics at a batch.
            processor: Chooses the statistics; by default ``LogProcessor()``.

        Returns:
            The record's line as MMEngine prints it, without the time.

        Raises:
            MisuseError: If the processor's configuration does not fit the state.
        """
        if state.message_hub is not self:
            state = dataclasses.replace(state, message_hub=self)
        return send(logger, state, processor)

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of everything that is to be resumed, for a checkpoint."""
        scalars: OrderedDict[str, HistoryBuffer] = OrderedDict()
        info: OrderedDict[str, Any] = OrderedDict()
        for key, buffer in list(self._log_scalars.items()):
            if self._resumed_keys.get(key, False):
                scalars[key] = copy.deepcopy(buffer)
        for key, value in list(self._runtime_info.items()):
            if self._resumed_keys.get(key, False):
                info[key] = copied(key, value)
        return dict(zip(_PARTS, (scalars, info, OrderedDict(self._resumed_keys)), strict=True))

    def load_state_dict(self, state_dict: MessageHub | Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned; other names stay as they are.

        Args:
            state_dict: What ``state_dict`` returned, or a hub, from which everything is taken.
                The hub and the histories may be MMEngine's own.

        Raises:
            MisuseError: If a part of it is missing.
        """
        state: Any = state_dict
        if isinstance(state, dict) and "message_hub" in state:
            raise MisuseError("this is a whole checkpoint: pass its ['message_hub']")
        if all(hasattr(state, f"_{part}") for part in _PARTS):
            state = {part: getattr(state, f"_{part}") for part in _PARTS}
            self._log_scalars, self._runtime_info = OrderedDict(), OrderedDict()
            self._resumed_keys = OrderedDict()
        for part in _PARTS:
            if not isinstance(state, dict) or part not in state:
                raise MisuseError(
                    f"state_dict={state!r:.80} has no {part!r}: load what "
                    "MessageHub.state_dict() returned"
                )
        for key, value in list(state["log_scalars"].items()):
            if isinstance(value, HistoryBuffer):
                self._log_scalars[key] = copy.deepcopy(value)
            elif isinstance(data := getattr(value, "data", None), tuple) and len(data) == 2:
                self._log_scalars[key] = history = HistoryBuffer(*data, value.max_length)
                for moment in MOMENTS:  # MMEngine has already logged it
                    history.mark(moment)
            else:
                DIAGNOSTICS.warn(
                    f"resume {key}", f"{key!r} is not a HistoryBuffer: it is not resumed"
                )
        for key, value in list(state["runtime_info"].items()):
            self._runtime_info[key] = copied(key, value)
        for key, resumed in list(state["resumed_keys"].items()):
            if key in self._log_scalars or key in self._runtime_info:
                self._resumed_keys[key] = resumed

    def _set_resumed(self, key: str, resumed: bool) -> None:
        before = self._resumed_keys.setdefault(key, resumed)
        if before != resumed:
            raise MisuseError(
                f"{key} used to be {before}, but got {resumed} now. resumed keys cannot be "
                f"modified repeatedly: pass resumed={before} as before"
            )


def _new_buffer(value: Any) -> HistoryBuffer:
    """Return an empty history for ints or for floats, depending on its first value."""
    is_float = isinstance(value, float) or getattr(value, "is_floating_point", bool)()
    kind = np.float64 if is_float else type(value) if type(value) is bool else np.int64
    return HistoryBuffer(np.empty(0, kind), np.empty(0, np.int64))


def _add(buffer: HistoryBuffer, value: Any, count: int, *, is_late: bool) -> None:
    if is_late:
        buffer.update_on_device(value, count)
    else:
        buffer.update(value, count)


def _ordered(name: str, value: Mapping[str, Any] | None) -> OrderedDict[str, Any]:
    if value is not None and not isinstance(value, dict):
        raise TypeError(f"{name} should be a dict or `None`, but got {type(value).__name__}")
    return OrderedDict(value or {})


def _check_dict(name: str, value: object) -> None:
    if not isinstance(value, dict):
        raise MisuseError(
            f"{name}={value!r:.80} is not a dict but {type(value).__name__}: pass one"
        )


def _is_on_device(value: Any) -> bool:
    """Return whether reading a value would wait for an accelerator; judged by its attributes."""
    device = getattr(value, "device", None)
    return (
        getattr(device, "type", "cpu") != "cpu"
        and callable(getattr(value, "new_empty", None))
        and value.numel() == 1
        and not getattr(value.dtype, "is_complex", False)
    )


def _number(key: str, value: Any) -> Any:
    """Return a value that can be read at once, as a Python number."""
    if isinstance(value, (int, float)):
        return value
    elements: int | None
    if isinstance(value, (np.ndarray, np.number, np.bool_)):
        elements = value.size
    elif callable(numel := getattr(value, "numel", None)):
        elements = int(numel())
    else:
        elements = getattr(value, "size", None)
    if elements == 1 and callable(item := getattr(value, "item", None)):
        number = item()
        if isinstance(number, (int, float)):
            return number
    raise MisuseError(
        f"{key!r} got {value!r:.80}, which is not a single number: pass an int, a float, or an "
        "array or a tensor with one element"
    )
