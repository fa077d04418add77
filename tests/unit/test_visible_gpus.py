"""Which GPU a rank computes on, by its environment alone."""

from __future__ import annotations

import pytest

from otel_dllogger.gpu.device import GPU, Device, Instance, UnknownGPUError
from otel_dllogger.gpu.visible import device_of_rank, visible_on_cuda, visible_on_rocm
from otel_dllogger.identity import find_local_rank

pytestmark = pytest.mark.newest_only


def gpu(number, uuid, model="H100", **options):
    return GPU(Device(str(number), uuid, f"00000000:{number:02}:00.0", model), **options)


EQUAL = [gpu(0, "GPU-aa01"), gpu(1, "GPU-aa02"), gpu(2, "GPU-bb03"), gpu(3, "GPU-cc04")]
MIXED = [gpu(0, "GPU-aa01", "A100"), gpu(1, "GPU-aa02", "H100")]
ONE, TWO = Instance("MIG-1111", 7, 0, "1g.5gb"), Instance("MIG-2222", 9, 1, "2g.10gb")
PARTS = gpu(0, "GPU-aa01", is_partitioned=True, instances=(ONE, TWO))
ONE_PART = gpu(1, "GPU-bb02", is_partitioned=True, instances=(Instance("MIG-3", 1, 0, "7g.40gb"),))


def uuids(devices):
    return " ".join(device.uuid.removeprefix("GPU-") for device in devices)


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        (None, "aa01 aa02 bb03 cc04"),
        ("", ""),
        ("3,1", "cc04 aa02"),
        (" 3, 1 ", "cc04 aa02"),
        ("1gpu2,+2", "aa02 bb03"),
        ("0,2,-1,1", "aa01 bb03"),
        ("0,4,1", "aa01"),
        ("0,x,1", "aa01"),
        ("0,,1", "aa01"),
        ("0,1,0", ""),
        ("NoDevFiles", ""),
        ("GPU-cc04,GPU-aa01", "cc04 aa01"),
        ("GPU-b", "bb03"),
        ("GPU-cc04,GPU-aa,GPU-bb03", "cc04"),
        ("GPU-cc04,GPU-dd,GPU-bb03", "cc04"),
        ("GPU-cc04,1", "cc04"),
        ("1,GPU-cc04", "aa02"),
        ("GPU-cc04,GPU-cc", ""),
        ("MIG-1111", ""),
    ],
)
def test_what_cuda_shows(entries, expected):
    """An entry that is invalid ends the list, and one that is repeated empties it."""
    environ = {} if entries is None else {"CUDA_VISIBLE_DEVICES": entries}
    assert uuids(visible_on_cuda(EQUAL, environ)) == expected


def test_an_index_of_mixed_models_is_a_guess_unless_the_order_is_set():
    """CUDA counts from the fastest then, which no table says."""
    for environ in ({}, {"CUDA_VISIBLE_DEVICES": "1"}, {"CUDA_DEVICE_ORDER": "FASTEST_FIRST"}):
        with pytest.raises(UnknownGPUError, match="CUDA_DEVICE_ORDER is not PCI_BUS_ID"):
            visible_on_cuda(MIXED, environ)
    ordered = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "1,0"}
    assert uuids(visible_on_cuda(MIXED, ordered)) == "aa02 aa01"
    assert uuids(visible_on_cuda(MIXED, {"CUDA_VISIBLE_DEVICES": "GPU-aa02"})) == "aa02"
    assert visible_on_cuda(MIXED, {"CUDA_VISIBLE_DEVICES": ""}) == []


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ("MIG-2222", [PARTS.part(TWO)]),
        ("MIG-GPU-aa01/7/0", [PARTS.part(ONE)]),
        ("MIG-GPU-aa01/7/1", []),
        ("MIG-GPU-bb/1/0", [ONE_PART.part(ONE_PART.instances[0])]),
        ("MIG-2222,MIG-4444,MIG-1111", [PARTS.part(TWO)]),
        ("GPU-bb02", [ONE_PART.part(ONE_PART.instances[0])]),
        ("1", [ONE_PART.part(ONE_PART.instances[0])]),
    ],
)
def test_instances_are_found_by_both_ways_to_name_them(entries, expected):
    """A GPU that is partitioned into one instance is that instance."""
    found = visible_on_cuda([PARTS, ONE_PART], {"CUDA_VISIBLE_DEVICES": entries})
    assert found == expected


@pytest.mark.parametrize("entries", [None, "0", "0,1", "GPU-aa01"])
def test_an_instance_that_nothing_names_is_not_guessed(entries):
    """CUDA takes the first that it finds."""
    environ = {} if entries is None else {"CUDA_VISIBLE_DEVICES": entries}
    with pytest.raises(UnknownGPUError, match="names"):
        visible_on_cuda([PARTS, ONE_PART], environ)


def test_of_several_partitioned_gpus_cuda_shows_one_instance_alone():
    """Which one that is, only CUDA knows, even if each GPU has but one."""
    two = [ONE_PART, gpu(2, "GPU-cc03", is_partitioned=True, instances=(ONE,))]
    for environ in ({}, {"CUDA_VISIBLE_DEVICES": "1,0"}):
        with pytest.raises(UnknownGPUError, match="names no instance"):
            visible_on_cuda(two, environ)


def test_a_container_names_its_instance():
    """By NVIDIA_VISIBLE_DEVICES, where it sees the others as well."""
    given = {"NVIDIA_VISIBLE_DEVICES": "MIG-2222"}
    assert visible_on_cuda([PARTS], given) == [PARTS.part(TWO)]
    with pytest.raises(UnknownGPUError):
        visible_on_cuda([PARTS], {"NVIDIA_VISIBLE_DEVICES": "all"})


@pytest.mark.parametrize(
    ("outer", "inner", "cuda", "expected"),
    [
        ("4,5,6,7", None, None, "4 5 6 7"),
        ("4,5,6,7", "2,0", None, "6 4"),
        ("4,5,6,7", None, "1", "5"),
        (None, "3,2", None, "3 2"),
        (None, "3,2", "0", "3 2"),
        ("4,x,5", None, None, "4"),
        ("4,5", "1,7", None, "5"),
        ("GPU-4b2c,6", "0", None, "GPU-4b2c"),
        ("", None, None, ""),
    ],
)
def test_what_rocm_shows(outer, inner, cuda, expected):
    """HIP's variable counts the entries of ROCr's."""
    pairs = {
        "ROCR_VISIBLE_DEVICES": outer,
        "HIP_VISIBLE_DEVICES": inner,
        "CUDA_VISIBLE_DEVICES": cuda,
    }
    environ = {name: value for name, value in pairs.items() if value is not None}
    found = visible_on_rocm(environ)
    assert " ".join(device.number or device.uuid for device in found) == expected
    assert all(label in ("gpu", "UUID") for device in found for label in device.labels())


def test_without_rocms_variables_nothing_is_known_of_it():
    """CUDA's alone is not ROCm's."""
    with pytest.raises(UnknownGPUError):
        visible_on_rocm({"CUDA_VISIBLE_DEVICES": "0"})


@pytest.mark.parametrize(
    ("count", "local_rank", "local_size", "expected"),
    [
        (1, 3, 8, 0),  # the launcher shows each rank its own
        (1, None, None, 0),
        (4, 3, 4, 3),
        (4, 3, None, 3),
        (4, 3, 8, 3),
        (4, 5, 8, "none of 4"),
        (4, -1, None, "none of 4"),
        (4, 0, 2, "may use several"),
        (4, None, None, "no local rank"),
        (0, 0, 1, "no GPU is visible"),
    ],
)
def test_the_gpu_of_a_rank(count, local_rank, local_size, expected):
    """That of its local rank, unless it may be another one."""
    devices = [one.whole for one in EQUAL[:count]]
    if isinstance(expected, int):
        assert device_of_rank(devices, local_rank, local_size) is devices[expected]
    else:
        with pytest.raises(UnknownGPUError, match=expected):
            device_of_rank(devices, local_rank, local_size)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, (None, None)),
        ({"RANK": "9", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "8"}, (1, 8)),
        ({"RANK": "9"}, (None, None)),
        ({"SLURM_PROCID": "9", "SLURM_LOCALID": "1"}, (1, None)),
    ],
)
def test_a_local_rank_that_no_launcher_says_is_unknown(environ, expected):
    """It is not 0, which would be a GPU."""
    assert find_local_rank(environ) == expected
