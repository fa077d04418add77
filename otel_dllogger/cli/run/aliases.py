"""Make ``dllogger`` and ``tcap_dllogger`` names of this package.

Children that ``multiprocessing`` spawns begin with an empty interpreter. They do get the
``sys.path`` of their parent, so a folder on it, ``shadows``, does the same there.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from pathlib import Path

import otel_dllogger
from otel_dllogger import logger

ALIASES = ("dllogger", "tcap_dllogger")

SHADOWS = Path(__file__).with_name("shadows")
"""The folder whose modules carry the aliases' names."""

_OF_THE_PACKAGE_ALONE = ("GLOBAL_LOGGER", "__version__")


def install_aliases() -> None:
    """Make ``import dllogger`` and ``import tcap_dllogger`` import this package.

    The same holds for their submodules; ``dllogger.logger`` has all classes, as in DLLogger.
    If the real packages are installed, they are hidden from this process.
    """
    for name in otel_dllogger.__all__:
        if name not in _OF_THE_PACKAGE_ALONE and not hasattr(logger, name):
            setattr(logger, name, getattr(otel_dllogger, name))
    for alias in ALIASES:
        sys.modules[alias] = otel_dllogger
        sys.modules[f"{alias}.logger"] = importlib.import_module("otel_dllogger.logger")


def put_shadows_on_path() -> None:
    """Make the processes that this one spawns find the aliases before the real packages.

    They come after the first entry, which is the script's own folder.
    """
    sys.path.insert(1, str(SHADOWS))
    # For a package that is not installed but was found in the working directory.
    root = str(Path(otel_dllogger.__file__).resolve().parent.parent)
    if root not in sys.path:
        sys.path.append(root)


def install_in_child() -> None:
    """Install the aliases in a spawned process, with a page once the process logs."""
    from otel_dllogger.backends.otlp import OTLPBackend  # noqa: PLC0415 - a circle, rarely needed
    from otel_dllogger.backends.prometheus import PrometheusBackend  # noqa: PLC0415
    from otel_dllogger.cli.run.first_record import AtFirstRecord  # noqa: PLC0415
    from otel_dllogger.cli.run.otlp import find_collector, otlp_at_first_record  # noqa: PLC0415
    from otel_dllogger.cli.run.page import inherited_options  # noqa: PLC0415

    install_aliases()
    options = inherited_options()
    if options is None:
        return
    page = AtFirstRecord(options.verbosity, options.open)
    _attached.enter_context(logger.attached(page, as_one_of=PrometheusBackend))
    if find_collector()[0] is not None:  # the parent has told what is wrong with it
        otlp = otlp_at_first_record(options.verbosity, options.run)
        _attached.enter_context(logger.attached(otlp, as_one_of=OTLPBackend))


_attached = contextlib.ExitStack()
"""Keeps what was attached for as long as this process lives."""
