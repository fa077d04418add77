"""One rank of a training run that goes on by itself, with a fault if it is told to have one.

It logs as a training script does: about 20 iterations a second, epochs of 160 of them, a
validation after each. It goes on until SIGTERM, or until it has made its epochs, and says in
JSON lines on its standard output what happened when. Started again after a kill, it resumes
at the last epoch that was complete, as from a checkpoint.

usage: train_rank.py '{"folder": "...", "fault": null, "at_s": 0, "for_s": 0, "epochs": 50}'

faults: ``slow`` takes twice the time for data and step, from the start; ``stops`` logs no
more from ``at_s`` on, and stays; ``nan`` has a loss of NaN from ``at_s`` for ``for_s``;
``restart`` kills itself at ``at_s``.
"""

from __future__ import annotations

import json
import math
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import otel_dllogger as dllogger

BATCH_SIZE = 32
TOKENS_PER_IMAGE = 196
ITERATIONS_PER_EPOCH = 160
VALIDATION_ITERATIONS = 3
DATA_S, COMPUTE_S = 0.01, 0.04
FORWARD_SHARE = 0.25


class Rank:
    """Train until told to stop.

    Args:
        options: As on the command line.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        self.number = int(os.environ["RANK"])
        self.folder = Path(options["folder"])
        self.fault = options.get("fault")
        self.fault_at_s = float(options.get("at_s", 0))
        self.fault_for_s = float(options.get("for_s", 0))
        self.epochs = int(options["epochs"])
        self.stopped = False
        self.world_size = int(os.environ["WORLD_SIZE"])
        self.random = random.Random(self.number)
        self.start_s = time.monotonic()
        self.said: set[str] = set()
        name = f"checkpoint_{os.environ['TORCHELASTIC_RUN_ID']}_{self.number}"
        self.checkpoint = self.folder / name
        self.steps = 0

    def stop(self, *_signal: object) -> None:
        """End after this step."""
        self.stopped = True

    def say(self, event: str) -> None:
        """Tell the test, once for each kind of event."""
        if event not in self.said:
            self.said.add(event)
            print(json.dumps([event, time.time()]), flush=True)

    def fault_is_on(self, fault: str) -> bool:
        """Return whether this rank has this fault now."""
        if self.fault != fault:
            return False
        elapsed_s = time.monotonic() - self.start_s - self.fault_at_s
        return elapsed_s >= 0 and (not self.fault_for_s or elapsed_s < self.fault_for_s)

    def train(self) -> None:
        """Train epoch by epoch."""
        first = int(self.checkpoint.read_text()) + 1 if self.checkpoint.exists() else 0
        for epoch in range(first, self.epochs):
            for iteration in range(ITERATIONS_PER_EPOCH):
                if self.stopped:
                    return
                self.step(epoch, iteration)
            self.validate(epoch)
            with dllogger.phase("checkpoint"):
                self.checkpoint.write_text(str(epoch))
            dllogger.event("checkpoint_saved")

    def step(self, epoch: int, iteration: int) -> None:
        """Train one iteration, and log it."""
        started_s = time.monotonic()
        slowness = 2 if self.fault == "slow" else 1
        data_s = slowness * DATA_S * self.random.uniform(0.9, 1.1)
        time.sleep(data_s + slowness * COMPUTE_S)
        step_s = time.monotonic() - started_s
        loss = self.loss(epoch + iteration / ITERATIONS_PER_EPOCH)
        if self.fault_is_on("nan"):
            loss = math.nan
        values = {
            "train.loss": loss,
            "train.ips": BATCH_SIZE / step_s,
            "train.global_ips": self.world_size * BATCH_SIZE / step_s,
            "train.tokens_per_s": TOKENS_PER_IMAGE * BATCH_SIZE / step_s,
            "train.data_time": data_s,
            "train.compute_time": step_s - data_s,
            "train.forward_ms": 1000 * FORWARD_SHARE * (step_s - data_s),
            "lr": 0.1 / (1 + epoch),
            "grad_norm": 1 + 2 * self.random.random(),
        }
        self.behave()
        dllogger.log((epoch, iteration), values)
        if math.isnan(loss):
            self.say("nan")
        self.steps += 1

    def behave(self) -> None:
        """Come to grief, if this is the time."""
        if self.fault_is_on("stops"):
            self.say("stops")
            while not self.stopped:
                time.sleep(0.1)
        if self.fault_is_on("restart"):
            self.say("restart")
            os.kill(os.getpid(), signal.SIGKILL)

    def validate(self, epoch: int) -> None:
        """Log a validation and the means of the epoch."""
        losses = []
        for iteration in range(VALIDATION_ITERATIONS):
            losses.append(1.1 * self.loss(epoch + 1))
            top1 = 100 * (1 - math.exp(-0.1 * (epoch + 1)))
            values = {"val.loss": losses[-1], "val.top1": top1}
            dllogger.log((epoch, ITERATIONS_PER_EPOCH, iteration), values)
        mean = {"train.loss": self.loss(epoch + 1), "val.loss": sum(losses) / len(losses)}
        dllogger.log((epoch,), {**mean, "val.top1": top1})

    def loss(self, epochs: float) -> float:
        """Return a loss that falls, a little different on each rank."""
        return 0.2 + 2.1 * math.exp(-0.15 * epochs) + 0.02 * self.random.random()


def describe_metrics() -> None:
    """Say what the metrics are, of some: the others are known by their names."""
    dllogger.metadata("train.loss", {"GOAL": "MINIMIZE", "STAGE": "TRAIN", "format": ":.4f"})
    dllogger.metadata("val.loss", {"GOAL": "MINIMIZE", "STAGE": "VAL", "format": ":.4f"})
    dllogger.metadata("val.top1", {"unit": "%", "GOAL": "MAXIMIZE", "STAGE": "VAL"})
    for name, scope in (("train.ips", "RANK"), ("train.global_ips", "GLOBAL")):
        speed = {"unit": "imgs/s", "GOAL": "MAXIMIZE", "STAGE": "TRAIN", "SCOPE": scope}
        dllogger.metadata(name, speed)
    for name in ("train.data_time", "train.compute_time"):
        dllogger.metadata(name, {"unit": "s", "GOAL": "MINIMIZE", "STAGE": "TRAIN"})
    for name in ("lr", "grad_norm"):
        dllogger.metadata(name, {"STAGE": "TRAIN"})


def main() -> None:
    rank = Rank(json.loads(sys.argv[1]))
    signal.signal(signal.SIGTERM, rank.stop)
    log = rank.folder / "log_{run}_rank{rank}.json"
    page = dllogger.PrometheusBackend(dllogger.Verbosity.VERBOSE, text_parameters=True)
    dllogger.init([dllogger.JSONStreamBackend(dllogger.Verbosity.VERBOSE, log), page])
    describe_metrics()
    sizes = {"batch_size": BATCH_SIZE, "epochs": rank.epochs}
    dllogger.log("PARAMETER", {**sizes, "lr": 0.1, "optimizer": "sgd", "seed": rank.number})
    rank.say("started")
    rank.train()
    dllogger.log((), {"train.total_steps": rank.steps})
    rank.say("finished")
    dllogger.shutdown()
    rank.say("closed")


main()
