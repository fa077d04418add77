"""A JSONStreamBackend whose lines stay in memory, for tests with hundreds of examples."""

from __future__ import annotations

import os

from otel_dllogger import JSONStreamBackend


class InMemory:
    """A stand-in for a file of lines that keeps them in memory."""

    def __init__(self):
        self.lines = []

    def write_line(self, line):
        self.lines.append(line)

    def check_path(self):
        """Do nothing, since a file in memory cannot be moved."""


def in_memory_backend():
    """Return a backend whose lines are in ``backend.file.lines``."""
    backend = JSONStreamBackend(1, os.devnull)
    backend.file = InMemory()
    return backend
