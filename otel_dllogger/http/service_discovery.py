"""One file per rank that tells Prometheus where to scrape it.

The files are Prometheus' ``file_sd``: a folder that every rank writes into and that
Prometheus watches. All labels in them begin with ``__meta_``: Prometheus offers those to
relabelling and drops them afterwards, so that nothing here can collide with the
``run`` and ``rank`` of the metrics themselves
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

from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.errors import EndpointError
from otel_dllogger.identity import Topology, host_name, read_process
from otel_dllogger.runtime.files import read_regular, replacing

_LABEL_PREFIX = "__meta_dllogger_"
_FILE_SIZE_BYTES_MAX = 65536
_PID_MAX = 2**31 - 1

# A start leaves the files of the dead for this long, so that Prometheus sees that their targets
# are down: a rank that was swept at once looks like one that closed, and nobody is told.
GRACE_S = 600.0
_MARK = ".dead"


@dataclass(frozen=True, slots=True)
class _Owner:
    """Name a process so that no other, before or after, on any host, has the same name.

    Args:
        host: The short host name.
        pid_namespace: Containers may share the host's name, but each counts its own pids.
        pid: The process id in that namespace.
        start: Boot and clock ticks at its start; empty where the system does not say.
    """

    host: str
    pid_namespace: str
    pid: int
    start: str


@dataclass(frozen=True, slots=True)
class _Announcement:
    """Hold what a discovery file says.

    Args:
        owner: Whose it is.
        address: Where its endpoint listens; anything else where the file is damaged.
    """

    owner: _Owner
    address: object


class DiscoveryFile:
    """Announce a metrics endpoint to Prometheus for as long as this process lives.

    The folder is made if it is missing, and files of ranks of this host that were seen
    dead ten minutes ago are removed from it. What cannot be written is counted, and never
    raised.

    Args:
        directory: The folder that Prometheus watches, as ``<directory>/*.json``.
        topology: Whose endpoint it is; gives the file its name.
        address: ``host:port`` where the endpoint listens. A wildcard host (0.0.0.0 or ::) is
            announced as the host's name.

    Attributes:
        path: The file.
        problem: Why it could not be written, None where it was.
    """

    def __init__(
        self, directory: str | os.PathLike[str], topology: Topology, *, address: str
    ) -> None:
        self.path = Path(directory, _file_name(topology))
        self._pid = os.getpid()
        self._content = b""
        self.problem: EndpointError | None = None
        announced = _announced(address, topology.host)
        content = _format_content(topology, announced)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _write(self.path, content)
            _unmark(self.path)
        except (OSError, ValueError) as error:
            self.problem = EndpointError(
                f"no discovery file in {str(directory)!r} ({error}): Prometheus must be told of "
                f"{address} by hand",
                step="pass discovery_dir or OTEL_DLLOGGER_DISCOVERY_DIR with a folder that can be "
                "written",
                argument="discovery_dir",
            )
            DIAGNOSTICS.count("discovery", str(self.problem))
        else:
            self._content = content
            sweep_stale(directory, grace_s=GRACE_S, taken=announced)

    def remove(self) -> None:
        """Withdraw the announcement, unless another process has taken over the file.

        A second call does nothing, nor does one in a forked child.
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
            DIAGNOSTICS.warn(
                "discovery",
                f"{str(self.path)!r} stays behind ({error}): Prometheus shows the rank as down; "
                "delete the file",
            )


def sweep_stale(
    directory: str | os.PathLike[str], *, grace_s: float = 0.0, taken: str | None = None
) -> int:
    """Remove what dead ranks of this host left in the folder.

    Stale is a file that this package wrote on this host, in this pid namespace, by a
    process that has ended or whose pid is another's by now. All else stays: foreign and
    malformed files, other hosts, live ranks. Any number of processes may sweep at once.
    Whatever others may have put into the folder, nothing is raised.

    Args:
        directory: The discovery folder; may be missing.
        grace_s: How long ago a sweep must have seen first that the process is dead. Until
            then its file stays, with a mark beside it, ``<name>.dead``.
        taken: An address that another process listens at now. A dead one that announced it is
            removed without grace: its file would keep the address when that process closes.

    Returns:
        How many files this call removed, marks not counted.
    """
    try:
        names = os.listdir(directory)  # noqa: PTH208 - a folder without a name to match costs least
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
            DIAGNOSTICS.warn(
                "discovery_sweep",
                f"{name!r} in {str(directory)!r} is left as it is ({type(error).__name__}: "
                f"{error}); delete it if no rank of this host has it",
            )
    return removed


@dataclass(frozen=True, slots=True)
class _Sweep:
    """Hold what one sweep goes by.

    Args:
        here: The process that sweeps.
        grace_s: How long a file stays after it was seen to be a dead process's.
        taken: The address whose files have no grace.
    """

    here: _Owner
    grace_s: float
    taken: str | None

    def file(self, path: Path) -> bool:
        """Remove one file if it is stale, and say whether it was.

        Raises:
            OSError: If another rank was faster, or it is not ours to remove.
        """
        # By name first: a thousand hosts that read each other's files would stall a shared disk.
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
        # It is of a file that is gone: its rank started again, or somebody deleted it.
        path = mark.with_name(mark.name.removesuffix(_MARK))
        if not path.exists():
            mark.unlink()


def _marked_for_s(path: Path, content: bytes) -> float:
    """Return how long ago this very file was marked; mark it if it was not."""
    mark = _mark_of(path)
    with contextlib.suppress(OSError):  # there is none, or what is there cannot be read
        if _read(mark) == content:  # and not of an earlier process, which died before this one
            marked_for_s = time.time() - mark.lstat().st_mtime
            if marked_for_s >= 0:
                return marked_for_s
    _write(mark, content)
    if _read(path) != content:  # a new rank took the file over, and may have looked for marks
        _unmark(path)
    return 0.0


def _mark_of(path: Path) -> Path:
    # Not *.json, so that Prometheus does not read it.
    return path.with_name(path.name + _MARK)


def _unmark(path: Path) -> None:
    with contextlib.suppress(OSError):
        _mark_of(path).unlink()


def _discard(path: Path, content: bytes) -> bool:
    # A new rank may replace the file between our look at it and its removal, and a new
    # attempt has the same names as the old one. So it is moved away first and looked at
    # again: what is not what we meant to remove goes back.
    aside = _temporary_path(path.parent)
    path.rename(aside)
    try:
        is_meant = _read(aside) == content
    except OSError:  # it is something else by now, which cannot be read
        is_meant = False
    if not is_meant:
        aside.rename(path)
        return False
    aside.unlink()
    return True


def _write(path: Path, content: bytes) -> None:
    # A private umask would hide it from Prometheus' user.
    with replacing(path, _temporary_path(path.parent), exclusive=True, mode=0o644) as file:
        file.write(content)


def _read(path: Path) -> bytes:
    # Not a link nor a pipe, which a folder open to others may hold.
    return read_regular(path, max_bytes=_FILE_SIZE_BYTES_MAX, follow=False)


def _this_process() -> _Owner:
    pid = os.getpid()
    return _Owner(host_name(), _pid_namespace(), pid, _process_start(pid))


def _pid_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - its target is no path
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
        pass  # alive, and another user's
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
    """Return what a file says; None for anything that ``_format_content`` does not write."""
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
        return _Announcement(owner, targets[0] if is_one else None) if owner else None
    except Exception:  # what others may have written knows no end
        return None


def _owner(host: str, pid_namespace: str, pid: str, start: str) -> _Owner | None:
    number = int(pid) if re.fullmatch("[0-9]{1,10}", pid) else 0
    return _Owner(host, pid_namespace, number, start) if 0 < number <= _PID_MAX else None


def _temporary_path(directory: Path) -> Path:
    # The name says whose it is: a process killed while it writes leaves no content that could.
    # It begins with a dot and does not end in .json, so that no *.json glob finds it.
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
    # No underscore in the host, so that the three parts can be told apart and no
    # two (run, rank, host) share a name.
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
