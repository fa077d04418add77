"""A toy training with MMEngine's Runner, as in its documentation, plus validation and a test."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from mmengine.runner import Runner
from torch import nn

if TYPE_CHECKING:
    from pathlib import Path

SAMPLES = 50


@MODELS.register_module()
class ToyModel(BaseModel):
    """A model that fits a line, and keeps a loss and a user's whole number in the hub."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 1)

    def forward(self, img: torch.Tensor, label: torch.Tensor, mode: str) -> Any:
        difference = self.linear(img) - label
        if mode == "predict":
            return [difference]
        hub = MessageHub.get_current_instance()
        hub.update_scalar("train/loss_tmp", difference.abs().sum())
        hub.update_scalar("train/samples", len(img))
        return {"loss1": difference.pow(2), "loss2": difference.abs()}


@METRICS.register_module()
class ToyMetric(BaseMetric):
    """A metric that returns a number, and something that is not a number."""

    def process(self, _batch: Any, samples: Any) -> None:
        self.results.extend(float(sample.mean()) for sample in samples)

    def compute_metrics(self, results: list[float]) -> dict[str, Any]:
        return {"bias": sum(results) / len(results), "count": len(results), "shape": [1, 2]}


@DATASETS.register_module()
class ToyDataset(torch.utils.data.Dataset):
    """A dataset of fifty samples of one line."""

    METAINFO: dict[str, Any] = {}  # noqa: RUF012 - as MMEngine's datasets have it
    metainfo: dict[str, Any] = {}  # noqa: RUF012

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.full((1,), index / SAMPLES), torch.ones(1)


def toy_config(folder: Path | str, *, by_epoch: bool, **options: Any) -> Config:
    """Return the configuration of a training in a folder."""
    loader = {
        "batch_size": 2,
        "num_workers": 0,
        "collate_fn": {"type": "default_collate"},
        "sampler": {"type": "DefaultSampler", "shuffle": True},
        "dataset": {"type": "ToyDataset"},
    }
    evaluator = [{"type": "ToyMetric", "prefix": "toy"}]
    by_iteration = {"by_epoch": False, "max_iters": 60, "val_interval": 20}
    return Config(
        {
            "model": {"type": "ToyModel"},
            "work_dir": str(folder),
            "train_dataloader": loader,
            "val_dataloader": loader,
            "test_dataloader": loader,
            "val_cfg": {},
            "test_cfg": {},
            "val_evaluator": evaluator,
            "test_evaluator": evaluator,
            "train_cfg": {"by_epoch": True, "max_epochs": 2} if by_epoch else by_iteration,
            "log_processor": {"by_epoch": by_epoch},
            "default_hooks": {"checkpoint": None},
            "optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.01}},
            "log_level": "ERROR",
            **options,
        }
    )


def main(folder: str, way: str, visualizer: str) -> None:
    """Train and test, as one of the ranks that the environment describes."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # MMEngine's own launcher requires accelerators; later MMEngine only asks for the rank.
        torch.distributed.init_process_group("gloo")
    import otel_dllogger.integrations.mmengine  # noqa: F401, PLC0415 - registers its classes

    ours = {"type": "DLLoggerVisBackend", "run": "toy", "prometheus": {"port": 0}}
    options: dict[str, Any] = {"custom_hooks": [{"type": "DLLoggerHook"}]}
    backends = [{"type": "LocalVisBackend"}, ours]
    if visualizer == "hook-only":
        backends.pop()
        del ours["type"]
        options["custom_hooks"] = [{"type": "DLLoggerHook", **ours}]
    options["visualizer"] = {"type": "Visualizer", "vis_backends": backends}
    runner = Runner.from_cfg(toy_config(folder, by_epoch=way == "epoch", **options))
    runner.train()
    runner.test()


if __name__ == "__main__":
    main(*sys.argv[1:])
