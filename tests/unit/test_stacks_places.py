"""Where ranks stand, in words, and why a process cannot be looked at."""

from __future__ import annotations

import json
import os
import stat

import pytest

from otel_dllogger.cli.stacks.places import format_ranks, groups_of, place_of
from otel_dllogger.cli.stacks.py_spy import Frame, Look, LookError, Thread, how_to_be_allowed, look

pytestmark = pytest.mark.newest_only

TORCH = "/usr/lib/python3.12/site-packages/torch"
STEP = Frame("train_step", "/home/me/train.py", 60)
LOOP = Frame("<module>", "/home/me/train.py", 97)
RUN = Frame("Thread.run", "/usr/lib/python3.12/threading.py", 1012)


def main_in(*frames):
    """Return a look at a process whose main thread has these frames."""
    return seen(Thread("MainThread", True, False, [*frames, LOOP]))


def seen(*threads):
    """Return a look at a process with these threads."""
    return Look(list(threads), is_stopped=False)


@pytest.mark.parametrize(
    ("frames", "place"),
    [
        ([STEP], "train.py:60 train_step"),
        ([Frame("wait", "/usr/lib/python3.12/threading.py", 359), STEP], "train.py:60 train_step"),
        ([Frame("step", "<string>", 1)], "<string>:1 step"),
        (
            [
                Frame("clock_nanosleep", "libc.so.6", 0),
                Frame("sock_recv", "/build/python3.12/Modules/socketmodule.c", 921),
                Frame("recv", "socketmodule.c", 930),
                Frame("wait", "/opt/pytorch/torch/csrc/distributed/c10d/ProcessGroup.hpp", 70),
                Frame("next", "pandas/_libs/parsers.pyx", 838),
                STEP,
            ],
            "train.py:60 train_step",
        ),
        (
            [
                Frame("all_reduce", f"{TORCH}/distributed/distributed_c10d.py", 3000),
                Frame("wrapper", f"{TORCH}/distributed/c10d_logger.py", 81),
                STEP,
            ],
            "all_reduce (train.py:60 train_step)",
        ),
        (
            [
                Frame("_object_to_tensor", f"{TORCH}/distributed/distributed_c10d.py", 2700),
                Frame("all_gather_object", f"{TORCH}/distributed/distributed_c10d.py", 2900),
                STEP,
            ],
            "all_gather_object (train.py:60 train_step)",
        ),
        (
            [
                Frame("Shards.__getitem__", "/home/me/data.py", 88),
                Frame("_MapDatasetFetcher.fetch", f"{TORCH}/utils/data/_utils/fetch.py", 52),
                Frame("_BaseDataLoaderIter.__next__", f"{TORCH}/utils/data/dataloader.py", 701),
                Frame("next_batch", "/home/me/train.py", 41),
            ],
            "data loader (data.py:88 Shards.__getitem__)",
        ),
        (
            [Frame("_save", f"{TORCH}/serialization.py", 900), STEP],
            "checkpoint save (train.py:60 train_step)",
        ),
        (
            [
                Frame("_engine_run_backward", f"{TORCH}/autograd/graph.py", 825),
                Frame("Tensor.backward", f"{TORCH}/_tensor.py", 581),
                STEP,
            ],
            "backward (train.py:60 train_step)",
        ),
        (
            [Frame("AdamW.step", f"{TORCH}/optim/adamw.py", 220), STEP],
            "optimizer step (train.py:60 train_step)",
        ),
        (
            [Frame("LRScheduler.step", f"{TORCH}/optim/lr_scheduler.py", 130), STEP],
            "train.py:60 train_step",
        ),
        ([Frame("ncclGroupEnd", "/usr/lib/libnccl.so.2", 0), STEP], "train.py:60 train_step"),
    ],
)
def test_a_place(frames, place):
    """A framework's frames say what is done, the innermost frame of the script where."""
    assert place_of(main_in(*frames)) == place


def test_a_place_without_a_script():
    """The innermost frame has to do, where there is one."""
    assert (
        place_of(seen(Thread("MainThread", True, False, [RUN]))) == "threading.py:1012 Thread.run"
    )
    assert place_of(seen(Thread("MainThread", True, False, []))).startswith("no frames of Python")
    assert place_of(seen(Thread("aux", False, False, [RUN]))) == "no main thread of Python"


def test_another_thread_that_holds_the_gil_is_named():
    """The main thread may only wait for it."""
    threads = [*main_in(STEP).threads, Thread("loader", False, True, [RUN])]
    assert place_of(seen(*threads)) == "train.py:60 train_step, while thread loader holds the GIL"


def test_a_stopped_process():
    """It stands where it was."""
    stopped = main_in(STEP)._replace(is_stopped=True)
    assert place_of(stopped).endswith(
        "stopped by a signal or a debugger, in train.py:60 train_step"
    )


def test_the_odd_ranks_come_first():
    """Groups of the same size are in the order of their ranks."""
    places = dict.fromkeys(range(8), "all_reduce")
    assert [group.ranks for group in groups_of(places)] == [list(range(8))]
    places[6], places[3] = "barrier", "data loader"
    groups = groups_of(places)
    assert [group.place for group in groups] == ["data loader", "barrier", "all_reduce"]
    assert format_ranks(groups[-1].ranks) == "ranks 0-2, 4-5, 7"


@pytest.mark.parametrize(
    ("ranks", "text"), [([3], "rank 3"), ([3, 4], "ranks 3-4"), ([0, 9], "ranks 0, 9")]
)
def test_ranks_in_words(ranks, text):
    """Those in a row are a span."""
    assert format_ranks(ranks) == text


@pytest.fixture
def stand_in(tmp_path):
    """Return a function that makes a py-spy that says something, with its path."""

    def make(said="", answer="", status=1):
        path = tmp_path / "py-spy"
        path.write_text(
            f"#!/bin/sh\ncat <<'END'\n{answer}\nEND\necho '{said}' >&2\nexit {status}\n"
        )
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return str(path)

    return make


@pytest.mark.parametrize(
    ("user", "has_capability", "scope", "words"),
    [
        (0, False, "1", "this container lacks the capability SYS_PTRACE; start it with --cap-add"),
        (1000, False, "1", "kernel.yama.ptrace_scope is 1; run this as root"),
        (1000, False, "", "run this as root, in a container with the capability SYS_PTRACE"),
        (1001, False, "1", "it belongs to user 1000; run this as root, or as that user"),
        (0, True, "3", "kernel.yama.ptrace_scope is 3, so nobody may"),
        (0, True, "1", "root is not enough, since it has privileges that are missing here"),
        (0, True, "", "root is not enough, since it has privileges that are missing here"),
    ],
)
def test_the_permission_that_lacks(user, has_capability, scope, words):
    """It depends on where and as whom the command runs."""
    step = how_to_be_allowed(1000, user, has_capability=has_capability, scope=scope)
    assert step.startswith(words)


@pytest.mark.parametrize(
    ("said", "answer", "status", "words"),
    [
        ("Error: Failed to find python version from target process", "", 1, "does not run Python"),
        ("Permission Denied: Try running again", "", 1, "may not look at process"),
        ("Error: something else\nStack backtrace:", "", 1, "something else"),
        ("", "", 1, "py-spy failed"),
        ("", "null", 0, "in a form that is not known"),
        ("", '[{"thread_name": "MainThread"}]', 0, "in a form that is not known"),
    ],
)
def test_what_else_may_be_wrong(stand_in, said, answer, status, words):
    """One line each."""
    with pytest.raises(LookError) as raised:
        look(stand_in(said, answer, status), os.getpid(), is_native=False)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_main_thread_comes_first(stand_in):
    """By its name, or by its number where py-spy cannot read names."""
    frame = {"name": "f", "filename": "a.py", "line": 1}
    threads = [
        {"thread_name": "aux", "os_thread_id": 5, "frames": [frame]},
        {"thread_name": None, "os_thread_id": os.getpid(), "frames": [frame]},
    ]
    found = look(stand_in("", json.dumps(threads), 0), os.getpid(), is_native=False)
    assert [(thread.is_main, thread.name) for thread in found.threads] == [
        (True, ""),
        (False, "aux"),
    ]
