"""Find the frames of a TFRecord file, and check them.

=======================  ==========================================================
bytes                    what they are
=======================  ==========================================================
8                        the length of the data, little endian
4                        the masked CRC-32C of these 8 bytes
length                   the data
4                        the masked CRC-32C of the data
=======================  ==========================================================

Source: https://www.tensorflow.org/tutorials/load_data/tfrecord
"""

from __future__ import annotations

import struct

HEADER_BYTES = 12
"""Bytes before the data."""

FOOTER_BYTES = 4
"""Bytes after the data."""

_HEADER = struct.Struct("<QI")
_CRC = struct.Struct("<I")
_NO_LENGTH = b"\0\0\0\0"  # the upper half of a length: no event has 4 GiB


def _make_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)  # noqa: PLW2901
        table.append(value)
    return tuple(table)


_TABLE = _make_table()


def masked_crc(data: bytes) -> int:
    """Return the CRC-32C of some bytes, masked as TFRecord does."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def frame_bytes(data: bytes, at: int = 0) -> int | None:
    """Return how long the frame is that begins at an offset.

    Args:
        data: At least ``HEADER_BYTES`` bytes from there on.
        at: The offset.

    Returns:
        The length with header and footer; None if no frame begins there.
    """
    if data[at + 4 : at + 8] != _NO_LENGTH:
        return None
    length, crc = _HEADER.unpack_from(data, at)
    if masked_crc(data[at : at + 8]) != crc:
        return None
    return int(length) + HEADER_BYTES + FOOTER_BYTES


def find_frame(data: bytes, start: int) -> int:
    """Return where the next frame begins, from ``start`` on; -1 if no whole header follows."""
    last = len(data) - HEADER_BYTES
    at = start
    while at <= last:
        found = data.find(_NO_LENGTH, at + 4, last + 8)
        if found < 0:
            return -1
        at = found - 4
        if frame_bytes(data, at) is not None:
            return at
        at += 1
    return -1


def is_frame(line: bytes) -> bool:
    """Return whether some bytes are one whole frame, or the beginning of one."""
    if len(line) < HEADER_BYTES:
        return False
    length = frame_bytes(line)
    return length is not None and length >= len(line)


def is_intact(frame: bytes) -> bool:
    """Return whether the data of a whole frame are as they were written."""
    (crc,) = _CRC.unpack_from(frame, len(frame) - FOOTER_BYTES)
    return masked_crc(frame[HEADER_BYTES:-FOOTER_BYTES]) == int(crc)
