"""Train with another rank over Gloo, and stop it, so that this one waits in all_reduce.

usage: gloo_rank.py FOLDER     (with RANK, of 2 ranks; rank 1 stops itself in step 5)
"""

import os
import signal
import sys

import torch
import torch.distributed as dist

import otel_dllogger as dllogger

FOLDER = sys.argv[1]


def train_step(step):
    """Take one step, which ends for both ranks or for none."""
    if step == 5 and dist.get_rank() == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    total = torch.ones(1)
    dist.all_reduce(total)
    return total.item()


dist.init_process_group(
    "gloo", init_method=f"file://{FOLDER}/rendezvous", rank=int(os.environ["RANK"]), world_size=2
)
dllogger.init(
    [
        dllogger.JSONStreamBackend(1, f"{FOLDER}/rank{{rank}}.json", hang_seconds=1),
        dllogger.PrometheusBackend(1, port=0, discovery_dir=FOLDER),
    ]
)
for iteration in range(10):
    dllogger.log((0, iteration), {"total": train_step(iteration)})
