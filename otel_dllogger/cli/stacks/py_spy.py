"""Look at another process with py-spy, which needs no help from it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from otel_dllogger.errors import one_line
from otel_dllogger.identity import read_process

_TIMEOUT_S = 60
_SYS_PTRACE = 19  # capabilities(7)
_KERNEL_THREAD = 0x00200000  # PF_KTHREAD in Linux's sched.h


class LookError(Exception):
    """A process cannot be looked at; the message says why, and what to do."""


class Frame(NamedTuple):
    """A function that runs, or waits for one that it called.

    Attributes:
        function: Its name, with that of its class where Python tells it.
        path: The file.
        line: The line in it, 0 where that is not known.
    """

    function: str
    path: str
    line: int


class Thread(NamedTuple):
    """A thread of a process.

    Attributes:
        name: Its name; empty if it has none.
        is_main: Whether it is the main thread.
        holds_gil: Whether it holds the GIL.
        frames: Its frames, the innermost first.
    """

    name: str
    is_main: bool
    holds_gil: bool
    frames: list[Frame]


def find_program() -> str | None:
    """Return the path of py-spy, beside this Python or on the PATH; None if there is none."""
    beside = Path(sys.executable).parent
    return shutil.which("py-spy", path=str(beside)) or shutil.which("py-spy")


class Look(NamedTuple):
    """What a look at a process showed.

    Attributes:
        threads: Its threads, the main thread first.
        is_stopped: Whether a signal or a debugger had stopped it before.
    """

    threads: list[Thread]
    is_stopped: bool


def look(program: str, pid: int, *, is_native: bool) -> Look:
    """Look at a process.

    Args:
        program: The path of py-spy.
        pid: The process; it is stopped for some milliseconds.
        is_native: Whether to include frames of native code; not those of a stopped process.

    Raises:
        LookError: If that is not possible.
    """
    process = read_process(pid)
    is_stopped = process is not None and process.stopped
    command = [program, "dump", "--pid", str(pid), "--json"]
    if is_stopped:  # py-spy would wait for it to stop
        command.append("--nonblocking")
    elif is_native:
        command.append("--native")
    try:
        done = subprocess.run(  # noqa: S603 - our own arguments
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise LookError(f"py-spy did not answer within {_TIMEOUT_S} s") from None
    except OSError as error:
        raise LookError(f"{program} cannot be started ({error.strerror})") from None
    if done.returncode != 0:
        raise LookError(_why(pid, done.stderr.decode("utf-8", "replace")))
    try:
        threads = [_thread(pid, one) for one in json.loads(done.stdout)]
    except (ValueError, LookupError, TypeError):
        raise LookError("py-spy answered in a form that is not known; update it") from None
    return Look(sorted(threads, key=lambda thread: not thread.is_main), is_stopped)


def _thread(pid: int, plain: dict[str, object]) -> Thread:
    frames = plain["frames"]
    if not isinstance(frames, list):
        raise TypeError
    name = str(plain["thread_name"] or "")
    return Thread(
        name=name,
        is_main=name == "MainThread" or (not name and plain.get("os_thread_id") == pid),
        holds_gil=bool(plain.get("owns_gil")),
        frames=[Frame(str(one["name"]), str(one["filename"]), int(one["line"])) for one in frames],
    )


def _why(pid: int, said: str) -> str:
    """Return why a process could not be looked at, and what to do about it.

    Args:
        pid: The process.
        said: What py-spy said.
    """
    process = read_process(pid)
    if (process is None and Path("/proc/self/stat").exists()) or (process and process.ended):
        return (
            f"there is no process {pid} here; it has ended, or its number is that of another host "
            "or container: run this there"
        )
    if _is_of_kernel(pid):
        return f"process {pid} is a thread of the kernel, which does not run Python"
    if re.search("permission|not permitted|requires root", said, re.IGNORECASE):
        step = how_to_be_allowed(
            _owner_of(pid),
            os.geteuid(),
            has_capability=_has_sys_ptrace(),
            scope=_ptrace_scope(),
        )
        return f"py-spy may not look at process {pid}: {step}"
    if "find python version" in said:
        return f"process {pid} does not run Python"
    return one_line(said.partition("\n")[0].removeprefix("Error: "), most=200) or "py-spy failed"


def how_to_be_allowed(owner: int, user: int, *, has_capability: bool, scope: str) -> str:
    """Return what lacks where py-spy may not look at a process, and what to do about it.

    Args:
        owner: The user of the process.
        user: Our user.
        has_capability: Whether we have SYS_PTRACE.
        scope: The value of kernel.yama.ptrace_scope; empty where there is none.
    """
    if user not in (0, owner):
        return f"it belongs to user {owner}; run this as root, or as that user"
    if user == 0 and not has_capability:
        return (
            "this container lacks the capability SYS_PTRACE; start it with --cap-add SYS_PTRACE, "
            "or with capabilities: {add: [SYS_PTRACE]} in its securityContext"
        )
    if scope == "3":
        return "kernel.yama.ptrace_scope is 3, so nobody may until the next boot"
    if user == 0:
        return (
            "root is not enough, since it has privileges that are missing here, or a security "
            "module (AppArmor, SELinux) protects it; run this on the host, outside of containers"
        )
    if scope in ("1", "2"):
        return (
            f"kernel.yama.ptrace_scope is {scope}; run this as root, in a container with the "
            "capability SYS_PTRACE, or have root set it to 0"
        )
    return "run this as root, in a container with the capability SYS_PTRACE"


def _is_of_kernel(pid: int) -> bool:
    """Return whether a process is a thread of the kernel; by proc_pid_stat(5)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return bool(int(fields[6]) & _KERNEL_THREAD)
    except (OSError, ValueError, IndexError):
        return False


def _owner_of(pid: int) -> int:
    try:
        return Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return os.geteuid()


def _has_sys_ptrace() -> bool:
    try:
        found = re.search(r"^CapEff:\s*(\w+)", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        return True  # not Linux
    return found is None or bool(int(found[1], 16) >> _SYS_PTRACE & 1)


def _ptrace_scope() -> str:
    try:
        return Path("/proc/sys/kernel/yama/ptrace_scope").read_text().strip()
    except OSError:
        return ""
