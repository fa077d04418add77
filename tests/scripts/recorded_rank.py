"""Train as one rank of a run that is recorded in every way there is.

Usage: recorded_rank.py FOLDER OTLP_ENDPOINT STEPS

Logs to FOLDER/<run>_rank<rank>.json, to a page, and over OTLP; says "trained" and waits for a
line before it ends.
"""

import contextlib
import sys
import threading
import time
from pathlib import Path

from otel_dllogger import JSONStreamBackend, Logger, OTLPBackend, PrometheusBackend
from otel_dllogger.identity import detect_topology

folder, endpoint, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
rank = detect_topology().rank
logger = Logger(
    [
        JSONStreamBackend(1, Path(folder, "{run}_rank{rank}.json")),
        PrometheusBackend(1),
        OTLPBackend(1, endpoint=endpoint, interval_s=0.2),
    ]
)
logger.metadata("train.loss", {"unit": None, "GOAL": "MINIMIZE", "STAGE": "TRAIN"})
logger.metadata("train.ips", {"unit": "images/s", "GOAL": "MAXIMIZE", "STAGE": "TRAIN"})
logger.metadata("val.top1", {"unit": "%", "GOAL": "MAXIMIZE", "STAGE": "VAL"})
logger.log("PARAMETER", {"lr": 0.1, "optimizer": {"name": "sgd", "momentum": 0.9}})
logger.info({"seed": 7})


def save(step):
    with logger.phase("checkpoint", step=step):
        time.sleep(0.02)
    logger.event("checkpoint_saved", {"file": f"{step}.pt"}, step=step)


@logger.phase("upload")
def upload():
    time.sleep(0.03)


with logger.phase("restore"), contextlib.suppress(OSError), logger.phase("read"):
    time.sleep(0.05)
    raise OSError
for step in range(steps):
    epoch = step // 20
    with logger.phase("data_wait"):
        time.sleep(0.01)
    loss = float("nan") if (rank, step) == (2, 11) else 8 / (1 + step) + rank
    logger.log((epoch, step), {"train.loss": loss, "train.ips": 1000.0 + step, "note": "text"})
    if step % 20 == 19:
        thread = threading.Thread(target=upload)
        thread.start()
        with logger.phase("validation", step=(epoch, step)):
            time.sleep(0.02)
            save((epoch, step))
            logger.log((epoch, step, 1), {"val.top1": step / 2})
            time.sleep(0.01)
        thread.join()
        logger.log((epoch,), {"train.loss": loss, "val.top1": step / 2})
    time.sleep(0.09)  # a step
    if step == 40:  # the next record is within the phase
        around = logger.phase("train")
        around.__enter__()
    if step == 50:
        around.__exit__(None, None, None)
print("trained", flush=True)
sys.stdin.readline()
logger.log((), {"val.top1": (steps - 1) / 2})
logger.close()
