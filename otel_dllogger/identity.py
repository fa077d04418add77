"""The run, rank and host of this process, on which all ranks agree without communicating.

Everything comes from environment variables that launchers set, tried in the order of the
tables below. Nothing is read at import.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from otel_dllogger import arguments, settings
from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.values import HASH_CHARACTERS, short_hash

if TYPE_CHECKING:
    from collections.abc import Mapping

RUN_LENGTH_MAX = 128
"""The largest number of characters in a run's name; a longer name is cut and ends in a hash."""

RANK_MAX = 999_999_999

_WHOLE_NUMBER = re.compile(r"-1|[0-9]{1,9}")
_LOOPBACK = re.compile(r"localhost(?:\..*)?|127\.[0-9.]+|::1", re.IGNORECASE)
_IP_ADDRESS = re.compile(r"[0-9.]+|[0-9a-fA-F:.%]*:.*")


@dataclass(frozen=True, slots=True)
class Topology:
    """The place of one process in its run.

    Args:
        run: The name shared by all ranks and all attempts of a run, usable as a label value.
        rank: The number of this process among all processes of the run, from 0.
        local_rank: The number of this process among those on its host, from 0; -1 if unknown,
            as for a log that does not contain it.
        world_size: The number of ranks in the run, always greater than ``rank``.
        attempt: 1 at first, 2 after one restart.
        host: The short host name.
        pid: The process id on that host; -1 if unknown, as for a log that does not contain it.
    """

    run: str
    rank: int
    local_rank: int
    world_size: int
    attempt: int
    host: str
    pid: int


@dataclass(frozen=True, slots=True)
class RankVariables:
    """The variables in which one kind of launcher tells a process its rank.

    ``local_size``, the number of ranks on the host, is empty where no such variable exists.
    """

    rank: str
    world_size: str
    local_rank: str
    local_size: str


# The order matters: torchrun inside a Slurm job sets RANK next to the job's SLURM_PROCID,
# which is 0 in every process that srun did not start.
RANK_VARIABLES = (
    RankVariables("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    RankVariables("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", ""),
    RankVariables(
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
    ),
    RankVariables("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
    RankVariables(
        "PADDLE_TRAINER_ID", "PADDLE_TRAINERS_NUM", "PADDLE_LOCAL_RANK", "PADDLE_LOCAL_SIZE"
    ),
    RankVariables(
        "MV2_COMM_WORLD_RANK",
        "MV2_COMM_WORLD_SIZE",
        "MV2_COMM_WORLD_LOCAL_RANK",
        "MV2_COMM_WORLD_LOCAL_SIZE",
    ),
)
"""The known launchers; the first match wins as a whole, so families are never mixed."""

RESTART_VARIABLES = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")
"""Restarts so far, from 0: torchrun's agent counts the workers', Slurm counts the job's."""


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """What distinguishes a process from an earlier one with the same pid, and its state.

    Args:
        parent_pid: The parent's pid; 0 if the parent is outside the pid namespace.
        start_ticks: Clock ticks from boot to the start of the process.
        ended: Whether it has ended and only waits for its parent to notice.
        stopped: Whether a signal or a debugger has stopped it.
    """

    parent_pid: int
    start_ticks: int
    ended: bool
    stopped: bool = False


def detect_topology(
    environ: Mapping[str, str] | None = None, *, run: str | None = None, rank: int | None = None
) -> Topology:
    """Find out which rank of which run this process is.

    The run's name is the first of these that is not empty: the argument, ``OTEL_DLLOGGER_RUN``,
    ``TORCHELASTIC_RUN_ID`` unless it is "none", ``SLURM_JOB_ID`` (``<job>_<task>`` in an array),
    ``PBS_JOBID``, ``LSB_JOBID`` (with the index, in an array). Otherwise it is

    - on several hosts ``<script>-<MASTER_ADDR>-<MASTER_PORT>``, which all ranks have in common;
      without these two, each host has a run of its own, with a warning;
    - else ``<script>-<start>``, such as ``train-20261128-171447``: when the launcher started, in
      local time, or the process itself if it has no launcher. The second of two that one parent
      started in the same second, with the same program, adds its pid;
    - without ``/proc``, as on macOS, ``<script>-<host>-<pid>`` of the parent of this rank, with a
      warning if there are several ranks, or of the process itself if it has no launcher.

    Args:
        environ: The variables to read; by default those of the process.
        run: The run's name, if the caller knows it. Pass it together with ``rank``
            wherever the processes of one run do not learn their ranks from the
            environment; processes that ``multiprocessing`` started agree without it.
        rank: The rank, if the caller knows it; -1 means 0.

    Returns:
        The place of this process in its run.

    Raises:
        ConfigurationError: If ``rank`` is not a number from -1 up, or ``run`` is not text.
    """
    arguments.text("run", run, step="pass run='...', or None for the launcher's")
    if rank is not None:
        step = "pass a number, or None to detect it"
        rank = arguments.whole("rank", rank, least=-1, most=RANK_MAX, step=step)
    environ = os.environ if environ is None else environ
    host = host_name()
    variables, found_rank = _find_rank(environ)
    local_rank = world_size = None
    if variables is not None:
        local_rank = _whole_number(environ, variables.local_rank)
        world_size = _whole_number(environ, variables.world_size)
    own_rank = max(found_rank if rank is None else rank, 0)
    restarts = sum(_whole_number(environ, variable) or 0 for variable in RESTART_VARIABLES)
    return Topology(
        run=clean_run(run or "")
        or _run_from_environment(environ)
        or _run_on_several_hosts(environ, variables, world_size or 1)
        or _run_from_process(
            host, _launcher_pid(variables, world_size or 1, rank_given=rank is not None)
        ),
        rank=own_rank,
        local_rank=local_rank or 0,
        world_size=max(world_size or 0, own_rank + 1),
        attempt=1 + restarts,
        host=host,
        pid=os.getpid(),
    )


def find_local_rank(environ: Mapping[str, str] | None = None) -> tuple[int | None, int | None]:
    """Return this process's number among those on its host, and how many there are.

    Unlike in ``Topology``, what no launcher says is None.

    Args:
        environ: The variables to read; by default those of the process.
    """
    environ = os.environ if environ is None else environ
    variables, _rank = _find_rank(environ)
    if variables is None:
        return None, None
    return (
        _whole_number(environ, variables.local_rank),
        _whole_number(environ, variables.local_size),
    )


def clean_run(text: str) -> str:
    """Return a run's name as one line that is safe as a label value and the same on every rank.

    Args:
        text: Any text, surrogates and control characters included; the user and password of
            a URL, and keys of a known form, do not become part of the label.

    Returns:
        At most ``RUN_LENGTH_MAX`` printable characters, without spaces at the ends; may be empty.
    """
    from otel_dllogger.redaction import redact_forms  # noqa: PLC0415 - 5 ms, not at import

    name = redact_forms("".join(filter(str.isprintable, text)).strip())
    if len(name) <= RUN_LENGTH_MAX:
        return name
    return f"{name[: RUN_LENGTH_MAX - HASH_CHARACTERS - 1]}-{short_hash(name)}"


def host_name() -> str:
    """Return the host's name up to the first dot, or "unknown"."""
    # The same as socket.gethostname(), but without a module that takes 5 ms to import; it
    # cannot fail.
    return clean_run(os.uname().nodename.partition(".")[0]) or "unknown"


def read_process(pid: int) -> ProcessStat | None:
    """Return who started a process, and when.

    Args:
        pid: Any process id.

    Returns:
        What Linux reports (proc_pid_stat(5)); None if there is no such process, or no /proc.
    """
    try:
        stat = _read_proc(f"{pid}/stat")
        # The second field is the program's name in parentheses, which may contain " ()" itself.
        fields = stat.rpartition(b")")[2].split()
        return ProcessStat(
            parent_pid=int(fields[1]),
            start_ticks=int(fields[19]),
            ended=fields[0] in b"ZX",
            stopped=fields[0] in b"Tt",
        )
    except (OSError, ValueError, IndexError):
        return None


def _whole_number(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name, "").strip()
    if not text:
        return None
    if not _WHOLE_NUMBER.fullmatch(text):
        DIAGNOSTICS.warn(
            f"environment {name}",
            f"{name}={text[:40]!r} is ignored: it must be a whole number from 0 up, or -1 for 0; "
            "correct or unset it, or pass rank and run as arguments",
        )
        return None
    return max(int(text), 0)


def _find_rank(environ: Mapping[str, str]) -> tuple[RankVariables | None, int]:
    for variables in RANK_VARIABLES:
        rank = _whole_number(environ, variables.rank)
        if rank is not None:
            return variables, rank
    return None, 0


def _run_from_environment(environ: Mapping[str, str]) -> str:
    torchrun_id = environ.get("TORCHELASTIC_RUN_ID", "")
    slurm_id, array_id = environ.get("SLURM_JOB_ID", ""), environ.get("SLURM_ARRAY_JOB_ID", "")
    task_id = environ.get("SLURM_ARRAY_TASK_ID", "")
    lsf_id, lsf_index = environ.get("LSB_JOBID", ""), environ.get("LSB_JOBINDEX", "0")
    candidates = (
        environ.get(settings.RUN, ""),
        "" if torchrun_id == "none" else torchrun_id,  # torchrun's default for --rdzv-id
        # As in the name of the task's output, slurm-%A_%a.out; the id of a task's job is another.
        f"{array_id}_{task_id}" if slurm_id and array_id and task_id else slurm_id,
        environ.get("PBS_JOBID", ""),
        lsf_id if not lsf_id or lsf_index in ("", "0") else f"{lsf_id}[{lsf_index}]",
    )
    return next(filter(None, map(clean_run, candidates)), "")


def _run_on_several_hosts(
    environ: Mapping[str, str], variables: RankVariables | None, world_size: int
) -> str:
    """Return the name of a run on several hosts, if there are several and they have one in common.

    All ranks must find the same, so nothing counts here that differs between them.
    """
    if variables is None or world_size == 1:
        return ""
    address = environ.get("MASTER_ADDR", "").strip()
    port = environ.get("MASTER_PORT", "").strip()
    local_size = _whole_number(environ, variables.local_size)
    # If nothing says how many ranks are on this host, the address must.
    is_local = _LOOPBACK.fullmatch(address) if local_size is None else local_size >= world_size
    if is_local:
        return ""
    if address and port:
        if not _IP_ADDRESS.fullmatch(address):
            address = address.partition(".")[0]
        return clean_run(f"{_script_name()}-{address}-{port}")
    local_rank = _whole_number(environ, variables.local_rank)
    if local_size is not None or local_rank not in (None, _whole_number(environ, variables.rank)):
        DIAGNOSTICS.warn(
            "run of several hosts",
            "the ranks are on several hosts, and nothing names their run: each host has a run of "
            f"its own; set {settings.RUN} to the same name on all hosts (torchrun: --rdzv-id)",
        )
    return ""


def _run_from_process(host: str, pid: int) -> str:
    """Return the name of a run on this host, by the process that started it."""
    process, boot_unix_s = read_process(pid), _boot_unix_s()
    if process is None or boot_unix_s is None:
        return clean_run(f"{_script_name()}-{host}-{pid}")
    start_unix_s = boot_unix_s + process.start_ticks // _ticks_per_s()
    start = time.strftime("%Y%m%d-%H%M%S", time.localtime(start_unix_s))
    own = f"-{pid}" if _is_one_of_several(pid, process.start_ticks) else ""
    return clean_run(f"{_script_name()}-{start}{own}")


def _script_name() -> str:
    """Return the script's name without its folder and ``.py``; a package's for its main module."""
    folder, _, name = (getattr(sys, "argv", None) or [""])[0].rpartition("/")
    if name == "__main__.py":
        name = folder.rpartition("/")[2]
    name = clean_run(name.removesuffix(".py"))
    return "python" if name in ("", "-", "-c", "-m") else name


@functools.cache  # the others may end: the name must not change
def _is_one_of_several(pid: int, start_ticks: int) -> bool:
    """Return whether a process was not the first that its parent started in that second.

    ``for gpu in 0 1; do python train.py & done`` makes two runs. Only processes of the same
    program count, not the ``tee`` of a pipe.
    """
    second = start_ticks // _ticks_per_s()
    own = read_process(pid)
    if own is None or (pid == os.getpid() and _multiprocessing_parent_pid()):
        return True  # a trial that a script started has that script's name
    try:
        program = _program(pid)
        return any(
            other is not None
            and other.start_ticks // _ticks_per_s() == second
            and (other.start_ticks, sibling) < (start_ticks, pid)
            and _program(sibling) == program
            for sibling in _children(own.parent_pid)
            if (other := read_process(sibling))
        )
    except OSError:
        return True


def _children(pid: int) -> list[int]:
    """Return the children of a process; none of pid 0, which is outside the pid namespace.

    Raises:
        OSError: If the system does not say.
    """
    if pid == 0:
        return []
    found = _read_proc(f"{pid}/task/{pid}/children")
    for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - without pathlib, as below
        if thread != str(pid):
            with contextlib.suppress(FileNotFoundError):  # it has just ended
                found += b" " + _read_proc(f"{pid}/task/{thread}/children")
    return [int(child) for child in found.split()]


def _program(pid: int) -> bytes:
    try:
        return _read_proc(f"{pid}/cmdline").partition(b"\0")[0]
    except OSError:  # it has just ended
        return b""


def _ticks_per_s() -> int:
    return os.sysconf("SC_CLK_TCK")


def _boot_unix_s() -> int | None:
    try:
        lines = _read_proc("stat").splitlines()
        return next((int(line.split()[1]) for line in lines if line.startswith(b"btime ")), None)
    except (OSError, ValueError, IndexError):
        return None


def _launcher_pid(variables: RankVariables | None, world_size: int, *, rank_given: bool) -> int:
    if variables is None:
        # Without a rank, a child of multiprocessing is just as likely a trial of its own.
        return (rank_given and _multiprocessing_parent_pid()) or os.getpid()
    # A wrapper script between launcher and rank has the rank in its environment too: the launcher
    # is the first ancestor that does not. The first process of a container has no ancestor.
    pid = os.getppid() or os.getpid()
    if world_size > 1 and read_process(os.getpid()) is None:  # macOS has no /proc
        DIAGNOSTICS.warn(
            "launcher without /proc",
            "the run is named after the process that started this rank, since this system does not "
            "show which started that; if it is not the launcher of all ranks, as with a script in "
            f"between, set {settings.RUN} to the same name on all ranks",
        )
    while _was_started_with(variables.rank, pid):
        process = read_process(pid)
        if process is None or process.parent_pid == 0:
            break
        pid = process.parent_pid
    return pid


def _multiprocessing_parent_pid() -> int | None:
    # Loaded late: it takes longer than the rest of this module.
    from multiprocessing.process import parent_process  # noqa: PLC0415

    parent = parent_process()
    return None if parent is None else parent.pid


def _read_proc(name: str) -> bytes:
    # Without pathlib, which takes longer to import than the rest of this module.
    with open(f"/proc/{name}", "rb") as file:  # noqa: PTH123
        return file.read()


def _was_started_with(variable: str, pid: int) -> bool:
    try:
        environ = _read_proc(f"{pid}/environ")
    except OSError:
        return False
    return any(item.startswith(os.fsencode(f"{variable}=")) for item in environ.split(b"\0"))
