"""The steps of a preview: train, send the queries, draw, save."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from grafana.preview.dashboard import Dashboard
from grafana.preview.datasource import DataSource
from grafana.preview.draw import draw_board
from grafana.preview.panel_data import load_board
from grafana.preview.training import SCRAPE_INTERVAL_S, train

if TYPE_CHECKING:
    from collections.abc import Callable

    from grafana.preview.training import Training

DASHBOARDS = Path(__file__).parents[1] / "dashboards"

# The dashboard of all runs goes back to the first run, the others to the newest.
_OF_ALL_RUNS = "compare-runs"

# Grafana queries annotations with a step of a minute, four times the scrape interval; the same
# ratio holds in time lapse.
_ANNOTATION_STEP_S = 4 * SCRAPE_INTERVAL_S


def preview(output: Path, *, seconds: float, ranks: int, say: Callable[[str], None]) -> None:
    """Write a picture of each dashboard.

    Args:
        output: The folder for them; it is made if it is missing.
        seconds: How long the training that they show takes.
        ranks: The number of ranks in the larger of its two runs.
        say: Called with a text at each step.
    """
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="grafana-preview-") as folder:
        say(f"training for {seconds:g} s")
        with train(Path(folder), seconds=seconds, ranks=ranks) as training:
            for path in sorted(DASHBOARDS.glob("*.json")):
                picture = output / f"{path.stem}.png"
                draw_dashboard(path, picture, training)
                say(f"{picture} ({picture.stat().st_size // 1024} KiB)")


def draw_dashboard(path: Path, picture: Path, training: Training) -> None:
    """Draw one dashboard with its present data.

    Args:
        path: Its JSON.
        picture: The PNG to write.
        training: Has the Prometheus, and the times when the runs began.
    """
    of_all = path.stem == _OF_ALL_RUNS
    source = DataSource(
        training.url,
        start_s=(training.start_s if of_all else training.last_start_s) - SCRAPE_INTERVAL_S,
        end_s=time.time(),
        scrape_interval_s=SCRAPE_INTERVAL_S,
    )
    model = json.loads(path.read_text())
    for annotation in model["annotations"]["list"]:
        annotation["step"] = annotation.get("step") or f"{_ANNOTATION_STEP_S}s"
    draw_board(load_board(Dashboard(model, source))).save(picture)
