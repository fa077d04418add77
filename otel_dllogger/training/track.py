"""``track`` and ``log_results``: MMEngine's logging for hand-written loops."""

from __future__ import annotations

import functools
import itertools
import threading
import time
import uuid
from types import NoneType
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

import otel_dllogger
from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.errors import MisuseError
from otel_dllogger.logger import Logger
from otel_dllogger.training.custom_cfg import check_statistics
from otel_dllogger.training.log_processor import LogProcessor
from otel_dllogger.training.loop_state import MODES, LoopState
from otel_dllogger.training.message_hub import MessageHub
from otel_dllogger.training.rank_logger import MMLogger
from otel_dllogger.training.records import send, with_mode
from otel_dllogger.training.results import begin_loop, end_loop, keep, warn_of_unlogged
from otel_dllogger.training.scope import Scope
from otel_dllogger.values import safe_repr

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_Batch = TypeVar("_Batch")

_BATCHES_OF = "batches_of_"


class _Loop:
    """The progress of a loop that is under way.

    Attributes:
        thread: The thread in which it began.
        token: Identifies it among all loops.
        batches: How many batches are done.
        nested_s: Seconds of the current batch that were spent in loops nested in this one.
    """

    __slots__ = ("batches", "nested_s", "thread", "token")

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.token = uuid.uuid4().hex
        self.batches = 0
        self.nested_s = 0.0


_loops: WeakKeyDictionary[MessageHub, list[_Loop]] = WeakKeyDictionary()


def track(
    loader: Iterable[_Batch],
    *,
    hub: MessageHub | None = None,
    logger: Logger | None = None,
    processor: LogProcessor | None = None,
    mode: str = "train",
    log_every: int = 10,
    epoch: int | None = None,
    max_epochs: int | None = None,
    max_iters: int | None = None,
) -> Iterator[_Batch]:
    """Yield the batches of a loader, and log the progress of the loop over them.

    What the loop puts into the hub, ``hub.update_scalar("train/loss", loss)``, is logged every
    ``log_every`` batches, with ``time``, ``data_time`` and an ETA, which are measured here. The
    numbers of finished epochs and iterations are in the hub as ``epoch`` and ``iter``, so its
    ``state_dict`` resumes them.

    A loop that ends with ``break`` has not finished its epoch, nor the current batch. For
    shorter epochs pass ``itertools.islice(loader, 100)``.

    Args:
        loader: The batches of one epoch. With ``max_iters`` alone, it is iterated again and
            again until that many iterations are done.
        hub: The hub with the scalars; by default ``MessageHub.get_current_instance()``.
        logger: Gets the records; by default the Logger of ``otel_dllogger.init``. If there is
            none, the lines are printed by ``MMLogger.get_current_instance()``.
        processor: Chooses the statistics; by default ``LogProcessor()``, by epoch or by
            iteration like this loop.
        mode: ``train``, ``val`` or ``test``.
        log_every: Batches between two records, counted from the beginning of the loop or, with
            ``max_iters`` alone, of the training. A loop with fewer batches logs the last one.
        epoch: How many epochs are done before this one; by default, what the hub says.
        max_epochs: Epochs of the whole training, for the ETA; for a validation or a test, by
            default that of the last training loop.
        max_iters: Iterations of the whole training, if those are counted; likewise.

    Raises:
        MisuseError: If an argument is not meaningful.
    """
    if mode not in MODES:
        raise MisuseError(f"mode={mode!r} is not one of {', '.join(MODES)}: pass mode={MODES[0]!r}")
    for name, number, least, what in (
        ("log_every", log_every, 1, "how many batches there are between records"),
        ("epoch", 0 if epoch is None else epoch, 0, "how many epochs are done"),
        ("max_epochs", 1 if max_epochs is None else max_epochs, 1, "how many epochs there are"),
        ("max_iters", 1 if max_iters is None else max_iters, 1, "how many iterations there are"),
    ):
        if not isinstance(number, int) or number < least:
            raise MisuseError(
                f"{name}={number!r} is not a whole number from {least} up: pass {what}"
            )
    if not hasattr(loader, "__iter__") and not hasattr(loader, "__getitem__"):
        raise MisuseError(f"loader={loader!r:.80} has no batches: pass a DataLoader, a list, ...")
    hub = _checked(hub, logger)
    if epoch is not None:
        _set(hub, "epoch", epoch)
    if mode == "train":
        _set(hub, "max_epochs", max_epochs)
        _set(hub, "max_iters", max_iters)
    state = _state(hub, mode)
    if max_epochs or max_iters:
        state.max_epochs, state.max_iters = max_epochs, max_iters
    state.dataloader_len = _length(loader)
    processor = _processor(processor, state)
    return _run(loader, hub, state, logger, processor, log_every=log_every)


def log_results(
    results: Mapping[str, Any],
    *,
    hub: MessageHub | None = None,
    logger: Logger | None = None,
    processor: LogProcessor | None = None,
    mode: str = "val",
) -> str:
    """Log the results of a validation or a test.

    Args:
        results: Values by name, without the mode: ``{"accuracy": 0.93}``. A value that is not a
            single number, such as a list, is in the line and the JSON log.
        hub: As for ``track``.
        logger: As for ``track``.
        processor: As for ``track``.
        mode: ``val`` or ``test``.

    Returns:
        The record's line as MMEngine prints it, without the time.

    Raises:
        MisuseError: If the mode is neither, or another argument is invalid.
    """
    if mode not in MODES[1:]:
        raise MisuseError(f"mode={mode!r} has no results: pass one of {', '.join(MODES[1:])}")
    if not isinstance(results, dict):
        raise MisuseError(f"results={results!r:.80} is not a dict: pass values by name")
    hub = _checked(hub, logger)
    state = _state(hub, mode)
    state.dataloader_len, state.batch_idx = hub.get_info(_BATCHES_OF + mode), None
    processor = _processor(processor, state)
    given = {with_mode(str(name), mode): value for name, value in results.items()}
    state.scope = keep(hub, mode, given)
    return _log(state, logger, processor)


def _state(hub: MessageHub, mode: str) -> LoopState:
    """Return the position of the training, from the facts in its hub."""
    for key in ("epoch", "iter", "max_epochs", "max_iters"):
        value = hub.get_info(key)
        if not isinstance(value, (int, NoneType)):
            raise MisuseError(
                f"the hub's info {key!r} is {safe_repr(value):.80}, not a whole number: set it to "
                f"one, as in hub.update_info({key!r}, 3)"
            )
    return LoopState(
        hub,
        mode,
        epoch=hub.get_info("epoch") or 0,
        iter=hub.get_info("iter") or 0,
        max_epochs=hub.get_info("max_epochs"),
        max_iters=hub.get_info("max_iters"),
    )


def _processor(processor: LogProcessor | None, state: LoopState) -> LogProcessor:
    """Return the processor, or the default one for None, after a check that it fits the loop."""
    if processor is None:
        return LogProcessor(by_epoch=state.by_epoch)
    if not isinstance(processor, LogProcessor):
        raise MisuseError(
            f"processor={processor!r:.80} is not a LogProcessor: pass "
            "otel_dllogger.training.LogProcessor(...)"
        )
    if not hasattr(processor, "_plans"):
        raise MisuseError(
            f"processor={processor!r:.80} is not initialized: call super().__init__() in its "
            "__init__"
        )
    check_statistics(processor.custom_cfg, must_be_there=True)
    if processor.by_epoch and not state.by_epoch:
        raise MisuseError(
            "the processor counts in epochs and max_iters in iterations: pass "
            "LogProcessor(by_epoch=False), or max_epochs"
        )
    return processor


def _run(
    loader: Iterable[_Batch],
    hub: MessageHub,
    state: LoopState,
    logger: Logger | None,
    processor: LogProcessor,
    *,
    log_every: int,
) -> Iterator[_Batch]:
    """Yield the batches and log, as ``track`` describes."""
    mode, is_training = state.mode, state.mode == "train"
    data_time, whole_time = f"{mode}/data_time", f"{mode}/time"
    _go_on(hub, state)
    if is_training and _is_done(state):
        return
    loops = _loops.setdefault(hub, [])
    own = _Loop()
    outer = next((loop for loop in reversed(loops) if loop.thread == own.thread), None)
    begun_in = outer and outer.batches
    if is_training:
        warn_of_unlogged(hub)
    else:
        begin_loop(hub, mode, own.token, [loop.token for loop in loops])
        state.scope = Scope()
    is_noted = False
    began_s = start_s = time.perf_counter()
    try:
        loops.append(own)
        for batch in _again(loader) if is_training and not state.by_epoch else loader:
            _measured(hub, data_time, time.perf_counter() - start_s)
            own.nested_s = 0.0
            yield batch
            now_s = time.perf_counter()
            _measured(hub, whole_time, now_s - start_s - own.nested_s)
            start_s = now_s
            state.batch_idx = own.batches
            own.batches += 1
            # As in MMEngine: where iterations are counted, they continue from loop to loop.
            done = own.batches if state.by_epoch or not is_training else state.iter + 1
            if done % log_every == 0:
                _note(hub, state, logger, processor)
                is_noted = True
            if is_training:
                state.iter += 1
                _set(hub, "iter", state.iter)
                if _is_done(state):
                    break
        if 0 < own.batches < log_every and not is_noted:  # log the last batch
            state.iter -= is_training
            _note(hub, state, logger, processor)
    finally:
        hub.pop_info("eta")  # it belongs to this loop alone
        _leave(loops, own)
        if outer is not None and outer.batches == begun_in:
            outer.nested_s += time.perf_counter() - began_s
        if is_training or end_loop(hub, mode, own.token):
            hub.update_info(_BATCHES_OF + mode, own.batches, resumed=False)
    if is_training and state.by_epoch:
        _set(hub, "epoch", state.epoch + 1)


def _leave(loops: list[_Loop], own: _Loop) -> None:
    if own in loops:  # a signal handler may have raised before it was added
        loops.remove(own)


def _go_on(hub: MessageHub, state: LoopState) -> None:
    """Start from the present facts of the hub, since other loops may have run in the meantime."""
    for key in ("epoch", "iter"):
        if isinstance(done := hub.get_info(key), int):
            setattr(state, key, done)


def _set(hub: MessageHub, key: str, info: Any) -> None:
    """Set a fact; keep the user's choice of whether it is resumed."""
    hub.update_info(key, info, hub.is_resumed(key))


def _measured(hub: MessageHub, key: str, seconds: float) -> None:
    try:
        hub.update_scalar(key, seconds, 1, hub.is_resumed(key))
    except Exception as error:  # from a user-defined class
        DIAGNOSTICS.caught("statistic_failed", f"{key!r} cannot be put into the hub", error)


def _checked(hub: MessageHub | None, logger: Logger | None) -> MessageHub:
    """Return the hub, or the current one for None, after a check of both arguments."""
    if hub is None:
        hub = MessageHub.get_current_instance()
    if not isinstance(hub, MessageHub):
        raise MisuseError(
            f"hub={hub!r:.80} is not a MessageHub: pass MessageHub.get_instance(name)"
        )
    if not isinstance(logger, (Logger, NoneType)):
        raise MisuseError(
            f"logger={logger!r:.80} is not a Logger: pass otel_dllogger.Logger([...]), or nothing "
            "to use the Logger of init() if there is one, and else print MMEngine's lines"
        )
    return hub


def _is_done(state: LoopState) -> bool:
    return state.max_iters is not None and state.iter >= state.max_iters


def _again(loader: Iterable[_Batch]) -> Iterator[_Batch]:
    """Yield the batches of a loader again and again; those of an iterator once."""
    for epoch in itertools.count():
        is_empty = True
        _shuffle_anew(loader, epoch)
        for batch in loader:
            is_empty = False
            yield batch
        if is_empty:
            return


def _shuffle_anew(loader: Any, epoch: int) -> None:
    """Set the epoch of a loader's sampler, since PyTorch's would repeat the same order."""
    for owner in (loader, getattr(loader, "batch_sampler", None)):
        set_epoch = getattr(getattr(owner, "sampler", None), "set_epoch", None)
        if epoch and callable(set_epoch):
            set_epoch(epoch)
            return


def _note(
    hub: MessageHub, state: LoopState, logger: Logger | None, processor: LogProcessor
) -> None:
    """Log the progress of a loop."""
    try:
        _note_eta(hub, state)
    except Exception as error:  # from a device, or because a history is gone
        DIAGNOSTICS.caught("statistic_failed", "the ETA", error)
    _log(state, logger, processor)


def _note_eta(hub: MessageHub, state: LoopState) -> None:
    """Put the seconds that are left into the hub, or remove them if they are not known."""
    batch_idx = state.batch_idx or 0
    times = hub.get_scalar(f"{state.mode}/time")
    left: int | None = None
    if state.mode != "train":
        mean_s = times.mean(batch_idx + 1)
        if state.dataloader_len is not None:
            left = state.dataloader_len - batch_idx - 1
    else:
        mean_s = times.mean()
        if state.max_iters is not None:
            left = state.max_iters - state.iter - 1
        elif state.dataloader_len is not None:
            epochs_left = (state.max_epochs or state.epoch + 1) - state.epoch
            left = epochs_left * state.dataloader_len - batch_idx - 1
    if left is None:
        hub.pop_info("eta")
    else:
        _set(hub, "eta", float(mean_s) * max(left, 0))


def _length(loader: Any) -> int | None:
    try:
        return len(loader)
    except TypeError:  # an iterator, or a loader of a stream
        return None
    except Exception as error:  # from the loader's own methods
        DIAGNOSTICS.caught("statistic_failed", "the number of batches of the loader", error)
        return None


def _log(state: LoopState, logger: Logger | None, processor: LogProcessor) -> str:
    """Log to the Logger, else to the global one; without either, print to the console."""
    logger = logger or otel_dllogger.GLOBAL_LOGGER
    has_logger = type(logger) is not otel_dllogger.NotInitializedObject
    if not has_logger:  # otel-dllogger run listens even if the script makes no Logger
        logger = _silent_logger()
    line = send(logger, state, processor)
    if line and not has_logger:
        try:
            MMLogger.get_current_instance().info("%s", line)
        except Exception as error:  # from a user-defined filter or class
            DIAGNOSTICS.caught("backend_failed", "the current MMLogger failed", error)
    return line


@functools.cache
def _silent_logger() -> Logger:
    return Logger([])
