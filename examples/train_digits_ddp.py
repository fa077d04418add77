"""Train a small network on handwritten digits, with PyTorch DDP over gloo, on CPUs.

The data are scikit-learn's own: nothing is downloaded. Each rank writes its JSON log
and serves its metrics; rank 0 prints.

    pip install '.[examples,view]'    # from a checkout
    torchrun --nproc-per-node 4 examples/train_digits_ddp.py

It trains for three minutes, slowly enough to be watched, and says how: otel-dllogger watch
shows all ranks, and curl the metrics of one. otel-dllogger report log_rank*.json tells
afterwards how it went.
"""

from __future__ import annotations

import argparse
import time

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import otel_dllogger as dllogger


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=180, help="how long to train (180)")
    parser.add_argument("--batch-size", type=int, default=32, help="images per rank and step")
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument(
        "--step-seconds", type=float, default=0.1, help="the least that a step takes (0.1)"
    )
    parser.add_argument("--port", type=int, help="of local rank 0, the others count up (9464)")
    return parser.parse_args()


def load_data() -> tuple[TensorDataset, torch.Tensor, torch.Tensor]:
    """Return the digits to train with, and those to validate with and their labels."""
    images, labels = load_digits(return_X_y=True)
    images = torch.tensor(images / 16, dtype=torch.float32)
    train_x, val_x, train_y, val_y = train_test_split(
        images, torch.tensor(labels), test_size=0.2, random_state=0
    )
    return TensorDataset(train_x, train_y), val_x, val_y


def main() -> None:
    """Train, validate after each epoch, and log both from every rank."""
    arguments = parse_arguments()
    dist.init_process_group("gloo")
    rank, world_size = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)

    page = dllogger.PrometheusBackend(dllogger.Verbosity.VERBOSE, port=arguments.port)
    log = dllogger.JSONStreamBackend(dllogger.Verbosity.VERBOSE, "log_rank{rank}.json")
    backends = [log, page]
    if rank == 0:
        print(f"Training for {arguments.seconds:g} s. Meanwhile, in another terminal:")
        print("  otel-dllogger watch")
        print(f"  curl -s {page.url} | grep -E '^dl_(loss|accuracy)'", flush=True)
        backends.append(dllogger.StdOutBackend(dllogger.Verbosity.DEFAULT))
    dllogger.init(backends)
    # Before the first log, so that units are in the metrics' names from the first scrape.
    dllogger.metadata("train.loss", {"unit": "", "GOAL": "MINIMIZE", "STAGE": "TRAIN"})
    dllogger.metadata("train.ips", {"unit": "images/s", "GOAL": "MAXIMIZE", "STAGE": "TRAIN"})
    dllogger.metadata("val.accuracy", {"unit": "%", "GOAL": "MAXIMIZE", "STAGE": "VAL"})
    dllogger.log("PARAMETER", vars(arguments))

    train_set, val_x, val_y = load_data()
    sampler = DistributedSampler(train_set)
    loader = DataLoader(train_set, batch_size=arguments.batch_size, sampler=sampler)

    network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    model = DistributedDataParallel(network)
    optimizer = torch.optim.SGD(model.parameters(), lr=arguments.lr, momentum=0.9)
    best_accuracy = 0.0
    epoch, is_over = 0, False
    end_s = time.monotonic() + arguments.seconds

    while not is_over:
        sampler.set_epoch(epoch)
        for iteration, (x, y) in enumerate(loader):
            start_s = time.monotonic()
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()  # waits for the other ranks
            optimizer.step()
            time.sleep(max(start_s + arguments.step_seconds - time.monotonic(), 0.0))
            ips = len(x) / (time.monotonic() - start_s)
            # The loss is a tensor: backends convert it. VERBOSE keeps it off the screen.
            dllogger.log(
                (epoch, iteration), {"train.loss": loss.detach(), "train.ips": ips}, verbosity=1
            )
        # Each rank evaluates its share; the mean over all ranks is the same everywhere.
        with torch.no_grad():
            hits = (network(val_x[rank::world_size]).argmax(1) == val_y[rank::world_size]).sum()
        # The ranks end together, when the first of them says that the time is up.
        totals = torch.stack([hits, torch.tensor(int(time.monotonic() > end_s))])
        dist.all_reduce(totals)
        accuracy = 100 * totals[0].item() / len(val_y)
        best_accuracy = max(best_accuracy, accuracy)
        dllogger.log((epoch,), {"val.accuracy": accuracy})
        epoch, is_over = epoch + 1, totals[1].item() > 0

    dllogger.log((), {"val.accuracy": best_accuracy})
    dllogger.shutdown()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
