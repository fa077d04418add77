"""The folder of one demo."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from otel_dllogger.cli.demo.prometheus import format_config
from otel_dllogger.cli.terminal import UserError


class DemoFolder:
    """The folder of one demo, and the name of its run, which no other demo has.

    Args:
        directory: The folder, which is made if it is missing; None for a new one.

    Raises:
        UserError: If it cannot be written, or another demo is using it.

    Attributes:
        run: The run's name.
        path: The folder.
        discovery: The folder in it where the ranks announce their pages.
        config: The configuration for Prometheus in it.
    """

    def __init__(self, directory: Path | None) -> None:
        # Two that are started in the same second are told apart by their processes.
        self.run = f"demo-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        self.path = Path("demo-run", self.run) if directory is None else directory
        self.discovery = self.path / "discovery"
        self.config = self.path / "prometheus.yml"
        try:
            self.discovery.mkdir(parents=True, exist_ok=True)
            # It stays open, and so locked, until this process ends.
            self._file = self.config.open("a", encoding="utf-8")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._file.truncate(0)
            self._file.write(format_config(self.discovery))
            self._file.flush()
        except BlockingIOError:
            raise UserError(
                f"another demo is running in {str(self.path)!r}; pass --directory with another "
                "folder, or leave it out"
            ) from None
        except OSError as error:
            raise UserError(
                f"{str(self.path)!r} cannot be written ({error.strerror}); pass --directory with "
                "a folder that can"
            ) from error
