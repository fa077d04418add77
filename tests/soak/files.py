"""Attacks on the log file of a rank, by the rank itself, so that the sums stay exact.

What becomes of the file is told by names, which even a full disk takes:

- ``kept/moved.LIFE.K.BEFORE``: it was renamed when it had BEFORE bytes.
- ``kept/folder.LIFE.K.BEFORE``: a folder with such a file in it.
- ``kept/deleted.LIFE.K.BEFORE.AFTER``: a copy of what a deleted file came to hold; it had
  BEFORE bytes just before it was deleted, and AFTER just after.
- ``kept/deleting.LIFE.K``: the copy was never made, since the rank died before.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

    from tests.soak.calls import Calls

THEIRS = b"theirs\n"
"""What a user's file holds, and nothing else."""

_SETTLE_S = 3.0  # the package looks after its file once a second


@dataclass
class _Deleted:
    """A file that has no name any more."""

    descriptor: int
    marker: Path
    before_bytes: int
    after_bytes: int
    since_s: float


@dataclass
class _Theft:
    """A number of a descriptor that is a user's file by now."""

    descriptor: int
    identity: tuple[int, int]
    until_s: float


class LogFile:
    """Attack one rank's log file.

    Args:
        folder: The rank's folder.
        calls: The calls of the rank.
        dice: Where chance comes from.
    """

    def __init__(self, folder: Path, calls: Calls, dice: random.Random) -> None:
        self.folder = folder
        self.path = folder / "logs" / "log.json"
        self._calls = calls
        self._dice = dice
        self._number = 0
        self._deleted: list[_Deleted] = []
        self._thefts: list[_Theft] = []
        self._folder_back_s: float | None = None
        self._unlimited_s: float | None = None

    @property
    def reachable(self) -> bool:
        """Tell whether a process can open the file anew: there is a folder for it."""
        return self._folder_back_s is None

    def rename(self) -> None:
        """Rotate the file as logrotate does."""
        with contextlib.suppress(FileNotFoundError):
            before_bytes = self.path.stat().st_size
            self.path.rename(self._kept("moved", before_bytes))
            self._calls.progress.count("rotations")

    def delete(self) -> None:
        """Delete the file, and keep what it holds in view."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        marker = self._kept("deleting")
        marker.touch()
        before_bytes = os.fstat(descriptor).st_size
        self.path.unlink()
        after_bytes = os.fstat(descriptor).st_size
        self._deleted.append(
            _Deleted(descriptor, marker, before_bytes, after_bytes, time.monotonic())
        )
        self._calls.progress.count("rotations")

    def move_folder(self) -> None:
        """Move the folder away, and make it again after a while."""
        with contextlib.suppress(FileNotFoundError):
            before_bytes = self.path.stat().st_size
            self.path.parent.rename(self._kept("folder", before_bytes))
            self._folder_back_s = time.monotonic() + self._dice.random() * 1.5
            self._calls.progress.count("rotations")

    def remove_folder(self) -> None:
        """Remove the folder with the file in it, and make it again after a while."""
        if self.path.exists():
            self.delete()
            with contextlib.suppress(OSError):  # a new file is in it already
                self.path.parent.rmdir()
                self._folder_back_s = time.monotonic() + self._dice.random() * 1.5

    def limit(self) -> None:
        """Let the disk be full for a while."""
        with contextlib.suppress(OSError):
            room_bytes = self.path.stat().st_size + self._dice.choice((0, 1, 100, 3_000))
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (room_bytes, hard))
            self._unlimited_s = time.monotonic() + self._dice.random() ** 2
            self._calls.progress.count("limits")

    def close_descriptor(self) -> None:
        """Close the package's descriptor, as a daemon does that closes all there are."""
        with self._calls.quiet() as quiet:
            descriptor = self._descriptor()
            if quiet and descriptor is not None:
                os.close(descriptor)
                self._calls.progress.count("thefts")

    def steal_descriptor(self) -> None:
        """Let the number of the package's descriptor become a user's file."""
        if self._thefts:
            return
        with self._calls.quiet() as quiet:
            descriptor = self._descriptor()
            if not quiet or descriptor is None:
                return
            path = self.folder / "theirs" / f"{self._calls.life}.{self._next()}"
            theirs = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)
            os.dup2(theirs, descriptor, inheritable=False)
            os.close(theirs)
        status = os.fstat(descriptor)
        until_s = time.monotonic() + self._dice.random() * 2.5
        self._thefts.append(_Theft(descriptor, (status.st_dev, status.st_ino), until_s))
        self._calls.progress.count("thefts")

    def tend(self, *, end: bool = False) -> None:
        """Do what has come due: end the outage, make the folder, copy what was deleted.

        Args:
            end: Do it all now.
        """
        now_s = time.monotonic()
        if self._unlimited_s is not None and (end or now_s > self._unlimited_s):
            self.unlimit()
        if self._folder_back_s is not None and (end or now_s > self._folder_back_s):
            self._folder_back_s = None
            self.path.parent.mkdir(exist_ok=True)
        for theft in list(self._thefts):
            if end or now_s > theft.until_s:
                self._thefts.remove(theft)
                self._give_up(theft)

    def settle(self, *, end: bool = False) -> None:
        """Copy what deleted files hold, once nobody writes to them any more.

        Args:
            end: Nobody does.
        """
        for deleted in list(self._deleted):
            since_s = time.monotonic() - deleted.since_s
            if end or (self._unlimited_s is None and since_s > _SETTLE_S and self._moved_on()):
                self._deleted.remove(deleted)
                self._copy(deleted)

    def unlimit(self) -> None:
        """Let the disk have room again."""
        self._unlimited_s = None
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))

    def _moved_on(self) -> bool:
        descriptor = self._descriptor()
        return descriptor is not None and os.fstat(descriptor).st_nlink > 0

    def _copy(self, deleted: _Deleted) -> None:
        sizes = f"{deleted.before_bytes}.{deleted.after_bytes}"
        name = deleted.marker.name.replace("deleting", "deleted")
        with os.fdopen(deleted.descriptor, "rb") as source, deleted.marker.open("wb") as copy:
            shutil.copyfileobj(source, copy)
        deleted.marker.rename(deleted.marker.with_name(f"{name}.{sizes}"))

    def _give_up(self, theft: _Theft) -> None:
        """Close the user's file, as its user does."""
        with self._calls.quiet():
            try:
                status = os.fstat(theft.descriptor)
            except OSError:
                status = None
            if status is None or (status.st_dev, status.st_ino) != theft.identity:
                self._calls.progress.wrong = "the descriptor of a user's file was closed"
                return
            # Bytes that were written here by another are found at the end, whatever room is left.
            with contextlib.suppress(OSError):
                os.write(theft.descriptor, THEIRS)
            os.close(theft.descriptor)

    def _descriptor(self) -> int | None:
        """Find the number of the package's descriptor of the log, while that has its name.

        Who loses the descriptor of a deleted file cannot tell any more what went with it.
        """
        for link in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                if link.readlink() == self.path:
                    flags = fcntl.fcntl(int(link.name), fcntl.F_GETFL)
                    if flags & os.O_ACCMODE == os.O_WRONLY:
                        return int(link.name)
        return None

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _kept(self, kind: str, *sizes: int) -> Path:
        parts = map(str, (kind, self._calls.life, self._next(), *sizes))
        return self.folder / "kept" / ".".join(parts)
