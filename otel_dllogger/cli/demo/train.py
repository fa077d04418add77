"""One rank of the demo: a training script as a user would write it.

It is started as torchrun starts ranks, with RANK, LOCAL_RANK and WORLD_SIZE, and trains
for a given time instead of a given number of epochs.
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

import otel_dllogger as dllogger
from otel_dllogger.cli.demo.model import Network, Samples, make_samples, with_broken_sample

BATCH_SIZE = 256
STEPS_PER_EPOCH = 64
STEPS_PER_RATE = 50
LEARNING_RATE = 0.2
BROKEN_SAMPLE_AT = 0.35
"""The share of the training time after which one rank meets a sample that is broken."""


class Trainer:
    """The training of one rank's network on the rank's own share of the data.

    Args:
        rank: Which rank this is; its data and its fate depend on it.
        world_size: How many there are. The last one reads its data slowly, the second one
            meets a broken sample.
        seconds: How long to train.
    """

    def __init__(self, rank: int, world_size: int, seconds: float) -> None:
        self._network = Network(seed=1)
        self._share = make_samples(BATCH_SIZE * STEPS_PER_EPOCH, seed=100 + rank)
        self._validation = make_samples(2 * BATCH_SIZE, seed=99)
        self._reads_slowly = rank == world_size - 1 and world_size > 1
        self._meets_broken_sample = rank == min(1, world_size - 1)
        self._seconds = seconds
        self._start_s = time.monotonic()
        self._parent = os.getppid()
        self.stopped = False
        self._step_ends_s: deque[float] = deque(maxlen=STEPS_PER_RATE + 1)
        self.steps = 0
        self.seen = 0

    def stop(self, *_signal: object) -> None:
        """End the training after this step."""
        self.stopped = True

    def train(self) -> None:
        """Train epoch by epoch until the time is up."""
        self._start_s = time.monotonic()
        self._step_ends_s.append(self._start_s)
        epoch = 0
        while not self._time_is_up():
            loss = self._train_epoch(epoch)
            validation_loss, accuracy = self._network.evaluate(self._validation)
            dllogger.log(
                (epoch,),
                {
                    "train.loss": loss,
                    "val.loss": validation_loss,
                    "val.accuracy": 100.0 * accuracy,
                },
            )
            epoch += 1

    def _train_epoch(self, epoch: int) -> float:
        total, count = 0.0, 0
        for iteration in range(STEPS_PER_EPOCH):
            if self._time_is_up():
                break
            start_s = time.monotonic()
            batch = self._read_batch(iteration, start_s)
            gradient = self._network.gradient(batch)
            learning_rate = self._learning_rate()
            if math.isfinite(gradient.loss):
                self._network.descend(gradient, learning_rate)
                total, count = total + gradient.loss, count + 1
            self._wait_for_data(start_s)
            end_s = time.monotonic()
            self._step_ends_s.append(end_s)
            self.steps += 1
            self.seen += BATCH_SIZE
            dllogger.log(
                (epoch, iteration),
                {
                    "train.loss": gradient.loss,
                    "train.ips": self._samples_per_s(),
                    "train.step_time": end_s - start_s,
                    "lr": learning_rate,
                },
            )
        return total / count if count else math.nan

    def _read_batch(self, iteration: int, now_s: float) -> Samples:
        batch = self._share.batch(iteration * BATCH_SIZE, BATCH_SIZE)
        share_of_time = (now_s - self._start_s) / self._seconds
        if self._meets_broken_sample and share_of_time > BROKEN_SAMPLE_AT:
            self._meets_broken_sample = False
            return with_broken_sample(batch)
        return batch

    def _samples_per_s(self) -> float:
        times = self._step_ends_s
        return BATCH_SIZE * (len(times) - 1) / (times[-1] - times[0])

    def _wait_for_data(self, start_s: float) -> None:
        if self._reads_slowly:  # the next batch takes as long to read as this one to learn
            time.sleep(time.monotonic() - start_s)

    def _learning_rate(self) -> float:
        passed = min((time.monotonic() - self._start_s) / self._seconds, 1.0)
        return LEARNING_RATE * 0.5 * (1.0 + math.cos(math.pi * passed))

    def _time_is_up(self) -> bool:
        # A demo that was killed leaves its ranks to another parent.
        gone = os.getppid() != self._parent
        return self.stopped or gone or time.monotonic() - self._start_s > self._seconds


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
    dllogger.metadata(
        "train.step_time", {"unit": "s", "GOAL": "MINIMIZE", "STAGE": "TRAIN", "format": ":.4f"}
    )
    dllogger.metadata("lr", {"unit": None, "STAGE": "TRAIN", "format": ":.5f"})


def main() -> int:
    """Train one rank."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    trainer = Trainer(rank, world_size, options.seconds)
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
    dllogger.init([dllogger.JSONStreamBackend(dllogger.Verbosity.VERBOSE, log), page])
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
    trainer.train()
    dllogger.log((), {"total_steps": trainer.steps, "total_samples": trainer.seen})
    dllogger.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
