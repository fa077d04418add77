"""Find the other logs that a framework wrote of the same training, of which one is read.

``_FAMILIES`` names the logs of each framework in the order in which they are preferred. Event files
have exact times, but no epochs: they come first if the framework's own logs have no such times.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from typing import TYPE_CHECKING, NamedTuple

from otel_dllogger.logs.parsers.event_names import NAMES
from otel_dllogger.logs.parsers.formats import (
    DETECTRON2,
    DETECTRON2_TEXT,
    LIGHTNING,
    LLAMA_FACTORY,
    MMENGINE_SCALARS,
    MMENGINE_TEXT,
    OPENMMLAB_JSON,
    OPENMMLAB_TEXT,
    TENSORBOARD,
    TRAINER_STATE,
    ULTRALYTICS,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Log(NamedTuple):
    """A log of a framework.

    Attributes:
        log_format: What its records are.
        names: Where it is below the training's folder, as globs, any of which may match. Several
            files of one log hold parts of the training. ``{stamp}`` is the same in all logs.
    """

    log_format: str
    names: tuple[str, ...]


_STAMP = "{stamp}"
_EVENTS = _Log(TENSORBOARD, (NAMES,))
_FAMILIES = {
    "Detectron2": (
        _EVENTS,
        _Log(DETECTRON2_TEXT, ("log.txt",)),
        _Log(DETECTRON2, ("metrics.json",)),
    ),
    "OpenMMLab 1.x": (
        _Log(OPENMMLAB_TEXT, (f"{_STAMP}.log",)),
        _Log(OPENMMLAB_JSON, (f"{_STAMP}.log.json",)),
        _Log(TENSORBOARD, (f"tf_logs/{NAMES}",)),
    ),
    "MMEngine": (
        _Log(MMENGINE_TEXT, ("*.log",)),
        _Log(MMENGINE_SCALARS, ("vis_data/scalars.json",)),
        _Log(MMENGINE_SCALARS, ("vis_data/[0-9]*_[0-9]*.json",)),
        _Log(TENSORBOARD, (f"vis_data/{NAMES}",)),
    ),
    "Lightning": (_EVENTS, _Log(LIGHTNING, ("metrics.csv",))),
    "Ultralytics": (_EVENTS, _Log(ULTRALYTICS, ("results.csv",))),
    "Transformers": (
        _Log(TENSORBOARD, (f"runs/*/{NAMES}", f"logs/{NAMES}")),
        _Log(TRAINER_STATE, ("trainer_state.json", "checkpoint-*/trainer_state.json")),
        _Log(LLAMA_FACTORY, ("trainer_log.jsonl",)),
    ),
}
_ROTATED = re.compile(r"\.[0-9]{1,3}\Z")


class Twin(NamedTuple):
    """A file that may be another log of the training that a file is a log of.

    Attributes:
        path: The other file.
        log_format: The format of its records, if it is one.
        own_format: The format of the file's own records, if it is one.
        is_preferred: Whether the other file is to be read rather than the file.
    """

    path: str
    log_format: str
    own_format: str
    is_preferred: bool


def find_twins(path: str) -> Iterator[Twin]:
    """Yield the files that may be other logs of the training that a file is a log of.

    Only names are looked at. What the files hold has to be looked at before one is left out, since
    other tools give their files such names too.

    Args:
        path: The file.
    """
    whole = _ROTATED.sub("", os.path.abspath(path))  # noqa: PTH100 - links stay
    for logs in _FAMILIES.values():
        for number, own in enumerate(logs):
            for folder, stamp in _places(whole, own):
                for other_number, other in enumerate(logs):
                    if other_number != number:
                        for twin in _files(folder, stamp, other):
                            is_preferred = other_number < number
                            yield Twin(twin, other.log_format, own.log_format, is_preferred)


def _places(path: str, log: _Log) -> Iterator[tuple[str, str]]:
    """Yield the folder of the training and the stamp, as globs, if a path is where a log is."""
    for name in log.names:
        folder, *parts = path.rsplit("/", name.count("/") + 1)
        patterns = name.replace(_STAMP, "*").split("/")
        if len(parts) == len(patterns) and all(map(fnmatch.fnmatchcase, parts, patterns)):
            is_stamped = name.startswith(_STAMP)
            stamp = glob.escape(parts[0].removesuffix(patterns[0][1:])) if is_stamped else "*"
            yield glob.escape(folder), stamp


def _files(folder: str, stamp: str, log: _Log) -> Iterator[str]:
    for name in log.names:
        found = glob.glob(f"{folder}/{name.replace(_STAMP, stamp)}")  # noqa: PTH207 - text
        yield from filter(os.path.isfile, found)  # a pipe would be waited for
