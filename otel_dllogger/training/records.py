"""Conversion of what a LogProcessor computes from a hub into the record for a Logger."""

from __future__ import annotations

import functools
from contextvars import copy_context
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.errors import MisuseError
from otel_dllogger.logger import Logger, Verbosity
from otel_dllogger.logs.parsers.formats import MMENGINE_SCALARS, conventional_metadata
from otel_dllogger.training.log_processor import LEFT_OUT, LogProcessor
from otel_dllogger.training.loop_state import MODES
from otel_dllogger.training.results import MAX_SAID, end
from otel_dllogger.training.scope import PROGRESS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from otel_dllogger.training.loop_state import LoopState

_PLACE = ("epoch", "iter")
_homeless: set[str] = set()

_described: WeakKeyDictionary[Logger, set[str]] = WeakKeyDictionary()


class ProcessedData(dict[str, Any]):
    """The values of a record by name, with the line that MMEngine prints for them.

    Args:
        values: The values.
        line: The line, without the time.
    """

    def __init__(self, values: dict[str, Any], line: str) -> None:
        super().__init__(values)
        self.line = line


def mmengine_line(timestamp: datetime, _step: Any, data: Any) -> str | None:
    """Return a record's line as MMEngine prints it; None if the record has none.

    For ``StdOutBackend(line_format=mmengine_line)``.

    Args:
        timestamp: The local time of the record.
        data: The values as they were logged.
    """
    line = getattr(data, "line", None)
    return line and f"{timestamp:%m/%d %H:%M:%S} - mmengine - INFO - {line}"


def with_mode(name: str, mode: str) -> str:
    """Return a scalar's name as it is in a hub, with its mode in front."""
    prefix = f"{mode}/"
    return name if name.startswith(prefix) else prefix + name


def describe(logger: Logger, names: Iterable[str], mode: str) -> None:
    """Log the metadata that the names of scalars imply, once each: seconds, lower is better.

    Args:
        logger: The Logger.
        names: The names, with the mode in front.
        mode: The mode.
    """
    known = _described.setdefault(logger, set())
    for name in names:
        if name not in known:
            known.add(name)
            said = {key.upper() for key in logger.metadata_of(name)}
            metadata = {
                key: value
                for key, value in conventional_metadata(name, MMENGINE_SCALARS, mode).items()
                if key.upper() not in said  # which takes precedence, even "GOAL": "NONE"
            }
            if metadata.keys() - {"STAGE"}:  # the stage is in the name already
                logger.metadata(name, metadata)


def describe_again(logger: Logger) -> None:
    """Log the implied metadata again, for backends that have replaced the earlier ones."""
    for name in sorted(_described.get(logger, ())):
        if said := logger.metadata_of(name):
            logger.metadata(name, said)


def send(logger: Logger, state: LoopState, processor: LogProcessor | None) -> str:
    """Log what the hub of a state has; see ``MessageHub.log_to``."""
    if not isinstance(logger, Logger):
        raise MisuseError(
            f"logger={logger!r:.80} is not a Logger: pass otel_dllogger.Logger([...])"
        )
    if state.mode == "train" and state.batch_idx is None:
        raise MisuseError(
            "mode='train' has no results of a whole loop: pass batch_idx, or another mode"
        )
    processor = processor or LogProcessor(by_epoch=state.by_epoch)
    try:
        # In a separate context, which ends with the call whatever a signal handler raises.
        step, data = copy_context().run(_process_without_what_fails, state, processor)
    except Exception as error:
        DIAGNOSTICS.caught("statistic_failed", "a record of the hub's scalars is lost", error)
        return ""
    finally:
        if state.batch_idx is None:
            end(state.message_hub, state.mode)
    try:
        describe(logger, data, state.mode)
    except Exception as error:  # from metadata that the user gave
        DIAGNOSTICS.caught("backend_failed", "describing scalars by their names", error)
    try:
        logger.log(step, data, verbosity=Verbosity.DEFAULT)
    except Exception as error:  # from a user-defined class
        DIAGNOSTICS.caught("backend_failed", f"{type(logger).__name__}.log failed", error)
    return data.line


def _process_without_what_fails(
    state: LoopState, processor: LogProcessor
) -> tuple[Any, ProcessedData]:
    """Call ``process``, and leave out the statistics and the user-defined code that fail."""
    LEFT_OUT.set({})
    try:
        return process(state, processor)
    except Exception as error:  # from a user-defined class
        DIAGNOSTICS.caught("statistic_failed", f"a {type(processor).__name__}", error)
        return process(state, processor, of_base=True)


def process(
    state: LoopState, processor: LogProcessor, *, of_base: bool = False
) -> tuple[Any, ProcessedData]:
    """Return the step and the values of the record for the hub of a state.

    Args:
        state: The position of the training, with its hub.
        processor: Chooses the statistics.
        of_base: Whether to use the methods of ``LogProcessor`` itself, and not those of a
            subclass.
    """
    hub, mode = state.message_hub, state.mode
    is_progress = mode != "train" and state.batch_idx is not None
    if state.batch_idx is None:
        get = _method(processor, "get_log_after_epoch", of_base=of_base)
        tag, line = get(state, _batches(state), mode, with_non_scalar=True)
    else:
        get = _method(processor, "get_log_after_iter", of_base=of_base)
        tag, line = get(state, state.batch_idx, mode)
        for name in _PLACE:  # they are in the step
            tag.pop(name, None)
        eta = hub.get_info("eta")
        if eta is not None:
            tag["eta"] = eta
        _warn_of_homeless(hub.log_scalars)
    values = {
        with_mode(name, mode): value
        for name, value in tag.items()
        if not is_progress or name.removeprefix(f"{mode}/").startswith(PROGRESS)
    }
    return step_of(state, by_epoch=processor.by_epoch), ProcessedData(values, line)


def _method(processor: LogProcessor, name: str, *, of_base: bool) -> Callable[..., Any]:
    method: Callable[..., Any] = getattr(LogProcessor if of_base else processor, name)
    return functools.partial(method, processor) if of_base else method


def _batches(state: LoopState) -> int:
    """Return how many batches the results cover, which may be several loops, or part of one."""
    batches = state.dataloader_len or 0
    times = state.message_hub.log_scalars.get(f"{state.mode}/time")
    if state.scope is None or times is None:
        return batches
    return max(batches, state.scope.count(times) or 0)


def _warn_of_homeless(keys: Iterable[str]) -> None:
    """Warn, once for each scalar without a mode in its name, that it is never logged."""
    for key in list(keys):
        if len(_homeless) >= MAX_SAID:
            return
        if isinstance(key, str) and not key.startswith(MODES) and key not in _homeless:
            _homeless.add(key)
            DIAGNOSTICS.warn(
                f"scalar {key}",
                f"{key!r} in the hub is not logged: its name does not begin with one of "
                f"{', '.join(MODES)}; call it 'train/{key}'",
            )


def step_of(state: LoopState, *, by_epoch: bool) -> Any:
    """Return the step of a record, like the steps that are read from MMEngine's own logs.

    Args:
        state: The state.
        by_epoch: Whether epochs are counted.
    """
    epoch, batch_idx = state.epoch if by_epoch else 0, state.batch_idx
    if state.mode == "train":
        return (epoch + 1, state.iter + 1) if by_epoch else state.iter + 1
    if batch_idx is not None:
        if state.mode == "test":
            return (None, None, batch_idx + 1)
        return (epoch, state.iter, batch_idx + 1)
    if state.mode == "test":
        return ()
    return (epoch,) if by_epoch else (0, state.iter, state.dataloader_len)
