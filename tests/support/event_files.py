"""TensorBoard's event files, written without the package's code and without protobuf."""

from __future__ import annotations

import struct

T0 = 1_758_276_000.0
"""The time of the first event, in seconds."""

NAME = "events.out.tfevents.1758276000.node1.123.0"


def crc32c(data: bytes) -> int:
    """Return the CRC-32C of some bytes, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def frame(payload: bytes) -> bytes:
    """Return a record of a TFRecord file."""
    length = struct.pack("<Q", len(payload))
    return length + masked(length) + payload + masked(payload)


def long_frame(length: int) -> bytes:
    """Return a record whose data nobody reads, such as a graph."""
    packed = struct.pack("<Q", length)
    return packed + masked(packed) + bytes(length) + b"CRC?"


def varint(number: int) -> bytes:
    number &= 2**64 - 1
    encoded = b""
    while number > 127:
        encoded += bytes((number & 127 | 128,))
        number >>= 7
    return encoded + bytes((number,))


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def content(field: int, value: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(value)) + value


def value(tag: str, simple: float | None = None, *, tensor: bytes = b"", plugin: str = "") -> bytes:
    """Return a value of a summary."""
    encoded = content(1, tag.encode())
    if simple is not None:
        encoded += varint(2 << 3 | 5) + struct.pack("<f", simple)
    if tensor:
        encoded += content(8, tensor)
    if plugin:
        encoded += content(9, content(1, content(1, plugin.encode())))
    return content(1, encoded)


def event(step: int, *values: bytes, time_s: float | None = None, rest: bytes = b"") -> bytes:
    """Return the frame of an event; one second passes in a step."""
    time_s = T0 + step if time_s is None else time_s
    head = varint(1 << 3 | 1) + struct.pack("<d", time_s) + number(2, step)
    return frame(head + (content(5, b"".join(values)) if values else b"") + rest)


def scalars(first: int, last: int, name: str = "Loss/train") -> bytes:
    """Return the events of the steps ``first`` to ``last - 1``."""
    return b"".join(event(step, value(name, 8 / (1 + step))) for step in range(first, last))


VERSION = frame(varint(1 << 3 | 1) + struct.pack("<d", T0) + content(3, b"brain.Event:2"))
