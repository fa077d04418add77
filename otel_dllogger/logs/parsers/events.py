"""Parse the events of TensorBoard's event files: the scalars among them, with times and steps.

====================================================  ==========================================
event                                                 step
====================================================  ==========================================
scalar                                                ``step``
scalars that are all of a validation or a test, by    ``(None, step, None)``
their names or the file's folder
``epoch_...`` in a folder ``train`` or                ``(step,)``: Keras counts its epochs
``validation``
picture, histogram, text, graph, hyper-parameters     none: there is nothing to plot by step
====================================================  ==========================================

TensorFlow 1, PyTorch and tensorboardX write ``simple_value``, TensorFlow 2 a tensor of one element
whose plugin is ``scalars``, or not named.
"""

from __future__ import annotations

import functools
import struct
from typing import TYPE_CHECKING, Any

from otel_dllogger.diagnostics import (
    INVALID_UTF8,
    MALFORMED,
    NO_TIME,
    NOT_A_RECORD,
    NUL_BYTES,
    TORN,
)
from otel_dllogger.errors import installing
from otel_dllogger.logs.parsers.context import SkippedError
from otel_dllogger.logs.parsers.event_names import path_stage
from otel_dllogger.logs.parsers.formats import TENSORBOARD, FileRecord
from otel_dllogger.logs.parsers.rows import is_validation
from otel_dllogger.logs.parsers.tfrecord import FOOTER_BYTES, HEADER_BYTES, frame_bytes, is_intact

if TYPE_CHECKING:
    from otel_dllogger.logs.parsers.context import FileContext

_LATEST_S = 10**11  # the year 5138
_CHECKED_BYTES = 4096  # a longer frame without a scalar holds a picture: its CRC takes long
_PLUGINS = (b"scalars", b"")

# By the number of a type: the field that holds its values, and their form in ``tensor_content``.
_TYPES = {
    1: ("float_val", struct.Struct("<f")),
    2: ("double_val", struct.Struct("<d")),
    3: ("int_val", struct.Struct("<i")),
    4: ("int_val", struct.Struct("<B")),
    5: ("int_val", struct.Struct("<h")),
    6: ("int_val", struct.Struct("<b")),
    9: ("int64_val", struct.Struct("<q")),
    10: ("bool_val", struct.Struct("<?")),
    14: ("half_val", struct.Struct("<H")),
    17: ("int_val", struct.Struct("<H")),
    19: ("half_val", struct.Struct("<H")),
    22: ("uint32_val", struct.Struct("<I")),
    23: ("uint64_val", struct.Struct("<Q")),
}
_BFLOAT16, _HALF = 14, 19
_MISSING = f"TensorBoard's event files need a package: {installing('tensorboard')}"


def read_frame(frame: bytes, context: FileContext) -> list[FileRecord]:
    """Read one frame of an event file.

    Args:
        frame: The frame; or damage, or the beginning of a frame at the end of the file.
        context: The file.

    Returns:
        A record with the scalars, if there are any.
    """
    context.is_events = True
    try:
        record = _read(frame, context)
    except SkippedError as error:
        context.skip(error.reason, error.detail)
        return []
    return [] if record is None else [record]


def _read(frame: bytes, context: FileContext) -> FileRecord | None:
    event = _parse(frame, context)
    data = {}
    for value in event.summary.value:
        number = _scalar(value)
        if number is not None:
            data[_decode(value.tag)] = number
    if (data or len(frame) <= _CHECKED_BYTES) and not is_intact(frame):
        raise SkippedError(MALFORMED, "an event whose checksum is wrong")
    if event.file_version:
        context.run_start_us = context.run_start_us or _time_us(event)
    if not data:
        raise SkippedError(NOT_A_RECORD)
    time_us, stage = _time_us(event), path_stage(context.name)
    record = FileRecord(time_us, context.elapsed_us(time_us), _step(event.step, stage, data), data)
    record.log_format = TENSORBOARD
    record.header_stage = stage
    record.file_rank = context.rank
    context.count(TENSORBOARD)
    return record


def _parse(frame: bytes, context: FileContext) -> Any:
    length = frame_bytes(frame) if len(frame) >= HEADER_BYTES else len(frame) + 1
    if length is None:
        raise SkippedError(MALFORMED if any(frame) else NUL_BYTES, "bytes that are not an event")
    if length > len(frame):
        raise SkippedError(TORN)
    messages = _load_messages()
    if messages is None:
        context.guesses.setdefault("package", _MISSING)
        raise SkippedError(NOT_A_RECORD)
    context.guesses.pop("package", None)  # it was missing when the checkpoint was saved
    try:
        return messages.Event.FromString(frame[HEADER_BYTES:-FOOTER_BYTES])
    except messages.DecodeError:
        raise SkippedError(MALFORMED, "an event that cannot be decoded") from None


@functools.cache
def _load_messages() -> Any:
    """Return the module with the messages, None if protobuf is not installed."""
    try:
        from otel_dllogger.logs.parsers import event_messages  # noqa: PLC0415
    except ImportError:
        return None
    return event_messages


def _scalar(value: Any) -> float | None:
    if value.HasField("simple_value"):
        return float(value.simple_value)
    is_scalar = value.metadata.plugin_data.plugin_name in _PLUGINS
    return _only_element(value.tensor) if is_scalar and value.HasField("tensor") else None


def _only_element(tensor: Any) -> float | None:
    """Return the element of a tensor that has one; None for others, and for text."""
    dtype = tensor.dtype
    if dtype not in _TYPES or any(dimension.size != 1 for dimension in tensor.shape.dim):
        return None
    field, form = _TYPES[dtype]
    content, numbers = tensor.tensor_content, getattr(tensor, field)
    if len(content) == form.size:
        (number,) = form.unpack(content)
    elif len(numbers) == 1 and not content:
        number = numbers[0]
    else:
        return None
    if dtype == _HALF:
        (number,) = struct.unpack("<e", struct.pack("<H", number & 0xFFFF))
    elif dtype == _BFLOAT16:
        (number,) = struct.unpack("<f", struct.pack("<I", (number & 0xFFFF) << 16))
    return float(number)


def _decode(tag: bytes) -> str:
    try:
        return tag.decode()
    except UnicodeDecodeError:
        raise SkippedError(INVALID_UTF8) from None


def _time_us(event: Any) -> int:
    time_s: float = event.wall_time
    if not 0 < time_s < _LATEST_S:
        raise SkippedError(NO_TIME)
    return round(time_s * 1e6)


def _step(step: int, stage: str | None, data: dict[str, float]) -> Any:
    if stage is not None and all(name.startswith("epoch_") for name in data):
        return (step,)
    if stage in ("val", "test") or (stage is None and is_validation(data)):
        return (None, step, None)
    return step
