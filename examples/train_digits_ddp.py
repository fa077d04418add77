"""Train a small network on handwritten digits, with PyTorch DDP over gloo, on CPUs.

The data are scikit-learn's own: nothing is downloaded. Each rank writes its JSON log
and serves its metrics; rank 0 prints.

    pip install '.[examples]'
    torchrun --nproc-per-node 4 examples/train_digits_ddp.py --epochs 20

Then look at http://127.0.0.1:9464/metrics for rank 0, port 9465 for rank 1 and so on, and at
log_rank0.json to log_rank3.json. otel-dllogger check says what is in any of them.
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


def main() -> None:
    """Train, validate after each epoch, and log both from every rank."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=32, help="images per rank and step")
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--port", type=int, help="of local rank 0, the others count up (9464)")
    arguments = parser.parse_args()

    dist.init_process_group("gloo")
    rank, world_size = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)

    backends = [
        dllogger.JSONStreamBackend(dllogger.Verbosity.VERBOSE, "log_rank{rank}.json"),
        dllogger.PrometheusBackend(dllogger.Verbosity.VERBOSE, port=arguments.port),
    ]
    if rank == 0:
        backends.append(dllogger.StdOutBackend(dllogger.Verbosity.DEFAULT))
    dllogger.init(backends)
    # Before the first log, so that units are in the metrics' names from the first scrape.
    dllogger.metadata("train.loss", {"unit": "", "GOAL": "MINIMIZE", "STAGE": "TRAIN"})
    dllogger.metadata("train.ips", {"unit": "images/s", "GOAL": "MAXIMIZE", "STAGE": "TRAIN"})
    dllogger.metadata("val.accuracy", {"unit": "%", "GOAL": "MAXIMIZE", "STAGE": "VAL"})
    dllogger.log("PARAMETER", vars(arguments))

    images, labels = load_digits(return_X_y=True)
    images = torch.tensor(images / 16, dtype=torch.float32)
    train_x, val_x, train_y, val_y = train_test_split(
        images, torch.tensor(labels), test_size=0.2, random_state=0
    )
    train_set = TensorDataset(train_x, train_y)
    sampler = DistributedSampler(train_set)
    loader = DataLoader(train_set, batch_size=arguments.batch_size, sampler=sampler)

    network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    model = DistributedDataParallel(network)
    optimizer = torch.optim.SGD(model.parameters(), lr=arguments.lr, momentum=0.9)
    best_accuracy = 0.0

    for epoch in range(arguments.epochs):
        sampler.set_epoch(epoch)
        for iteration, (x, y) in enumerate(loader):
            start_s = time.perf_counter()
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()  # waits for the other ranks
            optimizer.step()
            ips = len(x) / (time.perf_counter() - start_s)
            # The loss is a tensor: backends convert it. VERBOSE keeps it off the screen.
            dllogger.log(
                (epoch, iteration), {"train.loss": loss.detach(), "train.ips": ips}, verbosity=1
            )
        # Each rank evaluates its share; the mean over all ranks is the same everywhere.
        with torch.no_grad():
            hits = (network(val_x[rank::world_size]).argmax(1) == val_y[rank::world_size]).sum()
        dist.all_reduce(hits)
        accuracy = 100 * hits.item() / len(val_y)
        best_accuracy = max(best_accuracy, accuracy)
        dllogger.log((epoch,), {"val.accuracy": accuracy})

    dllogger.log((), {"val.accuracy": best_accuracy})
    dllogger.shutdown()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
