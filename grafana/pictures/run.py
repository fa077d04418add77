"""The steps to pictures: train, send the queries, render."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from grafana.pictures.board import load_board
from grafana.pictures.training import Watched, train
from grafana.queries.dashboard import Dashboard
from grafana.queries.datasource import DataSource
from otel_dllogger.cli.terminal import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DASHBOARDS = Path(__file__).parents[1] / "dashboards"
RENDERER = Path(__file__).parent / "renderer"

# A process for each rank is too much for one machine from here on.
MOST_PROCESSES = 64

# The dashboard of all runs goes back to the first run, the others to the newest.
_OF_ALL_RUNS = "compare-runs"

_PACKAGES = {
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "node": "nodejs",
    "chromium": "chromium",
}


def make_pictures(output: Path, *, seconds: float, ranks: int, say: Callable[[str], None]) -> None:
    """Write a picture of each dashboard.

    Args:
        output: The folder for them; it is made if it is missing.
        seconds: How long the training that they show takes.
        ranks: The number of ranks of the larger of its two runs. More than ``MOST_PROCESSES`` are
            simulated: one run, with an hour of history, whatever ``seconds`` is.
        say: Called with a text at each step.

    Raises:
        UserError: If a program is missing, a rank died, or the renderer failed.
        DashboardError: If Prometheus refuses a query.
    """
    for program in _PACKAGES:
        _find(program)
    output.mkdir(parents=True, exist_ok=True)
    render([], output)  # what is missing is found before the training, not after it
    with tempfile.TemporaryDirectory(prefix="grafana-pictures-") as name:
        folder = Path(name)
        say(f"training for {seconds:g} s" if ranks <= MOST_PROCESSES else "simulating ranks")
        with _watch(folder, seconds=seconds, ranks=ranks) as watched:
            boards = [write_board(path, folder, watched) for path in find_dashboards()]
        say("rendering")
        render(boards, output)
    for board in boards:
        picture = output / f"{board.stem}.png"
        say(f"{picture} ({picture.stat().st_size // 1024} KiB)")


def find_dashboards() -> list[Path]:
    """Return the JSON files of all dashboards."""
    return sorted(DASHBOARDS.glob("*.json"))


def write_board(path: Path, folder: Path, watched: Watched) -> Path:
    """Write a dashboard with its present data for the renderer.

    Args:
        path: The dashboard's JSON.
        folder: Where to write the file.
        watched: The Prometheus that is asked.

    Returns:
        The file.
    """
    start_s = watched.start_s if path.stem == _OF_ALL_RUNS else watched.last_start_s
    source = DataSource(
        watched.url,
        start_s=start_s - watched.scrape_interval_s,
        end_s=time.time(),
        scrape_interval_s=watched.scrape_interval_s,
        # A minute where the scrape interval is 15 s; the same ratio holds in time lapse.
        annotation_step_s=4 * watched.scrape_interval_s,
    )
    file = folder / path.name
    file.write_text(json.dumps(load_board(Dashboard.load(path, source)), allow_nan=False))
    return file


def render(boards: list[Path], output: Path) -> None:
    """Have pictures drawn, each named like its file.

    Args:
        boards: What ``write_board`` wrote.
        output: The folder for the pictures.

    Raises:
        UserError: If anything went wrong; the renderer's messages are on stderr by then.
    """
    command = [_find("node"), str(RENDERER / "render.mjs"), _find("chromium"), str(output)]
    if subprocess.run([*command, *map(str, boards)], check=False).returncode:  # noqa: S603
        raise UserError("the renderer failed")


def _find(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        package = _PACKAGES[program]
        raise UserError(f"no {program} on PATH; install it (apt-get install {package})")
    return path


@contextlib.contextmanager
def _watch(folder: Path, *, seconds: float, ranks: int) -> Iterator[Watched]:
    if ranks <= MOST_PROCESSES:
        with train(folder, seconds=seconds, ranks=ranks) as watched:
            yield watched
        return
    from tests.support.many_ranks import HISTORY_S, many_ranks  # noqa: PLC0415 - needs pytest
    from tests.support.training_run import SCRAPE_INTERVAL_S  # noqa: PLC0415 - as above

    with many_ranks(folder, ranks) as prometheus:
        start_s = time.time() - HISTORY_S
        yield Watched(prometheus.url, start_s, start_s, SCRAPE_INTERVAL_S)
