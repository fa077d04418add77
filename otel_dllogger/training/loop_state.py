"""The position of a training loop, as a LogProcessor reads it, with or without MMEngine."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Protocol

from otel_dllogger.errors import MisuseError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_dllogger.training.scope import Scope

MODES = ("train", "val", "test")


class Hub(Protocol):
    """What is read of a ``MessageHub``, MMEngine's or ours: histories and facts by name."""

    @property
    def log_scalars(self) -> Mapping[str, Any]:
        """Return the histories."""
        ...

    @property
    def runtime_info(self) -> Mapping[str, Any]:
        """Return the facts."""
        ...

    def get_info(self, key: str, default: Any = None) -> Any:
        """Return a fact."""
        ...


@dataclasses.dataclass(slots=True)
class LoopState:
    """The position of a hand-written loop.

    Epochs and iterations are counted as by MMEngine's runner: they say how many are done, so
    that both are 0 during the first one. A validation after the first epoch has ``epoch=1``.

    Attributes:
        message_hub: The hub that the loop fills.
        mode: ``train``, ``val`` or ``test``.
        epoch: How many epochs of training are done.
        iter: How many iterations of training are done, without the one under way.
        max_epochs: The planned number of epochs; None where iterations are counted.
        max_iters: The planned number of iterations; None where it is not known.
        dataloader_len: How many batches the mode's loader has; None where it is not known.
        batch_idx: Which batch of the loader this is, from 0; None after the last one, for the
            results of a validation or a test.
        scope: Which values of the mode count, as ``track`` and ``log_results`` set it; by
            default all of them, as in MMEngine.

    Raises:
        MisuseError: If there is no such mode.
    """

    message_hub: Hub
    mode: str = "train"
    epoch: int = 0
    iter: int = 0
    max_epochs: int | None = None
    max_iters: int | None = None
    dataloader_len: int | None = None
    batch_idx: int | None = 0
    scope: Scope | None = None

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise MisuseError(
                f"mode={self.mode!r} is not one of {', '.join(MODES)}: pass mode={MODES[0]!r}"
            )

    @property
    def by_epoch(self) -> bool:
        """Return whether training is counted in epochs."""
        return self.max_epochs is not None or self.max_iters is None

    @property
    def has_train_loop(self) -> bool:
        """Return whether there is a training loop: always."""
        return True

    @property
    def device(self) -> Any:
        """Return the device whose memory is reported: the current one."""
        return None

    def dataloader_length(self, _mode: str) -> int | None:
        """Return how many batches the loader has."""
        return self.dataloader_len


class RunnerState:
    """The position of MMEngine's Runner.

    Args:
        runner: The Runner. Its loops are accessed only where they are needed, since access
            builds them.
    """

    __slots__ = ("_runner",)

    def __init__(self, runner: Any) -> None:
        self._runner = runner

    @property
    def message_hub(self) -> Hub:
        """Return the runner's hub, which is MMEngine's own."""
        hub: Hub = self._runner.message_hub
        return hub

    @property
    def epoch(self) -> int:
        """Return how many epochs of training are done."""
        epoch: int = self._runner.epoch
        return epoch

    @property
    def iter(self) -> int:
        """Return how many iterations of training are done."""
        iteration: int = self._runner.iter
        return iteration

    @property
    def scope(self) -> None:
        """Return None: all values count."""
        return

    @property
    def max_epochs(self) -> int | None:
        """Return the planned number of epochs."""
        epochs: int | None = self._runner.max_epochs
        return epochs

    @property
    def max_iters(self) -> int | None:
        """Return the planned number of iterations."""
        iterations: int | None = self._runner.max_iters
        return iterations

    @property
    def has_train_loop(self) -> bool:
        """Return whether there is a training loop, and not only a validation or a test."""
        loop = self._runner._train_loop  # noqa: SLF001 - as MMEngine's LogProcessor does
        return loop is not None and not isinstance(loop, dict)

    @property
    def device(self) -> Any:
        """Return the device whose memory is reported."""
        return getattr(self._runner.model, "output_device", None)

    def dataloader_length(self, mode: str) -> int | None:
        """Return how many batches the loader for a mode has."""
        return len(getattr(self._runner, f"{mode}_loop").dataloader)


def state_of(runner: Any) -> LoopState | RunnerState:
    """Return the state of a runner; a state is returned as it is."""
    return runner if isinstance(runner, (LoopState, RunnerState)) else RunnerState(runner)
