"""Find the log of the same training beside an event file of TensorBoard.

Frameworks write their own log as well, with epochs and all metrics of a step in one row:

=====================================  ==================================================
event file                             the framework's own log
=====================================  ==================================================
``version_0/events...``                ``version_0/metrics.csv`` of Lightning
``exp/events...``                      ``exp/results.csv`` of Ultralytics
``output/events...``                   ``output/metrics.json`` of Detectron2
``<time>/vis_data/events...``          ``scalars.json`` of MMEngine, or its dated twin
``work_dir/tf_logs/events...``         ``work_dir/<time>.log.json`` of OpenMMLab 1.x
``output/runs/<time>_<host>/events``   ``output/trainer_state.json`` of Transformers, or that
                                       of a checkpoint
=====================================  ==================================================
"""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# What the event file's folder matches, how many folders above it the log is, and its name there.
_TWINS = (
    (re.compile(r".*/vis_data"), 0, ("scalars.json", "[0-9]*_[0-9]*.json")),
    (re.compile(r".*/tf_logs"), 1, ("*.log.json",)),
    (re.compile(r".*/runs/[^/]+"), 2, ("trainer_state.json", "checkpoint-*/trainer_state.json")),
    (re.compile(r".*"), 0, ("metrics.csv", "results.csv", "metrics.json")),
)


def find_twins(path: str) -> Iterator[str]:
    """Yield the files that may be the framework's own log of an event file's training.

    Args:
        path: The event file.
    """
    for pattern in _patterns(path):
        yield from sorted(glob.glob(pattern))  # noqa: PTH207 - as everywhere, paths are text


def is_twin(log: str, path: str) -> bool:
    """Return whether a log may be the framework's own log of an event file's training.

    Args:
        log: The log, absolute.
        path: The event file.
    """
    return any(fnmatch.fnmatchcase(log, pattern) for pattern in _patterns(path))


def _patterns(path: str) -> Iterator[str]:
    folder = os.path.dirname(os.path.abspath(path))  # noqa: PTH100, PTH120 - links stay
    for pattern, above, names in _TWINS:
        if pattern.fullmatch(folder):
            where = folder.rsplit("/", above)[0]
            yield from (f"{glob.escape(where)}/{name}" for name in names)
