"""``MMLogger`` and ``print_log``: a logger for every rank of a run, like MMEngine's.

Rank 0 writes to the console, the other ranks write only errors there. There is one file for the
run, or one for each rank. The lines are MMEngine's::

    08/21 02:58:41 - mmengine - INFO - message
    08/21 02:58:41 - mmengine - ERROR - /path/a.py - <module> - 4 - division by zero
"""

from __future__ import annotations

import dataclasses
import inspect
import logging
import os
import sys
from collections.abc import Mapping
from typing import Any

from otel_dllogger.backends.stdout import write_line
from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.errors import MisuseError
from otel_dllogger.identity import Topology, detect_topology
from otel_dllogger.training.line_handlers import ConsoleHandler, FirstWarnings, open_file_handler
from otel_dllogger.training.named_instance import NamedInstance
from otel_dllogger.values import safe_text


class MMLogger(logging.Logger, NamedInstance):
    """The logger of one rank, which writes to the console and optionally to a file.

    ``MMLogger.get_instance("a")`` is the logger of that name in every module of the process.
    ``logging.getLogger`` does not know it, so no library's logging set-up affects it.

    With ``distributed``, or at level DEBUG or below, each of several ranks writes a file beside
    ``log_file``: ``20230306_183634.log`` becomes ``20230306_183634_node3_device0_rank24.log``.
    This is the name that MMEngine's documentation gives; its code puts the user and an ``@``
    before the host. Scripts can rely on the documented name, and it does not depend on whether
    a container knows its user.

    Args:
        name: The name of the instance.
        logger_name: The name that its lines show.
        log_file: The file to write, by rank 0 only unless each rank has its own; its folder is
            made.
        log_level: The lowest level that is shown and written; a name or a number.
        file_mode: How the file is opened; not used with ``file_handler_cfg``.
        distributed: Whether each rank writes a file of its own.
        file_handler_cfg: ``type``, one of ``FileHandler``, ``RotatingFileHandler``,
            ``TimedRotatingFileHandler`` and ``WatchedFileHandler``, and its arguments. A
            ``filename`` among them replaces ``log_file``.

    Raises:
        MisuseError: If the name, the level or ``file_handler_cfg`` is invalid.
        ValueError: If there is no handler of that type.
        OSError: If the file cannot be opened.
    """

    _first_name = "mmengine"

    def __init__(  # noqa: PLR0917 - MMEngine's own signature
        self,
        name: str,
        logger_name: str = "mmengine",
        log_file: str | os.PathLike[str] | None = None,
        log_level: int | str = "INFO",
        file_mode: str = "w",
        distributed: bool = False,
        file_handler_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        NamedInstance.__init__(self, name)
        logging.Logger.__init__(self, logger_name)
        level = _level_number(log_level)
        # Refused on all ranks alike: if only one rank failed, the others would wait for it.
        kind, options = _file_options(file_mode, file_handler_cfg)
        topology = find_rank()
        console = ConsoleHandler()
        console.setLevel(level if topology.rank == 0 else max(level, logging.ERROR))
        self._add(console)
        path = options.pop("filename", log_file)
        self._log_file = None if path is None else os.fspath(path)
        if self._log_file is None:
            return
        of_each = (distributed or level <= logging.DEBUG) and topology.world_size > 1
        if of_each:
            self._log_file = rank_path(self._log_file, topology)
        if of_each or topology.rank == 0:
            file = open_file_handler(self._log_file, kind, options)
            file.setLevel(level)
            self._add(file)

    def _add(self, handler: logging.Handler) -> None:
        handler.addFilter(FirstWarnings())
        self.addHandler(handler)

    @property
    def log_file(self) -> str | None:
        """Return the path of the file: this rank's if each has its own, otherwise rank 0's."""
        return self._log_file

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - logging's name
        """Return whether a level is logged.

        Nothing is cached, because ``logging`` clears its cache only for the loggers that it
        knows. So ``setLevel`` and ``logging.disable`` take effect at once.
        """
        return not self.disabled and level >= self.level and level > self.manager.disable

    def callHandlers(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Pass a record to the logger's own handlers, and to no others."""
        for handler in self.handlers:
            if record.levelno >= handler.level:
                try:
                    handler.handle(record)
                except Exception as error:
                    DIAGNOSTICS.caught("backend_failed", f"a {type(handler).__name__}", error)


def print_log(
    msg: object, logger: logging.Logger | str | None = None, level: int = logging.INFO
) -> None:
    """Log a message, or print it.

    Args:
        msg: Anything; a ``%`` in it stays as it is.
        logger: A logger; the name of an ``MMLogger``; "current" for the one made last; "silent"
            to drop the message; or None to print it.
        level: The level, if there is a logger.

    Raises:
        ValueError: If there is no ``MMLogger`` of that name.
        TypeError: If ``logger`` is anything else.
    """
    if logger is None:
        try:
            write_line(sys.stdout, f"{safe_text(msg)}\n")
        except Exception as error:
            DIAGNOSTICS.caught(
                "stdout", "a line could not be written to the standard output", error
            )
    elif isinstance(logger, logging.Logger):
        logger.log(level, msg, stacklevel=2)  # the line shows the place of our caller
    elif logger == "current":
        MMLogger.get_current_instance().log(level, msg, stacklevel=2)
    elif not isinstance(logger, str):
        raise TypeError(
            f"logger={logger!r} is a {type(logger).__name__}: pass a logging.Logger, "
            'the name of an MMLogger, "current", "silent" or None'
        )
    elif logger != "silent":
        if not MMLogger.check_instance_created(logger):
            raise ValueError(
                f"there is no MMLogger {logger!r}: call MMLogger.get_instance({logger!r}) first"
            )
        MMLogger.get_instance(logger).log(level, msg, stacklevel=2)


def find_rank() -> Topology:
    """Return this process's place: from torch if it is initialised, else from the launcher."""
    topology = detect_topology()
    torch = sys.modules.get("torch.distributed")
    if torch is None:
        return topology
    try:
        if torch.is_available() and torch.is_initialized():
            rank, world_size = torch.get_rank(), torch.get_world_size()
            return dataclasses.replace(topology, rank=rank, world_size=world_size)
    except (AttributeError, RuntimeError, ValueError):  # torch is loading, or has ended
        return topology
    return topology


def rank_path(path: str, topology: Topology) -> str:
    """Return the path of a rank's own file, beside that of the common one."""
    folder, name = os.path.split(path)
    stem, suffix = os.path.splitext(name)  # noqa: PTH122 - "a.log/" keeps its meaning
    own = f"{stem}_{topology.host}_device{topology.local_rank}_rank{topology.rank}{suffix}"
    return os.path.join(folder, own)  # noqa: PTH118


def _level_number(level: int | str) -> int:
    number = logging.getLevelName(level) if isinstance(level, str) else level
    if not isinstance(number, int) or isinstance(number, bool):
        raise MisuseError(
            f"log_level={level!r} is not a level: pass 'DEBUG', 'INFO', 'WARNING', 'ERROR', "
            "'CRITICAL' or a number"
        )
    return number


def _file_options(
    mode: str, cfg: Mapping[str, Any] | None
) -> tuple[type[logging.FileHandler], dict[str, Any]]:
    """Check ``file_handler_cfg``, and return the class it names and its arguments."""
    if cfg is None:
        return logging.FileHandler, {"mode": mode}
    from logging import handlers  # noqa: PLC0415 - it loads sockets and pickle

    kinds: tuple[type[logging.FileHandler], ...] = (
        logging.FileHandler,
        handlers.RotatingFileHandler,
        handlers.TimedRotatingFileHandler,
        handlers.WatchedFileHandler,
    )
    of_name = {kind.__name__: kind for kind in kinds}
    if not isinstance(cfg, Mapping) or "type" not in cfg:
        raise MisuseError(
            f"file_handler_cfg={cfg!r} does not name a handler: pass a dict with a 'type' that is "
            f"one of {', '.join(of_name)}"
        )
    options = {key: value for key, value in cfg.items() if key != "type"}
    kind = of_name.get(str(cfg["type"]))
    if kind is None:
        raise ValueError(
            f"there is no file handler {cfg['type']!r}: pass as 'type' one of {', '.join(of_name)}"
        )
    known = inspect.signature(kind).parameters
    if unknown := [key for key in options if key not in known]:
        raise MisuseError(
            f"file_handler_cfg has {', '.join(map(repr, unknown))}, which {kind.__name__} does "
            f"not take: pass some of {', '.join(known)}"
        )
    return kind, options
