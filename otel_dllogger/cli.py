"""The command line: what can be asked of it, and its help."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from otel_dllogger.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

PROGRAM = "otel-dllogger"
EXIT_WRONG = 1
EXIT_INTERRUPTED = 130


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name=PROGRAM)
@click.pass_context
def cli(context: click.Context) -> None:
    """Watch the metrics of training scripts that log with DLLogger.

    \b
    otel-dllogger demo                  see it work, on this machine
    otel-dllogger run train.py          give your own script a /metrics page
    otel-dllogger check 127.0.0.1:9464  read that page, in words
    otel-dllogger check log.json        or the log file
    """  # noqa: D301 - click looks for the character itself
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@cli.command(
    context_settings={"allow_interspersed_args": False},
    options_metavar="[OPTIONS] [-m]",
    epilog="Settings that have no option are taken from the environment: OTEL_DLLOGGER_*.",
)
@click.option("-m", "is_module", is_flag=True, help="SCRIPT names a module, as in python -m.")
@click.option("--host", metavar="ADDRESS", help="Address to listen on.  [default: 127.0.0.1]")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="Port of local rank 0; the other ranks count up from it, a taken port is passed over,"
    " 0 is any free one.  [default: 9464]",
)
@click.option("--run", "run_name", metavar="NAME", help="Name of the run, the same on all ranks.")
@click.option(
    "--discovery-dir",
    type=click.Path(path_type=Path),
    help="Folder for one Prometheus file_sd file per rank.",
)
@click.option(
    "--linger",
    "linger_s",
    type=click.FloatRange(0, 3600),
    metavar="SECONDS",
    help="Wait this long at the end for one more scrape, so that the last values are seen."
    "  [default: 0]",
)
@click.option(
    "--verbosity",
    type=int,
    default=2,
    show_default=True,
    help="Export what the script logs up to this verbosity.",
)
@click.option("-q", "--quiet", is_flag=True, help="Do not print where the metrics are.")
@click.argument("script")
@click.argument("arguments", metavar="[ARGS]...", nargs=-1, type=click.UNPROCESSED)
def run(
    *,
    is_module: bool,
    host: str | None,
    port: int | None,
    run_name: str | None,
    discovery_dir: Path | None,
    linger_s: float | None,
    verbosity: int,
    quiet: bool,
    script: str,
    arguments: tuple[str, ...],
) -> Callable[[], int]:
    """Run a script that uses dllogger or tcap_dllogger, and serve its metrics.

    The script is not changed: it finds this package under both names, and whatever it logs
    is on a /metrics page as well. Everything after SCRIPT belongs to the script.

    \b
    otel-dllogger run train.py --epochs 3
    otel-dllogger run -m package.train --epochs 3
    torchrun --nproc-per-node 4 -m otel_dllogger run train.py --epochs 3

    It ends as the script does, with the script's exit code; with 2 where it could not be
    started.
    """  # noqa: D301 - click looks for the character itself
    from otel_dllogger.commands.run import PageOptions, prepare  # noqa: PLC0415

    page = PageOptions(
        host=host,
        port=port,
        run=run_name,
        discovery_dir=discovery_dir,
        linger_s=linger_s,
        verbosity=verbosity,
    )
    program = prepare(script, arguments, page, is_module=is_module, quiet=quiet)
    # The script runs after click is done: click has its own idea of KeyboardInterrupt.
    return program.run


@cli.command()
@click.argument("target", metavar="URL_OR_FILE")
def check(*, target: str) -> int:
    """Say what a /metrics page or a log file contains, and what is wrong with it.

    URL_OR_FILE is an address (http://host:9464/metrics, host:9464, or 9464 on this machine),
    a saved page, or a log of DLLogger or TCAP DLLogger.

    Exits with 0 when all is well or there are only warnings, with 1 when something is wrong,
    with 2 when there is nothing to read.
    """
    from otel_dllogger.commands.check import check_target  # noqa: PLC0415

    return check_target(target)


@cli.command()
@click.option(
    "--ranks",
    type=click.IntRange(1, 64),
    default=4,
    show_default=True,
    help="Processes that train.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(2, 86400),
    default=60,
    show_default=True,
    help="How long to train; Ctrl-C ends it sooner.",
)
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo-run"),
    show_default=True,
    help="Folder for the logs and the discovery files.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    help="Port of rank 0, the others count up.  [default: any free ones]",
)
@click.option(
    "--with-prometheus",
    is_flag=True,
    help="Start a Prometheus that scrapes the ranks, and ask it some questions.",
)
def demo(*, ranks: int, seconds: float, directory: Path, port: int, with_prometheus: bool) -> int:
    """Train a small network in several processes, and watch them.

    Every rank is a process of its own with a /metrics page of its own; the table is read from
    those pages. The training is real, in plain Python. One rank is slow on purpose, and one
    meets a broken sample, whose loss is NaN.

    Exits with 0 after Ctrl-C as well, with 1 when a process of it died.
    """
    from otel_dllogger.commands.demo import DemoOptions, run_demo  # noqa: PLC0415

    return run_demo(
        DemoOptions(
            ranks=ranks,
            seconds=seconds,
            directory=directory,
            port=port,
            with_prometheus=with_prometheus,
        )
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: What stands after the program's name; ``sys.argv`` if not given.

    Returns:
        The exit code.
    """
    try:
        outcome = cli.main(arguments, prog_name=PROGRAM, standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        click.echo(f"{PROGRAM}: {_one_line(error)}", err=True)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Who reads our output, as head(1), has seen enough; nor shall the exit complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_WRONG
    if callable(outcome):
        return int(outcome())
    return int(outcome or 0)


def _one_line(error: click.ClickException) -> str:
    message = " ".join(error.format_message().split())
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx else PROGRAM
        return f"{message.rstrip('.')}; see {path} --help"
    return message
