"""A rank in its own process, which carries out the test's commands."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from prometheus_client.parser import text_string_to_metric_families as parse_text

from tests.support.http import ask
from tests.support.paths import TESTS

if TYPE_CHECKING:
    from pathlib import Path

RANK = TESTS / "scripts" / "rank.py"


class Rank:
    """One process of a run, as torchrun would start it."""

    def __init__(
        self, folder: Path, *, rank: int = 0, world_size: int = 1, run: str = "e2e", **options: Any
    ) -> None:
        self.rank = rank
        self._stderr = folder / f"stderr_{run}_{rank}"
        environment = {
            **os.environ,
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(world_size),
            "TORCHELASTIC_RUN_ID": run,
            "OTEL_EXPORTER_PROMETHEUS_PORT": "0",
            "OTEL_DLLOGGER_DISCOVERY_DIR": str(folder / "discovery"),
        }
        with self._stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, RANK, json.dumps(options)],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )

    def answer(self) -> Any:
        line = self.process.stdout.readline()
        assert line, f"the rank has ended: {self.stderr()}"
        return json.loads(line)

    def wait_started(self) -> None:
        self.port = int(re.search(r":(\d+)/metrics$", self.answer())[1])

    def send(self, name: str, *arguments: Any) -> None:
        print(json.dumps([name, *arguments]), file=self.process.stdin, flush=True)

    def call(self, name: str, *arguments: Any) -> None:
        self.send(name, *arguments)
        assert name == self.answer()

    def stderr(self) -> str:
        return self._stderr.read_text()

    def page(self) -> bytes:
        answer = ask(self.port)
        assert answer.status == 200, answer
        return answer.body

    def series(self, name: str) -> dict[str, float]:
        """Return the values of a name on the page, by their ``metric`` label."""
        samples = [sample for sample in samples_of(self.page()) if sample.name == name]
        values = {sample.labels["metric"]: sample.value for sample in samples}
        assert len(samples) == len(values), samples
        return values

    def figure(self, name: str, **labels: str) -> float:
        """Return the only value of a name on the page with these labels."""
        (value,) = (
            sample.value
            for sample in samples_of(self.page())
            if sample.name == name and labels.items() <= sample.labels.items()
        )
        return value

    def end(self) -> int:
        self.process.stdin.close()
        return self.process.wait(30)


def samples_of(page: bytes) -> list[Any]:
    return [sample for family in parse_text(page.decode()) for sample in family.samples]
