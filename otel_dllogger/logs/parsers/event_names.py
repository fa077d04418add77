"""What the path of a TensorBoard event file says: that it is one, its host, its stage."""

from __future__ import annotations

import re

from otel_dllogger.metrics.naming import parse_stage

NAMES = "*tfevents*"
"""The names of event files, as TensorBoard finds them itself."""

EVENT_NAME = re.compile(r".*tfevents\.[0-9]+\.(?P<host>[^./]+)(?P<rest>.*)", re.DOTALL)
"""Splits the name that every writer gives them, ``events.out.tfevents.<time>.<host>...``."""

_STAGES = ("train", "val", "test")


def is_event_name(name: str) -> bool:
    """Return whether a file, named without its folder, is an event file by its name."""
    return "tfevents" in name


def path_stage(path: str) -> str | None:
    """Return the stage that the folder of an event file stands for, as Keras names them.

    Args:
        path: The end of a path, at least the last two names.

    Returns:
        ``train``, ``val`` or ``test``; None if the folder is a run's, and for other files.
    """
    above, _slash, name = path.rpartition("/")
    stage = parse_stage(above.rpartition("/")[2])
    return stage if stage in _STAGES and is_event_name(name) else None
