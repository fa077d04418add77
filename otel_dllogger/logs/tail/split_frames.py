"""Cut bytes into the frames of a TFRecord file, as ``split_lines`` cuts them into lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_dllogger.logs.parsers.tfrecord import FOOTER_BYTES, HEADER_BYTES, find_frame, frame_bytes
from otel_dllogger.logs.tail.split_lines import Block, SplitLines

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

_NO_FOOTER = bytes(FOOTER_BYTES)
_READ_BYTES = 1 << 18


def split_frames(
    data: bytes,
    *,
    max_line_bytes: int,
    full: bool,
    skipping: bool = False,  # noqa: ARG001 - a frame says where it ends
    trusted_nul: int = -1,
    trusts_nuls: bool = False,
) -> SplitLines:
    """Cut bytes into whole frames; never return only the beginning of one.

    What is between two frames is damage, and is returned as if it were one. A network file system
    may still fill it, as it may a frame that ends in NUL bytes, so both wait until they are
    trusted. A frame that is too long is passed over: it holds pictures, or the graph of a model.

    Args:
        data: Bytes from the beginning of a frame.
        max_line_bytes: The longest frame that is returned.
        full: Whether more may follow at once, since as many bytes came as were asked for.
        skipping: Not used.
        trusted_nul: Where damage begins that was seen often enough; -1 for none.
        trusts_nuls: Whether nothing waits, since the file is read once.
    """
    found = SplitLines([])
    frames: list[bytes] = []
    at, last = 0, len(data) - HEADER_BYTES
    while at <= last:
        length = frame_bytes(data, at)
        if length is not None and length > max_line_bytes:
            found.jump = length
            break
        end = _end_of_damage(data, at, full=full) if length is None else at + length
        if end > len(data):
            break
        is_sure = length is not None and data[end - FOOTER_BYTES : end] != _NO_FOOTER
        if not (is_sure or trusts_nuls or at == trusted_nul):
            found.waits_at = at
            break
        frames.append(data[at:end])
        at = end
    found.taken = at
    if frames:
        found.blocks.append(Block(0, at, frames))
    return found


def _end_of_damage(data: bytes, at: int, *, full: bool) -> int:
    """Return where the next frame begins, beyond the data if that cannot be told yet."""
    end = find_frame(data, at + 1)
    if end < 0:
        end = len(data) - HEADER_BYTES + 1 if full else len(data) + 1
    return end


def read_frames(file: BinaryIO, *, max_frame_bytes: int) -> Iterator[bytes]:
    """Yield the frames of a file to its end, with damage between them and half a frame at the end.

    Args:
        file: The file, at its beginning.
        max_frame_bytes: A longer frame is left out.

    Raises:
        OSError: If the file cannot be read.
    """
    rest = b""
    while read := file.read(_READ_BYTES):
        rest += read
        jump = -1
        while jump:
            found = split_frames(rest, max_line_bytes=max_frame_bytes, full=True, trusts_nuls=True)
            for block in found.blocks:
                yield from block.lines
            rest, jump = rest[found.taken :], found.jump
            if jump > len(rest) and not _skip(file, jump - len(rest)):
                yield rest[:HEADER_BYTES]
                return
            rest = rest[jump:]
    if rest:
        yield rest


def _skip(file: BinaryIO, left_bytes: int) -> bool:
    """Pass over bytes; return whether all of them were there."""
    while left_bytes and (read := file.read(min(left_bytes, _READ_BYTES))):
        left_bytes -= len(read)
    return not left_bytes
