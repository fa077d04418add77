"""The command line as a whole: help, version, and how it refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from otel_dllogger import __version__
from tests.support.command import assert_user_error, otel_dllogger

pytestmark = pytest.mark.newest_only


def test_version():
    """The version is that of the package."""
    assert f"otel-dllogger, version {__version__}\n" == otel_dllogger("--version").stdout


def test_without_arguments_it_shows_its_help():
    """Who does not know what to pass is shown it, and did nothing wrong."""
    done = otel_dllogger()
    assert done.returncode == 0
    assert otel_dllogger("--help").stdout == done.stdout
    for command in ("run", "check", "demo", "watch"):
        assert f"otel-dllogger {command}" in done.stdout


@pytest.mark.parametrize("command", ["run", "check", "demo", "watch"])
def test_every_command_has_help_that_fits_a_terminal(command):
    """The help of a command fits into 80 columns and names its exit codes."""
    done = otel_dllogger(command, "--help", COLUMNS="80")
    assert done.returncode == 0
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "exit" in done.stdout.lower()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["fly"], "No such command 'fly'; see otel-dllogger --help"),
        (["--fast"], "--fast"),
        (["run"], "Missing argument 'SCRIPT'; see otel-dllogger run --help"),
        (["run", "--port"], "Option '--port' requires an argument; see otel-dllogger run --help"),
        (["backfill", "x", "--to", "csv"], "; see otel-dllogger backfill --help"),
        (["watch", "--sorted"], "Did you mean '--sort'? See otel-dllogger watch --help"),
        (["run", "--port", "99999", "x.py"], "99999 is not in the range"),
        (["run", "--linger", "soon", "x.py"], "'soon' is not a valid float"),
        (["check"], "URL_OR_PATH"),
        (["check", "--timezone"], "--timezone"),
        (["demo", "--ranks", "0"], "0 is not in the range"),
        (["demo", "--seconds", "1"], "1"),
        (["demo", "--seconds", "nan"], "nan is not in the range 2<=x<=86400; see"),
        (["run", "--linger", "nan", "x.py"], "nan is not in the range 0<=x<=3600; see"),
        (["watch", "--sort", "name"], "'name' is not one of 'need', 'rank'"),
        (["watch", "--interval", "0s"], "too short"),
    ],
)
def test_wrong_usage_is_one_line(arguments, word):
    """A wrong option is refused in one line that says where to read more."""
    assert_user_error(otel_dllogger(*arguments), word, "--help")


def test_the_script_in_the_environment_is_the_same_command():
    """The installed ``otel-dllogger`` and ``python -m otel_dllogger`` are one."""
    script = Path(sys.executable).with_name("otel-dllogger")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert f"otel-dllogger, version {__version__}\n" == done.stdout


def test_importing_the_package_does_not_load_the_commands():
    """A training script does not pay for the command line."""
    code = (
        "import sys, otel_dllogger; "
        "print([m for m in ('click', 'rich', 'otel_dllogger.cli.main') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_output_that_nobody_reads_to_its_end_is_no_error(tmp_path):
    """``otel-dllogger check log | head -0`` ends without a traceback."""
    log = tmp_path / "log.json"
    line = 'DLLL {"type": "LOG", "step": 1, "data": {%s}}\n'
    log.write_text(line % ", ".join(f'"metric_{n}": {n}' for n in range(3000)))
    command = f"{sys.executable} -m otel_dllogger check {log} | true"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""
