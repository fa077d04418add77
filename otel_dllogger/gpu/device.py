"""What identifies a GPU, in the words of dcgm-exporter."""

from __future__ import annotations

import dataclasses


class UnknownGPUError(LookupError):
    """The error that it cannot be told for certain on which GPU this process computes."""


@dataclasses.dataclass(frozen=True, slots=True)
class Instance:
    """A part of a GPU that is partitioned, an instance under MIG.

    Args:
        uuid: The UUID of the part itself, ``MIG-...``.
        gpu_instance_id: The number of the GPU instance on its GPU.
        compute_instance_id: The number of the compute instance in its GPU instance.
        profile: The kind of the GPU instance, such as ``1g.5gb``.
    """

    uuid: str
    gpu_instance_id: int
    compute_instance_id: int
    profile: str


@dataclasses.dataclass(frozen=True, slots=True)
class Device:
    """A GPU, or one instance of it; what is not known is empty.

    Args:
        number: The number of the GPU, as nvidia-smi shows it.
        uuid: The UUID of the GPU, also of that of an instance.
        pci_bus_id: Where it is plugged in, such as ``00000000:65:00.0``.
        model: The name of the model.
        instance: The instance; None for a whole GPU.
    """

    number: str
    uuid: str = ""
    pci_bus_id: str = ""
    model: str = ""
    instance: Instance | None = None

    def labels(self) -> dict[str, str]:
        """Return the labels that dcgm-exporter has for it, as far as they are known."""
        labels = {
            "gpu": self.number,
            "UUID": self.uuid,
            "pci_bus_id": self.pci_bus_id,
            "modelName": self.model,
        }
        if self.instance is not None:
            labels["GPU_I_ID"] = str(self.instance.gpu_instance_id)
            labels["GPU_I_PROFILE"] = self.instance.profile
        return {name: text for name, text in labels.items() if text}


@dataclasses.dataclass(frozen=True, slots=True)
class GPU:
    """A GPU of this machine as the driver knows it.

    Args:
        whole: The GPU as one device.
        is_partitioned: Whether MIG is on, so that only instances can be used.
        instances: The instances that this process may use.
    """

    whole: Device
    is_partitioned: bool = False
    instances: tuple[Instance, ...] = ()

    def part(self, instance: Instance) -> Device:
        """Return an instance of this GPU as a device."""
        return dataclasses.replace(self.whole, instance=instance)
