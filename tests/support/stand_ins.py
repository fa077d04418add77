"""Interpreters that take this machine for one with another operating system.

Python runs ``sitecustomize`` before anything else, so real processes, with all their children,
start as they would there.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from tests.support.command import environment
from tests.support.paths import ROOT, TESTS

if TYPE_CHECKING:
    from pathlib import Path

_WINDOWS = """
import sys
sys.platform = "win32"
class Absent:  # Windows has none of these modules
    def find_spec(self, name, path=None, target=None):
        if name in ("fcntl", "termios", "resource", "pwd", "grp"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
"""


def as_on_windows(folder: Path) -> dict[str, str]:
    """Return the environment of processes that take this machine for Windows.

    Args:
        folder: An empty folder, for a module.
    """
    (folder / "sitecustomize.py").write_text(_WINDOWS)
    return environment(PYTHONPATH=os.pathsep.join((str(folder), str(ROOT))))


def as_on_macos() -> dict[str, str]:
    """Return the environment of processes that take this machine for a Mac; on one, nothing more.

    There is no ``/proc``, and none of the functions and constants that only Linux has. Numbers of
    errors and of options of sockets are those of Linux: the kernel stays the same.
    """
    if sys.platform == "darwin":
        return environment()
    stand_in = TESTS / "scripts" / "macos"
    return environment(PYTHONPATH=os.pathsep.join((str(stand_in), str(ROOT))))
