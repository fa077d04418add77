"""``otel-dllogger check`` says "All is well." only of a log whose records can be what they seem."""

from __future__ import annotations

import time

import pytest

from tests.support.check import assert_said
from tests.support.command import otel_dllogger

pytestmark = pytest.mark.newest_only

WELL = "All is well."


def text(second, rest, *, tag="", day="2023-09-25"):
    """Give one line of DLLogger's StdOutBackend."""
    minute, second = divmod(second, 60)
    return f"{tag}DLL {day} 10:{minute:02}:{second:09.6f} - {rest}\n"


def steps(count, *, of=lambda step: step, metric="train.loss", **options):
    """Give a log of some steps, a second each."""
    return "".join(text(n, f"{of(n)} {metric} : {n}.5", **options) for n in range(1, count + 1))


def json_record(second, elapsed_s, step, data='{"train.loss": 1}'):
    """Give one line of DLLogger's JSONStreamBackend."""
    times = f'"timestamp": "{1700000000 + second}.5", "elapsedtime": "{elapsed_s}"'
    return f'DLLL {{{times}, "type": "LOG", "step": {step}, "data": {data}}}\n'


def mmengine(row, second, time_s, *, head="Epoch(train) [1]"):
    """Give one line of MMEngine, of ten iterations."""
    minute, second = divmod(second, 60)
    when = f"2025/08/16 12:{minute:02}:{second:02}"
    return f"{when} - mmengine - INFO - {head}[{row * 10}/999]  time: {time_s}  loss: 0.5\n"


FUTURE = time.strftime("%Y-%m-%d", time.localtime(time.time() + 86400 * 9))

DOUBTFUL = {
    "only text": (
        text(1, "the model has loss of interest"),
        1,
        "no record holds a metric, only text",
    ),
    "only parameters": (
        json_record(1, 1, '"PARAMETER"', '{"lr": 0.1}'),
        1,
        "no record holds a metric, only METADATA and hyper-parameters",
    ),
    "several ranks": (
        "".join(text(n // 4, f"{n // 4} loss : {n}.5") for n in range(4, 24)),
        0,
        "each step is there 4 times: several ranks pass for one",
    ),
    "most steps twice": (
        steps(2) + "".join(text(n // 2, f"{n // 2} train.loss : {n}.5") for n in range(6, 16)),
        0,
        "5 of 7 steps are there 2 times: several ranks",
    ),
    "validations": (
        steps(2, of=lambda step: (0, 20 + step, 9), metric="loss"),
        0,
        "every step is read as a validation, that of 'loss' too",
    ),
    "numbers as names": (
        json_record(1, 1, "[0, 1]", '{"12": 0.5, "loss": 1}'),
        0,
        "'12': metrics that are named after numbers",
    ),
    "time and clock": (
        "".join(mmengine(n, n * 60, 0.1) for n in range(1, 9)),
        0,
        "the steps took 420.0 s together; by the metric 'time', 7.0 s",
    ),
    "time and elapsed": (
        "".join(json_record(n, n * 100, f"[0, {n}]") for n in range(1, 9)),
        0,
        "the records span 7.0 s by their times, but 700.0 s by their elapsed times",
    ),
    "elapsed and time": (
        "".join(json_record(n * 100, n, f"[0, {n}]") for n in range(1, 9)),
        0,
        "elapsed times grow, but by the times of the records 7 of 8 are the first of a process",
    ),
    "the future": (steps(2, day=FUTURE), 0, "which is in the future"),
    "long ago": (steps(2, day="1999-12-31"), 0, "times begin in 1999-12-31 10:00, before 2010"),
    "at once": (
        "".join(json_record(n, e, f"[0, {n}]") for n, e in enumerate((1, 50, 2, 51, 3, 52))),
        0,
        "elapsed times jump back 2 times",
    ),
    "Transformers": (
        steps(2) + "{'loss': 2.5, 'grad_norm': 1.25, 'epoch': 0.1}\n",
        0,
        "1 line of Transformers, as its Trainer prints them: not read",
    ),
    "MLPerf": (steps(2) + ':::MLLOG {"key": "run_start"}\n', 0, "1 line of MLPerf's :::MLLOG"),
    "Keras": (
        steps(2) + "10/10 [====] - 1s 5ms/step - loss: 0.5 - accuracy: 0.75\n",
        0,
        "1 line of Keras",
    ),
    "wandb": (steps(2) + "wandb: train/loss 0.5\n" * 2, 0, "2 lines of Weights & Biases (wandb)"),
    "local ranks": (
        steps(2, tag="[default1]:"),
        0,
        "[default1]: of torchrun --tee is the local rank",
    ),
}


@pytest.mark.parametrize(("log", "code", "sentence"), DOUBTFUL.values(), ids=DOUBTFUL)
def test_what_cannot_be_right_is_said(check, log, code, sentence):
    """Records that are read, but can hardly be what they seem, are not well."""
    done = check(log)
    assert_said(done, code, sentence)
    assert WELL not in done.stdout


@pytest.mark.parametrize(
    "log",
    [
        # Ranks whose tags or data name them may have each step as often as there are ranks.
        "".join(
            text(n // 4, f"{n // 4} loss : 1.5", tag=f"[1,{n % 4}]<stdout>:") for n in range(40)
        ),
        "".join(
            json_record(n // 2, n // 2, f"[0, {n // 2}]", f'{{"loss": 1, "rank": {n % 2}}}')
            for n in range(20)
        ),
        # Different metrics of one step.
        "".join(text(n, f"{n} loss : 1.5") + text(n, f"{n} accuracy : 0.5") for n in range(1, 20)),
        # A restart does the last steps again.
        steps(20) + "".join(text(n + 60, f"{n} train.loss : 1.5") for n in range(15, 30)),
        # A second's times are rounded, and validation takes time between two epochs.
        "".join(mmengine(n, n, 0.1) for n in range(1, 9))
        + mmengine(9, 300, 9.0, head="Epoch(val) [1]")
        + "".join(mmengine(n, 300 + n, 0.1, head="Epoch(train) [2]") for n in range(1, 9)),
        # A process that was killed, and its successor.
        "".join(json_record(n, n, f"[0, {n}]") for n in range(1, 9))
        + "".join(json_record(n + 500, n, f"[0, {n}]") for n in range(1, 9)),
        steps(3) + "Epoch 1: loss fell, wandb is off\n",
    ],
    ids=["tags", "ranks in data", "metrics", "restart", "validation", "processes", "text"],
)
def test_what_is_right_is_well(check, log):
    """What a good log may hold as well is not a finding."""
    assert_said(check(log), 0, WELL)


def test_steps_are_what_is_exported(check):
    """A step that ends in a total is a training iteration, and check says why."""
    done = check(steps(6, of=lambda step: (step, 48)))
    assert_said(
        done,
        0,
        "  6 iteration steps; iterations 1 to 6\n",
        "  steps are read as (iteration, all iterations): in steps such as (3, 48), ",
        WELL,
    )


def test_lines_fit_eighty_columns(check, tmp_path):
    """Neither a long name nor a long finding tears the output apart."""
    name = "val." + "x" * 300 + "_end"
    (tmp_path / "log.json").write_text(
        json_record(1, 1, "[0, 1]", f'{{"{name}": NaN, "loss": 1}}') * 3 + "DLLL {\n"
    )
    done = otel_dllogger("check", "log.json", cwd=tmp_path, COLUMNS="60")
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "xxx...xxx" in done.stdout
    wide = otel_dllogger("check", "log.json", cwd=tmp_path, COLUMNS="900")
    assert name in wide.stdout
