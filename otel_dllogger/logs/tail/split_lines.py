r"""Cut bytes into whole lines, at ``\n`` alone; NUL bytes wait until they are trusted."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple


class Block(NamedTuple):
    """Consecutive lines.

    Attributes:
        start: Where in the data the first line begins.
        end: Where the last one ends, after its newline.
        lines: The lines without their newlines.
    """

    start: int
    end: int
    lines: list[bytes]


@dataclasses.dataclass(slots=True)
class SplitLines:
    """What was found in the data.

    Attributes:
        blocks: The whole lines.
        taken: Bytes that are done with; the rest is read again, with more of the file.
        skipping: Whether the data end within a line that is too long.
        too_long: Lines that were found to be too long.
        nuls: NUL bytes that were skipped, the last of those taken.
        waits_at: Where there is a NUL byte that a network file system may still fill, or None.
        jump: The length of what comes next, if it is passed over once all of it is there.
    """

    blocks: list[Block]
    taken: int = 0
    skipping: bool = False
    too_long: int = 0
    nuls: int = 0
    waits_at: int | None = None
    jump: int = 0


def split_lines(
    data: bytes,
    *,
    max_line_bytes: int,
    full: bool,
    skipping: bool = False,
    trusted_nul: int = -1,
    trusts_nuls: bool = False,
) -> SplitLines:
    r"""Split bytes into whole lines; never return only the beginning of one.

    NUL bytes are in a log if a writer continued at its old offset after the file was emptied,
    if a machine crashed, and, for a moment, if a network file system knows the new size before
    the new bytes. So a line with a NUL waits until the NUL is trusted. Then NULs before a line
    are skipped, and NULs within a line count as written by its writer.

    Args:
        data: Bytes from the beginning of a line, or from within one that is skipped.
        max_line_bytes: The longest line, without its newline.
        full: Whether more may follow at once, since as many bytes came as were asked for.
        skipping: Whether the data begin within a line that is too long.
        trusted_nul: Where there is a NUL byte that was seen often enough; -1 for none.
        trusts_nuls: Whether all of them are text, as in UTF-16.
    """
    found = SplitLines([])
    start = 0
    if skipping:
        start = data.find(b"\n") + 1
        if not start:
            return SplitLines([], taken=len(data), skipping=True)
    nul = -1 if trusts_nuls else data.find(b"\0", start)
    stop = len(data) if nul < 0 else nul
    found.taken = max(start, data.rfind(b"\n", start, stop) + 1)
    _add(found, data, start, found.taken, max_line_bytes)
    if nul >= 0 and _stops_at(
        found, data, nul, max_line_bytes, full=full, trusted=nul == trusted_nul
    ):
        return found
    if len(data) - found.taken > max_line_bytes and data.find(b"\n", found.taken) < 0:
        found.too_long += 1
        found.skipping = True
        found.taken = len(data)
    return found


def _stops_at(
    found: SplitLines, data: bytes, nul: int, max_line_bytes: int, *, full: bool, trusted: bool
) -> bool:
    """Handle the line with a NUL byte; return whether that is all for now."""
    line = found.taken
    end = data.find(b"\n", nul) + 1
    if not end and nul > line:
        return False  # the beginning of a line, like any other
    if not end and not full:
        return True
    if not trusted:
        found.waits_at = nul
    elif nul == line:
        found.nuls = len(data) - line - len(data[line:].lstrip(b"\0"))
        found.taken += found.nuls
    else:
        found.taken = end
        _add(found, data, line, end, max_line_bytes)
    return True


def _add(found: SplitLines, data: bytes, start: int, end: int, max_line_bytes: int) -> None:
    """Add the lines of a part of the data that ends in a newline."""
    if start == end:
        return
    lines = data[start : end - 1].split(b"\n")
    if end - start <= max_line_bytes or max(map(len, lines)) <= max_line_bytes:
        found.blocks.append(Block(start, end, lines))
        return
    fit: list[bytes] = []
    position = start
    for line in lines:
        position += len(line) + 1
        if len(line) <= max_line_bytes:
            fit.append(line)
            continue
        found.too_long += 1
        if fit:
            found.blocks.append(Block(start, position - len(line) - 1, fit))
        start, fit = position, []
    if fit:
        found.blocks.append(Block(start, position, fit))
