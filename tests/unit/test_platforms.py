"""Windows is refused in one line, whoever asks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command import environment
from tests.support.stand_ins import as_on_windows

pytestmark = pytest.mark.newest_only

MESSAGE = (
    "otel-dllogger needs Linux or macOS; on Windows, install and run it in WSL 2, "
    "see https://learn.microsoft.com/windows/wsl/install"
)


def run_on_windows(folder: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    on_windows = environment() if sys.platform == "win32" else as_on_windows(folder)
    return subprocess.run(
        command, env=on_windows, cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize(
    "module",
    ["otel_dllogger", "otel_dllogger.backends.json_stream", "otel_dllogger.cli.main"],
)
def test_an_import_is_refused_with_one_line(tmp_path, module):
    """It is an ImportError, which scripts that can do without the package catch."""
    done = run_on_windows(tmp_path, sys.executable, "-c", f"import {module}")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"ImportError: {MESSAGE}"
    caught = f"try:\n import {module}\nexcept ImportError as error:\n print(error.name, error)"
    done = run_on_windows(tmp_path, sys.executable, "-c", caught)
    assert (done.returncode, done.stdout) == (0, f"otel_dllogger {MESSAGE}\n")


@pytest.mark.parametrize("arguments", [[], ["--version"], ["run", "train.py"]])
def test_the_command_is_refused_with_one_line(tmp_path, arguments):
    """Without a traceback, and with the exit code of what could not be started."""
    script = Path(sys.executable).with_name("otel-dllogger")
    for command in ([sys.executable, "-m", "otel_dllogger"], [script]):
        done = run_on_windows(tmp_path, *command, *arguments)
        assert (done.returncode, done.stdout, done.stderr) == (2, "", f"{MESSAGE}\n")


def test_a_module_that_imports_the_package_gets_an_error(tmp_path):
    """Only the package's own command may end the process."""
    package = tmp_path / "trainer"
    package.mkdir()
    (package / "__init__.py").write_text("import otel_dllogger\n")
    (package / "__main__.py").write_text("")
    done = run_on_windows(tmp_path, sys.executable, "-m", "trainer")
    assert done.returncode == 1
    assert MESSAGE in done.stderr
