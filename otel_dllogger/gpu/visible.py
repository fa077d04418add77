"""Which GPUs the environment lets a process use, and which of them is that of a rank.

The rules are CUDA's, as far as they are documented (CUDA C++ Programming Guide, "CUDA Environment
Variables"; MIG User Guide, "CUDA Device Enumeration"). Where CUDA alone knows, this does not guess:
an operator may exchange a GPU because of the answer.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from otel_dllogger.gpu.device import Device, UnknownGPUError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otel_dllogger.gpu.device import GPU

CUDA_VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"
CUDA_DEVICE_ORDER = "CUDA_DEVICE_ORDER"
NVIDIA_VISIBLE_DEVICES = "NVIDIA_VISIBLE_DEVICES"
ROCR_VISIBLE_DEVICES = "ROCR_VISIBLE_DEVICES"
HIP_VISIBLE_DEVICES = "HIP_VISIBLE_DEVICES"

VARIABLES = (
    CUDA_VISIBLE_DEVICES,
    CUDA_DEVICE_ORDER,
    NVIDIA_VISIBLE_DEVICES,
    ROCR_VISIBLE_DEVICES,
    HIP_VISIBLE_DEVICES,
)
"""The variables that decide which GPUs a process sees."""

_INDEX = re.compile(r"\+?([0-9]+)")  # like strtoul: "1gpu" is 1
_OLD_MIG = re.compile(r"MIG-(GPU-[^/]+)/([0-9]+)/([0-9]+)")


def visible_on_cuda(gpus: Sequence[GPU], environ: Mapping[str, str]) -> list[Device]:
    """Return the devices that CUDA shows to a process, in CUDA's order.

    Args:
        gpus: The GPUs of the machine or container, in the order of their PCI addresses.
        environ: The variables of the process.

    Raises:
        UnknownGPUError: If only CUDA itself could tell.
    """
    entries = environ.get(CUDA_VISIBLE_DEVICES)
    if entries is None:
        return _whole(gpus, gpus, environ)
    if entries.strip().startswith(("GPU-", "MIG-")):
        return _by_uuid(gpus, entries, environ)
    numbers = _indices(entries)
    # An index that is invalid ends the list.
    valid = next((at for at, number in enumerate(numbers) if number >= len(gpus)), len(numbers))
    return _whole([gpus[number] for number in numbers[:valid]], gpus, environ)


def visible_on_rocm(environ: Mapping[str, str]) -> list[Device]:
    """Return the devices that ROCm shows to a process, as far as the environment tells.

    Args:
        environ: The variables of the process.

    Raises:
        UnknownGPUError: If the environment says nothing.
    """
    outer = environ.get(ROCR_VISIBLE_DEVICES)
    inner = environ.get(HIP_VISIBLE_DEVICES)
    if outer is None and inner is None:
        raise UnknownGPUError(f"neither {ROCR_VISIBLE_DEVICES} nor {HIP_VISIBLE_DEVICES} is set")
    if inner is None:
        inner = environ.get(CUDA_VISIBLE_DEVICES)  # which HIP reads as well
    if outer is None:
        return [Device(str(number)) for number in _indices(inner or "")]
    devices = []
    for entry in (one.strip() for one in outer.split(",")):
        if entry.startswith("GPU-"):
            devices.append(Device("", uuid=entry))
        elif index := _INDEX.match(entry):
            devices.append(Device(index[1]))
        else:
            break
    if inner is None:
        return devices
    return [devices[number] for number in _indices(inner) if number < len(devices)]


def device_of_rank(
    devices: Sequence[Device], local_rank: int | None, local_size: int | None
) -> Device:
    """Return the device on which a rank computes, by the convention that launchers document.

    Args:
        devices: Those that the process can use.
        local_rank: The number of the rank on its host, None if unknown.
        local_size: The number of ranks on the host, None if unknown.

    Raises:
        UnknownGPUError: If there is none, or it may be another one or several.
    """
    if len(devices) == 1:
        return devices[0]
    if not devices:
        raise UnknownGPUError("no GPU is visible to this process")
    if local_rank is None:
        raise UnknownGPUError(f"{len(devices)} GPUs are visible, and there is no local rank")
    if local_size is not None and local_size < len(devices):
        raise UnknownGPUError(
            f"{len(devices)} GPUs are visible to {local_size} ranks, so that one may use several"
        )
    if not 0 <= local_rank < len(devices):
        raise UnknownGPUError(f"local rank {local_rank} has none of {len(devices)} visible GPUs")
    return devices[local_rank]


def _indices(entries: str) -> list[int]:
    """Return the indices before the first entry that is none; a repeated one leaves nothing."""
    numbers: list[int] = []
    for entry in entries.split(","):
        index = _INDEX.match(entry.strip())
        if index is None:
            break
        if int(index[1]) in numbers:
            return []
        numbers.append(int(index[1]))
    return numbers


def _whole(chosen: Sequence[GPU], gpus: Sequence[GPU], environ: Mapping[str, str]) -> list[Device]:
    """Return the devices of GPUs that were chosen by their places among all GPUs."""
    by_address = environ.get(CUDA_DEVICE_ORDER) == "PCI_BUS_ID"
    if chosen and not by_address and len({gpu.whole.model for gpu in gpus}) > 1:
        raise UnknownGPUError(
            f"the GPUs differ in their models, and {CUDA_DEVICE_ORDER} is not PCI_BUS_ID: CUDA "
            "counts from the fastest"
        )
    if len(chosen) > 1 and any(gpu.is_partitioned for gpu in chosen):
        raise UnknownGPUError(f"under MIG, an index in {CUDA_VISIBLE_DEVICES} names no instance")
    return [_usable(gpu, environ) for gpu in chosen]


def _by_uuid(gpus: Sequence[GPU], entries: str, environ: Mapping[str, str]) -> list[Device]:
    """Return the devices before the first entry that names none, or several."""
    devices: list[Device] = []
    for entry in (one.strip() for one in entries.split(",")):
        found = _parts(gpus, entry) if entry.startswith("MIG-") else _gpus(gpus, entry, environ)
        if len(found) != 1:
            break
        if found[0] in devices:  # as with indices
            return []
        devices += found
    return devices


def _gpus(gpus: Sequence[GPU], prefix: str, environ: Mapping[str, str]) -> list[Device]:
    """Return the GPUs whose UUIDs begin like an entry."""
    if not prefix.startswith("GPU-"):
        return []
    found = [gpu for gpu in gpus if gpu.whole.uuid.startswith(prefix)]
    return [gpu.whole for gpu in found] if len(found) > 1 else [_usable(g, environ) for g in found]


def _parts(gpus: Sequence[GPU], entry: str) -> list[Device]:
    """Return the instances that an entry names: ``MIG-<uuid>`` or ``MIG-GPU-<uuid>/1/0``."""
    named = _OLD_MIG.fullmatch(entry)
    return [
        gpu.part(instance)
        for gpu in gpus
        for instance in gpu.instances
        if instance.uuid == entry
        or (
            named
            and gpu.whole.uuid.startswith(named[1])
            and (instance.gpu_instance_id, instance.compute_instance_id)
            == (int(named[2]), int(named[3]))
        )
    ]


def _usable(gpu: GPU, environ: Mapping[str, str]) -> Device:
    """Return a GPU, or under MIG the only instance of it that this process can mean."""
    if not gpu.is_partitioned:
        return gpu.whole
    instances = gpu.instances
    if len(instances) > 1:  # a container may see more of them than were given to it
        given = environ.get(NVIDIA_VISIBLE_DEVICES, "").split(",")
        instances = tuple(one for one in instances if one.uuid in given)
    if len(instances) != 1:
        raise UnknownGPUError(f"{gpu.whole.uuid} is partitioned, and nothing names the instance")
    return gpu.part(instances[0])
