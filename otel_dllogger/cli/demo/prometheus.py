"""The demo's own Prometheus, which discovers the ranks and answers queries."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.parse
from typing import TYPE_CHECKING

from otel_dllogger.cli.terminal import UserError
from otel_dllogger.http.scrape import UnreachableError, fetch

if TYPE_CHECKING:
    from pathlib import Path

QUERY = "sum(dl_ips_per_second)"
"""The throughput of all ranks."""

_STOP_S = 10.0
_TIMEOUT_S = 2.0
_NEXT_STEP = "install it (apt-get install prometheus), or leave --with-prometheus out"


def format_config(discovery: Path) -> str:
    """Return a Prometheus configuration that scrapes the ranks found in a folder.

    Args:
        discovery: The discovery folder.
    """
    files = json.dumps(f"{discovery.resolve()}/*.json")  # a JSON string is a YAML string
    return (
        "global:\n"
        "  scrape_interval: 1s\n"
        "scrape_configs:\n"
        "  - job_name: dllogger\n"
        "    file_sd_configs:\n"
        f"      - files: [{files}]\n"
        "        refresh_interval: 1s\n"
    )


def find_prometheus() -> str:
    """Return the path of the program.

    Raises:
        UserError: If there is none.
    """
    path = shutil.which("prometheus")
    if path is None:
        raise UserError(f"no prometheus on PATH; {_NEXT_STEP}")
    return path


class Prometheus:
    """A Prometheus on a free port of this machine: until ``stop``, or the end of this process.

    A process between them, ``keeper``, ends it and removes its data.

    Args:
        program: The path of the program.
        config: Its configuration file.
        log: Where its output goes.
    """

    def __init__(self, program: str, config: Path, log: Path) -> None:
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._answer: float | None = None
        self._log = log
        self._crash: str | None = None
        self._stopped = False
        keeper = [sys.executable, "-m", "otel_dllogger.cli.demo.keeper"]
        try:
            with log.open("wb") as output:
                self._process = subprocess.Popen(  # noqa: S603 - our own module
                    [*keeper, program, str(config), f"127.0.0.1:{port}"],
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except OSError as error:
            raise UserError(f"{program} does not start ({error.strerror}); {_NEXT_STEP}") from error

    @property
    def failure(self) -> str | None:
        """Return how it ended, None if it ran until ``stop``."""
        code = self._process.poll()
        if self._stopped or code is None:
            return self._crash
        return f"prometheus ended with {code}; read {self._log}"

    def ask(self) -> None:
        """Send the query; the answer is kept until there is a newer one."""
        try:
            encoded = urllib.parse.urlencode({"query": QUERY})
            answer = fetch(f"{self.url}/api/v1/query?{encoded}", timeout_s=_TIMEOUT_S)
            for one in json.loads(answer.text)["data"]["result"]:
                self._answer = float(one["value"][1])
        except (UnreachableError, ValueError, LookupError, TypeError):
            pass  # not ready yet

    def format_answer(self) -> str:
        """Return the query with its last answer."""
        if self.failure is not None:
            return self.failure
        answer = "no answer yet" if self._answer is None else f"{self._answer:,.0f} samples/s"
        return f"Prometheus: {QUERY} = {answer}"

    def stop(self) -> None:
        """End the process and remove its data."""
        self._crash = self.failure
        self._stopped = True
        try:
            self._process.communicate(timeout=_STOP_S)  # closes what the keeper waits for
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
