r"""The tailer, which polls growing files and returns whole lines with their positions.

No readable line is lost, and without a kill none is delivered twice. A line is readable if it
is whole, with its newline, when the round that gets to its file begins, and can be reached
until the round has read it: by a path that is followed, by another name in the same folder,
or by a descriptor that is still open. What is written and cut off again between two rounds,
such as the last lines before a ``copytruncate``, was never readable. The copy that this makes
is another file, which is read too if it is among those that are followed.

After a kill, what was delivered since the last commit comes again, at equal positions.
Modification times are only tested for a change, never compared with the clock, so clocks may
be wrong; ``idle_s`` is the only exception.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import time
from typing import TYPE_CHECKING

from otel_dllogger.diagnostics import (
    CHECKPOINT_ENTRY,
    DESCRIPTOR_LIMIT,
    FILE_LIMIT,
    INODE_REUSED,
    PARTIAL_LINE_LOST,
    REWRITTEN,
    TRUNCATED,
    UNREAD_LOST,
)
from otel_dllogger.errors import ConfigurationError
from otel_dllogger.logs.tail.anomalies import FileAnomalies
from otel_dllogger.logs.tail.candidates import NAMES
from otel_dllogger.logs.tail.checkpoint import Checkpoint, CheckpointFile
from otel_dllogger.logs.tail.file_state import (
    APPEARED,
    GONE,
    RESTARTED,
    FileEvent,
    LineBatch,
    ReadResult,
    TailedFile,
)
from otel_dllogger.logs.tail.find_files import FileFinder, FoundFile, RenamedFiles, Scan
from otel_dllogger.logs.tail.fingerprint import WINDOW_BYTES, FileKey
from otel_dllogger.logs.tail.open_files import OpenFiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MISSING_ROUNDS = 2
"""Rounds without a file before it counts as gone: one that is renamed may be missed once."""


class Tailer:
    """A tailer of files that grow, for use by one thread.

    Repeatedly call ``poll``, process what it returns, then call ``commit``. What ``poll``
    returned counts as delivered with the next ``commit``.

    Args:
        paths: Files, folders (with everything below them) and globs; they may appear later.
        checkpoint: The file that stores how far everything was delivered; None for no file.
        names: The names of log files in a folder, as globs.
        max_line_bytes: A longer line is skipped and counted.
        file_bytes: How much of one file is read in a round, so that no file waits for another.
        round_bytes: About how much is read in a round.
        max_open: The most descriptors that are open, between rounds as well.
        max_files: The most files that are followed.
        in_sequence: Read each file to its end before the next one, rather than all in turn: what
            several processes of one rank logged then comes in its order.
        idle_s: A file that has not changed for this many seconds when it is first seen is left
            alone until it does change: its run is over.
        sync: ``os.fsync``, or what stands in for it in a test.

    Raises:
        ConfigurationError: If a path or a number is invalid.
    """

    def __init__(
        self,
        paths: Iterable[str | os.PathLike[str]],
        *,
        checkpoint: str | os.PathLike[str] | None = None,
        names: Iterable[str] = NAMES,
        max_line_bytes: int = 1 << 20,
        file_bytes: int = 1 << 18,
        round_bytes: int = 1 << 23,
        max_open: int = 256,
        max_files: int = 100_000,
        in_sequence: bool = False,
        idle_s: float = math.inf,
        sync: Callable[[int], object] = os.fsync,
    ) -> None:
        least = {
            "max_line_bytes": (max_line_bytes, 1),
            "file_bytes": (file_bytes, WINDOW_BYTES),
            "round_bytes": (round_bytes, WINDOW_BYTES),
            "max_open": (max_open, 1),
            "max_files": (max_files, 1),
        }
        for name, (value, minimum) in least.items():
            if value < minimum:
                raise ConfigurationError(f"{name}={value!r} is too small; pass {minimum} or more")
        self._anomalies = FileAnomalies()
        self._max_line_bytes = max_line_bytes
        self._file_bytes = file_bytes
        self._round_bytes = round_bytes
        self._max_files = max_files
        self._in_sequence = in_sequence
        self._idle_s = idle_s
        self._open_files = OpenFiles(max_open)
        self._files: dict[FileKey, TailedFile] = {}
        self._waiting: dict[FileKey, None] = {}  # the file to read next comes first
        self._more = False  # whether the file that was read last has more
        # What a poll that raised had read is returned by the next one.
        self._returned: list[LineBatch | FileEvent] = []
        self.behind = False
        """Whether the last round left something that could be read at once."""
        self.idle: list[str] = []
        """Files that the last poll found and left alone, since they had not changed lately."""
        self.checkpoint_path = checkpoint
        saved: CheckpointFile | None = None
        ignored: tuple[str, ...] = ()
        if checkpoint is not None:
            saved = CheckpointFile(checkpoint, anomalies=self._anomalies, sync=sync)
            ignored = (saved.path, saved.temporary_path)
        self._finder = FileFinder(paths, names=names, ignored=ignored, anomalies=self._anomalies)
        self._checkpoint = Checkpoint(
            saved, self._files, covers=self._finder.covers, anomalies=self._anomalies
        )

    def __enter__(self) -> Tailer:  # noqa: PYI034 - Self came with Python 3.11
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def counts(self) -> dict[str, int]:
        """Return how often something was unusual, by reason (``REASONS[FILE]``)."""
        return dict(self._anomalies.counts)

    def covers(self, path: str) -> bool:
        """Return whether a file at a path would be followed.

        Args:
            path: Absolute, without links.
        """
        return self._finder.covers(path)

    @property
    def files(self) -> list[TailedFile]:
        """Return the files that are followed."""
        return list(self._files.values())

    def close(self) -> None:
        """Close all files; nothing is committed."""
        self._open_files.shrink(0)

    def poll(self) -> list[LineBatch | FileEvent]:
        """Look once for files and for what was appended to them.

        Returns:
            Lines and events, those of each file in their order.
        """
        scan = self._finder.scan()
        renamed = RenamedFiles()
        new = dict(scan.files)
        for file in list(self._files.values()):
            found = new.pop(file.key, None)
            if found is None:
                self._look_for(file, scan, renamed)
            else:
                self._take(file, found)
        oldest_s = time.time() - self._idle_s
        self.idle = [found.path for found in new.values() if found.status.st_mtime < oldest_s]
        # Last, so that the rest of a rotated file comes before its successor. The oldest first:
        # of two files of one rank, what the first process logged comes before what the second did.
        for key, found in sorted(new.items(), key=lambda item: item[1].status.st_mtime_ns):
            if found.status.st_mtime >= oldest_s:
                self._begin(key, found)
        self._read_round()
        self._checkpoint.save_new_generations(
            item for item in self._returned if isinstance(item, LineBatch)
        )
        self._anomalies.end_round()
        returned, self._returned = self._returned, []
        return returned

    def commit(self) -> bool:
        """Save that everything ``poll`` has returned was delivered, and each file's state.

        Returns:
            Whether it is saved; if not, that is counted, and the next call tries again.

        Raises:
            TypeError: If a file's ``state`` is not JSON.
        """
        return self._checkpoint.commit()

    def touch(self, file: TailedFile) -> None:
        """Save a file's state with the next commit, although nothing was read from it."""
        self._checkpoint.touch(file)

    def count(self, reason: str) -> None:
        """Count something unusual that the lines of a file show.

        Args:
            reason: One of ``REASONS[FILE]``.
        """
        self._anomalies.count(reason)

    def start_over(self) -> None:
        """Read everything from 0, before any ``poll``: the saved states are of no use."""
        self._anomalies.count(CHECKPOINT_ENTRY, len(self._files))
        for file in list(self._files.values()):
            self._checkpoint.forget(file)
            del self._files[file.key]

    def _tell(self, kind: str, file: TailedFile) -> None:
        self._returned.append(FileEvent(kind, file, file.path, file.generation))
        self._checkpoint.touch(file)

    def _begin(self, key: FileKey, found: FoundFile) -> None:
        """Follow a file from now on."""
        if len(self._files) >= self._max_files:
            self._anomalies.note(found.path, FILE_LIMIT)
            return
        file = self._files[key] = TailedFile(key, found.path, self._checkpoint.new_generation())
        self._stamp(file, found.status)

    def _take(self, file: TailedFile, found: FoundFile) -> None:
        """Continue with a file that was found again."""
        if file.path != found.path or file.found_path != found.path:
            file.path = file.found_path = found.path
            self._checkpoint.touch(file)
        file.missing = 0
        self._stamp(file, found.status)

    def _stamp(self, file: TailedFile, status: os.stat_result) -> None:
        """Mark a file to be read if its size or modification time has changed."""
        stamp = (status.st_size, status.st_mtime_ns)
        if stamp != file.stamp:
            file.stamp = stamp
            self._waiting.setdefault(file.key)

    def _look_for(self, file: TailedFile, scan: Scan, renamed: RenamedFiles) -> None:
        """Find a file that is not where it is looked for: renamed, deleted or out of sight."""
        if scan.knows(file.path):
            path = file.path
            if (status := renamed.find(file)) is not None:
                if file.path != path:
                    self._checkpoint.touch(file)
                file.missing = 0
                self._stamp(file, status)
                return
            file.missing += 1
        fd = self._open_files.get(file.key)
        if fd is not None:
            with contextlib.suppress(OSError):
                self._stamp(file, os.fstat(fd))
        if file.missing > MISSING_ROUNDS and (fd is None or file.key not in self._waiting):
            left = file.stamp is not None and file.stamp[0] > file.fingerprint.offset
            self._forget(file, (UNREAD_LOST if fd is None else PARTIAL_LINE_LOST) if left else None)

    def _forget(self, file: TailedFile, reason: str | None) -> None:
        if reason is not None:
            self._anomalies.count(reason)
        if file.is_known:
            self._tell(GONE, file)
        self._open_files.drop(file.key)
        self._waiting.pop(file.key, None)
        self._checkpoint.forget(file)
        del self._files[file.key]

    def _read_round(self) -> None:
        """Read the files that wait, each up to its share, until the round's share is used up."""
        left_bytes = self._round_bytes
        self.behind = False
        for key in list(self._waiting):
            if left_bytes <= 0:
                self.behind = True
                return
            del self._waiting[key]
            try:
                left_bytes -= self._visit(self._files[key])
                while self._in_sequence and self._more:
                    if left_bytes <= 0:
                        self._waiting = {key: None, **self._waiting}
                        return
                    left_bytes -= self._visit(self._files[key])
            except Exception:  # unforeseen: the others come first the next time
                self._waiting[key] = None
                raise

    def _visit(self, file: TailedFile) -> int:
        """Read from a file; return how many bytes were read."""
        reading, self._more = None, False
        try:
            reading = self._read(file)
        except FileNotFoundError:
            pass  # renamed or deleted since it was found
        except OSError as error:
            self._cannot_read(file, error)
        if file.key not in self._files:
            return 0
        if reading is None:
            self._waiting[file.key] = None
            return 0
        for batch in reading.batches:
            self._returned.append(batch)
            self._checkpoint.touch(file)
        self._more = reading.more
        self.behind |= reading.more
        # A write within one tick of the file system's clock does not change the time. So the
        # file is read once more, until nothing has changed between two reads.
        if reading.again or file.stamp != file.visited_stamp:
            self._waiting[file.key] = None
        file.visited_stamp = file.stamp
        return reading.read_bytes

    def _read(self, file: TailedFile) -> ReadResult | None:
        """Read from a file, from 0 if it holds something else by now."""
        fd, is_reused = self._open_files.open(file)
        if is_reused:
            self._restart(file, INODE_REUSED)
        for _attempt in range(2):
            if file.key not in self._files:
                break
            reading = file.read(
                fd,
                want_bytes=self._file_bytes,
                max_line_bytes=self._max_line_bytes,
                anomalies=self._anomalies,
            )
            if reading is not None:
                if not file.is_known:
                    file.is_known = True
                    self._returned.append(FileEvent(APPEARED, file, file.path, file.generation))
                return reading
            self._restart(
                file, TRUNCATED if os.fstat(fd).st_size < file.fingerprint.offset else REWRITTEN
            )
        return None

    def _restart(self, file: TailedFile, reason: str) -> None:
        """Begin another generation of a file."""
        self._anomalies.count(reason)
        if file.path != file.found_path:
            # Under a name that is not followed, only the rest of the old file is read.
            self._forget(file, None)
            return
        file.begin(self._checkpoint.new_generation())
        if file.is_known:
            self._tell(RESTARTED, file)

    def _cannot_read(self, file: TailedFile, error: OSError) -> None:
        self._open_files.drop(file.key)
        if error.errno in (errno.EMFILE, errno.ENFILE):
            self._anomalies.count(DESCRIPTOR_LIMIT)
            self._open_files.shrink(len(self._open_files) // 2)
        else:
            self._anomalies.note_error(file.path, error)
