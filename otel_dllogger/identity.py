"""Who am I: the run, the rank and the machine, agreed by all ranks without talking.

Everything comes from tables of environment variables that launchers set, in the
order of the tables. Nothing is read at import.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from otel_dllogger import arguments, settings
from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.values import HASH_CHARACTERS, short_hash

if TYPE_CHECKING:
    from collections.abc import Mapping

RUN_LENGTH_MAX = 128
"""Characters of a run's name; a longer one ends in a hash of the whole."""

RANK_MAX = 999_999_999

_WHOLE_NUMBER = re.compile(r"-1|[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Topology:
    """Place one process in its run.

    Args:
        run: The name shared by all ranks and all attempts of a run, fit for a label value.
        rank: This process among all of the run, from 0.
        local_rank: This process among those of its host, from 0; -1 where a log does not say it.
        world_size: How many ranks the run has, more than ``rank``.
        attempt: 1 at first, 2 after one restart.
        host: The short host name.
        pid: The process id on that host; -1 where a log does not say it.
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
    """Name the variables by which one kind of launcher tells a process its rank."""

    rank: str
    world_size: str
    local_rank: str


# The order matters: torchrun inside a Slurm job sets RANK beside the job's SLURM_PROCID,
# which is 0 in every process that srun did not start.
RANK_VARIABLES = (
    RankVariables("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    RankVariables("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
    RankVariables("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    RankVariables("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),
    RankVariables("PADDLE_TRAINER_ID", "PADDLE_TRAINERS_NUM", "PADDLE_LOCAL_RANK"),
    RankVariables("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_LOCAL_RANK"),
)
"""The launchers known, first match wins as a whole: families are never mixed."""

RESTART_VARIABLES = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")
"""Restarts so far, from 0: of the workers by torchrun's agent, of the job by Slurm."""


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """Tell a process from an earlier one with the same pid.

    Args:
        parent_pid: 0 where the parent is outside of the pid namespace.
        start_ticks: Clock ticks from boot to the start of the process.
        ended: Whether it has ended and only waits for its parent to notice.
    """

    parent_pid: int
    start_ticks: int
    ended: bool


def detect_topology(
    environ: Mapping[str, str] | None = None, *, run: str | None = None, rank: int | None = None
) -> Topology:
    """Find out which rank of which run this process is.

    The run is the first that is not empty of: the argument, ``OTEL_DLLOGGER_RUN``,
    ``TORCHELASTIC_RUN_ID`` unless it is "none", ``SLURM_JOB_ID`` (its own for each task of
    an array), ``PBS_JOBID``, ``LSB_JOBID`` (with the index, in an array); else
    ``<host>-<pid>-<start>`` of the launcher, which ranks on several hosts do not share:
    name the run there. A process without a launcher takes its own pid and start, so
    that two scripts started by one shell are two runs.

    Args:
        environ: The variables to read; those of the process if not given.
        run: The run's name, if the caller knows it. Give it along with ``rank``
            wherever the processes of one run do not learn their ranks from the
            environment; those that ``multiprocessing`` started agree without it.
        rank: The rank, if the caller knows it; -1 means 0.

    Returns:
        Where this process stands.

    Raises:
        ConfigurationError: If ``rank`` is not a number from -1 up, or ``run`` not text.
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
        or _run_from_process(host, _launcher_pid(variables, rank_given=rank is not None)),
        rank=own_rank,
        local_rank=local_rank or 0,
        world_size=max(world_size or 0, own_rank + 1),
        attempt=1 + restarts,
        host=host,
        pid=os.getpid(),
    )


def clean_run(text: str) -> str:
    """Make a run's name safe as a label value, on one line, and the same on every rank.

    Args:
        text: Any text, surrogates and control characters included; the user and password of
            a URL, and keys of a known form, do not become a label.

    Returns:
        At most ``RUN_LENGTH_MAX`` printable characters, none at the ends a space; may be empty.
    """
    from otel_dllogger.redaction import redact_forms  # noqa: PLC0415 - 5 ms, not at import

    name = redact_forms("".join(filter(str.isprintable, text)).strip())
    if len(name) <= RUN_LENGTH_MAX:
        return name
    return f"{name[: RUN_LENGTH_MAX - HASH_CHARACTERS - 1]}-{short_hash(name)}"


def host_name() -> str:
    """Return the host's name up to the first dot, or "unknown"."""
    # What socket.gethostname() gives, which cannot fail and does not load a module of 5 ms.
    return clean_run(os.uname().nodename.partition(".")[0]) or "unknown"


def read_process(pid: int) -> ProcessStat | None:
    """Read who started a process, and when.

    Args:
        pid: Any process id.

    Returns:
        What Linux says (proc_pid_stat(5)); None if there is no such process, or no /proc.
    """
    try:
        stat = _read_proc(f"{pid}/stat")
        # The second field is the program's name in parentheses, and may hold any of " ()".
        fields = stat.rpartition(b")")[2].split()
        return ProcessStat(
            parent_pid=int(fields[1]), start_ticks=int(fields[19]), ended=fields[0] in b"ZX"
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
    lsf_id, lsf_index = environ.get("LSB_JOBID", ""), environ.get("LSB_JOBINDEX", "0")
    candidates = (
        environ.get(settings.RUN, ""),
        "" if torchrun_id == "none" else torchrun_id,  # torchrun's --rdzv-id when not given
        environ.get("SLURM_JOB_ID", ""),
        environ.get("PBS_JOBID", ""),
        lsf_id if not lsf_id or lsf_index in ("", "0") else f"{lsf_id}[{lsf_index}]",
    )
    return next(filter(None, map(clean_run, candidates)), "")


def _run_from_process(host: str, pid: int) -> str:
    process, boot_unix_s = read_process(pid), _boot_unix_s()
    if process is None or boot_unix_s is None:
        return f"{host}-{pid}"
    start_unix_s = boot_unix_s + process.start_ticks // os.sysconf("SC_CLK_TCK")
    start = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(start_unix_s))
    return f"{host}-{pid}-{start}"


def _boot_unix_s() -> int | None:
    try:
        lines = _read_proc("stat").splitlines()
        return next((int(line.split()[1]) for line in lines if line.startswith(b"btime ")), None)
    except (OSError, ValueError, IndexError):
        return None


def _launcher_pid(variables: RankVariables | None, *, rank_given: bool) -> int:
    if variables is None:
        # Without its rank, a child of multiprocessing is as likely a trial of its own.
        return (rank_given and _multiprocessing_parent_pid()) or os.getpid()
    # A wrapper script between launcher and rank was given the rank as well: the launcher is
    # the first ancestor that was not. The first process of a container has no ancestor.
    pid = os.getppid() or os.getpid()
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
