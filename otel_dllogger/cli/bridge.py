"""``otel-dllogger bridge``: serve other people's logs as live metrics."""

from __future__ import annotations

import dataclasses
import glob
import os
import signal
import threading
from typing import TYPE_CHECKING, NamedTuple

from otel_dllogger.cli.log_source import (
    explain,
    is_among,
    is_log,
    open_exporter,
    parse_address,
    say,
)
from otel_dllogger.cli.terminal import UserError, missing_extra
from otel_dllogger.errors import ConfigurationError, EndpointError, in_words
from otel_dllogger.logs.not_logs import refuse_not_logs
from otel_dllogger.logs.tail.checkpoint import FORMAT
from otel_dllogger.redaction import redact_users

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from otel_dllogger.bridge.otlp_forwarder import OTLPForwarder
    from otel_dllogger.bridge.service import Bridge
    from otel_dllogger.cli.view import LivePage
    from otel_dllogger.logs.source import Source
    from otel_dllogger.view.log_source import LogFeed

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_HEAD_BYTES = 4096  # of a checkpoint, to tell it from other files
_CHECKPOINT_HEAD = b'{"format":"%b"' % FORMAT.encode()
_FORWARDER_END_S = 1.0  # for a request under way; if it is not answered, its points are sent again


@dataclasses.dataclass(frozen=True, slots=True)
class BridgeOptions:
    """The options of ``bridge``.

    Attributes:
        source: What is followed.
        host: The address of the page.
        port: Its port, 0 for any free one.
        port_tries: How many ports to try while they are in use, counting up.
        otlp: The URL of a collector, None for no collector.
        checkpoint: The file that stores how far logs were read, None for no file.
        expire_s: Seconds without a new line after which a rank leaves the page.
        quiet: Do not print where the page is, nor what was found.
        view: The address of a live page as HOST:PORT, None for no such page.
    """

    source: Source
    host: str
    port: int
    port_tries: int
    otlp: str | None
    checkpoint: Path | None
    expire_s: float
    quiet: bool
    view: str | None = None


def run_bridge(options: BridgeOptions) -> int:
    """Follow logs until a signal says to end.

    Returns:
        The exit code.

    Raises:
        UserError: If something that was asked for is not available.
    """
    _check_checkpoints(options)
    _tell_what_is_missing(options.source.paths)
    stopping = threading.Event()  # for the other thread: a signal handler must not set it
    try:
        refuse_not_logs(options.source.paths)
        live = None if options.view is None else _open_live(options, options.view)
        bridge = _open_bridge(options, live)
        forwarder = _open_forwarder(options, stopping)
    except (ConfigurationError, ImportError, EndpointError) as error:
        raise UserError(explain(error)) from None
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup sets it
            signal.signal(number, lambda *_: bridge.stop())
    if options.port not in (0, bridge.endpoint.port):
        say(
            f"port {options.port} is taken; the page is at {bridge.endpoint.port}; where a scraper "
            "expects one port, pass --listen"
        )
    if not options.quiet:
        say(f"metrics of the logs: {bridge.endpoint.url}")
        if live is not None:
            say(f"the same, live: {live.page.link}")
    thread = None
    if forwarder is not None:
        thread = threading.Thread(
            target=forwarder.run, args=(stopping,), name="otel-dllogger-forwarder", daemon=True
        )
        thread.start()
    if live is not None:
        live.page.start()
    try:
        bridge.run()
    finally:
        stopping.set()
        if live is not None:
            live.page.close()
        if thread is not None:
            thread.join(_FORWARDER_END_S)
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # a second one would kill Python as it ends
    return 0


class _Live(NamedTuple):
    page: LivePage
    feed: LogFeed


def _open_live(options: BridgeOptions, listen: str) -> _Live:
    from otel_dllogger.cli.view import PageOptions, open_live_page  # noqa: PLC0415

    try:
        from otel_dllogger.view.log_source import LogFeed  # noqa: PLC0415 - NumPy takes long
        from otel_dllogger.view.model import Model  # noqa: PLC0415
        from otel_dllogger.view.server.access import is_loopback  # noqa: PLC0415
        from otel_dllogger.view.server.board import Reading  # noqa: PLC0415

        if not is_loopback(parse_address(listen, "--view")[0]):
            raise UserError(
                f"--view {listen} can be reached from other machines; use 127.0.0.1, or "
                "otel-dllogger view with --token"
            )
        model = Model()
        words = redact_users(", ".join(options.source.paths))
        return _Live(open_live_page(PageOptions(listen), model, words, Reading), LogFeed(model))
    except ModuleNotFoundError as error:
        raise UserError(missing_extra(error, "view")) from None


def _open_bridge(options: BridgeOptions, live: _Live | None) -> Bridge:
    from otel_dllogger.bridge.service import Bridge  # noqa: PLC0415 - OpenTelemetry takes long

    return Bridge(
        options.source,
        host=options.host,
        port=options.port,
        port_tries=options.port_tries,
        checkpoint=None if options.checkpoint is None else str(options.checkpoint),
        expire_s=options.expire_s,
        tell=None if options.quiet else say,
        feed=None if live is None else live.feed,
        live_page="" if live is None else live.page.link,
    )


def _open_forwarder(options: BridgeOptions, stopping: threading.Event) -> OTLPForwarder | None:
    if options.otlp is None:
        return None
    from otel_dllogger.bridge.otlp_forwarder import OTLPForwarder  # noqa: PLC0415

    exporter = open_exporter(options.otlp, stopping, say)
    checkpoint = (
        None if options.checkpoint is None else str(_forwarder_checkpoint(options.checkpoint))
    )
    return OTLPForwarder(options.source, exporter, checkpoint=checkpoint, idle_s=options.expire_s)


def _forwarder_checkpoint(path: Path) -> Path:
    return path.with_name(f"{path.name}.otlp")


def _check_checkpoints(options: BridgeOptions) -> None:
    """Refuse to write over what is not a checkpoint: here, and beside it for the collector."""
    if options.checkpoint is None:
        return
    _check_checkpoint(options.checkpoint, options.source.paths)
    if options.otlp is not None:
        _check_checkpoint(_forwarder_checkpoint(options.checkpoint), options.source.paths)


def _check_checkpoint(path: Path, paths: Sequence[str]) -> None:
    if path.is_dir():
        raise UserError(f"--checkpoint {path} is a folder; name a file in it")
    folder = path.absolute().parent
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise UserError(
            f"--checkpoint {path}: {folder} is not a folder that can be written to; make it, "
            "or name another file"
        )
    if not path.exists():
        return
    if not path.is_file():
        raise UserError(f"--checkpoint {path} is not a regular file; name another file")
    try:
        is_ours = _may_be_checkpoint(path)
    except OSError as error:
        raise UserError(
            f"--checkpoint {path} cannot be read ({in_words(error)}); name another file"
        ) from None
    if not is_ours:
        what = "a log" if is_log(path) or is_among(path, paths) else "not a checkpoint"
        raise UserError(
            f"--checkpoint {path} is {what} and would be overwritten; name another file"
        )


def _may_be_checkpoint(path: Path) -> bool:
    """Return whether a file is a checkpoint, or what a crash may leave of one.

    Raises:
        OSError: If it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES).strip(b"\0")  # zeros: blocks that never reached the disk
    begin = b"".join(head.split())[: len(_CHECKPOINT_HEAD)]
    return _CHECKPOINT_HEAD.startswith(begin)


def _tell_what_is_missing(paths: Sequence[str]) -> None:
    for path in paths:
        found = glob.iglob(path, recursive=True)  # noqa: PTH207 - it need not begin with a folder
        if path and not os.path.lexists(path) and next(found, None) is None:
            say(f"{path} is not there yet; waiting for it")
