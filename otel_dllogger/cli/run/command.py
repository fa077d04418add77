"""``otel-dllogger run``: run an unchanged script on this package, with a metrics page."""

from __future__ import annotations

import atexit
import contextlib
import sys
from typing import TYPE_CHECKING

from otel_dllogger.backends.otlp import OTLPBackend
from otel_dllogger.cli.run.aliases import install_aliases, put_shadows_on_path
from otel_dllogger.cli.run.otlp import find_collector, otlp_at_first_record
from otel_dllogger.cli.run.page import PageOptions, describe_announcement, hand_down, open_page
from otel_dllogger.cli.run.program import Program, find_module, find_script
from otel_dllogger.cli.terminal import UserError, note
from otel_dllogger.logger import attached

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_dllogger.backends.prometheus import PrometheusBackend

__all__ = ["PageOptions", "prepare"]


def prepare(
    script: str, arguments: Sequence[str], options: PageOptions, *, is_module: bool, quiet: bool
) -> Program:
    """Make this process ready for a script: the page, the aliases, ``sys.path``.

    Args:
        script: The path of a script or of a folder or archive with a ``__main__.py``; or the
            name of a module.
        arguments: The script's own arguments.
        options: Where to serve the metrics.
        is_module: Whether ``script`` is the name of a module.
        quiet: Do not print where the metrics are, nor where they are sent.

    Returns:
        The script, found but not run.

    Raises:
        UserError: If there is no such script, or the page cannot be opened.
    """
    if not is_module:
        program = find_script(script, arguments)  # before a port is taken for nothing
    # The run is named after the script, here as well as in the script.
    sys.argv[:] = [f"{script.replace('.', '/')}.py" if is_module else script, *arguments]
    backend, warnings = open_page(options)
    hand_down(options, backend.topology.run)
    collector, otlp_warnings = find_collector()
    _attach_until_exit(backend, collector, quiet=quiet)
    install_aliases()
    if is_module:
        try:
            program = find_module(script, arguments)
        except UserError:
            if backend.discovery is not None:  # or an alert would say that the run vanished
                backend.discovery.remove()
            raise
    put_shadows_on_path()
    for warning in warnings + otlp_warnings:
        note(warning)
    if not quiet:
        topology = backend.topology
        note(f"metrics of rank {topology.rank}, run {topology.run}: {backend.url}")
        announcement = describe_announcement(backend, options)
        if announcement is not None:
            note(announcement)
    return program


def _attach_until_exit(page: PrometheusBackend, collector: str | None, *, quiet: bool) -> None:
    """Feed every Logger to the page and to OTLP, until after the script's own exit handlers."""
    stack = contextlib.ExitStack()
    stack.enter_context(attached(page))
    if collector is not None:
        topology = page.topology
        otlp = otlp_at_first_record(
            page.verbosity, topology.run, topology.rank, told="" if quiet else collector
        )
        stack.enter_context(attached(otlp, as_one_of=OTLPBackend))
    atexit.register(stack.close)
