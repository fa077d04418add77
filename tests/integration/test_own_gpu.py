"""The GPU of a rank on its page and over OTLP, with a real library in place of the driver's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from otel_dllogger.identity import host_name
from tests.support.collector import HTTPCollector
from tests.support.nvml import (
    A100,
    FOUR,
    H100,
    PARTITIONED,
    TWO_MODELS,
    build_library,
    describe,
)
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

pytestmark = pytest.mark.newest_only

# A rank with a page.
RANK = """
import json, os, sys, threading, time
import otel_dllogger as dllogger
from otel_dllogger.gpu.own_gpu import OWN_GPU
from prometheus_client.parser import text_string_to_metric_families as parse
from tests.support.http import ask

backend = dllogger.PrometheusBackend(0, port=0, run="r", discovery_dir="none")
logger = dllogger.Logger([backend])
logger.log((0, 1), {"loss": 1.0})
assert OWN_GPU._was_asked

def show():
    page = ask(backend.endpoint.port).body.decode()
    found = [one for family in parse(page) for one in family.samples]
    labels = [one.labels for one in found if one.name == "dllogger_gpu_info"]
    print(json.dumps(labels), flush=True)
"""
SHOW = f"{RANK}\nOWN_GPU._worker.run(30)\nshow()\nlogger.close()\n"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_library(tmp_path_factory.mktemp("library"))


def run(code: str, environ: dict[str, str]) -> list[str]:
    """Run a rank in a new process, which must end by itself and say nothing of its own."""
    known = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**known, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout.splitlines()


def gpu_info(
    library: Path, folder: Path, lines: Sequence[str], **environ: str
) -> list[dict[str, str]]:
    """Return the labels on the page of a rank on a machine with these GPUs."""
    (found,) = run(SHOW, {**describe(library, folder / "gpus", lines), **environ})
    return json.loads(found)


def test_a_rank_shows_its_gpu_as_dcgm_exporter_does(library: Path, tmp_path: Path) -> None:
    """By the same labels in the same spelling; two processes of a host show two GPUs."""
    for rank, bus in (("0", "1B"), ("3", "9D")):
        environ = {"RANK": rank, "WORLD_SIZE": "4", "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": "4"}
        (labels,) = gpu_info(library, tmp_path, FOUR, **environ)
        assert labels == {
            "run": "r",
            "rank": rank,
            "host": host_name(),
            "gpu": rank,
            "UUID": FOUR[int(rank)].split()[1],
            "pci_bus_id": f"00000000:{bus}:00.0",
            "modelName": H100,
        }


def test_an_instance_has_the_uuid_of_its_gpu(library: Path, tmp_path: Path) -> None:
    """With what tells it from its neighbours; part of an instance has the profile of the whole."""
    for name, number, profile in (
        ("MIG-one", "7", "1g.5gb"),
        ("MIG-half", "2", "3g.20gb"),
        ("MIG-GPU-parent/2/0", "2", "3g.20gb"),
    ):
        (labels,) = gpu_info(library, tmp_path, PARTITIONED, CUDA_VISIBLE_DEVICES=name)
        shown = [labels[one] for one in ("UUID", "modelName", "GPU_I_ID", "GPU_I_PROFILE")]
        assert shown == ["GPU-parent", A100, number, profile]


def test_the_order_of_cuda_decides_which_gpu_an_index_is(library: Path, tmp_path: Path) -> None:
    """Where it may be another one, nothing is shown rather than a wrong one."""
    assert gpu_info(library, tmp_path, TWO_MODELS, CUDA_VISIBLE_DEVICES="0") == []
    order = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    (labels,) = gpu_info(library, tmp_path, TWO_MODELS, CUDA_VISIBLE_DEVICES="1", **order)
    assert (labels["UUID"], labels["gpu"]) == ("GPU-fast", "1")
    # The driver's own order is not that of the addresses.
    turned = [*reversed(TWO_MODELS)]
    (labels,) = gpu_info(library, tmp_path, turned, CUDA_VISIBLE_DEVICES="1", **order)
    assert (labels["UUID"], labels["gpu"]) == ("GPU-fast", "0")


def test_a_gpu_that_the_job_may_not_open_does_not_count(library: Path, tmp_path: Path) -> None:
    """Slurm counts those that its cgroup allows from 0."""
    lines = ["denied", FOUR[1], "denied", FOUR[3]]
    (labels,) = gpu_info(library, tmp_path, lines, CUDA_VISIBLE_DEVICES="1", LOCAL_RANK="0")
    assert (labels["UUID"], labels["gpu"]) == (FOUR[3].split()[1], "3")


@pytest.mark.parametrize(
    ("lines", "environ"),
    [
        (FOUR, {}),
        (FOUR, {"CUDA_VISIBLE_DEVICES": ""}),
        (FOUR, {"CUDA_VISIBLE_DEVICES": "7"}),
        (FOUR, {"RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}),
        (PARTITIONED, {}),
        ([], {}),
        (None, {}),
    ],
    ids=["several", "none visible", "invalid", "several for a rank", "MIG", "no GPU", "no driver"],
)
def test_what_is_not_certain_is_not_shown(
    library: Path, tmp_path: Path, lines: Sequence[str] | None, environ: dict[str, str]
) -> None:
    """And nothing is said: ``gpu_info`` fails if there is a word on stderr."""
    if lines is None:
        environ = {**environ, "NVML_STAND_IN": str(tmp_path / "none")}
        lines = ()
    assert gpu_info(library, tmp_path, lines, **environ) == []


@pytest.mark.parametrize("name", ["CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"])
@pytest.mark.parametrize("lines", [FOUR, None], ids=["a driver", "no driver"])
def test_nothing_in_the_environment_ends_a_rank(
    library: Path, tmp_path: Path, lines: Sequence[str] | None, name: str
) -> None:
    """Nor the thread that asks, be it a number of more digits than Python reads."""
    test_what_is_not_certain_is_not_shown(library, tmp_path, lines, {name: "1" * 5_000})


@pytest.mark.parametrize("module", ["raise ImportError", "raise RuntimeError('broken')", ""])
def test_without_the_package_nothing_is_shown(library: Path, tmp_path: Path, module: str) -> None:
    """Nor with another one of its name, which may be empty."""
    (tmp_path / "pynvml.py").write_text(module)
    code = f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\n{SHOW}"
    assert run(code, describe(library, tmp_path / "gpus", FOUR[:1])) == ["[]"]


def test_no_thread_imports(library: Path, tmp_path: Path) -> None:
    """A child that is forked meanwhile would wait for ever for that import."""
    (tmp_path / "pynvml.py").write_text("import threading\nprint(threading.current_thread().name)")
    code = f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\n{SHOW}"
    assert run(code, describe(library, tmp_path / "gpus", FOUR[:1])) == ["MainThread", "[]"]


def test_rocm_shows_what_its_variables_say(library: Path, tmp_path: Path) -> None:
    """Where there is no driver of NVIDIA's, and only then."""
    rocm = {"ROCR_VISIBLE_DEVICES": "4,5,6,7", "RANK": "2", "LOCAL_RANK": "2"}
    none = {"NVML_STAND_IN": str(tmp_path / "none")}
    (labels,) = gpu_info(library, tmp_path, (), **rocm, **none)
    assert labels == {"run": "r", "rank": "2", "host": host_name(), "gpu": "6"}
    (labels,) = gpu_info(library, tmp_path, FOUR, **rocm)
    assert labels["UUID"] == FOUR[2].split()[1]


def test_why_there_is_none_is_said_in_one_line_to_who_asks(library: Path, tmp_path: Path) -> None:
    """At the level DEBUG, which nobody has by default."""
    listen = """
import logging, sys
logging.basicConfig(level=logging.DEBUG, stream=sys.stdout, format="%(name)s %(message)s")
"""
    lines = run(listen + SHOW, describe(library, tmp_path / "gpus", FOUR))
    said = {line for line in lines if "GPU" in line}
    reason = "4 GPUs are visible, and there is no local rank"
    assert said == {f"otel_dllogger the GPU of this rank is unknown: {reason}"}


def test_a_driver_that_does_not_answer_holds_nothing_up(library: Path, tmp_path: Path) -> None:
    """The page is there without the series, and the process ends as always."""
    code = f"""
{RANK}
show()
for step in range(1000):
    logger.log((0, step), {{"loss": 1.0}})
show()
print([one.daemon for one in threading.enumerate() if one.name == "otel-dllogger-gpu"])
logger.close()
"""
    assert run(code, describe(library, tmp_path / "gpus", ["block"])) == ["[]", "[]", "[True]"]


def test_a_child_finds_its_own_gpu(library: Path, tmp_path: Path) -> None:
    """It forgets its parent's, also if it is forked while the driver is being asked."""
    environ = describe(library, tmp_path / "gpus", FOUR)
    child = """
os.environ["CUDA_VISIBLE_DEVICES"] = "2"
pid = os.fork()
if not pid:
    assert OWN_GPU.device is None
    OWN_GPU.look_up()
    OWN_GPU._worker.run(30)
    print(OWN_GPU.device.number, flush=True)
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
"""
    first = 'import os\nos.environ["CUDA_VISIBLE_DEVICES"] = "1"\n'
    code = f"{first}{RANK}\nOWN_GPU._worker.run(30)\n{child}\nshow()\nlogger.close()\n"
    own, parent = run(code, environ)
    assert (own, json.loads(parent)[0]["gpu"]) == ("2", "1")


def test_a_child_of_a_rank_whose_driver_is_silent_may_ask_again(
    library: Path, tmp_path: Path
) -> None:
    """The thread that waits is not in the child."""
    gpus = tmp_path / "gpus"
    code = f"""
{RANK}
pid = os.fork()
if not pid:
    open({str(gpus)!r}, "w").write({FOUR[0]!r})
    OWN_GPU.look_up()
    OWN_GPU._worker.run(30)
    print(OWN_GPU.device.pci_bus_id, flush=True)
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
logger.close()
"""
    assert run(code, describe(library, gpus, ["block"])) == ["00000000:1B:00.0"]


def test_the_gpu_is_sent_over_otlp(library: Path, tmp_path: Path) -> None:
    """With the same labels as on the page."""
    code = """
import sys
import otel_dllogger as dllogger
from otel_dllogger.gpu.own_gpu import OWN_GPU

backend = dllogger.OTLPBackend(0, endpoint=sys.argv[1], run="r")
logger = dllogger.Logger([backend])
assert OWN_GPU._was_asked
OWN_GPU._worker.run(30)
logger.log((0, 1), {"loss": 1.0})
logger.close()
"""
    with HTTPCollector() as collector:
        code = code.replace("sys.argv[1]", repr(collector.url))
        assert run(code, describe(library, tmp_path / "gpus", FOUR[:1])) == []
        (point, *others) = collector.named("dllogger.gpu_info")
    assert {(one.series, one.value) for one in others} <= {(point.series, 1.0)}
    assert point.labels == {
        "run": "r",
        "rank": "0",
        "host": host_name(),
        "gpu": "0",
        "UUID": FOUR[0].split()[1],
        "pci_bus_id": "00000000:1B:00.0",
        "modelName": H100,
    }
