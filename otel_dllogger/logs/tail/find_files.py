"""Find the files to follow: in paths, folders and globs, and under a new name after a rename.

inotify is not used: it knows nothing of what other machines do on a shared file system.
A scan costs one ``scandir`` per folder and one ``lstat`` per file.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import glob
import os
import re
import stat
from typing import TYPE_CHECKING, NamedTuple

from otel_dllogger.diagnostics import (
    HARD_LINK,
    LINK_BROKEN,
    LINK_OUTSIDE,
    NOT_REGULAR,
    PATH_MISSING,
)
from otel_dllogger.errors import ConfigurationError
from otel_dllogger.logs.tail.candidates import CANDIDATES, NAMES, Heads, is_settings
from otel_dllogger.logs.tail.fingerprint import FileKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from otel_dllogger.logs.tail.anomalies import FileAnomalies
    from otel_dllogger.logs.tail.file_state import TailedFile

_NO_ENDING = r"[^.]+"


class _Glob(NamedTuple):
    """A glob, matched name by name, so that no folder is read in vain.

    wcmatch, which reads the same globs, cannot say whether anything in a folder can match, nor
    which folders it could not read. Its time also grows as a power of the number of ``**``: 1 s
    for a path of 60 names and five of them, where this class takes 0.4 ms.

    A path's "places" are the indices of the folder patterns that may match its next name; the
    index after the last pattern stands for the file's name.

    Attributes:
        base: The folder.
        folders: What the names of the folders below it must match; None is ``**``.
        name: What the file's name must match.
        unsure: Names for which the content decides whether the file is followed; None if it
            never does.
    """

    base: str
    folders: tuple[re.Pattern[str] | None, ...]
    name: re.Pattern[str]
    unsure: Callable[[str], bool] | None

    @classmethod
    def parse(cls, base: str, names: list[str]) -> _Glob:
        """Make a glob from what ``split_glob`` returns."""
        *folders, name = (None if name == "**" else _pattern(name) for name in names)
        if name is None:
            folders.append(None)
            name = _pattern("*")
        unsure = is_settings if names[-1] == "**" or glob.has_magic(names[-1]) else None
        return cls(base, tuple(folders), name, unsure)

    def start(self) -> frozenset[int]:
        """Return the places of a name in the base folder."""
        return self._with_skipped({0})

    def enter(self, places: frozenset[int], folder: str) -> frozenset[int]:
        """Return the places of a name within a folder, given the folder's own places."""
        after = set()
        for place in places:
            if place == len(self.folders):
                continue
            pattern = self.folders[place]
            if pattern is None:
                if not folder.startswith("."):
                    after.add(place)
            elif pattern.match(folder):
                after.add(place + 1)
        return self._with_skipped(after)

    def is_file(self, places: frozenset[int], name: str) -> bool:
        """Return whether a name with these places is that of a file to follow."""
        return len(self.folders) in places and self.name.match(name) is not None

    def matches(self, path: str) -> bool:
        """Return whether a whole path is that of a file to follow."""
        if not _within(path, self.base):
            return False
        *folders, name = path[len(self.base.rstrip("/")) + 1 :].split("/")
        places = self.start()
        for folder in folders:
            places = self.enter(places, folder)
        return self.is_file(places, name)

    def _with_skipped(self, places: set[int]) -> frozenset[int]:
        """Add the places after each ``**``, which may stand for no folder at all."""
        for place, pattern in enumerate(self.folders):
            if pattern is None and place in places:
                places.add(place + 1)
        return frozenset(places)


class FoundFile(NamedTuple):
    """A file that was found.

    Attributes:
        path: Where it is, without links.
        status: What ``lstat`` returned for it.
    """

    path: str
    status: os.stat_result


@dataclasses.dataclass(slots=True)
class Scan:
    """What one scan found.

    Attributes:
        files: The files.
        unread: Folders and paths that could not be read, so nothing is known about them.
    """

    files: dict[FileKey, FoundFile] = dataclasses.field(default_factory=dict)
    unread: list[str] = dataclasses.field(default_factory=list)

    def knows(self, path: str) -> bool:
        """Return whether a file that is not among ``files`` is known not to exist."""
        return not any(path == folder or _within(path, folder) for folder in self.unread)


class FileFinder:
    """A search through paths, folders and globs.

    A folder is searched with everything below it, for regular files that are named as logs are,
    and for those that may be logs and begin with a record. Files of settings and results are left
    out there, and where only a wildcard names them. Names that begin with a dot are left out
    unless a pattern begins with one, as in a shell. A link within a folder is followed if it
    stays there; one that was given by name is followed wherever it leads.

    Args:
        paths: Files, folders and globs; those that do not exist yet are waited for.
        names: The names of log files in a folder, as globs.
        ignored: Paths that are never followed.
        anomalies: Where to count what is unusual.

    Raises:
        ConfigurationError: If there is no path, or one that cannot be a path.
    """

    def __init__(
        self,
        paths: Iterable[str | os.PathLike[str]],
        *,
        names: Iterable[str] = NAMES,
        ignored: Iterable[str] = (),
        anomalies: FileAnomalies,
    ) -> None:
        named = [_pattern(name).pattern for name in names]
        maybe = [_pattern(name).pattern for name in CANDIDATES]
        self._named = re.compile("|".join(named) or "(?!)")
        self._names = re.compile("|".join((*named, *maybe, _NO_ENDING + r"\Z")))
        self._heads = Heads(anomalies)
        self._ignored = frozenset(os.path.realpath(path) for path in ignored)
        self._ignored_names = tuple(path.rpartition("/")[2] for path in self._ignored)
        self._anomalies = anomalies
        self._plain: list[str] = []
        self._globs: list[_Glob] = []
        for path in dict.fromkeys(os.fspath(path) for path in paths):
            if not path or "\0" in path:
                raise ConfigurationError(f"{path!r} is not a path; name a file, a folder or a glob")
            base, names_below = split_glob(path)
            if names_below:
                self._globs.append(_Glob.parse(base, names_below))
            else:
                self._plain.append(base)
        if not self._plain and not self._globs:
            raise ConfigurationError("there is nothing to follow; name a file, a folder or a glob")

    def scan(self) -> Scan:
        """Search once."""
        scan = Scan()
        links: list[tuple[str, _Glob]] = []
        for path in self._plain:
            self._look_at(path, scan, links)
        for pattern in self._globs:
            self._walk(pattern, scan, links)
        for link, pattern in links:  # last, so that a file goes by its own name
            self._follow_link(link, pattern, scan)
        self._heads.end_scan()
        return scan

    def covers(self, path: str) -> bool:
        """Return whether a file at a path would be found.

        Args:
            path: Absolute, without links.
        """
        return any(
            path in (plain, os.path.realpath(plain)) or self._below(plain).matches(path)
            for plain in self._plain
        ) or any(pattern.matches(path) for pattern in self._globs)

    def _below(self, folder: str) -> _Glob:
        return _Glob(folder, (None,), self._names, self._is_unsure)

    def _is_unsure(self, name: str) -> bool:
        return self._named.match(name) is None or is_settings(name)

    def _look_at(self, path: str, scan: Scan, links: list[tuple[str, _Glob]]) -> None:
        """Look at a path that was given without wildcards."""
        try:
            status = os.stat(path)  # noqa: PTH116 - a Path costs more than the call
        except (FileNotFoundError, NotADirectoryError):
            self._anomalies.note(path, PATH_MISSING)
        except OSError as error:
            self._cannot_read(path, error, scan)
        else:
            if stat.S_ISDIR(status.st_mode):
                self._walk(self._below(path), scan, links)
            elif stat.S_ISREG(status.st_mode):
                # The file that a link leads to, which is still found once the link leads elsewhere.
                self._add(os.path.realpath(path) if os.path.islink(path) else path, status, scan)  # noqa: PTH114
            else:
                self._anomalies.note(path, NOT_REGULAR)

    def _walk(self, pattern: _Glob, scan: Scan, links: list[tuple[str, _Glob]]) -> None:
        """Search a folder, and those below it in which the pattern can match anything."""
        folders = [(pattern.base, pattern.start())]
        while folders:
            folder, places = folders.pop()
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if entry.is_file(follow_symlinks=False):  # nearly all: asked first
                            if pattern.is_file(places, entry.name):
                                self._add_entry(entry, pattern, scan)
                        elif entry.is_symlink():
                            if pattern.is_file(places, entry.name) or None in pattern.folders:
                                links.append((entry.path, pattern))
                        elif entry.is_dir(follow_symlinks=False):
                            if below := pattern.enter(places, entry.name):
                                folders.append((entry.path, below))
                        elif pattern.is_file(places, entry.name):
                            self._anomalies.note(entry.path, NOT_REGULAR)
            except FileNotFoundError:
                if folder == pattern.base:
                    self._anomalies.note(folder, PATH_MISSING)
            except OSError as error:
                self._cannot_read(folder, error, scan)

    def _add_entry(self, entry: os.DirEntry[str], pattern: _Glob, scan: Scan) -> None:
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return
        if not stat.S_ISREG(status.st_mode):  # it has become something else since
            return
        unsure = pattern.unsure
        if unsure is None or not unsure(entry.name) or self._heads.is_log(entry.path, status):
            self._add(entry.path, status, scan)

    def _follow_link(self, link: str, pattern: _Glob, scan: Scan) -> None:
        target = os.path.realpath(link)
        if not _within(target + "/", os.path.realpath(pattern.base)):  # the folder itself is within
            self._anomalies.note(link, LINK_OUTSIDE)
            return
        try:
            status = os.lstat(target)
        except FileNotFoundError:
            self._anomalies.note(link, LINK_BROKEN)
        except OSError as error:
            self._cannot_read(link, error, scan)
        else:
            if stat.S_ISREG(status.st_mode):
                if FileKey(status.st_dev, status.st_ino) in scan.files:
                    return
                # Either name may say that it is a log.
                names = (path.rpartition("/")[2] for path in (link, target))
                unsure = pattern.unsure
                if (
                    unsure is None
                    or not all(map(unsure, names))
                    or self._heads.is_log(target, status)
                ):
                    self._add(target, status, scan)
            elif not stat.S_ISDIR(status.st_mode):  # folders are searched by themselves
                self._anomalies.note(
                    link, LINK_BROKEN if stat.S_ISLNK(status.st_mode) else NOT_REGULAR
                )

    def _add(self, path: str, status: os.stat_result, scan: Scan) -> None:
        key = FileKey(status.st_dev, status.st_ino)
        found = scan.files.get(key)
        if found is not None and found.path != path:
            path = min(path, found.path)  # whatever the order of the folder's entries
            self._anomalies.note(path, HARD_LINK)
        # Names first: resolving thousands of paths would take a second.
        if path.endswith(self._ignored_names) and os.path.realpath(path) in self._ignored:
            return
        scan.files[key] = FoundFile(path, status)

    def _cannot_read(self, path: str, error: OSError, scan: Scan) -> None:
        self._anomalies.note_error(path, error)
        scan.unread.append(path)


def split_glob(path: str) -> tuple[str, list[str]]:
    """Split a glob at its first wildcard.

    Args:
        path: A path or a glob; a path that exists is not a glob, whatever its name is.

    Returns:
        The folder before the first wildcard, and the names from there on; for a path that is
        not a glob, the whole path and no names. The folder or path is absolute.
    """
    whole = os.path.abspath(path)  # noqa: PTH100 - links stay
    if not os.path.lexists(whole):
        names = whole.split("/")
        for i, name in enumerate(names):
            if glob.has_magic(name):
                return "/".join(names[:i]) or "/", names[i:]
    return whole, []


def _pattern(name: str) -> re.Pattern[str]:
    """Return what one name of a path must match."""
    hidden = "" if name.startswith(".") else r"(?!\.)"
    return re.compile(f"(?:{hidden}{fnmatch.translate(name)})")


def _within(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip("/") + "/")


class RenamedFiles:
    """A search for renamed files in the folders they were in; each round makes a new one."""

    def __init__(self) -> None:
        self._names: dict[str, dict[int, str]] = {}

    def find(self, file: TailedFile) -> os.stat_result | None:
        """Return the status of a file, and correct its path; None if it is not there.

        Args:
            file: The file.
        """
        status = _status_if(file.path, file.key)
        if status is not None:
            return status
        if file.version is None and not file.fingerprint.offset:
            return None  # another file with this inode could not be told from it
        folder = os.path.dirname(file.path)  # noqa: PTH120 - a Path costs more than the call
        if folder not in self._names:
            self._names[folder] = _names_by_inode(folder)
        name = self._names[folder].get(file.key.inode)
        if name is None:
            return None
        path = f"{folder.rstrip('/')}/{name}"
        status = _status_if(path, file.key)
        if status is not None:
            file.path = path
        return status


def _status_if(path: str, key: FileKey) -> os.stat_result | None:
    """Return the status of a path if it is still this regular file."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    same = key == (status.st_dev, status.st_ino) and stat.S_ISREG(status.st_mode)
    return status if same else None


def _names_by_inode(folder: str) -> dict[int, str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.inode(): entry.name for entry in entries}
    except OSError:
        return {}
