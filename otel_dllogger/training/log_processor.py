"""``LogProcessor``: one line of text and one set of numbers from a hub's histories.

A drop-in for MMEngine's ``LogProcessor`` (``mmengine/runner/log_processor.py`` 0.10.7), for
MMEngine's Runner and for a ``LoopState`` alike: the same text, the same numbers.
"""

from __future__ import annotations

import datetime as dt
import re
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.errors import MisuseError
from otel_dllogger.training.custom_cfg import check_items, check_statistics
from otel_dllogger.training.device import take_peak_memory_mib
from otel_dllogger.training.loop_state import MODES, state_of
from otel_dllogger.values import safe_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from otel_dllogger.training.loop_state import LoopState, RunnerState
    from otel_dllogger.training.scope import Scope

    _State = LoopState | RunnerState

_MEAN_PATTERN = r".*(loss|time|data_time|grad_norm).*"
_EPOCH_MEANS = tuple(
    {"data_src": name, "window_size": "epoch", "method_name": "mean"}
    for name in ("time", "data_time")
)


# The statistics left out of the record that is being made, by name, with the types of their
# errors; None where an error is raised to the caller, as in MMEngine.
LEFT_OUT: ContextVar[dict[str, type[Exception]] | None] = ContextVar("LEFT_OUT", default=None)


class _Plan(NamedTuple):
    """Which of a hub's scalars are shown in a mode: the same from one line to the next.

    Attributes:
        keys: The names of all scalars in the hub.
        names: The keys of the mode's scalars, by the names that they are shown under.
        means: The names of the scalars whose mean is shown.
    """

    keys: list[str]
    names: dict[str, str]
    means: frozenset[str]


class LogProcessor:
    """A processor that turns a hub's histories into the line and the numbers of a record.

    Scalars that match ``mean_pattern``, losses and times by default, are shown as the mean of
    the last values, all others as the last value.

    Args:
        window_size: How many of the last values a mean is over.
        by_epoch: Whether the text counts in epochs, as ``Epoch(train) [1][10/25]``, or in
            iterations, as ``Iter(train) [10/250]``.
        custom_cfg: Other statistics, each a dict of ``data_src``, the scalar's name without
            its mode; ``method_name``, the statistic; ``log_name``, by default the name of the
            source, whose statistic it then replaces; ``window_size``, an int, ``"epoch"`` or
            ``"global"``; and any other arguments of the statistic.
        num_digits: Digits after the decimal point.
        log_with_hierarchy: Name the numbers ``train/loss`` instead of ``loss``.
        mean_pattern: A regular expression for the names whose mean is shown.

    Raises:
        MisuseError: If an item of ``custom_cfg`` is not meaningful; the message says which
            one. If another argument is invalid.
        TypeError: If a ``window_size`` is none of the three.
    """

    def __init__(  # noqa: PLR0917 - MMEngine's own signature
        self,
        window_size: int = 10,
        by_epoch: bool = True,
        custom_cfg: list[dict[str, Any]] | None = None,
        num_digits: int = 4,
        log_with_hierarchy: bool = False,
        mean_pattern: str = _MEAN_PATTERN,
    ) -> None:
        if not isinstance(window_size, int) or window_size < 1:
            raise MisuseError(
                f"window_size={window_size!r} is not a whole number from 1 up: pass the number of "
                "values in the window, and give other windows in custom_cfg"
            )
        self.window_size = window_size
        self.by_epoch = by_epoch
        self.custom_cfg = custom_cfg or []
        if not isinstance(num_digits, int) or num_digits < 0:
            raise MisuseError(
                f"num_digits={num_digits!r} is not a whole number from 0 up: pass the number of "
                "digits after the decimal point"
            )
        self.num_digits = num_digits
        self.log_with_hierarchy = log_with_hierarchy
        try:
            self.mean_pattern = re.compile(mean_pattern)
        except (re.error, TypeError) as error:
            raise MisuseError(
                f"mean_pattern={mean_pattern!r} is not a regular expression: {error}"
            ) from error
        self._plans: dict[tuple[str, bool], _Plan] = {}
        check_items(self.custom_cfg, by_epoch=by_epoch)
        check_statistics(self.custom_cfg)

    def get_log_after_iter(
        self, runner: Any, batch_idx: int, mode: str
    ) -> tuple[dict[str, Any], str]:
        """Return the numbers and the text after an iteration.

        Args:
            runner: MMEngine's Runner, or a ``LoopState``.
            batch_idx: Which batch of the loader it was, from 0.
            mode: ``train``, ``val`` or ``test``.

        Returns:
            Numbers by name, with ``iter`` and, if epochs are counted and it is not a test,
            ``epoch``; and the line.

        Raises:
            MisuseError: If there is no such mode.
            KeyError: If a statistic of ``custom_cfg`` is not registered.
        """
        _check_mode(mode, MODES)
        state = state_of(runner)
        shown = self._collect(state, self.custom_cfg, batch_idx, mode, keep_mode=False)
        tag = dict(shown)
        if self.log_with_hierarchy:
            tag = self._collect(state, self.custom_cfg, batch_idx, mode, keep_mode=True)
        rates = []
        for key, value in tag.items():
            if key.endswith("lr"):
                name = key.removeprefix(f"{mode}/")
                del shown[name]
                rates.append(f"{name}: {value:.{self.num_digits}e}")
        if self.by_epoch and mode != "test":
            tag["epoch"] = _epoch(state, mode)
        tag["iter"] = state.iter + 1 if state.has_train_loop else 0
        text = f"{self._place(state, batch_idx, mode)}  {' '.join(rates)}  "
        eta = state.message_hub.get_info("eta")
        if eta is not None and "time" in shown and "data_time" in shown:
            text += (
                f"eta: {_duration(eta)}  "
                f"time: {shown.pop('time'):.{self.num_digits}f}  "
                f"data_time: {shown.pop('data_time'):.{self.num_digits}f}  "
            )
        memory_mib = take_peak_memory_mib(state.device)
        if memory_mib is not None:
            text += f"memory: {memory_mib}  "
            tag["memory"] = memory_mib
        if mode == "train":
            text += self._pairs(shown.items())
        elif mode == "val":
            text += self._pairs(pair for pair in shown.items() if pair[0].startswith("val/loss"))
        return tag, text

    def get_log_after_epoch(
        self, runner: Any, batch_idx: int, mode: str, with_non_scalar: bool = False
    ) -> tuple[dict[str, Any], str]:
        """Return the numbers and the text for the results of a validation or a test.

        Args:
            runner: MMEngine's Runner, or a ``LoopState``.
            batch_idx: How many batches the loader has: times are averaged over them.
            mode: ``val`` or ``test``.
            with_non_scalar: Whether to return values that are not scalars as well.

        Returns:
            Numbers by name, and the line.

        Raises:
            MisuseError: If the mode is neither.
            KeyError: If a statistic of ``custom_cfg`` is not registered.
        """
        _check_mode(mode, MODES[1:])
        state = state_of(runner)
        length = _text(state.dataloader_length(mode))
        place = f"[{length}/{length}]"
        if not self.by_epoch:
            text = f"Iter({mode}) {place}  "
        elif mode == "val":
            text = f"Epoch(val) [{_epoch(state, mode)}]{place}  "
        else:
            text = f"Epoch(test) {place}  "
        sources = {cfg["data_src"].removeprefix(f"{mode}/") for cfg in self.custom_cfg}
        custom_cfg = [
            *self.custom_cfg,
            *(cfg for cfg in _EPOCH_MEANS if cfg["data_src"] not in sources),
        ]
        keep_mode = self.log_with_hierarchy
        tag: dict[str, Any] = {}
        times: dict[str, Any] = {}
        for key, value in self._collect(
            state, custom_cfg, batch_idx, mode, keep_mode=keep_mode
        ).items():
            is_time = key in ("time", "data_time", f"{mode}/time", f"{mode}/data_time")
            (times if is_time else tag)[key] = value
        others = {
            key if keep_mode else key.removeprefix(f"{mode}/"): value
            for key, value in list(state.message_hub.runtime_info.items())
            if isinstance(key, str)
            and key.startswith(mode)
            and not (state.scope and key in state.scope.stale)
        }
        items = (*tag.items(), *others.items(), *times.items())
        text += "  " + self._pairs(items, separated=True)
        if with_non_scalar:
            tag.update(others)
        return tag | times, text

    def _collect(
        self,
        state: _State,
        custom_cfg: Iterable[Mapping[str, Any]],
        batch_idx: int,
        mode: str,
        *,
        keep_mode: bool,
    ) -> dict[str, Any]:
        """Return a mode's statistics by name, with or without the mode in front."""
        scalars = state.message_hub.log_scalars
        keys = list(scalars)
        plan = self._plans.get((mode, keep_mode))
        if plan is None or plan.keys != keys:
            plan = self._plans[mode, keep_mode] = self._plan(keys, mode, keep_mode=keep_mode)
        tag = self._defaults(scalars, plan, state.scope)
        left_out = LEFT_OUT.get()
        for item in custom_cfg:
            cfg = dict(item)
            source = cfg.pop("data_src")
            log_name = cfg.pop("log_name", source)
            if keep_mode:
                source, log_name = f"{mode}/{source}", f"{mode}/{log_name}"
            key = plan.names.get(source)
            if key is None:
                continue
            window_size = cfg.get("window_size")
            if window_size == "epoch":
                cfg["window_size"] = batch_idx + 1
            elif window_size == "global":
                cfg["window_size"] = state.iter + 1
            if state.scope is not None:
                shown = plan.names.get(log_name)
                if not state.scope.has(key, scalars[key]) or state.scope.is_result(shown):
                    continue  # a result is shown as it was given
                if window_size is not None:
                    cfg["window_size"] = state.scope.window(
                        key, scalars[key], cfg["window_size"], window_size
                    )
            try:
                tag[log_name] = value = _statistic(scalars[key], cfg, item)
                if left_out is not None and log_name.endswith(("lr", "time")):
                    _ = f"{value:.{self.num_digits}e}"  # as in the line, which only numbers allow
            except Exception as error:
                if left_out is None:
                    raise
                _leave_out(log_name.removeprefix(f"{mode}/"), error, left_out)
                tag.pop(log_name, None)
        return tag

    def _defaults(
        self, scalars: Mapping[str, Any], plan: _Plan, scope: Scope | None
    ) -> dict[str, Any]:
        """Return what is shown for each scalar unless the configuration says otherwise."""
        window, means = self.window_size, plan.means
        left_out = LEFT_OUT.get()
        if left_out is None and scope is None:
            return {
                name: scalars[key].mean(window) if name in means else scalars[key].current()
                for name, key in plan.names.items()
            }
        tag: dict[str, Any] = {}
        for name, key in plan.names.items():
            history, is_mean = scalars[key], name in means
            try:
                if scope is None:
                    tag[name] = history.mean(window) if is_mean else history.current()
                elif scope.has(key, history):
                    tag[name] = scope.default(key, history, window, is_mean=is_mean)
            except Exception as error:
                if left_out is None:
                    raise
                _leave_out(key.partition("/")[2] or key, error, left_out)
        return tag

    def _plan(self, keys: list[str], mode: str, *, keep_mode: bool) -> _Plan:
        """Find out which of a hub's scalars belong to a mode, and how they are shown."""
        prefix = f"{mode}/"
        names = {
            key if keep_mode else key.removeprefix(prefix): key
            for key in keys
            if isinstance(key, str) and key.startswith(mode)
        }
        return _Plan(keys, names, frozenset(filter(self.mean_pattern.search, names)))

    def _place(self, state: _State, batch_idx: int, mode: str) -> str:
        """Return the beginning of a line, padded to the longest that there will be."""
        if not self.by_epoch and mode == "train":
            return f"Iter(train) {_of(state.iter + 1, state.max_iters)}"
        place = _of(batch_idx + 1, state.dataloader_length(mode))
        if not self.by_epoch:
            return f"Iter({mode}) {place}"
        if mode == "test":
            return f"Epoch(test) {place}"
        epoch = f"[{_epoch(state, mode)}]"
        if state.has_train_loop:
            epoch = epoch.rjust(len(str(state.max_epochs or _epoch(state, mode))) + len("[] "))
        return f"Epoch({mode}){epoch}{place}"

    def _pairs(self, items: Iterable[tuple[str, Any]], *, separated: bool = False) -> str:
        """Return names and values as text.

        Args:
            items: The names and the values.
            separated: Whether an array starts on a new line.
        """
        return "  ".join(
            f"{name}: {self._shown(name, value, separated=separated)}" for name, value in items
        )

    def _shown(self, name: str, value: Any, *, separated: bool) -> str:
        try:
            if isinstance(value, float):
                # A Python number is formatted in half the time of a numpy one.
                return f"{float(value):.{self.num_digits}f}"
            return f"\n{value}\n" if separated and _is_array(value) else f"{value}"
        except Exception as error:  # from the value's own methods
            DIAGNOSTICS.caught("format_failed", f"{name!r} cannot be shown in its line", error)
            return safe_text(value)


def _leave_out(name: str, error: Exception, left_out: dict[str, type[Exception]]) -> None:
    """Count a number that is left out of a record.

    Another number under its name would be wrong. One that is requested twice is lost once.
    """
    if left_out.get(name) is not type(error):
        left_out[name] = type(error)
        DIAGNOSTICS.caught("statistic_failed", f"the statistic of {name!r}", error)


def _statistic(history: Any, cfg: dict[str, Any], item: Mapping[str, Any]) -> Any:
    try:
        return history.statistics(**cfg)
    except (KeyError, TypeError) as error:  # no such statistic; it takes other arguments
        said = error.args[0] if error.args else "it failed"
        raise type(error)(f"custom_cfg has {item!r}: {said}") from error


def _duration(seconds: Any) -> str:
    try:
        return str(dt.timedelta(seconds=int(seconds)))
    except (OverflowError, TypeError, ValueError):  # a million years, NaN, text
        return safe_text(seconds)


def _of(number: int, total: int | None) -> str:
    text = _text(total)
    return f"[{number:>{len(text)}}/{text}]"


def _text(length: int | None) -> str:
    return "?" if length is None else str(length)


def _epoch(state: _State, mode: str) -> int:
    """Return the epoch, from 1; a validation belongs to the epoch that was done before it."""
    if mode == "train":
        return state.epoch + 1
    return state.epoch if state.has_train_loop else 0


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) or callable(getattr(value, "numel", None))


def _check_mode(mode: str, modes: tuple[str, ...]) -> None:
    if mode not in modes:
        raise MisuseError(f"mode={mode!r} is not one of {', '.join(modes)}: pass mode={modes[0]!r}")
