"""The LogProcessor gives what MMEngine's gives, on MMEngine's own Runner."""

from __future__ import annotations

import copy
import itertools
from typing import TYPE_CHECKING, Any

import mmengine
import pytest
from mmengine.hooks import Hook
from mmengine.runner import LogProcessor as MMEngineLogProcessor
from mmengine.runner import Runner

from otel_dllogger.training import LogProcessor
from tests.support.mmengine_toy import SAMPLES, toy_config

if TYPE_CHECKING:
    from collections.abc import Iterator

CUSTOM = {
    "none": None,
    "overwritten": [{"data_src": "loss1", "method_name": "mean", "window_size": "global"}],
    "maxima": [
        {
            "data_src": "loss1",
            "log_name": "loss1_local_max",
            "method_name": "max",
            "window_size": 9,
        },
        {
            "data_src": "loss1",
            "log_name": "loss1_global_max",
            "method_name": "max",
            "window_size": "global",
        },
    ],
    "of all kinds": [
        {"data_src": "loss_tmp", "method_name": "min", "window_size": 7},
        {"data_src": "time", "method_name": "max", "window_size": 4},
        {"data_src": "lr", "log_name": "highest_lr", "method_name": "max", "window_size": 2},
        {"data_src": "samples", "method_name": "mean", "window_size": 3},
    ],
}
EPOCHS = [{"data_src": "loss2", "method_name": "mean", "window_size": "epoch"}]
COMBINATIONS = [
    {
        "window_size": window_size,
        "by_epoch": by_epoch,
        "custom_cfg": custom,
        "log_with_hierarchy": hierarchy,
        "num_digits": digits,
    }
    for window_size, by_epoch, custom, (hierarchy, digits) in itertools.product(
        (1, 10, 1000), (True, False), CUSTOM.values(), ((False, 4), (True, 4), (False, 2))
    )
] + [{"custom_cfg": EPOCHS, "window_size": size} for size in (3, 20)]

Given = tuple[str, dict[str, Any], str]


class Compare(Hook):
    """Ask both processors, at the beginning, in the middle and at the end of each loop."""

    priority = "LOWEST"

    def __init__(self) -> None:
        self.given: dict[int, list[tuple[Given, Given]]] = {
            number: [] for number in range(len(COMBINATIONS))
        }

    def ask(self, method: str, runner: Runner, batch_idx: int, mode: str, **options: bool) -> None:
        for number, combination in enumerate(COMBINATIONS):
            theirs, ours = (
                getattr(kind(**copy.deepcopy(combination)), method)(
                    runner, batch_idx, mode, **options
                )
                for kind in (MMEngineLogProcessor, LogProcessor)
            )
            assert list(theirs[0]) == list(ours[0])  # the order as well
            self.given[number].append(((mode, dict(theirs[0]), theirs[1]), (mode, *ours)))

    def _after_iter(self, runner, batch_idx, data_batch=None, outputs=None, mode="train"):
        if batch_idx in (0, 12, SAMPLES // 2 - 1):
            self.ask("get_log_after_iter", runner, batch_idx, mode)

    def after_val_epoch(self, runner, metrics=None):
        self.ask("get_log_after_epoch", runner, SAMPLES // 2, "val")

    def after_test_epoch(self, runner, metrics=None):
        for with_non_scalar in (False, True):
            self.ask(
                "get_log_after_epoch",
                runner,
                SAMPLES // 2,
                "test",
                with_non_scalar=with_non_scalar,
            )


@pytest.fixture(scope="module", params=["epoch", "iter"])
def compared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Compare]:
    """Train, validate and test, by epoch or by iteration, with both processors asked."""
    hook = Compare()
    config = toy_config(tmp_path_factory.mktemp("run"), by_epoch=request.param == "epoch")
    config.visualizer = {"type": "Visualizer", "vis_backends": [], "name": request.param}
    config.experiment_name = request.param
    runner = Runner.from_cfg(config)
    runner.register_hook(hook)
    runner.train()
    runner.test()
    yield hook
    mmengine.logging.MessageHub._instance_dict.clear()


@pytest.mark.parametrize("number", range(len(COMBINATIONS)))
def test_tag_and_line_are_mmengines(compared: Compare, number: int) -> None:
    """Tag and text are equal, to the last digit, in training, validation and test."""
    given = compared.given[number]
    modes = {theirs[0] for theirs, _ in given}
    assert {"train", "val", "test"} == modes
    assert [theirs for theirs, _ in given] == [ours for _, ours in given]


def test_a_line_of_a_validation_alone_has_no_epoch(tmp_path_factory) -> None:
    """Without a training the runner has no epoch: 0, as MMEngine shows it."""
    hook = Compare()
    config = toy_config(tmp_path_factory.mktemp("run"), by_epoch=True)
    config.visualizer = {"type": "Visualizer", "vis_backends": [], "name": "val-alone"}
    config.experiment_name = "val-alone"
    runner = Runner.from_cfg(config)
    runner.register_hook(hook)
    runner.val()
    given = hook.given[0]
    assert given
    assert [theirs for theirs, _ in given] == [ours for _, ours in given]
    assert "Epoch(val) [0][25/25]" in given[-1][1][2]
