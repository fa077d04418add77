"""One rank of the demo: a training script as a user would write it.

It is started as torchrun starts ranks, with RANK, LOCAL_RANK and WORLD_SIZE, and trains
for a given time instead of a given number of epochs. Where others read files and wait for
an accelerator, it sleeps; the rest is real.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import otel_dllogger as dllogger
from otel_dllogger.cli.demo.model import Network, Samples, make_samples

BATCH_SIZE = 256
STEPS_PER_EPOCH = 40
EPOCHS_PER_CHECKPOINT = 5
STEPS_PER_RATE = 50
LEARNING_RATE = 0.5
READ_S = 0.008
"""Seconds that it takes to read a batch; twice as long on the rank that is slow."""

COMPUTE_S = 0.01
"""Seconds that an accelerator takes for a batch."""

MOST_AT_FULL_SPEED = 16
"""Ranks that one machine serves without delay; more of them read and compute more slowly."""

STORE_S = 0.12
"""Seconds that it takes to store a checkpoint."""

BROKEN_SAMPLE_AT = 0.35
"""The share of the training time after which one rank meets a sample that is broken."""


class Fate(NamedTuple):
    """What happens to a rank on purpose.

    Attributes:
        read_s: Seconds that it takes to read a batch.
        compute_s: Seconds that its accelerator takes for a batch.
        meets_broken_sample: Whether it meets a sample that is broken.
    """

    read_s: float
    compute_s: float
    meets_broken_sample: bool

    @classmethod
    def of(cls, rank: int, world_size: int, restarts: int) -> Fate:
        """Return what happens to a rank: the last one is slow, the second one meets the sample."""
        share = max(world_size / MOST_AT_FULL_SPEED, 1.0)
        is_slow = rank == world_size - 1 and world_size > 1
        return cls(
            (2 if is_slow else 1) * READ_S * share,
            COMPUTE_S * share,
            restarts == 0 and rank == min(1, world_size - 1),
        )


class Trainer:
    """The training of one rank's network on the rank's own share of the data.

    Args:
        rank: Which rank this is; its data depend on it.
        fate: What happens to it on purpose.
        seconds: How long to train.
        passed_s: How much of that a process before this one has trained.
        checkpoint: The file in which it saves how far it is.
        parent: The process without which it does not train on.
    """

    def __init__(
        self,
        rank: int,
        fate: Fate,
        *,
        seconds: float,
        passed_s: float,
        checkpoint: Path,
        parent: int,
    ) -> None:
        self._network = Network(seed=1)
        self._share = make_samples(BATCH_SIZE * STEPS_PER_EPOCH, seed=100 + rank)
        self._validation = make_samples(2 * BATCH_SIZE, seed=99)
        self._reading = np.random.default_rng(rank)
        self._fate = fate
        self._meets_broken_sample = fate.meets_broken_sample
        self._seconds = seconds
        self._passed_s = passed_s
        self._checkpoint = checkpoint
        self._start_s = time.monotonic() - passed_s
        self._parent = parent
        self._step_ends_s: deque[float] = deque(maxlen=STEPS_PER_RATE + 1)
        self._epoch = 0
        self.stopped = False
        self.steps = 0

    def stop(self, *_signal: object) -> None:
        """End the training after this step."""
        self.stopped = True

    def resume(self) -> None:
        """Go on where the checkpoint was saved; from the beginning if there is none."""
        if self._checkpoint.exists():
            with dllogger.phase("restore"), np.load(self._checkpoint) as saved:
                self._epoch, self.steps = int(saved["epoch"]), int(saved["steps"])
                for name in self._network.weights:
                    self._network.weights[name] = saved[name]
            dllogger.event("checkpoint_restored", {"steps": self.steps})

    def train(self) -> None:
        """Train epoch by epoch until the time is up."""
        now_s = time.monotonic()
        self._start_s = now_s - self._passed_s
        self._step_ends_s.append(now_s)
        while not self._time_is_up():
            loss = self._train_epoch(self._epoch)
            with dllogger.phase("validation"):
                validation_loss, accuracy = self._network.evaluate(self._validation)
            dllogger.log(
                (self._epoch,),
                {
                    "train.loss": loss,
                    "val.loss": validation_loss,
                    "val.accuracy": 100.0 * accuracy,
                },
            )
            self._epoch += 1
            if self._epoch % EPOCHS_PER_CHECKPOINT == 0 and not self._time_is_up():
                self._save()

    def _train_epoch(self, epoch: int) -> float:
        losses = []
        order = self._reading.permutation(STEPS_PER_EPOCH)
        for iteration in range(STEPS_PER_EPOCH):
            if self._time_is_up():
                break
            start_s = time.monotonic()
            with dllogger.phase("data_wait"):
                batch = self._read_batch(order[iteration])
            read_s = time.monotonic() - start_s
            gradient = self._network.gradient(batch)
            learning_rate = self._learning_rate()
            if math.isfinite(gradient.loss):
                self._network.descend(gradient, learning_rate)
                losses.append(gradient.loss)
            time.sleep(self._fate.compute_s)
            end_s = time.monotonic()
            self._step_ends_s.append(end_s)
            self.steps += 1
            dllogger.log(
                (epoch, iteration),
                {
                    "train.loss": gradient.loss,
                    "train.ips": self._samples_per_s(),
                    "train.step_time": end_s - start_s,
                    "train.data_time": read_s,
                    "lr": learning_rate,
                },
            )
        return math.fsum(losses) / len(losses) if losses else math.nan

    def _read_batch(self, number: int) -> Samples:
        time.sleep(self._fate.read_s * self._reading.uniform(0.8, 1.2))
        batch = self._share.batch(number * BATCH_SIZE, BATCH_SIZE)
        if self._meets_broken_sample and self._share_of_time() > BROKEN_SAMPLE_AT:
            self._meets_broken_sample = False
            return batch.with_broken_sample()
        return batch

    def _save(self) -> None:
        """Write a checkpoint."""
        start_s = time.monotonic()
        with dllogger.phase("checkpoint"):
            self._write()
        dllogger.event("checkpoint_saved", {"steps": self.steps})
        saved_s = time.monotonic() - start_s
        for number, time_s in enumerate(self._step_ends_s):  # the throughput is that of the steps
            self._step_ends_s[number] = time_s + saved_s

    def _write(self) -> None:
        unfinished = self._checkpoint.with_suffix(".tmp")
        saved: dict[str, Any] = {
            "epoch": self._epoch,
            "steps": self.steps,
            **self._network.weights,
        }
        with unfinished.open("wb") as file:
            np.savez(file, **saved)
        time.sleep(STORE_S)
        unfinished.replace(self._checkpoint)

    def _samples_per_s(self) -> float:
        times = self._step_ends_s
        return BATCH_SIZE * (len(times) - 1) / (times[-1] - times[0])

    def _learning_rate(self) -> float:
        return LEARNING_RATE * 0.5 * (1.0 + math.cos(math.pi * min(self._share_of_time(), 1.0)))

    def _share_of_time(self) -> float:
        return (time.monotonic() - self._start_s) / self._seconds

    def _time_is_up(self) -> bool:
        # A demo that was killed leaves its ranks to another parent.
        return self.stopped or os.getppid() != self._parent or self._share_of_time() > 1.0


def describe_metrics() -> None:
    """Log what the metrics are, once, before the first of them is logged."""
    loss = {"unit": None, "GOAL": "MINIMIZE", "format": ":.4f"}
    dllogger.metadata("train.loss", {**loss, "STAGE": "TRAIN"})
    dllogger.metadata("val.loss", {**loss, "STAGE": "VAL"})
    dllogger.metadata(
        "val.accuracy", {"unit": "%", "GOAL": "MAXIMIZE", "STAGE": "VAL", "format": ":.1f"}
    )
    throughput = {"unit": "samples/s", "GOAL": "MAXIMIZE", "SCOPE": "RANK", "format": ":.0f"}
    dllogger.metadata("train.ips", {**throughput, "STAGE": "TRAIN"})
    for name in ("train.step_time", "train.data_time"):
        dllogger.metadata(
            name, {"unit": "s", "GOAL": "MINIMIZE", "STAGE": "TRAIN", "format": ":.4f"}
        )
    dllogger.metadata("lr", {"unit": None, "STAGE": "TRAIN", "format": ":.5f"})


def main() -> int:
    """Train one rank."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--passed", type=float, default=0.0)
    parser.add_argument("--parent", type=int, default=os.getppid())
    options = parser.parse_args()
    if os.getppid() != options.parent:  # the demo was killed while this process started
        return 0
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    trainer = Trainer(
        rank,
        Fate.of(rank, world_size, restarts),
        seconds=options.seconds,
        passed_s=options.passed,
        checkpoint=options.directory / f"rank{rank}.npz",
        parent=options.parent,
    )
    signal.signal(signal.SIGTERM, trainer.stop)
    page = dllogger.PrometheusBackend(
        dllogger.Verbosity.VERBOSE,
        host="127.0.0.1",
        port=options.port,
        discovery_dir=options.directory / "discovery",
        linger_s=2,
    )
    if page.url is None:
        return 2
    log = options.directory / "log_rank{rank}.json"
    dllogger.init(
        [dllogger.JSONStreamBackend(dllogger.Verbosity.VERBOSE, log, append=restarts > 0), page]
    )
    describe_metrics()
    dllogger.log(
        "PARAMETER",
        {
            "batch_size": BATCH_SIZE,
            "lr": LEARNING_RATE,
            "optimizer": "sgd",
            "seconds": options.seconds,
            "world_size": world_size,
        },
    )
    if restarts:
        trainer.resume()
    trainer.train()
    dllogger.log((), {"total_steps": trainer.steps, "total_samples": trainer.steps * BATCH_SIZE})
    dllogger.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
