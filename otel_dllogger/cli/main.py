"""The command line: what can be asked of it, and its help."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from otel_dllogger.cli.parameter_types import Duration, FiniteRange, Moment
from otel_dllogger.cli.terminal import note
from otel_dllogger.redaction import redact_users
from otel_dllogger.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_dllogger.cli.parameter_types import Instant

PROGRAM = "otel-dllogger"
EXIT_WRONG = 1
EXIT_INTERRUPTED = 130


class _Command(click.Command):
    """A command whose errors know it, those of its parser as well: the help to see is its own."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse arguments, and leave the rest.

        Raises:
            click.UsageError: If they are wrong.
        """
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise


class _Group(click.Group):
    command_class = _Command


@click.group(
    cls=_Group,
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
    otel-dllogger check 127.0.0.1:9464  describe that page in words
    otel-dllogger check log.json        or the log file, or a folder of logs
    otel-dllogger watch runs/           see the runs train, in this terminal
    otel-dllogger view runs/            curves in a browser, live
    otel-dllogger report runs/          one file that shows what past runs did
    otel-dllogger stacks RUN            where ranks of this host stand that hang
    otel-dllogger bridge runs/          metrics from the logs of jobs that you cannot change
    otel-dllogger backfill runs/ --to prometheus DATA_DIR
                                        what logs hold, with the times of the logs
    """  # noqa: D301 - click looks for the character itself
    from otel_dllogger.settings import misread_switches, unknown_variables  # noqa: PLC0415

    for line in unknown_variables() + misread_switches():
        note(line)
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
    help="Port of local rank 0; the other ranks count up from it. A port that is taken is skipped, "
    "0 means any free port.  [default: 9464]",
)
@click.option("--run", "run_name", metavar="NAME", help="Name of the run, the same on all ranks.")
@click.option(
    "--discovery-dir",
    type=click.Path(path_type=Path),
    help="Folder for one Prometheus file_sd file per rank; none writes no file.  [default: "
    "OTEL_DLLOGGER_DISCOVERY_DIR, else $XDG_RUNTIME_DIR/otel-dllogger or /tmp/otel-dllogger-UID]",
)
@click.option(
    "--linger",
    "linger_s",
    type=FiniteRange(0, 3600),
    metavar="SECONDS",
    help="Wait this long at the end for one more read of the page, so that the last values are "
    "seen; 0 never waits.  [default: until Prometheus saw the end, if it scraped twice]",
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

    It ends as the script does, with the script's exit code, or with 2 if it could not be
    started.
    """  # noqa: D301 - click looks for the character itself
    from otel_dllogger.cli.run.command import PageOptions, prepare  # noqa: PLC0415

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
@click.option(
    "--ranks",
    type=click.IntRange(1, 64),
    default=8,
    show_default=True,
    help="Number of processes that train.",
)
@click.option(
    "--seconds",
    type=FiniteRange(2, 86400),
    default=60,
    show_default=True,
    help="How long to train; Ctrl-C ends it sooner.",
)
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for logs, checkpoints and discovery files.  [default: demo-run/<run>]",
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
    help="Start a Prometheus that scrapes the ranks, and send it a query.",
)
def demo(
    *, ranks: int, seconds: float, directory: Path | None, port: int, with_prometheus: bool
) -> int:
    """Train a small network in several processes, and watch them.

    Every rank is a separate process with a log and a /metrics page of its own. The terminal
    and the live page, whose address is printed first, show all of them. The network is really
    trained; reading data and computing on an accelerator are waits. On purpose, one rank reads
    its data slowly, one meets a broken sample, whose loss is NaN, and one is killed and
    restarted from its checkpoint. At the end it says what was seen of that.

    Exits with 0, also after Ctrl-C, or with 1 if a process died that should not have.
    """
    from otel_dllogger.cli.demo.command import DemoOptions, run_demo  # noqa: PLC0415

    return run_demo(
        DemoOptions(
            ranks=ranks,
            seconds=seconds,
            directory=directory,
            port=port,
            with_prometheus=with_prometheus,
        )
    )


def _reading_options(command: Callable[..., object]) -> Callable[..., object]:
    """Add the options that say how logs are read."""
    for option in reversed(
        (
            click.option(
                "--run", "run_name", metavar="NAME", help="Name of the run, for all the files."
            ),
            click.option(
                "--pattern",
                "patterns",
                multiple=True,
                metavar="NAME",
                help="How files are named, such as '{run}_rank{rank}.json' or '{run}/{host}/*.log'."
                " May be given several times.",
            ),
            click.option(
                "--timezone",
                "zone",
                metavar="ZONE",
                help="Time zone of times that do not name one, such as Europe/Paris or +08:00.  "
                "[default: this machine's]",
            ),
            click.option(
                "--conventions/--no-conventions",
                default=True,
                show_default=True,
                help="Derive unit and goal from names where a log does not give them: a loss is "
                "minimized.",
            ),
        )
    ):
        command = option(command)
    return command


def _step_histogram_option(command: Callable[..., object]) -> Callable[..., object]:
    """Add the option for a histogram of step times."""
    return click.option(
        "--step-histogram",
        is_flag=True,
        help="Add a histogram of how long each training step took, dllogger_step_duration_seconds: "
        "22 more series per rank; over OTLP it is an exponential histogram.  [default: "
        "OTEL_DLLOGGER_STEP_HISTOGRAM]",
    )(command)


@cli.command()
@click.argument("targets", metavar="URL_OR_PATH...", nargs=-1, required=True)
@click.option(
    "--details", is_flag=True, help="Describe each log, even if there are more than three."
)
@_reading_options
def check(
    *,
    targets: tuple[str, ...],
    details: bool,
    run_name: str | None,
    patterns: tuple[str, ...],
    zone: str | None,
    conventions: bool,
) -> int:
    """Say what /metrics pages or logs contain, and what is wrong with them.

    URL_OR_PATH is an address (http://host:9464/metrics, host:9464, or 9464 on this machine),
    a saved page, or a log of DLLogger, MMEngine, TensorBoard or another tool, a folder with all
    below it or a glob, which are read as bridge and backfill read them. There is a line for each
    rank, then a description of each log, if there are few, then one verdict.

    Exits with 0 when all is well or there are only warnings, with 1 when something is wrong,
    with 2 when there is nothing to read.
    """
    from otel_dllogger.cli.check.command import check_targets  # noqa: PLC0415
    from otel_dllogger.logs.source import Source  # noqa: PLC0415

    return check_targets(Source(targets, run_name, patterns, zone, conventions), details=details)


@cli.command()
@click.argument("targets", metavar="[PATH|URL|FOLDER]...", nargs=-1)
@click.option(
    "--sort",
    type=click.Choice(("need", "rank", "loss", "throughput", "step-time", "age")),
    default="need",
    show_default=True,
    help="What the ranks are sorted by, the worst first; need: vanished, stalled, NaN, stragglers.",
)
@click.option("--ascii", "is_ascii", is_flag=True, help="Draw with ASCII characters only.")
@click.option(
    "--interval",
    "interval_s",
    type=Duration(least_s=0.1),
    default="10s",
    show_default=True,
    metavar="TIME",
    help="How often to print a line about each run, if the output is not a terminal.",
)
@click.option("--until-finished", is_flag=True, help="End once all runs are over.")
@_reading_options
def watch(
    *,
    targets: tuple[str, ...],
    sort: str,
    is_ascii: bool,
    interval_s: float,
    until_finished: bool,
    run_name: str | None,
    patterns: tuple[str, ...],
    zone: str | None,
    conventions: bool,
) -> int:
    """Show runs in the terminal while they train: a line for each run and each rank.

    PATH is a log, a folder with logs below it or a glob; URL the /metrics page of a rank or of a
    bridge (http://host:9464/metrics, host:9464, or 9464 on this machine); FOLDER a discovery
    folder, in which ranks announce their pages. Without any, ranks of this machine are
    looked for: in OTEL_DLLOGGER_DISCOVERY_DIR or the default discovery folders, and on the ports
    that ranks usually take.

    \b
    otel-dllogger watch
    otel-dllogger watch runs/
    otel-dllogger watch node1:9464 node2:9464
    otel-dllogger watch runs/ --until-finished | tee progress.txt

    Below the ranks it says what the alert rules would say. The key q or Ctrl-C ends it.

    Exits with 0, with 1 if a run vanished with --until-finished, with 2 if there is nothing
    where a path points to.
    """  # noqa: D301 - click looks for the character itself
    from otel_dllogger.cli.watch.command import run_watch  # noqa: PLC0415
    from otel_dllogger.cli.watch.options import WatchOptions  # noqa: PLC0415
    from otel_dllogger.logs.source import Source  # noqa: PLC0415

    return run_watch(
        WatchOptions(
            source=Source(targets, run_name, patterns, zone, conventions),
            sort=sort,
            is_ascii=is_ascii,
            interval_s=interval_s,
            until_finished=until_finished,
        )
    )


@cli.command()
@click.argument("targets", metavar="[URL_OR_PATH]...", nargs=-1)
@click.option(
    "--listen",
    metavar="HOST:PORT",
    help="Where to serve the page; port 0 means any free port.  [default: 127.0.0.1:8384, or the "
    "next port that is free]",
)
@click.option(
    "--token",
    metavar="TEXT|@FILE",
    help="Show the page only to who has this token, from the link that is printed. Other users of "
    "this machine can see TEXT in the list of processes; @FILE is a file that holds it.",
)
@click.option(
    "--insecure",
    is_flag=True,
    help="Show the page to everybody who reaches an address other than this machine's own.",
)
@click.option(
    "--allow-host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="Name by which a proxy calls this page. May be given several times.",
)
@click.option(
    "--path-prefix",
    "prefix",
    default="",
    metavar="PATH",
    help="Path that a proxy puts before the page's own, if it does not take it away.",
)
@_reading_options
def view(
    *,
    targets: tuple[str, ...],
    listen: str | None,
    token: str | None,
    insecure: bool,
    hosts: tuple[str, ...],
    prefix: str,
    run_name: str | None,
    patterns: tuple[str, ...],
    zone: str | None,
    conventions: bool,
) -> int:
    """Show runs live in a browser: curves of each rank, their states, and what is wrong.

    URL_OR_PATH is a log, a folder or a glob, as for bridge; a discovery folder; or the address of
    a page (http://host:9464/metrics, host:9464, or 9464 on this machine), which may be that of a
    bridge. Without any, it is what runs on this machine.

    \b
    otel-dllogger view
    otel-dllogger view runs/
    otel-dllogger view runs/ --listen 0.0.0.0:8384 --token @token
    ssh -L 8384:127.0.0.1:8384 login-node otel-dllogger view runs/

    Exits with 0 on SIGTERM and Ctrl-C, with 2 if it could not start.
    """  # noqa: D301 - click looks for the character itself
    from otel_dllogger.cli.view import PageOptions, ViewOptions, run_view  # noqa: PLC0415
    from otel_dllogger.logs.source import Source  # noqa: PLC0415

    return run_view(
        ViewOptions(
            source=Source(targets, run_name, patterns, zone, conventions),
            page=PageOptions(listen, token, insecure, hosts, prefix),
        )
    )


@cli.command()
@click.argument("paths", metavar="LOGS...", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="File to write, - for standard output.  [default: report.html for html, else standard "
    "output]",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(("html", "md", "json")),
    default="html",
    show_default=True,
    help="html for people, md for a pull request, json for pipelines.",
)
@click.option(
    "-f", "--force", "is_forced", is_flag=True, help="Overwrite a file that is not a report."
)
@_reading_options
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
def report(
    *,
    paths: tuple[str, ...],
    output: str | None,
    form: str,
    is_forced: bool,
    run_name: str | None,
    patterns: tuple[str, ...],
    zone: str | None,
    conventions: bool,
    quiet: bool,
) -> int:
    """Write one file that shows what past runs did, and that needs nothing else to be opened.

    LOGS are files, folders with all below them, or globs, as for backfill. The report has the
    curves of all ranks, best values and where they were, what the time was spent on, slow ranks,
    NaN, restarts, parameters, and what is doubtful in the logs. Several runs share their plots.

    \b
    otel-dllogger report runs/
    otel-dllogger report runs/42 -o 42.html
    otel-dllogger report runs/42 --format md | gh pr comment 7 --body-file -
    otel-dllogger report runs/42 --format json | jq '.runs[0].best'

    On one machine, the same logs give the same bytes.

    Exits with 1 if the logs hold no value, with 2 if it could not be done.
    """  # noqa: D301 - click looks for the character itself
    from otel_dllogger.cli.report import ReportOptions, run_report  # noqa: PLC0415
    from otel_dllogger.logs.source import Source  # noqa: PLC0415

    return run_report(
        ReportOptions(
            source=Source(paths, run_name, patterns, zone, conventions),
            form=form,
            output=output,
            is_forced=is_forced,
            quiet=quiet,
        )
    )


@cli.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option(
    "--listen",
    metavar="HOST:PORT",
    help="Where to serve the page; port 0 means any free port.  [default: 127.0.0.1:9464, or the "
    "next port that is free]",
)
@click.option(
    "--view",
    metavar="HOST:PORT",
    help="Serve a live page of the logs as well, as otel-dllogger view does; an address of this "
    "machine only, such as 127.0.0.1:8384.",
)
@click.option("--otlp", metavar="URL", help="Send every step to this collector as well.")
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File that keeps how far everything was read, so that a restart continues there.",
)
@click.option(
    "--expire",
    "expire_s",
    type=Duration(least_s=1),
    default="15m",
    show_default=True,
    metavar="TIME",
    help="Take a rank off the page when its log has not grown for this long.",
)
@_reading_options
@_step_histogram_option
@click.option("-q", "--quiet", is_flag=True, help="Do not print what was found.")
def bridge(
    *,
    paths: tuple[str, ...],
    listen: str | None,
    view: str | None,
    otlp: str | None,
    checkpoint: Path | None,
    expire_s: float,
    run_name: str | None,
    patterns: tuple[str, ...],
    zone: str | None,
    conventions: bool,
    step_histogram: bool,
    quiet: bool,
) -> int:
    """Follow other people's logs, and serve the metrics of all their ranks on one page.

    PATH is a log file, a folder with all below it, or a glob; it need not exist yet. Logs of
    DLLogger, TCAP DLLogger, MMEngine, TensorBoard and many other tools are read;
    docs/reference/formats.md lists them. The job that writes them is not touched.

    \b
    otel-dllogger bridge runs/
    otel-dllogger bridge '/scratch/*/log_rank*.json' --checkpoint /var/lib/bridge.json
    otel-dllogger bridge runs/ --otlp http://localhost:4318

    Run and rank come from the records, or else from the names of the file and its folder.

    Exits with 0 on SIGTERM and Ctrl-C, with 2 if it could not start.
    """  # noqa: D301 - click looks for the character itself
    from otel_dllogger import settings  # noqa: PLC0415
    from otel_dllogger.cli.bridge import BridgeOptions, run_bridge  # noqa: PLC0415
    from otel_dllogger.cli.log_source import parse_address  # noqa: PLC0415
    from otel_dllogger.logs.source import Source  # noqa: PLC0415

    host, port = parse_address(listen or "127.0.0.1:9464")
    source = Source(
        paths,
        run_name,
        patterns,
        zone,
        conventions,
        step_histogram=settings.step_histogram(step_histogram or None),
    )
    return run_bridge(
        BridgeOptions(
            source=source,
            host=host,
            port=port,
            port_tries=1 if listen else 100,
            otlp=otlp,
            checkpoint=checkpoint,
            expire_s=expire_s,
            quiet=quiet,
            view=view,
        )
    )


@cli.command()
@click.argument("paths", metavar="LOGS...", nargs=-1, required=True)
@click.option(
    "--to",
    "target",
    type=(click.Choice(("csv", "openmetrics", "prometheus", "victoriametrics", "otlp")), str),
    required=True,
    metavar="KIND TARGET",
    help="csv FILE, openmetrics FILE, prometheus DATA_DIR, victoriametrics URL or otlp URL; FILE "
    "may be - for standard output, and replaces one of an earlier backfill.",
)
@click.option("--since", "since_us", type=Moment(), metavar="TIME", help="Leave out what is older.")
@click.option("--until", "until_us", type=Moment(), metavar="TIME", help="Leave out what is newer.")
@_reading_options
@_step_histogram_option
@click.option(
    "--query-url",
    metavar="URL",
    help="Address for queries, needed for a VictoriaMetrics cluster.  [default: TARGET]",
)
@click.option(
    "--unchecked",
    is_flag=True,
    help="Do not ask VictoriaMetrics which samples it has: those are then stored twice.",
)
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Folder that keeps how far logs were sent over OTLP.  [default: in ~/.local/state]",
)
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
def backfill(
    *,
    paths: tuple[str, ...],
    target: tuple[str, str],
    since_us: Instant | None,
    until_us: Instant | None,
    run_name: str | None,
    patterns: tuple[str, ...],
    zone: str | None,
    conventions: bool,
    step_histogram: bool,
    query_url: str | None,
    unchecked: bool,
    checkpoint: Path | None,
    quiet: bool,
) -> int:
    """Put what logs hold into a table or a time-series database, with the times of the logs.

    LOGS are files, folders with all below them, or globs, as for bridge. A second run adds
    nothing, and one that was interrupted continues.

    \b
    otel-dllogger backfill runs/ --to csv runs.csv
    otel-dllogger backfill runs/ --to openmetrics runs.om
    otel-dllogger backfill runs/ --to prometheus /var/lib/prometheus/data
    otel-dllogger backfill runs/ --to victoriametrics http://localhost:8428
    otel-dllogger backfill runs/ --to otlp http://localhost:4318 --since 2h

    TIME is 2025-08-16T12:00:00Z, a local time without the Z, or 2h for two hours ago.

    Exits with 1 if there was nothing to write, or a collector refused points, with 2 if it could
    not be done.
    """  # noqa: D301 - click looks for the character itself
    from otel_dllogger import settings  # noqa: PLC0415
    from otel_dllogger.cli.backfill import BackfillOptions, run_backfill  # noqa: PLC0415
    from otel_dllogger.logs.source import Source  # noqa: PLC0415

    source = Source(
        paths,
        run_name,
        patterns,
        zone,
        conventions,
        step_histogram=settings.step_histogram(step_histogram or None),
    )
    return run_backfill(
        BackfillOptions(
            source=source,
            kind=target[0],
            target=target[1],
            since_us=since_us,
            until_us=until_us,
            query_url=query_url,
            unchecked=unchecked,
            checkpoint=checkpoint,
            quiet=quiet,
            step_histogram=step_histogram,
        )
    )


@cli.command()
@click.argument("target", metavar="PID|RUN")
@click.option("--full", "is_full", is_flag=True, help="Print all frames of all threads as well.")
@click.option(
    "--native",
    "is_native",
    is_flag=True,
    help="Include frames of native code, on Linux; the process is stopped for longer.",
)
@click.option(
    "--discovery-dir",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder in which the ranks announce their pages.  [default: as for watch]",
)
def stacks(*, target: str, is_full: bool, is_native: bool, folder: Path | None) -> int:
    """Say where a process stands, or all ranks of a run on this host: for one that hangs.

    PID is a process that runs Python, RUN the name of a run, as metrics have it. Where ranks
    stand at different places, the odd ones come first:

    \b
    rank 3: data loader (train.py:41 next_batch)
    ranks 0-2, 4-7: all_reduce (train.py:60 train_step)

    The words are known for PyTorch; in brackets is the innermost line of the script's own code.
    The processes need not be prepared, and go on afterwards: py-spy looks at them from outside
    (extra stacks). In a container it needs the capability SYS_PTRACE, elsewhere root or
    kernel.yama.ptrace_scope 0.

    Exits with 0, with 1 if some of the ranks could not be looked at, with 2 if none could.
    """  # noqa: D301 - click looks for the character itself
    from otel_dllogger.cli.stacks.command import StacksOptions, show_stacks  # noqa: PLC0415

    return show_stacks(StacksOptions(target, folder, is_native, is_full))


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: What stands after the program's name; ``sys.argv`` if not given.

    Returns:
        The exit code.
    """
    try:
        outcome = cli.main(arguments, prog_name=PROGRAM, standalone_mode=False)
        if sys.stdout is not None:  # closed by who started this
            sys.stdout.flush()
    except click.ClickException as error:
        note(_one_line(error))
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Who reads our output, as head(1), has seen enough; nor shall the exit complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_WRONG
    except OSError as error:  # a full disk under stdout, a current folder that is gone
        note(str(error.strerror or error))
        return EXIT_WRONG
    if callable(outcome):
        return int(outcome())
    return int(outcome or 0)


def _one_line(error: click.ClickException) -> str:
    message = redact_users(" ".join(error.format_message().split()))
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx else PROGRAM
        if message.endswith("?"):  # click suggests an option
            return f"{message} See {path} --help"
        return f"{message.rstrip('.')}; see {path} --help"
    return message
