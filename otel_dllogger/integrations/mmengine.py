"""Export of MMEngine's scalars, from every rank, to Prometheus, OTLP and JSON lines.

In a configuration::

    custom_hooks = [dict(type="otel_dllogger.integrations.mmengine.DLLoggerHook")]

MMEngine passes scalars to its visualizer on rank 0 only; the hook does so on the other ranks.
"""

from __future__ import annotations

import functools
import inspect
import os
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal

from otel_dllogger.errors import installing

try:
    from mmengine.dist import get_rank, is_main_process
    from mmengine.hooks import Hook
    from mmengine.logging import MessageHub, print_log
    from mmengine.registry import HOOKS, VISBACKENDS
    from mmengine.runner import BaseLoop, IterBasedTrainLoop
    from mmengine.visualization import BaseVisBackend
    from mmengine.visualization.vis_backend import force_init_env
except ImportError as error:
    raise ImportError(
        f"otel_dllogger.integrations.mmengine needs {error.name}: install PyTorch, and "
        + installing("mmengine")
    ) from error

from otel_dllogger import (
    ConfigurationError,
    JSONStreamBackend,
    Logger,
    OTLPBackend,
    PrometheusBackend,
    Verbosity,
    settings,
)
from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.errors import in_words
from otel_dllogger.identity import clean_run
from otel_dllogger.training.records import describe, describe_again, with_mode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mmengine.config import Config
    from mmengine.runner import Runner

__all__ = ["DLLoggerHook", "DLLoggerVisBackend"]

_NO_RUNNERS_HUB = "mmengine"
"""The hub that MMEngine makes where there is none."""


@VISBACKENDS.register_module()
class DLLoggerVisBackend(BaseVisBackend):
    """A backend of MMEngine's visualizer that sends what it gets to a Logger.

    Scalars are named as in MMEngine's hub, ``train/loss``. The configuration is exported as
    parameters, ``optim_wrapper.optimizer.lr``. Ports, the discovery folder, the run's name and
    the collector can also be set by environment variables.

    Args:
        save_dir: The folder of the JSON lines; MMEngine passes its ``vis_data``.
        prometheus: Whether to serve a metrics page, or the arguments of ``PrometheusBackend``.
        json: The name of the file of JSON lines in the folder, in which ``{run}``, ``{rank}`` and
            ``{host}`` are filled in; None or False for no file.
        otlp: Whether to send every record to a collector, or the arguments of ``OTLPBackend``.
        run: The run's name; by default ``OTEL_DLLOGGER_RUN``, else the ``experiment_name`` of the
            Runner, so that each Runner of a process is a run of its own.

    Raises:
        ConfigurationError: If an argument is not meaningful.
    """

    def __init__(
        self,
        save_dir: str | None = None,
        prometheus: bool | dict[str, Any] = True,
        json: str | Literal[False] | None = "{run}_rank{rank}.json",
        otlp: bool | dict[str, Any] = False,
        run: str | None = None,
    ) -> None:
        for name, value in (("prometheus", prometheus), ("otlp", otlp)):
            if not isinstance(value, (bool, dict)):
                raise ConfigurationError(
                    f"{name}={value!r} is neither a bool nor a dict of arguments: pass "
                    f"{name}=True, or {name}=dict(...)"
                )
        for name, text in (("save_dir", save_dir), ("json", json or None), ("run", run)):
            if not isinstance(text, (str, os.PathLike, NoneType)):
                raise ConfigurationError(f"{name}={text!r} is not text: pass text, or None")
        super().__init__(save_dir)
        self._env_initialized = False  # read by force_init_env
        self._prometheus = prometheus
        self._json = json
        self._otlp = otlp
        self._run = run
        self._logger: Logger | None = None
        self._config: dict[str, Any] | None = None
        self._runner: Runner | None = None
        self._opened_run: str | None = None
        self._iteration: int | None = None
        self._by_epoch = True
        self.is_of_hook = False

    def bind(self, runner: Runner) -> None:
        """Take the training's position from a runner, rather than guess it from what is logged.

        This also opens the files and the page, so that a rank that never gets to its first
        record is visible.
        """
        self._runner = runner
        if self._env_initialized and self._opened_run != self._run_name():
            self.close()  # another Runner's, which has this visualizer as well
            self._runner = runner
        _ = self.experiment

    def _init_env(self) -> None:
        """Make the Logger when MMEngine asks for it: at the first use."""
        run_before, self._opened_run = self._opened_run, self._run_name()
        names = {"run": self._opened_run, "rank": get_rank()}
        backends: list[Any] = []
        if self._json:
            try:
                backends.append(JSONStreamBackend(1, self._json_path(), append=True))
            except OSError as error:  # if one rank failed, the others would wait for it
                DIAGNOSTICS.count(
                    "disk_full",
                    f"no JSON lines are written to {error.filename!r}: {in_words(error)}; "
                    "pass another save_dir",
                )
        for backend, wanted in ((PrometheusBackend, self._prometheus), (OTLPBackend, self._otlp)):
            if wanted is not False:
                given = {} if wanted is True else wanted
                try:
                    backends.append(backend(1, **{**names, **given}))
                except TypeError as error:
                    known = ", ".join(list(inspect.signature(backend).parameters)[1:])
                    raise ConfigurationError(
                        f"{given!r} are not valid arguments of {backend.__name__}: {error}; pass "
                        f"some of {known}"
                    ) from error
                if backend is PrometheusBackend and (url := backends[-1].url):
                    print_log(f"metrics of rank {names['rank']}: {url}", logger="current")
        if self._logger is None or self._opened_run != run_before:
            self._logger = Logger(backends)
        else:  # closed at the end of training, and now a test follows
            self._logger.backends = backends
            describe_again(self._logger)
        self._log_config()

    def _run_name(self) -> str | None:
        """Return the run's name, None for the launcher's; the same on all ranks of a Runner."""
        if self._run or clean_run(os.environ.get(settings.RUN, "")):
            return self._run
        if self._runner is not None:
            return str(self._runner.experiment_name)
        # A Runner that adds its configuration has just made a hub of its own, with its name.
        hub: str = MessageHub.get_current_instance().instance_name
        return None if hub == _NO_RUNNERS_HUB else hub

    def _json_path(self) -> str:
        name = (self._json or "").replace("{rank}", str(get_rank()))
        if self._opened_run is not None:
            name = name.replace("{run}", clean_run(self._opened_run).replace("/", "_"))
        path = os.path.join(self._save_dir or "", name)  # noqa: PTH118 - paths are text here
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)  # noqa: PTH103, PTH120
        return path

    @property
    @force_init_env
    def experiment(self) -> Logger:
        """Return the Logger, for logging anything else."""
        logger = self._logger
        assert logger is not None  # noqa: S101 - force_init_env made it
        return logger

    def add_config(self, config: Config, **_kwargs: Any) -> None:
        """Log the configuration as parameters."""
        self._config = config.to_dict()
        if self._env_initialized:
            self._log_config()
        else:  # what opens it logs the configuration
            _ = self.experiment

    def _log_config(self) -> None:
        if self._config and self._logger is not None:
            self._logger.log("PARAMETER", self._config, Verbosity.DEFAULT)

    def add_scalar(self, name: str, value: Any, step: int = 0, **_kwargs: Any) -> None:
        """Log one scalar that the user adds.

        Args:
            name: Its name; a prefix ``train/``, ``val/`` or ``test/`` gives the stage.
            value: A number, or a tensor or an array with one element.
            step: The iteration.
        """
        self.experiment.log(step, {name: value}, Verbosity.DEFAULT)

    def add_scalars(
        self,
        scalar_dict: Mapping[str, Any],
        step: int = 0,
        file_path: str | None = None,
        **_kwargs: Any,
    ) -> None:
        """Log the scalars of MMEngine's LoggerHook, or some that the user adds.

        Args:
            scalar_dict: Values by name. With ``iter`` they belong to a training iteration.
            step: The epoch for a validation, otherwise the iteration.
            file_path: Passed by the LoggerHook; without it, the scalars are the user's.
        """
        logger = self.experiment
        try:
            self._add_scalars(logger, dict(scalar_dict), step, file_path)
        except Exception as error:  # from values unlike MMEngine's
            DIAGNOSTICS.caught("backend_failed", "DLLoggerVisBackend.add_scalars failed", error)

    def _add_scalars(
        self, logger: Logger, values: dict[str, Any], step: int, file_path: str | None
    ) -> None:
        runner = self._runner
        if file_path is None:
            logger.log(step, values, Verbosity.DEFAULT)
        elif self._is_of_training(values, step):
            epoch, iteration = values.pop("epoch", None), values.pop("iter")
            hub = MessageHub.get_current_instance() if runner is None else runner.message_hub
            eta = hub.get_info("eta")
            if eta is not None and any(str(name).endswith("time") for name in values):
                values["eta"] = eta
            self._iteration, self._by_epoch = iteration, epoch is not None
            self._log(iteration if epoch is None else (epoch, iteration), values, "train")
        else:
            self._log(self._step_of_validation(step), values, "val")

    def _is_of_training(self, values: Mapping[str, Any], step: int) -> bool:
        """Return whether values are of training; a metric of a validation may be named ``iter``."""
        runner = self._runner
        return values.get("iter") == step and (runner is None or step == runner.iter + 1)

    def _step_of_validation(self, step: int) -> Any:
        """Return the step: the epoch, or the last iteration where iterations are counted."""
        runner = self._runner
        if runner is None:
            is_epoch = self._by_epoch or self._iteration is None
            return (step,) if is_epoch else (0, self._iteration, None)
        loop = runner._train_loop  # noqa: SLF001 - asking for train_loop would build it
        if isinstance(loop, IterBasedTrainLoop):
            return (0, runner.iter, None)
        return (runner.epoch if isinstance(loop, BaseLoop) else 0,)

    def add_results(self, scalar_dict: Mapping[str, Any], mode: str = "test") -> None:
        """Log the results of a test, which MMEngine does not pass to its visualizer.

        Args:
            scalar_dict: Values by name.
            mode: The mode that they belong to.
        """
        self._log((), scalar_dict, mode)

    def _log(self, step: Any, values: Mapping[str, Any], mode: str) -> None:
        data = {with_mode(str(name), mode): value for name, value in values.items()}
        logger = self.experiment
        try:
            describe(logger, data, mode)
        except Exception as error:  # from metadata that the user gave
            DIAGNOSTICS.caught("backend_failed", "describing scalars by their names", error)
        logger.log(step, data, Verbosity.DEFAULT)

    def close(self) -> None:
        """Free the port and close the files; the next use opens them again."""
        if self._logger is not None and self._env_initialized:
            self._logger.close()
            self._env_initialized = False
            self._runner = None


@HOOKS.register_module()
class DLLoggerHook(Hook):
    """A hook of MMEngine that logs the scalars of every rank, and the results of tests.

    MMEngine's visualizer does nothing on ranks other than 0. This hook passes what it is given
    there to its ``DLLoggerVisBackend``. A visualizer without such a backend gets one, on all
    ranks.

    Args:
        **options: The arguments of that backend.

    Raises:
        ConfigurationError: If there is no such argument. When the run begins, if there are
            arguments but the visualizer already has such a backend.
    """

    priority = "VERY_HIGH"

    def __init__(self, **options: Any) -> None:
        known = list(inspect.signature(DLLoggerVisBackend).parameters)
        for name in options:
            if name not in known:
                raise ConfigurationError(
                    f"DLLoggerHook has no argument {name!r}: pass one of {', '.join(known)}"
                )
        self._options = options
        self._backends: list[DLLoggerVisBackend] = []

    def before_run(self, runner: Runner) -> None:
        """Find or make the backend; on ranks other than 0, pass the scalars on to it."""
        visualizer = runner.visualizer
        backends = visualizer._vis_backends  # noqa: SLF001 - get_backend is for rank 0
        if self._backends and all(one in backends.values() for one in self._backends):
            for backend in self._backends:  # a test after the training
                backend.bind(runner)
            return
        self._backends = [b for b in backends.values() if isinstance(b, DLLoggerVisBackend)]
        if self._options and not all(one.is_of_hook for one in self._backends):
            raise ConfigurationError(
                f"DLLoggerHook was given {', '.join(self._options)}, but the visualizer already "
                "has a DLLoggerVisBackend: give them to that backend, or remove it"
            )
        if not self._backends:
            folder = os.path.join(runner.log_dir, "vis_data")  # noqa: PTH118
            backend = DLLoggerVisBackend(**{"save_dir": folder, **self._options})
            backend.is_of_hook = True
            backends[type(backend).__name__] = backend
            self._backends = [backend]
            if is_main_process():
                backend.add_config(runner.cfg)
        for backend in self._backends:
            backend.bind(runner)
        if not is_main_process():
            for method in ("add_scalar", "add_scalars"):
                setattr(visualizer, method, functools.partial(self._each, method))

    def after_test(self, runner: Runner) -> None:
        """Log the results of the test, with what other hooks added to them."""
        try:
            tag, _line = runner.log_processor.get_log_after_epoch(
                runner, len(runner.test_dataloader), "test", with_non_scalar=True
            )
            for backend in self._backends:
                backend.add_results(tag)
        except Exception as error:  # from a user-defined processor
            DIAGNOSTICS.caught("statistic_failed", "the results of the test", error)

    def _each(self, method: str, *args: Any, **kwargs: Any) -> None:
        for backend in self._backends:
            getattr(backend, method)(*args, **kwargs)
