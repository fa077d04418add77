"""A JSONStreamBackend whose lines stay in memory, for examples by the hundred."""

from __future__ import annotations

import os

from otel_dllogger import JSONStreamBackend


class InMemory:
    """A file of lines that keeps them."""

    def __init__(self):
        self.lines = []

    def write_line(self, line):
        self.lines.append(line)

    def check_path(self):
        """Nothing can be moved away here."""


def in_memory_backend():
    """Return a backend whose lines are in ``backend.file.lines``."""
    backend = JSONStreamBackend(1, os.devnull)
    backend.file = InMemory()
    return backend
