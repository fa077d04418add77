"""Write the dashboards: ``python -m grafana.source [FOLDER]``."""

from __future__ import annotations

import sys
from pathlib import Path

from grafana.source import compare, overview, ranks
from grafana.source.board import render

FOLDER = Path(__file__).parent.parent / "dashboards"

BUILDERS = {
    "compare-runs.json": compare.build,
    "ranks.json": ranks.build,
    "training-overview.json": overview.build,
}


def main(folder: Path) -> None:
    """Write a file per dashboard.

    Args:
        folder: Where to; it is made if it is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, build in BUILDERS.items():
        (folder / name).write_text(render(build()))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
