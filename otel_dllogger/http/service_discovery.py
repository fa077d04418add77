"""Write and remove discovery files, one per rank, which tell Prometheus where to scrape it.

They are files for Prometheus' ``file_sd``, in a folder that every rank writes into and that
Prometheus watches. All labels in them begin with ``__meta_``. Prometheus offers these to
relabelling and drops them afterwards, so that nothing here can collide with the ``run`` and
``rank`` of the metrics themselves
(https://prometheus.io/docs/prometheus/latest/configuration/configuration/#file_sd_config).
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import json
import os
import re
import secrets
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.errors import EndpointError, in_words
from otel_dllogger.http.discovery_folder import NONE, GivenBy
from otel_dllogger.identity import Topology, host_name, read_process
from otel_dllogger.runtime.files import read_regular, replacing
from otel_dllogger.settings import DISCOVERY_DIR

if TYPE_CHECKING:
    from collections.abc import Iterator

_LABEL_PREFIX = "__meta_dllogger_"
_FILE_SIZE_BYTES_MAX = 65536
_PID_MAX = 2**31 - 1
_RANK_DIGITS_MAX = 10

# When a rank starts, it leaves the files of dead ranks for this long, so that Prometheus sees that
# their targets are down. A rank whose file is swept at once would look like one that closed, and
# no alert would fire.
GRACE_S = 600.0
_MARK = ".dead"


@dataclass(frozen=True, slots=True)
class _Owner:
    """The identity of a process, which no other process on any host ever has.

    Args:
        host: The short host name.
        pid_namespace: The pid namespace; containers may share the host's name, but each counts
            its own pids.
        pid: The process id in that namespace.
        start: Boot and clock ticks at the start of the process; empty if the system does not say.
    """

    host: str
    pid_namespace: str
    pid: int
    start: str


@dataclass(frozen=True, slots=True)
class _Announcement:
    """The content of a discovery file.

    Args:
        owner: The process that wrote it.
        address: Where its endpoint listens; may be anything if the file is damaged.
        run: The run's name; empty if the file does not say it.
        rank: The rank, as text.
    """

    owner: _Owner
    address: object
    run: str
    rank: str


class AnnouncedRank(NamedTuple):
    """A rank that announces its page.

    Attributes:
        run: The run's name.
        rank: The rank.
        host: Its host.
        pid: Its process, in the numbers of its host or container.
        is_here: Whether it is of this host and container.
    """

    run: str
    rank: int
    host: str
    pid: int
    is_here: bool


class DiscoveryFile:
    """A file that announces a metrics endpoint to Prometheus while this process lives.

    The folder is created if it is missing, and files of ranks of this host that were seen dead
    ten minutes ago are removed from it. A failure to write is never raised. It is counted, except
    for a default folder, which nobody asked for.

    Args:
        directory: The folder that Prometheus watches, as ``<directory>/*.json``.
        topology: The identity of this process, from which the file gets its name.
        address: ``host:port`` where the endpoint listens. A wildcard host (0.0.0.0 or ::) is
            announced as the host's name.
        given_by: Who chose the folder.

    Attributes:
        path: The file.
        problem: Why it could not be written where somebody asked for it, else None.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        topology: Topology,
        *,
        address: str,
        given_by: GivenBy = GivenBy.ARGUMENT,
    ) -> None:
        self.path = Path(directory, _file_name(topology))
        self._pid = os.getpid()
        self._content = b""
        self._given_by = given_by
        self.problem: EndpointError | None = None
        announced = _announced(address, topology.host)
        content = _format_content(topology, announced)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _write(self.path, content)
            _unmark(self.path)
        except (OSError, ValueError) as error:
            self._fail(directory, address, error, given_by)
        else:
            self._content = content
            sweep_stale(directory, grace_s=GRACE_S, taken=announced, given_by=given_by)

    @property
    def is_written(self) -> bool:
        """Return whether the file was written, and not yet removed."""
        return bool(self._content)

    def _fail(
        self,
        directory: str | os.PathLike[str],
        address: str,
        error: Exception,
        given_by: GivenBy,
    ) -> None:
        """Account for a file that could not be written."""
        problem = (
            f"no discovery file in {str(directory)!r} ({in_words(error)}): {address} must be added "
            "to Prometheus by hand"
        )
        if given_by is GivenBy.DEFAULT:
            _inform(problem)
            return
        is_argument = given_by is GivenBy.ARGUMENT
        where = "pass discovery_dir with" if is_argument else f"set {DISCOVERY_DIR} to"
        self.problem = EndpointError(
            problem,
            step=f"{where} a folder that can be written, or {NONE!r} for no file",
            argument="discovery_dir" if is_argument else "",
        )
        DIAGNOSTICS.count("discovery", str(self.problem))

    def remove(self) -> None:
        """Remove the file, unless another process has taken it over.

        A second call does nothing, nor does a call in a forked child.
        """
        if not self._content or os.getpid() != self._pid:
            return
        content, self._content = self._content, b""
        try:
            if _read(self.path) == content:
                _discard(self.path, content)
        except FileNotFoundError:
            pass
        except OSError as error:
            # Nobody asked for a default folder. Not even a line of information: a handler of
            # logging would run here, where the process is ending, perhaps by a signal.
            if self._given_by is not GivenBy.DEFAULT:
                DIAGNOSTICS.warn(
                    "discovery",
                    f"{str(self.path)!r} could not be removed ({error}): Prometheus shows the "
                    "rank as down; delete the file",
                )


def _inform(message: str) -> None:
    """Tell what is not a reason for a warning, since nobody asked for a default folder."""
    import logging  # noqa: PLC0415 - rarely needed

    logging.getLogger("otel_dllogger").info("%s", message)


def announced_pages(directory: str | os.PathLike[str]) -> list[str]:
    """Return the addresses that the files in a discovery folder announce.

    Files that this package did not write are ignored.

    Args:
        directory: The folder; may be missing.
    """
    return [address for address, _owner in _announced_in(directory)]


def announced_ranks(directory: str | os.PathLike[str]) -> list[AnnouncedRank]:
    """Return the ranks that the files in a discovery folder announce, without dead ones.

    Args:
        directory: The folder; may be missing.
    """
    here = _this_process()
    ranks = []
    for found in _announcements_in(directory):
        owner = found.owner
        if found.run and found.rank.isdecimal() and not _is_dead(owner, here):
            is_here = (owner.host, owner.pid_namespace) == (here.host, here.pid_namespace)
            rank = AnnouncedRank(found.run, int(found.rank), owner.host, owner.pid, is_here)
            ranks.append(rank)
    return ranks


def live_pages(directory: str | os.PathLike[str]) -> list[str]:
    """Return those of the announced addresses whose process is not known to be dead.

    Args:
        directory: The folder; may be missing.
    """
    here = _this_process()
    return [address for address, owner in _announced_in(directory) if not _is_dead(owner, here)]


def _announced_in(directory: str | os.PathLike[str]) -> Iterator[tuple[str, _Owner]]:
    for found in _announcements_in(directory):
        if isinstance(found.address, str):
            yield found.address, found.owner


def _announcements_in(directory: str | os.PathLike[str]) -> Iterator[_Announcement]:
    try:
        names = sorted(os.listdir(directory))  # noqa: PTH208 - as in ``sweep_stale``
    except (OSError, ValueError):
        return
    for name in names:
        if name.startswith("dllogger_") and name.endswith(".json"):
            with contextlib.suppress(OSError):
                announcement = _parse_content(_read(Path(directory, name)))
                if announcement is not None:
                    yield announcement


def sweep_stale(
    directory: str | os.PathLike[str],
    *,
    grace_s: float = 0.0,
    taken: str | None = None,
    given_by: GivenBy = GivenBy.ARGUMENT,
) -> int:
    """Remove files that dead ranks of this host left in the folder.

    A file is stale if this package wrote it on this host, in this pid namespace, in a process
    that has ended or whose pid now belongs to another one. Everything else stays: foreign and
    malformed files, and those of other hosts and live ranks. Any number of processes may sweep
    at the same time. Whatever else is in the folder, nothing is raised.

    Args:
        directory: The discovery folder; may be missing.
        grace_s: Seconds that must have passed since a sweep first saw that the process is dead.
            Until then its file stays, with a mark beside it, ``<name>.dead``.
        taken: An address on which another process now listens. The file of a dead process that
            announced it is removed without grace: it would keep the address when the other
            process closes.
        given_by: Who chose the folder.

    Returns:
        How many files this call removed, without the marks.
    """
    try:
        names = os.listdir(directory)  # noqa: PTH208 - cheapest for a folder without matching names
    except (OSError, ValueError):
        return 0
    sweep = _Sweep(_this_process(), grace_s, taken)
    removed = 0
    for name in names:
        try:
            removed += sweep.file(Path(directory, name))
        except OSError:
            pass  # another rank was faster, or it is not ours to remove
        except Exception as error:
            message = (
                f"{name!r} in {str(directory)!r} is left as it is ({type(error).__name__}: "
                f"{error}); delete it if it belongs to no rank of this host"
            )
            if given_by is GivenBy.DEFAULT:
                _inform(message)
            else:
                DIAGNOSTICS.warn("discovery_sweep", message)
    return removed


@dataclass(frozen=True, slots=True)
class _Sweep:
    """The parameters of one sweep.

    Args:
        here: The process that sweeps.
        grace_s: Seconds that a file stays after a sweep first saw that its process is dead.
        taken: The address whose files get no grace.
    """

    here: _Owner
    grace_s: float
    taken: str | None

    def file(self, path: Path) -> bool:
        """Remove one file if it is stale, and return whether it was.

        Raises:
            OSError: If another rank was faster, or it is not ours to remove.
        """
        # Names first: a thousand hosts that read each other's files would stall a shared disk.
        end = _file_name_end(self.here.host)
        if path.name.startswith("dllogger_") and path.name.endswith(end):
            return self._announcement(path)
        if path.name.startswith("dllogger_") and path.name.endswith(end + _MARK):
            self._mark(path)
        elif path.name.startswith(".dllogger-") and path.suffix == ".tmp":
            owner = _parse_temporary_name(path.name, self.here)
            if owner is not None and _is_dead(owner, self.here):
                path.unlink()
                return True
        return False

    def _announcement(self, path: Path) -> bool:
        content = _read(path)
        announcement = _parse_content(content)
        if announcement is None or not _is_dead(announcement.owner, self.here):
            return False
        has_grace = self.grace_s > 0 and announcement.address != self.taken
        if has_grace and _marked_for_s(path, content) < self.grace_s:
            return False
        if not _discard(path, content):
            return False
        _unmark(path)
        return True

    def _mark(self, mark: Path) -> None:
        # The marked file may be gone: its rank was restarted, or a user deleted it.
        path = mark.with_name(mark.name.removesuffix(_MARK))
        if not path.exists():
            mark.unlink()


def _marked_for_s(path: Path, content: bytes) -> float:
    """Return the seconds since this very file was marked; mark it if it was not."""
    mark = _mark_of(path)
    with contextlib.suppress(OSError):  # there is none, or it cannot be read
        if _read(mark) == content:  # and not the mark of an earlier process with this file name
            marked_for_s = time.time() - mark.lstat().st_mtime
            if marked_for_s >= 0:
                return marked_for_s
    _write(mark, content)
    if _read(path) != content:  # a new rank took the file over, and may already have removed marks
        _unmark(path)
    return 0.0


def _mark_of(path: Path) -> Path:
    # The name is not *.json, so that Prometheus does not read it.
    return path.with_name(path.name + _MARK)


def _unmark(path: Path) -> None:
    with contextlib.suppress(OSError):
        _mark_of(path).unlink()


def _discard(path: Path, content: bytes) -> bool:
    # A new rank may replace the file between our look at it and its removal, since a new attempt
    # uses the same names as the old one. So the file is moved away first and read again; if it is
    # not the one that we meant to remove, it goes back.
    aside = _temporary_path(path.parent)
    path.rename(aside)
    try:
        is_meant = _read(aside) == content
    except OSError:  # it is now something else, which cannot be read
        is_meant = False
    if not is_meant:
        aside.rename(path)
        return False
    aside.unlink()
    return True


def _write(path: Path, content: bytes) -> None:
    # A private umask would hide the file from Prometheus' user.
    with replacing(path, _temporary_path(path.parent), exclusive=True, mode=0o644) as file:
        file.write(content)


def _read(path: Path) -> bytes:
    # Neither a link nor a pipe, which a folder that others can write to may contain.
    return read_regular(path, max_bytes=_FILE_SIZE_BYTES_MAX, follow=False)


def _this_process() -> _Owner:
    pid = os.getpid()
    return _Owner(host_name(), _pid_namespace(), pid, _process_start(pid))


def _pid_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - its target is not a path
    except OSError:
        return ""


def _process_start(pid: int) -> str:
    process = read_process(pid)
    if process is None:
        return ""
    try:
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8]
    except (OSError, ValueError):
        boot_id = "0"
    return f"{boot_id}.{process.start_ticks}"


def _is_dead(owner: _Owner, here: _Owner) -> bool:
    if (owner.host, owner.pid_namespace) != (here.host, here.pid_namespace):
        return False
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass  # alive, and owned by another user
    process = read_process(owner.pid)
    if process is None:
        return False
    return process.ended or (owner.start not in ("", _process_start(owner.pid)))


def _format_content(topology: Topology, address: str) -> bytes:
    owner = _this_process()
    labels = {
        **asdict(owner),
        "host": topology.host,
        "run": topology.run,
        "rank": topology.rank,
    }
    group = {
        "targets": [address],
        "labels": {f"{_LABEL_PREFIX}{name}": str(value) for name, value in labels.items()},
    }
    return json.dumps([group]).encode() + b"\n"


def _parse_content(content: bytes) -> _Announcement | None:
    """Return a file's content; None for anything that ``_format_content`` does not write."""
    try:
        (group,) = json.loads(content)
        labels, targets = group["labels"], group["targets"]
        host, pid_namespace, pid, start = (
            labels[f"{_LABEL_PREFIX}{name}"] for name in ("host", "pid_namespace", "pid", "start")
        )
        if not all(isinstance(text, str) for text in (host, pid_namespace, pid, start)):
            return None
        owner = _owner(host, pid_namespace, pid, start)
        is_one = isinstance(targets, list) and len(targets) == 1
        address = targets[0] if is_one else None
        run, rank = (str(labels.get(f"{_LABEL_PREFIX}{name}", "")) for name in ("run", "rank"))
        return _Announcement(owner, address, run, rank[:_RANK_DIGITS_MAX]) if owner else None
    except Exception:  # others may have written anything
        return None


def _owner(host: str, pid_namespace: str, pid: str, start: str) -> _Owner | None:
    number = int(pid) if re.fullmatch("[0-9]{1,10}", pid) else 0
    return _Owner(host, pid_namespace, number, start) if 0 < number <= _PID_MAX else None


def _temporary_path(directory: Path) -> Path:
    # The name contains the owner, since a process that is killed while writing leaves no content
    # that could. It begins with a dot and does not end in .json, so that no *.json glob finds it.
    owner = _this_process()
    name = f".dllogger-{_origin(owner)}-{owner.pid}-{owner.start}-{secrets.token_hex(4)}.tmp"
    return directory / name


def _parse_temporary_name(name: str, here: _Owner) -> _Owner | None:
    pattern = rf"\.dllogger-{_origin(here)}-([0-9]+)-([0-9a-f.]*)-[0-9a-f]{{8}}\.tmp"
    match = re.fullmatch(pattern, name)
    return match and _owner(here.host, here.pid_namespace, match[1], match[2])


def _origin(owner: _Owner) -> str:
    return _digest(f"{owner.host}\n{owner.pid_namespace}")


def _file_name(topology: Topology) -> str:
    # The host contains no underscore, so that the three parts can be told apart and no two
    # (run, rank, host) share a name.
    run = _safe(topology.run, r"[^A-Za-z0-9._-]", 128)
    return f"dllogger_{run}_{topology.rank}{_file_name_end(topology.host)}"


def _file_name_end(host: str) -> str:
    return f"_{_safe(host, r'[^A-Za-z0-9.-]', 64)}.json"


def _safe(text: str, unsafe: str, length_max: int) -> str:
    safe = re.sub(unsafe, "-", text)
    if safe == text and len(text) <= length_max:
        return text
    return f"{safe[: length_max - 9]}-{_digest(text)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def _announced(address: str, host: str) -> str:
    bound, _, port = address.rpartition(":")
    bound = bound.strip("[]")
    try:
        ip = ipaddress.ip_address(bound)
    except ValueError:
        return f"{bound or host}:{port}"
    if ip.is_unspecified:
        return f"{host}:{port}"
    return f"[{bound}]:{port}" if ip.version == 6 else f"{bound}:{port}"
