"""The log files that this process has open: one ``AppendFile`` for each path."""

from __future__ import annotations

import os
import threading
import weakref

from otel_dllogger.backends.append_file import AppendFile
from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.runtime import fork


class _OpenFiles:
    """The files that this process has open, and the lock that is held to open one."""

    def __init__(self) -> None:
        self.by_path: weakref.WeakValueDictionary[str, AppendFile] = weakref.WeakValueDictionary()
        self.lock = threading.RLock()
        fork.register(self)

    def after_fork_in_child(self) -> None:
        """Replace the lock, which a thread that is not in this process may hold."""
        self.lock = threading.RLock()


_open_files = _OpenFiles()


def open_append_file(
    path: str | os.PathLike[str], *, append: bool, user: object = None
) -> AppendFile:
    """Open a file of lines, or return it if this process already has it open.

    Args:
        path: The file; its folder must exist, as for ``open``.
        append: Whether to keep the content of the file. Otherwise it is emptied, as DLLogger
            does, unless another process is writing to it.
        user: Who will close it with ``close_append_file``.

    Raises:
        OSError: If the file cannot be opened, for a reason that will not pass.
    """
    key = os.path.realpath(path)
    with _open_files.lock:
        file = _open_files.by_path.get(key)
        if file is not None and not file.closed:
            DIAGNOSTICS.warn(
                "shared_path",
                f"{key} is already open in this process: all lines go to the same file; give "
                "each backend its own file",
            )
        else:
            file = AppendFile(path, append=append)
            if file.regular:
                _open_files.by_path[key] = file
        if user is not None:
            file.users[id(user)] = weakref.ref(user)
        return file


def close_append_file(file: AppendFile, user: object) -> None:
    """Close a file for one of its users: flush it, and close it if nobody else has it open.

    Closed any sooner, the file would lose the lock that keeps others from emptying it.

    Args:
        file: What ``open_append_file`` returned.
        user: Who was passed to it; a user that is gone does not count.
    """
    # Without the lock: another thread may hold it, in a signal handler that waits for this one.
    file.users.pop(id(user), None)
    if all(reference() is None for reference in list(file.users.values())):
        file.close()
    else:
        file.flush()
