"""Write the dashboards: ``python -m grafana.source [FOLDER]``."""

from __future__ import annotations

import sys
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "dashboards"


def main(folder: Path) -> None:
    """Write one file for each dashboard.

    Args:
        folder: Where to write them; it is made if it is missing.
    """
    from grafana.source import compare, fleet, overview, ranks  # noqa: PLC0415 - needs the SDK
    from grafana.source.board import render  # noqa: PLC0415 - as above

    builders = {
        "compare-runs.json": compare.build,
        "fleet.json": fleet.build,
        "ranks.json": ranks.build,
        "training-overview.json": overview.build,
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, build in builders.items():
        (folder / name).write_text(render(build()))


if __name__ == "__main__":
    if sys.version_info < (3, 11):
        sys.exit(
            "grafana.source: this is Python 3.10, and Grafana's SDK needs 3.11; "
            "use a newer one: make PYTHON=/path/to/python3.11 dashboards"
        )
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
