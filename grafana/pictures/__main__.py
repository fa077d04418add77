"""Train, and make pictures of the dashboards: ``python -m grafana.pictures --help``."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from grafana.pictures.run import MOST_PROCESSES, make_pictures
from grafana.queries.interpolation import DashboardError
from otel_dllogger.cli.terminal import UserError

_INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: The arguments after the program's name.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(
        prog="python -m grafana.pictures", description="Train, and make pictures of the dashboards."
    )
    parser.add_argument("--seconds", type=float, default=240.0, help="how long to train")
    parser.add_argument(
        "--ranks",
        type=int,
        default=8,
        help=f"ranks of the larger run; more than {MOST_PROCESSES} are simulated",
    )
    parser.add_argument(
        "--output", type=Path, default=Path("docs/images"), help="the folder for the pictures"
    )
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        make_pictures(options.output, seconds=options.seconds, ranks=options.ranks, say=_say)
    except (DashboardError, UserError, OSError) as error:
        _complain(str(error))
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED
    return 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _complain(text: str) -> None:
    sys.stderr.write(f"grafana.pictures: {text}\n")


if __name__ == "__main__":
    sys.exit(main())
