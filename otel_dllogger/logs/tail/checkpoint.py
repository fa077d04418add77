"""How far each file was delivered, on disk: whole or not at all, whenever we are killed.

A file of JSON, written beside itself, synced and renamed. Whatever stands there instead
of one is counted, and the files are read from their beginning: a line twice is better
than a line lost.
"""

from __future__ import annotations

import dataclasses
import os
import re
from typing import TYPE_CHECKING, Any, TypeGuard
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
from otel_dllogger.logs.tail.fingerprint import WINDOW_BYTES, Key, Mark
from otel_dllogger.runtime.files import read_regular, replacing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from otel_dllogger.logs.tail.anomalies import FileAnomalies

FORMAT = "otel_dllogger.follow"
VERSION = 1

_DIGEST = re.compile(r"[0-9a-f]{32}\Z|\Z")
_NUMBERS = 1 << 64


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """Hold one file of a checkpoint.

    Attributes:
        key: Its device and inode.
        version: The inode's version, None where it is unknown.
        path: Where it was.
        origin: Where it was found first; the same unless it was renamed since.
        generation: The number of its content.
        mark: How far it was delivered.
        skipping: Whether that is within a line that is too long.
        state: What the caller keeps for it.
    """

    key: Key
    version: int | None
    path: str
    origin: str
    generation: int
    mark: Mark
    skipping: bool
    state: dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Saved:
    """Hold a checkpoint that was read.

    Attributes:
        next_generation: The first number that no generation has had.
        entries: The files.
    """

    next_generation: int
    entries: tuple[Entry, ...]


class Checkpoint:
    """Read and write one checkpoint file.

    Args:
        path: The file; its folder must exist. One process at a time may use it.
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
        """Return what was saved; nothing if there is none, or none that can be used."""
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
        entries: dict[Key, Entry] = {}
        for raw_entry in files:
            try:
                entry = _parse_entry(raw_entry, next_generation)
                format_entry(entry)  # what can be read can also be nested too deep to be written
            except (KeyError, TypeError, ValueError):
                entry = None
            if entry is None or entry.key in entries:
                self._anomalies.count(CHECKPOINT_ENTRY)
            else:
                entries[entry.key] = entry
        return Saved(next_generation, tuple(entries.values()))

    def _fall_back(self, reason: str) -> Saved:
        self._anomalies.count(reason)
        return Saved(1, ())

    def write(self, next_generation: int, entries: Iterable[bytes]) -> bool:
        """Replace what was saved.

        Args:
            next_generation: The first number that no generation has had.
            entries: The files, each from ``format_entry``.

        Returns:
            Whether it is on the disk; if not, what was saved before still is.
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


def format_entry(entry: Entry) -> bytes:
    """Return one file of a checkpoint as JSON.

    Raises:
        TypeError: If its state is not.
    """
    return orjson.dumps(
        {
            "path": _format_path(entry.path),
            "origin": _format_path(entry.origin),
            "device": entry.key.device,
            "inode": entry.key.inode,
            "version": entry.version,
            "generation": entry.generation,
            **dataclasses.asdict(entry.mark),
            "skipping": entry.skipping,
            "state": entry.state,
        }
    )


def _parse_entry(raw: Any, next_generation: int) -> Entry:
    mark = Mark(**{field.name: raw[field.name] for field in dataclasses.fields(Mark)})
    windows = (mark.head_bytes, mark.tail_bytes)
    numbers = (raw["device"], raw["inode"], raw["generation"], mark.offset, mark.checksum, *windows)
    version, skipping, state = raw["version"], raw["skipping"], raw["state"]
    right = (
        all(map(_is_number, numbers))
        and raw["generation"] < next_generation
        and max(windows) <= WINDOW_BYTES
        and mark.tail_bytes <= mark.offset
        and mark.checksum < 1 << 32
        and all(map(_DIGEST.match, (mark.head, mark.tail)))
        and (bool(mark.head), bool(mark.tail)) == (mark.head_bytes > 0, mark.tail_bytes > 0)
        and (version is None or _is_number(version))
        and type(skipping) is bool
        and type(state) is dict
    )
    if not right:
        raise ValueError("it says what no entry says")
    return Entry(
        Key(raw["device"], raw["inode"]),
        version,
        _parse_path(raw["path"]),
        _parse_path(raw["origin"]),
        raw["generation"],
        mark,
        skipping,
        state,
    )


def _is_number(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < _NUMBERS


def _format_path(path: str) -> str:
    """Return a path as ASCII: a file may have a name that is no text, JSON may not."""
    return quote_from_bytes(os.fsencode(path), safe="/ ()[]{}=+,:@!")


def _parse_path(raw: Any) -> str:
    if type(raw) is not str:
        raise TypeError(f"{raw!r} is not text")
    path = os.fsdecode(unquote_to_bytes(raw))
    if not path.startswith("/") or "\0" in path:
        raise ValueError(f"{path!r} is not a whole path")
    return path
