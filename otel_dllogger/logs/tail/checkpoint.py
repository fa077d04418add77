"""The checkpoint: how far each file was delivered, saved so that it survives any kill.

It is a JSON file, which is written under a temporary name beside it, synced and renamed. If
something else is there instead, that is counted, and the files are read from their beginning:
a line delivered twice is better than a line lost.

Lines are delivered first, then saved as delivered. Only the number of a new generation is
saved before its first line is delivered: so no number is ever given to two contents, whenever
we are killed, and equal positions mean equal lines.
"""

from __future__ import annotations

import dataclasses
import os
import re
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard
from urllib.parse import quote_from_bytes, unquote_to_bytes

import orjson

from otel_dllogger.diagnostics import (
    CHECKPOINT_CORRUPT,
    CHECKPOINT_ENTRY,
    CHECKPOINT_FAILED,
    CHECKPOINT_FOREIGN,
    CHECKPOINT_UNREADABLE,
    CHECKPOINT_VERSION,
)
from otel_dllogger.logs.tail.file_state import TailedFile
from otel_dllogger.logs.tail.fingerprint import WINDOW_BYTES, FileKey, Fingerprint
from otel_dllogger.runtime.files import read_regular, replacing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from otel_dllogger.logs.tail.anomalies import FileAnomalies
    from otel_dllogger.logs.tail.file_state import LineBatch

FORMAT = "otel_dllogger.follow"
VERSION = 1

_DIGEST = re.compile(r"[0-9a-f]{32}\Z|\Z")
_NUMBERS = 1 << 64


class Saved(NamedTuple):
    """A checkpoint that was read.

    Attributes:
        next_generation: The first number that no generation has had yet.
        files: The files.
    """

    next_generation: int
    files: tuple[TailedFile, ...]


class CheckpointFile:
    """The file on disk that holds a checkpoint.

    Args:
        path: The file; its folder must exist. Only one process at a time may use it.
        anomalies: Where to count what is unusual.
        sync: ``os.fsync``, or what stands in for it in a test.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        anomalies: FileAnomalies,
        sync: Callable[[int], object] = os.fsync,
    ) -> None:
        self.path = os.path.abspath(os.fspath(path))  # noqa: PTH100 - links stay
        self.temporary_path = f"{self.path}.tmp"
        self._anomalies = anomalies
        self._sync = sync

    def read(self) -> Saved:
        """Return what was saved; nothing if there is no checkpoint, or none that can be used."""
        nothing = Saved(1, ())
        try:
            raw = read_regular(self.path)
        except FileNotFoundError:
            return nothing
        except OSError:
            return self._fall_back(CHECKPOINT_UNREADABLE)
        try:
            saved = orjson.loads(raw)
        except orjson.JSONDecodeError:
            return self._fall_back(CHECKPOINT_CORRUPT)
        if type(saved) is not dict or saved.get("format") != FORMAT:
            return self._fall_back(CHECKPOINT_FOREIGN)
        if saved.get("version") != VERSION:
            return self._fall_back(CHECKPOINT_VERSION)
        files, next_generation = saved.get("files"), saved.get("next_generation")
        if type(files) is not list or not _is_number(next_generation):
            return self._fall_back(CHECKPOINT_CORRUPT)
        found: dict[FileKey, TailedFile] = {}
        for entry in files:
            file: TailedFile | None
            try:
                file = _parse_entry(entry, next_generation)
                set_entry(file)  # what can be read may be nested too deeply to be written
            except (KeyError, TypeError, ValueError):
                file = None
            if file is None or file.key in found:
                self._anomalies.count(CHECKPOINT_ENTRY)
            else:
                found[file.key] = file
        return Saved(next_generation, tuple(found.values()))

    def _fall_back(self, reason: str) -> Saved:
        self._anomalies.count(reason)
        return Saved(1, ())

    def write(self, next_generation: int, entries: Iterable[bytes]) -> bool:
        """Replace what was saved.

        Args:
            next_generation: The first number that no generation has had yet.
            entries: The files' entries, as ``set_entry`` makes them.

        Returns:
            Whether it is on disk; if not, what was saved before still is.
        """
        raw = b'{"format":"%b","version":%d,"next_generation":%d,"files":[\n%b\n]}\n' % (
            FORMAT.encode(),
            VERSION,
            next_generation,
            b",\n".join(entries),
        )
        try:
            with replacing(self.path, self.temporary_path, sync=self._sync) as file:
                file.write(raw)
        except OSError:
            self._anomalies.count(CHECKPOINT_FAILED)
            return False
        return True


class Checkpoint:
    """The checkpoint of followed files, kept up to date with what was delivered.

    Args:
        checkpoint_file: Where to save; None to save nothing.
        files: The followed files, to which those of the checkpoint are added.
        covers: Returns whether a path is one of those that are followed.
        anomalies: Where to count what is unusual.
    """

    def __init__(
        self,
        checkpoint_file: CheckpointFile | None,
        files: dict[FileKey, TailedFile],
        *,
        covers: Callable[[str], bool],
        anomalies: FileAnomalies,
    ) -> None:
        self._checkpoint_file = checkpoint_file
        self._files = files
        self._touched: set[TailedFile] = set()
        self._has_unsaved = False
        self._next_generation = 1
        if checkpoint_file is None:
            return
        saved = checkpoint_file.read()
        self._next_generation = saved.next_generation
        for file in saved.files:
            # A file under another name is followed only next to where it was found.
            folders = {os.path.dirname(path) for path in (file.path, file.found_path)}  # noqa: PTH120
            if len(folders) > 1 or not covers(file.found_path):
                anomalies.count(CHECKPOINT_ENTRY)
            else:
                files[file.key] = file

    def new_generation(self) -> int:
        """Return a number that no generation has had yet."""
        generation = self._next_generation
        self._next_generation += 1
        return generation

    def touch(self, file: TailedFile) -> None:
        """Mark a file to be saved with the next commit."""
        self._touched.add(file)

    def forget(self, file: TailedFile) -> None:
        """Leave a file out from the next commit on."""
        self._touched.discard(file)
        self._has_unsaved |= file.saved is not None

    def save_new_generations(self, batches: Iterable[LineBatch]) -> None:
        """Save the generations that begin with these lines, at 0.

        Args:
            batches: What is about to be delivered.
        """
        if self._checkpoint_file is None:
            return
        has_new = False
        for batch in batches:
            if batch.file.saved_generation != batch.file.generation:
                set_entry(batch.file, at_start=True)
                has_new = True
        if has_new:
            self._write(self._checkpoint_file)
            self._has_unsaved = True

    def commit(self) -> bool:
        """Save the files that were touched as they are now.

        Returns:
            Whether it is saved.

        Raises:
            TypeError: If a file's ``state`` is not JSON.
        """
        if self._checkpoint_file is None:
            self._touched.clear()
            return True
        for file in list(self._touched):
            set_entry(file)
            self._has_unsaved = True
            self._touched.discard(file)
        if self._has_unsaved:
            self._has_unsaved = not self._write(self._checkpoint_file)
        return not self._has_unsaved

    def _write(self, checkpoint_file: CheckpointFile) -> bool:
        entries = [file.saved for file in self._files.values() if file.saved is not None]
        return checkpoint_file.write(self._next_generation, entries)


def set_entry(file: TailedFile, *, at_start: bool = False) -> None:
    """Set a file's entry in the checkpoint, as JSON, to what is known of the file now.

    Args:
        file: The file; everything that was read from it counts as delivered.
        at_start: Nothing counts as delivered: the file begins at 0, but only with the content
            that has this generation.

    Raises:
        TypeError: If its state is not JSON.
    """
    fingerprint, skipping, state = file.fingerprint, file.skipping, file.state
    if at_start:
        fingerprint, skipping, state = fingerprint.at_start(), False, {}
    file.saved = orjson.dumps(
        {
            "path": _format_path(file.path),
            "origin": _format_path(file.found_path),
            "device": file.key.device,
            "inode": file.key.inode,
            "version": file.version,
            "generation": file.generation,
            **dataclasses.asdict(fingerprint),
            "skipping": skipping,
            "state": state,
        }
    )
    file.saved_generation = file.generation


def _parse_entry(raw: Any, next_generation: int) -> TailedFile:
    fields = [raw[field.name] for field in dataclasses.fields(Fingerprint)]
    offset, checksum, head_bytes, head, tail_bytes, tail = fields
    numbers = (raw["device"], raw["inode"], raw["generation"], offset, checksum)
    version, skipping, state = raw["version"], raw["skipping"], raw["state"]
    right = (
        all(map(_is_number, (*numbers, head_bytes, tail_bytes)))
        and raw["generation"] < next_generation
        and max(head_bytes, tail_bytes) <= WINDOW_BYTES
        and tail_bytes <= offset
        and checksum < 1 << 32
        and all(map(_DIGEST.match, (head, tail)))
        and (bool(head), bool(tail)) == (head_bytes > 0, tail_bytes > 0)
        and (version is None or _is_number(version))
        and type(skipping) is bool
        and type(state) is dict
    )
    if not right:
        raise ValueError("its values are not valid")
    file = TailedFile(
        FileKey(raw["device"], raw["inode"]), _parse_path(raw["path"]), raw["generation"]
    )
    file.found_path = _parse_path(raw["origin"])
    file.version = version
    file.fingerprint = Fingerprint(*fields)
    file.skipping = skipping
    file.state = state
    return file


def _is_number(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < _NUMBERS


def _format_path(path: str) -> str:
    """Return a path as ASCII: a file's name need not be valid text, but JSON must be."""
    return quote_from_bytes(os.fsencode(path), safe="/ ()[]{}=+,:@!")


def _parse_path(raw: Any) -> str:
    if type(raw) is not str:
        raise TypeError(f"{raw!r} is not text")
    path = os.fsdecode(unquote_to_bytes(raw))
    if not path.startswith("/") or "\0" in path:
        raise ValueError(f"{path!r} is not an absolute path")
    return path
