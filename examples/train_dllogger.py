"""Train a small classifier with DLLogger: a script that knows nothing of otel_dllogger.

It needs nothing but Python and a dllogger to import:

    otel-dllogger run examples/train_dllogger.py

While it trains, look at it from another terminal: otel-dllogger watch.
"""

import argparse
import math
import random
import time

import dllogger

FEATURES = 16
BATCH_SIZE = 64
ITERATIONS_PER_EPOCH = 100
STEP_S = 0.05  # pure Python is fast with so small a model: a step takes as long as a real one


def make_batch(generator, truth):
    """Return points, and for each whether it lies on one side of a plane, mostly."""
    points = [[generator.gauss(0, 1) for _ in range(FEATURES)] for _ in range(BATCH_SIZE)]
    noisy = (sum(map(float.__mul__, point, truth)) + generator.gauss(0, 0.5) for point in points)
    return points, [float(value > 0) for value in noisy]


def predict(weights, points):
    """Return the probability of each point's class."""
    scores = (sum(map(float.__mul__, point, weights)) for point in points)
    return [1 / (1 + math.exp(-max(-30.0, min(30.0, score)))) for score in scores]


def step(weights, points, labels, learning_rate):
    """Descend along the gradient, and return the loss before."""
    guesses = predict(weights, points)
    for index in range(FEATURES):
        gradient = sum(
            (guess - label) * point[index]
            for guess, label, point in zip(guesses, labels, points, strict=True)
        )
        weights[index] -= learning_rate * gradient / BATCH_SIZE
    likely = (guess if label else 1 - guess for guess, label in zip(guesses, labels, strict=True))
    return -sum(math.log(max(value, 1e-12)) for value in likely) / BATCH_SIZE


def duration(text):
    """Return a number of seconds."""
    seconds = float(text)
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time; pass seconds, more than 0")
    return seconds


def main():
    """Train epoch by epoch until the time is up, and validate after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=duration, default=300, help="how long to train (300)")
    parser.add_argument("--lr", type=float, default=0.1)
    arguments = parser.parse_args()

    dllogger.init(
        backends=[
            dllogger.StdOutBackend(dllogger.Verbosity.DEFAULT),
            dllogger.JSONStreamBackend(dllogger.Verbosity.VERBOSE, "log.json"),
        ]
    )
    dllogger.metadata("train.loss", {"GOAL": "MINIMIZE", "STAGE": "TRAIN", "format": ":.4f"})
    dllogger.metadata("train.ips", {"unit": "samples/s", "GOAL": "MAXIMIZE", "STAGE": "TRAIN"})
    dllogger.metadata(
        "val.accuracy", {"unit": "%", "GOAL": "MAXIMIZE", "STAGE": "VAL", "format": ":.1f"}
    )
    dllogger.log("PARAMETER", vars(arguments))

    generator = random.Random(7)
    truth = [generator.gauss(0, 1) for _ in range(FEATURES)]
    held_out = make_batch(generator, truth)
    weights = [0.0] * FEATURES
    end_s = time.monotonic() + arguments.seconds
    epoch = 0
    while epoch == 0 or time.monotonic() < end_s:
        for iteration in range(ITERATIONS_PER_EPOCH):
            start_s = time.monotonic()
            loss = step(weights, *make_batch(generator, truth), arguments.lr)
            time.sleep(max(0.0, start_s + STEP_S - time.monotonic()))
            ips = BATCH_SIZE / (time.monotonic() - start_s)
            dllogger.log((epoch, iteration), {"train.loss": loss, "train.ips": ips}, verbosity=1)
            if time.monotonic() > end_s:
                break
        pairs = zip(predict(weights, held_out[0]), held_out[1], strict=True)
        hits = sum((guess > 0.5) == label for guess, label in pairs)
        dllogger.log((epoch,), {"val.accuracy": 100 * hits / BATCH_SIZE})
        epoch += 1
    dllogger.log((), {"train.loss": loss, "epochs": epoch})
    dllogger.flush()


if __name__ == "__main__":
    main()
