"""Which files there are to follow: paths, folders and globs, looked through anew each time.

There is no inotify: it knows nothing of what other machines do on a shared file system.
Looking costs one ``scandir`` a folder and one ``lstat`` a file.
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
from otel_dllogger.logs.tail.fingerprint import Key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from otel_dllogger.logs.tail.anomalies import FileAnomalies

NAMES = ("*.json", "*.jsonl", "*.log", "*.txt")
"""The names of log files in a folder, unless others are asked for."""

_Matcher = tuple["re.Pattern[str] | None", ...]  # one for each name of a path; None is "**"


class Found(NamedTuple):
    """Hold a file that was found.

    Attributes:
        path: Where, without links.
        status: What ``lstat`` said of it.
    """

    path: str
    status: os.stat_result


@dataclasses.dataclass(slots=True)
class Scan:
    """Hold what one look found.

    Attributes:
        files: The files.
        unread: Folders and paths that could not be looked into, so nothing is known of them.
    """

    files: dict[Key, Found] = dataclasses.field(default_factory=dict)
    unread: list[str] = dataclasses.field(default_factory=list)

    def knows(self, path: str) -> bool:
        """Tell whether a file that is not among ``files`` is not there."""
        return not any(path == folder or _within(path, folder) for folder in self.unread)


class Discovery:
    """Look through paths, folders and globs.

    A folder is looked through with all below it, for regular files with the names of logs.
    Names that begin with a dot are left out unless a pattern begins with one, as a shell
    has it. A link within a folder is followed if it stays there; one that was given by
    name is followed wherever it leads.

    Args:
        paths: Files, folders and globs; those that are not there are waited for.
        names: The names of log files in a folder, as globs.
        ignored: Paths that are never followed.
        anomalies: Where to count what is unusual.

    Raises:
        ConfigurationError: If there is no path, or one that can be none.
    """

    def __init__(
        self,
        paths: Iterable[str | os.PathLike[str]],
        *,
        names: Iterable[str] = NAMES,
        ignored: Iterable[str] = (),
        anomalies: FileAnomalies,
    ) -> None:
        self._names = re.compile("|".join(_pattern(name).pattern for name in names) or "(?!)")
        self._ignored = frozenset(os.path.realpath(path) for path in ignored)
        self._ignored_names = tuple(path.rpartition("/")[2] for path in self._ignored)
        self._anomalies = anomalies
        self._plain: list[str] = []
        self._globs: list[tuple[str, _Matcher]] = []
        for path in dict.fromkeys(os.fspath(path) for path in paths):
            if not path or "\0" in path:
                raise ConfigurationError(f"{path!r} is not a path; name a file, a folder or a glob")
            whole = os.path.abspath(path)  # noqa: PTH100 - links stay
            if glob.has_magic(whole) and not os.path.lexists(whole):
                self._globs.append(_parse_glob(whole))
            else:
                self._plain.append(whole)
        if not self._plain and not self._globs:
            raise ConfigurationError("there is nothing to follow; name a file, a folder or a glob")

    def scan(self) -> Scan:
        """Look once."""
        scan = Scan()
        links: list[tuple[str, str]] = []
        for path in self._plain:
            self._look_at(path, scan, links)
        for folder, matcher in self._globs:
            self._walk(folder, matcher, scan, links)
        for link, base in links:  # last, so that a file goes by its own name
            self._follow_link(link, base, scan)
        return scan

    def covers(self, path: str) -> bool:
        """Tell whether a file would be looked for at a path.

        Args:
            path: Absolute, without links.
        """
        for plain in self._plain:
            if path in (plain, os.path.realpath(plain)):
                return True
            if _within(path, plain) and _matches(path, plain, (None, self._names)):
                return True
        return any(
            _within(path, folder) and _matches(path, folder, matcher)
            for folder, matcher in self._globs
        )

    def _look_at(self, path: str, scan: Scan, links: list[tuple[str, str]]) -> None:
        """Look at a path that was given as it is."""
        try:
            status = os.stat(path)  # noqa: PTH116 - a Path costs more than the call
        except (FileNotFoundError, NotADirectoryError):
            self._anomalies.note(path, PATH_MISSING)
        except OSError as error:
            self._cannot_read(path, error, scan)
        else:
            if stat.S_ISDIR(status.st_mode):
                self._walk(path, (None, self._names), scan, links)
            elif stat.S_ISREG(status.st_mode):
                # A link is followed to the file, which is still found once it leads elsewhere.
                self._add(os.path.realpath(path) if os.path.islink(path) else path, status, scan)  # noqa: PTH114
            else:
                self._anomalies.note(path, NOT_REGULAR)

    def _walk(self, base: str, matcher: _Matcher, scan: Scan, links: list[tuple[str, str]]) -> None:
        """Look through a folder and, as far as the matcher goes, through those below."""
        folders = [(base, _places(matcher, {0}))]
        while folders:
            folder, places = folders.pop()
            is_file_name = _any_of([matcher[i] for i in places if i == len(matcher) - 1])
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if entry.is_file(follow_symlinks=False):  # nearly all: asked first
                            if is_file_name(entry.name):
                                self._add_entry(entry, scan)
                        elif entry.is_symlink():
                            if is_file_name(entry.name) or None in matcher:
                                links.append((entry.path, base))
                        elif entry.is_dir(follow_symlinks=False):
                            if below := _step(matcher, places, entry.name):
                                folders.append((entry.path, below))
                        elif is_file_name(entry.name):
                            self._anomalies.note(entry.path, NOT_REGULAR)
            except FileNotFoundError:
                if folder == base:
                    self._anomalies.note(base, PATH_MISSING)
            except OSError as error:
                self._cannot_read(folder, error, scan)

    def _add_entry(self, entry: os.DirEntry[str], scan: Scan) -> None:
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return
        if stat.S_ISREG(status.st_mode):  # it may have become something else since
            self._add(entry.path, status, scan)

    def _follow_link(self, link: str, base: str, scan: Scan) -> None:
        target = os.path.realpath(link)
        if not _within(target + "/", os.path.realpath(base)):  # the folder itself is within
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
                if Key(status.st_dev, status.st_ino) not in scan.files:
                    self._add(target, status, scan)
            elif not stat.S_ISDIR(status.st_mode):  # folders are looked through by themselves
                self._anomalies.note(
                    link, LINK_BROKEN if stat.S_ISLNK(status.st_mode) else NOT_REGULAR
                )

    def _add(self, path: str, status: os.stat_result, scan: Scan) -> None:
        key = Key(status.st_dev, status.st_ino)
        found = scan.files.get(key)
        if found is not None and found.path != path:
            path = min(path, found.path)  # whatever order the folder is in
            self._anomalies.note(path, HARD_LINK)
        # Names first: to resolve every path would take a second for thousands of them.
        if path.endswith(self._ignored_names) and os.path.realpath(path) in self._ignored:
            return
        scan.files[key] = Found(path, status)

    def _cannot_read(self, path: str, error: OSError, scan: Scan) -> None:
        self._anomalies.note_error(path, error)
        scan.unread.append(path)


def _pattern(name: str) -> re.Pattern[str]:
    """Return what one name of a path must match."""
    hidden = "" if name.startswith(".") else r"(?!\.)"
    return re.compile(f"(?:{hidden}{fnmatch.translate(name)})")


def _parse_glob(path: str) -> tuple[str, _Matcher]:
    """Return the folder that a glob begins in, and what follows."""
    names = path.split("/")
    first = next(i for i, name in enumerate(names) if glob.has_magic(name))
    matcher = [None if name == "**" else _pattern(name) for name in names[first:]]
    if matcher[-1] is None:
        matcher.append(_pattern("*"))
    return "/".join(names[:first]) or "/", tuple(matcher)


def _places(matcher: _Matcher, places: set[int]) -> frozenset[int]:
    """Add what a "**" that stands for no folder at all leads to."""
    todo = list(places)
    while todo:
        place = todo.pop()
        if matcher[place] is None:
            places.add(place + 1)
            todo.append(place + 1)
    return frozenset(places)


def _step(matcher: _Matcher, places: frozenset[int], folder: str) -> frozenset[int]:
    """Return where in the matcher the names within a folder are."""
    after = set()
    for place in places:
        pattern = matcher[place]
        if pattern is None:
            if not folder.startswith("."):
                after.add(place)
        elif place + 1 < len(matcher) and pattern.match(folder):
            after.add(place + 1)
    return _places(matcher, after)


def _matches(path: str, base: str, matcher: _Matcher) -> bool:
    *folders, name = path[len(base.rstrip("/")) + 1 :].split("/")
    places = _places(matcher, {0})
    for folder in folders:
        places = _step(matcher, places, folder)
    return bool(_any_of([matcher[i] for i in places if i == len(matcher) - 1])(name))


def _any_of(patterns: list[re.Pattern[str] | None]) -> Callable[[str], object]:
    """Return what tells whether a name matches; a matcher has but one last pattern."""
    for pattern in patterns:
        if pattern is not None:
            return pattern.match
    return lambda _name: False


def _within(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip("/") + "/")
