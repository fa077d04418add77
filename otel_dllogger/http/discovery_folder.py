"""The folder in which ranks announce their pages: an argument, else the variable, else a default.

The default is a folder of the user alone, since whoever writes to it chooses what Prometheus
scrapes. Whether there is an XDG_RUNTIME_DIR depends on how a process was started, so that readers
look into all the folders that a writer may have chosen.
"""

from __future__ import annotations

import contextlib
import enum
import os
import stat
from pathlib import Path
from typing import NamedTuple

from otel_dllogger import settings

NONE = "none"
"""The value, of the argument and of the variable, with which no file is written."""

_NAME = "otel-dllogger"
_MODE = 0o755  # Prometheus may run as another user, in a container
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class GivenBy(enum.Enum):
    """Where the choice of a folder comes from."""

    ARGUMENT = enum.auto()
    VARIABLE = enum.auto()
    DEFAULT = enum.auto()


class DiscoveryFolder(NamedTuple):
    """A folder to write discovery files into.

    Attributes:
        path: The folder.
        given_by: Who chose it.
    """

    path: Path
    given_by: GivenBy


def folder_to_write(argument: str | os.PathLike[str] | None) -> DiscoveryFolder | None:
    """Return the folder for this process's discovery file; a default one is made.

    Args:
        argument: The folder that the caller passed, ``NONE`` for no file; None for the variable's
            or the default one.

    Returns:
        The folder; None for no file, or where none of the default folders can be used.
    """
    given_by = GivenBy.ARGUMENT if argument else GivenBy.VARIABLE
    given = os.fsdecode(argument) if argument else settings.text(settings.DISCOVERY_DIR, "")
    if given:
        return None if _is_none(given) else DiscoveryFolder(Path(given), given_by)
    for folder in _defaults(_runtime_folder()):
        if _is_own(folder, make=True):
            return DiscoveryFolder(folder, GivenBy.DEFAULT)
    import logging  # noqa: PLC0415 - rarely needed

    logging.getLogger("otel_dllogger").info(
        "no discovery file is written, since no default folder can be: set %s to one that can",
        settings.DISCOVERY_DIR,
    )
    return None


def folders_to_read() -> list[DiscoveryFolder]:
    """Return the folders in which ranks of this machine may announce themselves.

    They may not exist yet, and a default one must be asked for with ``is_readable``.
    """
    given = settings.text(settings.DISCOVERY_DIR, "")
    if given:
        return [] if _is_none(given) else [DiscoveryFolder(Path(given), GivenBy.VARIABLE)]
    # Ranks may have been started with an XDG_RUNTIME_DIR even if this process was not.
    systemds = Path("/run/user", str(os.geteuid()))
    defaults = dict.fromkeys([*_defaults(_runtime_folder()), *_defaults(systemds)])
    return [DiscoveryFolder(folder, GivenBy.DEFAULT) for folder in defaults]


def is_readable(folder: DiscoveryFolder) -> bool:
    """Return whether to believe the files in a folder: nobody else may write to a default one."""
    return folder.given_by is not GivenBy.DEFAULT or _is_own(folder.path)


def _is_none(given: str) -> bool:
    return given.lower() == NONE


def _runtime_folder() -> Path | None:
    """Return the folder of XDG_RUNTIME_DIR if it is ours; it may be of another user, after sudo."""
    folder = Path(settings.text("XDG_RUNTIME_DIR", "."))
    if not folder.is_absolute():
        return None
    try:
        is_ours = folder.stat().st_uid == os.geteuid()
    except (OSError, ValueError):  # on a node of a cluster, it may be that of the login node
        return None
    return folder if is_ours and os.access(folder, os.W_OK | os.X_OK) else None


def _defaults(runtime: Path | None) -> list[Path]:
    name = f"{_NAME}-{os.geteuid()}"
    folders = [Path(settings.text("TMPDIR", "/tmp"), name), Path("/tmp", name)]  # noqa: S108
    if runtime is not None:
        folders.insert(0, runtime / _NAME)
    return [folder for folder in dict.fromkeys(folders) if folder.is_absolute()]


def _is_own(folder: Path, *, make: bool = False) -> bool:
    """Return whether a folder is one that we own and that nobody else may write to.

    Args:
        folder: The folder. A link to one is refused: in /tmp, others may have made it.
        make: Whether to make it if it is missing, and to let others read it.
    """
    try:
        if make:
            with contextlib.suppress(FileExistsError):
                folder.mkdir(mode=_MODE)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except (OSError, ValueError):
        return False
    try:
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid():
            return False
        if status.st_mode & _OTHERS_WRITE and not _is_private(folder.parent):
            return False
        if make and stat.S_IMODE(status.st_mode) != _MODE:
            os.fchmod(descriptor, _MODE)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _is_private(folder: Path) -> bool:
    """Return whether nobody else gets into a folder, so that modes below it do not matter."""
    status = folder.stat()
    return status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
