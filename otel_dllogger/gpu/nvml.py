"""The GPUs that NVIDIA's driver knows, through NVML.

NVML makes no CUDA context, takes no memory of a GPU, and ignores ``CUDA_VISIBLE_DEVICES``.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any

from otel_dllogger.gpu.device import GPU, Device, Instance, UnknownGPUError

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROFILE = re.compile(r"\bMIG (?:\d+c\.)?(.+)")  # a compute instance is named 1c.3g.20gb


def load_nvml() -> Any | None:
    """Return the module of the package ``nvidia-ml-py``; None if it or the driver is missing.

    This asks the driver nothing. It is not for a thread of its own: where a process is forked
    while another thread imports or loads a library, the child waits for that thread for ever.
    """
    try:
        import ctypes  # noqa: PLC0415 - 35 ms with the next, and only where somebody trains

        import pynvml  # noqa: PLC0415

        ctypes.CDLL("libnvidia-ml.so.1")
    except Exception:
        return None
    return pynvml


def read_gpus(nvml: Any | None) -> list[GPU]:
    """Return the GPUs of this machine or container in the order of their PCI addresses.

    This may block for as long as the driver does.

    Args:
        nvml: What ``load_nvml`` returned.

    Raises:
        UnknownGPUError: If there is no NVML, or no answer.
    """
    if nvml is None:
        raise UnknownGPUError("nvidia-ml-py or NVIDIA's driver is missing")
    try:
        nvml.nvmlInit()
    except Exception as error:
        raise UnknownGPUError(f"NVML is not available: {error}") from error
    try:
        gpus = list(_read_usable(nvml))
    except Exception as error:
        raise UnknownGPUError(f"NVML does not answer: {error}") from error
    finally:
        with contextlib.suppress(Exception):
            nvml.nvmlShutdown()  # NVML counts who uses it: the application's own use goes on
    return sorted(gpus, key=lambda gpu: gpu.whole.pci_bus_id.lower())


def _read_usable(nvml: Any) -> Iterator[GPU]:
    """Yield the GPUs that the process may open: a job's cgroup may keep the others from it."""
    for number in range(nvml.nvmlDeviceGetCount()):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(number)
        except nvml.NVMLError as error:
            if error.value != nvml.NVML_ERROR_NO_PERMISSION:
                raise
        else:
            yield _read_gpu(nvml, handle, number)


def _read_gpu(nvml: Any, handle: Any, number: int) -> GPU:
    whole = Device(
        number=str(number),
        uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
        pci_bus_id=_text(nvml.nvmlDeviceGetPciInfo(handle).busId),
        model=_text(nvml.nvmlDeviceGetName(handle)),
    )
    try:
        is_partitioned = nvml.nvmlDeviceGetMigMode(handle)[0] == nvml.NVML_DEVICE_MIG_ENABLE
    except nvml.NVMLError:  # most models cannot be partitioned
        is_partitioned = False
    instances = tuple(_read_instances(nvml, handle)) if is_partitioned else ()
    return GPU(whole, is_partitioned, instances)


def _read_instances(nvml: Any, handle: Any) -> list[Instance]:
    instances = []
    for number in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            part = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)
        except nvml.NVMLError:  # none of this number, or not for this container
            continue
        profile = _PROFILE.search(_text(nvml.nvmlDeviceGetName(part)))
        instances.append(
            Instance(
                uuid=_text(nvml.nvmlDeviceGetUUID(part)),
                gpu_instance_id=nvml.nvmlDeviceGetGpuInstanceId(part),
                compute_instance_id=nvml.nvmlDeviceGetComputeInstanceId(part),
                profile=profile[1] if profile else "",
            )
        )
    return instances


def _text(value: str | bytes) -> str:
    """Return a text of NVML, which old versions of the package give as bytes."""
    return value.decode() if isinstance(value, bytes) else value
