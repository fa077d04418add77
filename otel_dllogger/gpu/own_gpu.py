"""The GPU of this process, looked up once on a thread of its own."""

from __future__ import annotations

import logging
import os
from typing import Any

from otel_dllogger.gpu.device import Device, UnknownGPUError
from otel_dllogger.gpu.nvml import load_nvml, read_gpus
from otel_dllogger.gpu.visible import (
    VARIABLES,
    device_of_rank,
    visible_on_cuda,
    visible_on_rocm,
)
from otel_dllogger.identity import find_local_rank
from otel_dllogger.runtime import fork
from otel_dllogger.runtime.interruptions import let_through
from otel_dllogger.runtime.wakers import Worker

THREAD_NAME = "otel-dllogger-gpu"


class OwnGPU:
    """The GPU on which this process computes, once it is known.

    The driver may take long to answer, or for ever: nobody waits for it.

    Attributes:
        device: The GPU; None as long as it is unknown, which may be for good.
    """

    def __init__(self) -> None:
        self.device: Device | None = None
        self._environ: dict[str, str] = {}
        self._local: tuple[int | None, int | None] = (None, None)
        self._nvml: Any | None = None
        self._was_asked = False
        self._worker = Worker(THREAD_NAME, self._find)
        fork.register(self)

    def look_up(self) -> None:
        """Begin to find the GPU out, by the environment as it is now, without waiting."""
        if not self._was_asked:
            self._was_asked = True
            try:
                environ = os.environ
                self._environ = {name: environ[name] for name in VARIABLES if name in environ}
                self._local = find_local_rank(environ)
                self._nvml = load_nvml()
                if self._nvml is None:  # and there is nothing to wait for
                    self._find()
                else:
                    self._worker.ask()
            except Exception as error:
                let_through(error)
                _say_unknown(error)

    def after_fork_in_child(self) -> None:
        """Know nothing: a child may use another GPU, and the thread that asked is gone."""
        self.device = None
        self._was_asked = False

    def _find(self) -> None:
        try:
            self.device = device_of_rank(self._visible(), *self._local)
        except Exception as error:  # whatever stands in the environment, or the driver says
            let_through(error)
            _say_unknown(error)

    def _visible(self) -> list[Device]:
        try:
            gpus = read_gpus(self._nvml)
        except UnknownGPUError as error:
            try:
                return visible_on_rocm(self._environ)
            except UnknownGPUError:
                raise error from None
        return visible_on_cuda(gpus, self._environ)


def _say_unknown(error: Exception) -> None:
    logging.getLogger("otel_dllogger").debug("the GPU of this rank is unknown: %s", error)


OWN_GPU = OwnGPU()
"""The GPU of this process."""
