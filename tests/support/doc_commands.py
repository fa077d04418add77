"""The commands of the documents: found in Markdown, and run as a reader types them.

A block of ``console`` has commands on lines that begin with ``$``, continued by a backslash or by
an open quote, and what they print. The commands of one page run from top to bottom in one shell,
in a copy of the repository, with folders of logs and a ``train.py``, as the pages assume them.

A block of another language whose fence says ``title="NAME"`` is a file that the reader saves.
What readers have already that come to a page, such as a training that goes on, is started by a
block in an HTML comment, which only this test sees.
"""

from __future__ import annotations

import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from otel_dllogger import JSONStreamBackend, Logger, Verbosity
from tests.support import victoriametrics
from tests.support.paths import ROOT

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "RELEASING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]

STAYS = re.compile(
    r"otel-dllogger (watch|view|bridge|run)\b(?!.*--help)|python\d? (?!-m|-c)\S*train\S*\.py"
    r"|torchrun\b|-m otel_dllogger run\b|mkdocs serve"
    r"|(?:\S*/)?(prometheus|victoria-metrics|alertmanager) -"
)
"""What goes on until it is told to end: the reader goes on in another terminal."""

ABSENT = (
    *("apt-get", "chcon", "docker", "helm", "loginctl", "nvidia-smi", "salloc", "sbatch"),
    *("scancel", "sinfo", "squeue", "srun", "ssh", "sudo", "systemctl", "journalctl", "gh"),
    *("kubectl", "pre-commit", "twine", "git"),
)
"""Programs that cannot do their work here; a stand-in checks the files that they are given."""

_BLOCK = re.compile(r"^( *)```console\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
_FILE = re.compile(r'^```\w+ title="([^"]+)"\n(.*?)^```', re.DOTALL | re.MULTILINE)
_TOLD_TO_FAIL = re.compile(r"<!-- exits (\d+) -->\s*\Z")


@dataclass(frozen=True)
class Command:
    """A command of a page.

    Attributes:
        line: Where it begins, from 1.
        text: What the reader types, without ``$``.
        status: How it ends, as the page says in a comment before the block; 0 if it does not.
    """

    line: int
    text: str
    status: int

    @property
    def stays(self) -> str:
        """Return what it is, if it runs until it is told to end; else an empty text."""
        match = STAYS.search(re.sub(r"\s#\s.*", "", self.text))  # without comments
        return match[0] if match else ""


def commands_of(text: str) -> list[Command]:
    """Return the commands of a page in Markdown, in their order."""
    found = []
    for block in _BLOCK.finditer(text):
        told = _TOLD_TO_FAIL.search(text[: block.start()])
        status = int(told[1]) if told else 0
        first = text.count("\n", 0, block.start()) + 2
        lines = iter(enumerate(block[2].splitlines(), first))
        for number, line in lines:
            if not line.strip().startswith("$ "):
                continue
            command = line.strip().removeprefix("$ ")
            while command.endswith("\\") or not _is_complete(command):
                command += "\n" + next(lines)[1]
            found.append(Command(number, command, status))
    return found


def _is_complete(command: str) -> bool:
    try:
        shlex.split(command, comments=True)
    except ValueError:  # an open quote
        return False
    return "<<" not in command or command.rstrip().endswith(_end_of_here_document(command))


def _end_of_here_document(command: str) -> str:
    match = re.search(r"<<-?\s*['\"]?(\w+)", command)
    return "\n" + match[1] if match else ""


_PROLOGUE = r"""
set -m  # what stays gets a process group of its own, and Ctrl-C is not ignored
pids=() printed=() kinds=()
end_of() {  # a reader ends what runs before starting the like of it
  local pid
  for pid in "${pids[@]}"; do
    if [ "${kinds[$pid]}" = "$1" ] && jobs -rp | grep -qx "$pid"; then
      kill -INT -- "-$pid"; timeout 20 tail --pid="$pid" -f /dev/null; kinds[$pid]=ended
    fi
  done
}
make() { command make -n "$@" >/dev/null; }  # the targets have runs of their own
bash() { command bash -n "$@"; }  # so has .ci/run
scripts/release() { command scripts/release --help >/dev/null; }  # it releases a version once
.venv/bin/python() { python "$@"; }  # which `make lint` makes
pip() {
  set -- "${@/#otel-dllogger==*/.}"  # a version that is published is what is built here
  if [ -z "${VIRTUAL_ENV-}" ] && [ "$1" = install ]; then set -- "$1" --dry-run "${@:2}"; fi
  if [ -e /proc/self/fd/9 ]; then nsenter --net=/proc/self/fd/9 pip "$@"; else command pip "$@"; fi
}
finish() {
  for pid in "${pids[@]}"; do
    if jobs -rp | grep -qx "$pid"; then kill -INT -- "-$pid"
    elif [ "${kinds[$pid]}" != ended ]; then
      wait "$pid"; status=$?  # it ended by itself, as a short training may, but not in an error
      if [ $status -ne 0 ]; then echo "::ended $pid $status"; cat "${printed[$pid]}"; fi
    fi
  done
  for pid in "${pids[@]}"; do
    timeout 20 tail --pid="$pid" -f /dev/null || echo "::ended $pid late"
  done
}
"""
_APART = """
exec 9</proc/self/ns/net  # for pip, which needs the network outside
exec unshare --net --pid --fork --kill-child --mount-proc \\
  sh -c 'ip link set lo up && exec "$@"' sh "$@"
"""
_ATTEMPTS = 60  # of a command that fails while what stays is still starting: half a second each


def script_of(commands: list[Command]) -> str:
    """Return a script for bash that runs commands, and says of each how it ended."""
    parts = [_PROLOGUE]
    for command in commands:
        begin = f"echo '::begin {command.line}'\n"
        is_redirected = command.stays and re.search(r"[^2]> ?\w", command.text)
        if command.text.rstrip().endswith("&") or is_redirected:  # its output is a file's
            text = command.text.rstrip().removesuffix("&")
            parts.append(
                f"{begin}{{\n{text}\n}} &\n"
                f"pids+=($!); printed[$!]=/dev/null; kinds[$!]={shlex.quote(command.stays)}\n"
                "echo '::end 0'\n"
            )
        elif command.stays:
            text, out = command.text.rstrip().removesuffix("&"), f"../printed.{command.line}"
            parts.append(
                f"{begin}end_of {shlex.quote(command.stays)}\n"
                f"out=$PWD/{out}; : > $out\n{{\n{text}\n}} > $out 2>&1 &\n"
                f"pids+=($!); printed[$!]=$out; kinds[$!]={shlex.quote(command.stays)}\n"
                f"for _ in $(seq {_ATTEMPTS}); do [ -s $out ] && break; sleep 0.5; done\n"
                'head -c 4000 $out; [ -s $out ]; echo "::end $?"\n'
            )
        else:
            wanted, text = command.status, command.text
            parts.append(
                f"{begin}left={_ATTEMPTS}; [ ${{#pids[@]}} -gt 0 ] || left=1\n"
                f"while :; do\n{text}\nstatus=$?; left=$((left - 1))\n"
                f"if [ $status -eq {wanted} ] || [ $left -le 0 ]; then break; fi\n"
                "echo; echo ::again; sleep 0.5\ndone\n"
                f'echo; echo "::end $((status == {wanted} ? 0 : status + 1))"\n'
            )
    return "".join([*parts, "finish\n"])


def make_workspace(folder: Path, text: str) -> dict[str, str]:
    """Copy the repository, with logs and a script, and return the environment of a reader.

    Args:
        folder: An empty folder.
        text: The page, whose files are there as well.
    """
    checkout = folder / "otel_dllogger"
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, text=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, checkout / name)
            shutil.copymode(ROOT / name, checkout / name)
    shutil.copyfile(ROOT / "examples" / "train_dllogger.py", checkout / "train.py")
    _make_logs(checkout)
    for name, content in _FILE.findall(text):
        (checkout / name).write_text(content)
    programs = folder / "programs"
    programs.mkdir()
    stand_in = ROOT / "tests" / "scripts" / "absent_program.py"
    for name in ABSENT:
        program = programs / name
        program.write_text(f"#!{sys.executable}\n{stand_in.read_text()}")
        program.chmod(0o755)
    if "$ victoria-metrics" in text:  # that of a distribution may be too old
        (programs / "victoria-metrics").symlink_to(victoriametrics.program())
    for name in ("home", "runtime"):
        (folder / name).mkdir(mode=0o700)
    torch = ROOT / ".venv-torch" / "bin"
    return {
        "PATH": os.pathsep.join(
            [str(programs), str(Path(sys.executable).parent), os.environ["PATH"], str(torch)]
        ),
        "HOME": str(folder / "home"),
        "XDG_RUNTIME_DIR": str(folder / "runtime"),
        "USER": "reader",
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "PYTHONUNBUFFERED": "1",
        "PYTEST_ADDOPTS": "--collect-only -q",  # the tests have runs of their own
    }


def _make_logs(checkout: Path) -> None:
    """Write a run of years ago, one of now whose ranks had a NaN, and one of MMEngine."""
    samples, runs = ROOT / "tests" / "data", checkout / "runs"
    for run in ("42", "43"):
        (runs / run).mkdir(parents=True)
    shutil.copyfile(samples / "nvidia_resnet_log.json", runs / "42" / "log_rank0.json")
    for rank in range(2):
        log = JSONStreamBackend(Verbosity.VERBOSE, str(runs / "43" / f"log_rank{rank}.json"))
        logger = Logger([log])
        for iteration in range(30):
            loss = math.nan if iteration == 20 else 1 / (iteration + rank + 1)
            logger.log((0, iteration), {"train.loss": loss})
        log.close()
    shutil.copytree(samples / "mmengine_epoch", checkout / "work_dirs" / "toy")


def run_page(page: Path, folder: Path, *, limit_s: float) -> list[str]:
    """Run the commands of a page, and return what went wrong, a text for each.

    As root, they run in a network of their own, in which the ports of the page are free, and as
    processes of their own, of which none outlives them.

    Args:
        page: The page.
        folder: An empty folder to work in.
        limit_s: Seconds after which everything is ended.
    """
    text = page.read_text(encoding="utf-8")
    commands = commands_of(text)
    environment = make_workspace(folder, text)
    script = folder / "commands.sh"
    script.write_text(script_of(commands))
    shell = ["bash", str(script)]
    if os.geteuid() == 0 and shutil.which("unshare"):
        shell = ["sh", "-c", _APART, "sh", *shell]
    with subprocess.Popen(
        ["timeout", "--signal=TERM", "--kill-after=20", str(limit_s), *shell],
        cwd=folder / "otel_dllogger",
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate()
        finally:
            subprocess.run(["pkill", "-KILL", "-s", str(process.pid)], check=False)
    return _faults(output, commands)


def _faults(output: str, commands: list[Command]) -> list[str]:
    texts = {command.line: command.text for command in commands}
    faults = [
        f"line {match[1]}: {texts[int(match[1])]}\n" + match[2].rpartition("::again\n")[2]
        for match in re.finditer(
            r"^::begin (\d+)\n((?:(?!^::begin ).*\n)*?)::end [1-9]", output, re.MULTILINE
        )
    ]
    begun = {int(line) for line in re.findall(r"^::begin (\d+)$", output, re.MULTILINE)}
    ended = len(re.findall(r"^::end \d+$", output, re.MULTILINE))
    if len(begun) < len(commands) or ended < len(commands):
        faults.append(f"{len(commands)} commands, {ended} ended:\n{output[-4000:]}")
    faults += re.findall(r"^::ended .*\n(?s:.*)", output, re.MULTILINE)
    return faults
