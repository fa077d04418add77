"""The example trains for real: PyTorch, four ranks under torchrun, as its header says."""

from __future__ import annotations

import json
import math
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tests.support.http import ask
from tests.support.paths import ROOT
from tests.support.prometheus import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EXAMPLE = ROOT / "examples" / "train_digits_ddp.py"
TORCHRUN = ROOT / ".venv-torch" / "bin" / "torchrun"
RANKS = 4
SECONDS = 3

pytestmark = [
    pytest.mark.newest_only,
    pytest.mark.skipif(not TORCHRUN.exists(), reason="no PyTorch: make .venv-torch/.done"),
]


@pytest.fixture
def training(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Start the example in a folder of its own; each rank waits for a scrape of its end."""
    with (tmp_path / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            [
                TORCHRUN,
                "--standalone",
                f"--nproc-per-node={RANKS}",
                EXAMPLE,
                f"--seconds={SECONDS}",
                "--step-seconds=0.01",
                "--port=0",
            ],
            cwd=tmp_path,
            env={
                **os.environ,
                "OTEL_DLLOGGER_DISCOVERY_DIR": str(tmp_path / "discovery"),
                "OTEL_DLLOGGER_LINGER_SECONDS": "200",
                "OMP_NUM_THREADS": "1",
            },
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    yield process
    process.terminate()  # torchrun ends its ranks
    process.wait(60)
    process.stdout.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text().splitlines()
    assert all(line.startswith("DLLL ") for line in lines)
    return [json.loads(line[5:]) for line in lines]


def test_the_example_trains_and_every_rank_is_seen(
    training: subprocess.Popen[str], tmp_path: Path
) -> None:
    """Four pages show loss, throughput and accuracy live, four logs hold every step of them."""

    def found() -> dict[str, int]:
        assert training.poll() is None, (tmp_path / "stderr").read_text()
        groups = [json.loads(path.read_text())[0] for path in tmp_path.glob("discovery/*.json")]
        return {
            group["labels"]["__meta_dllogger_rank"]: int(group["targets"][0].rpartition(":")[2])
            for group in groups
        }

    ports = wait_for(found, lambda ports: len(ports) == RANKS, within_s=120)
    assert {"0", "1", "2", "3"} == ports.keys()
    losses = {rank: watch_to_the_end(port, rank) for rank, port in ports.items()}
    assert 0 == training.wait(60), (tmp_path / "stderr").read_text()
    assert RANKS == len(set(losses.values())), "each rank has data, and so a loss, of its own"

    logs = [read_log(tmp_path / f"log_rank{rank}.json") for rank in range(RANKS)]
    steps = [[(entry["type"], entry.get("step")) for entry in log] for log in logs]
    assert [steps[0]] * RANKS == steps
    epochs = [step for _, step in steps[0] if isinstance(step, list) and len(step) == 1]
    assert [[epoch] for epoch in range(len(epochs))] == epochs
    assert len(epochs) > 1
    assert ("LOG", []) == steps[0][-1]
    for rank, log in enumerate(logs):
        values = [entry["data"]["train.loss"] for entry in log if len(entry.get("step", ())) == 2]
        assert all(map(math.isfinite, values))
        assert values[0] > values[-1] == losses[str(rank)]
        assert log[-1]["data"]["val.accuracy"] > 60
    assert 1 == len({log[-1]["data"]["val.accuracy"] for log in logs})
    # Rank 0 alone prints: the parameters, the epochs and the summary.
    said = list(training.stdout)
    assert 1 + len(epochs) + 1 == len([line for line in said if line.startswith("DLL ")])
    assert "  otel-dllogger watch\n" in said
    (curl,) = [line for line in said if line.startswith("  curl ")]
    assert f"http://127.0.0.1:{ports['0']}/metrics" in curl


def watch_to_the_end(port: int, rank: str) -> float:
    """Scrape a rank as it trains until it shows the end; return its last loss."""

    def page() -> dict[str, list[Any]]:
        text = ask(port).body.decode()
        samples = [sample for family in parse_text(text) for sample in family.samples]
        assert {rank} == {one.labels["rank"] for one in samples if "rank" in one.labels}
        by_name: dict[str, list[Any]] = {}
        for sample in samples:
            by_name.setdefault(sample.name, []).append(sample)
        return by_name

    last = wait_for(page, lambda page: page["dllogger_run_finished"][0].value == 1, within_s=120)
    assert {"epoch", "run"} == {one.labels["granularity"] for one in last["dl_accuracy_percent"]}
    assert {"val"} == {one.labels["stage"] for one in last["dl_accuracy_percent"]}
    assert str(RANKS) == last["dllogger_rank_info"][0].labels["world_size"]
    (throughput,) = last["dl_ips_per_second"]
    assert throughput.value > 0
    assert {0.0} == {one.value for one in last["dllogger_dropped_total"]}
    (loss,) = last["dl_loss"]
    assert ("train", "minimize") == (loss.labels["stage"], loss.labels["goal"])
    return loss.value
