"""The demo's own Prometheus, which discovers the ranks and answers queries."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import tempfile
import urllib.parse
from typing import TYPE_CHECKING, Any

from otel_dllogger.cli.terminal import UserError
from otel_dllogger.http.scrape import UnreachableError, fetch

if TYPE_CHECKING:
    from pathlib import Path

_OF_ALL = "sum(dl_ips_per_second)"

QUERIES = (
    'dl_loss{stage="train", granularity="iteration"}',
    _OF_ALL,
    "rate(dllogger_step_seconds_total[30s]) / rate(dllogger_steps_total[30s])",
)
"""The loss of each rank, the throughput of all, the seconds per step of each rank."""

_STOP_S = 5.0
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
    """A Prometheus on a free port of this machine, which runs until ``stop``.

    Its data is in a temporary folder, which is removed afterwards.

    Args:
        program: The path of the program.
        config: Its configuration file.
        log: Where its output goes.
    """

    def __init__(self, program: str, config: Path, log: Path) -> None:
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.answers: dict[str, list[tuple[dict[str, str], str]]] = {}
        self._log = log
        self._crash: str | None = None
        self._stopped = False
        self._data = tempfile.TemporaryDirectory(prefix="otel-dllogger-prometheus-")
        command = [
            program,
            f"--config.file={config}",
            f"--storage.tsdb.path={self._data.name}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
        ]
        try:
            with log.open("wb") as output:
                self._process = subprocess.Popen(  # noqa: S603 - the user's own Prometheus
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except OSError as error:
            self._data.cleanup()
            raise UserError(f"{program} does not start ({error.strerror}); {_NEXT_STEP}") from error

    @property
    def failure(self) -> str | None:
        """Return how it ended, None if it ran until ``stop``."""
        code = self._process.poll()
        if self._stopped or code is None:
            return self._crash
        return f"prometheus ended with {code}; read {self._log}"

    def ask(self) -> None:
        """Send the queries; answers are kept until there are newer ones for as many ranks.

        Ranks do not all end at the same time, and an answer for the last one alone is useless.
        """
        answers = {}
        for query in QUERIES:
            try:
                encoded = urllib.parse.urlencode({"query": query})
                answer = fetch(f"{self.url}/api/v1/query?{encoded}", timeout_s=_TIMEOUT_S)
                result = json.loads(answer.text)["data"]["result"]
                if result:
                    answers[query] = [(one["metric"], one["value"][1]) for one in result]
            except (UnreachableError, ValueError, LookupError, TypeError):
                return  # not ready yet
        if sum(map(len, answers.values())) >= sum(map(len, self.answers.values())):
            self.answers = answers

    def format_answers(self) -> list[str]:
        """Return the queries with their last answers, one line for each value."""
        lines = []
        for query in QUERIES:
            lines.append(query)
            answers = sorted(self.answers.get(query, []), key=_rank_of)
            for labels, value in answers:
                rank = f"rank {labels['rank']}" if "rank" in labels else "all ranks"
                lines.append(f"    {rank:<10} {float(value):.6g}")
            if not answers:
                lines.append(
                    "    no answer yet: Prometheus looks for ranks every 5 s; train for longer"
                )
        return lines

    def format_summary(self) -> list[str]:
        """Return one line to show below the table: the throughput of all, as Prometheus has it."""
        answers = self.answers.get(_OF_ALL)
        value = f"{float(answers[0][1]):,.0f}" if answers else "no answer yet"
        return [self.failure or f"Prometheus at {self.url}: {_OF_ALL} = {value}"]

    def stop(self) -> None:
        """End the process and remove its data."""
        self._crash = self.failure
        self._stopped = True
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._data.cleanup()


def _rank_of(answer: tuple[dict[str, Any], str]) -> int:
    rank = str(answer[0].get("rank", ""))
    return int(rank) if rank.isdigit() else -1


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
