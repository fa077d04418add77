"""Files that grow, and what a Tailer reads of them."""

from __future__ import annotations

from pathlib import Path

from otel_dllogger.logs.tail.file_state import FileEvent


def append(path, text):
    with path.open("ab", buffering=0) as file:
        file.write(text)


def rounds(tailer, count=1):
    """Poll, and return the lines by file name, and the changes."""
    lines, changes = {}, []
    for _ in range(count):
        for item in tailer.poll():
            name = Path(item.path).name
            if isinstance(item, FileEvent):
                changes.append((item.kind, name))
            else:
                lines.setdefault(name, []).extend(item.lines)
    return lines, changes


def lines_of(tailer, count=1):
    return rounds(tailer, count)[0]


def counted(tailer):
    return {reason: count for reason, count in tailer.counts.items() if count}
