"""The part of TensorBoard's protocol that holds scalars, as messages of protobuf's own runtime.

Source: tensorboard/compat/proto: event.proto, summary.proto, tensor.proto, types.proto. A field
that is left out here, such as a picture, is passed over while a message is parsed.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

__all__ = ["DecodeError", "Event"]

_PACKAGE = "otel_dllogger.tensorboard"

# Names are bytes, since other people's need not be valid UTF-8. A type in capitals is a message.
_MESSAGES: dict[str, tuple[tuple[int, str, str], ...]] = {
    "Event": (
        (1, "wall_time", "double"),
        (2, "step", "int64"),
        (3, "file_version", "bytes"),
        (5, "summary", "Summary"),
    ),
    "Summary": ((1, "value", "Value*"),),
    "Value": (
        (1, "tag", "bytes"),
        (2, "simple_value", "float"),
        (8, "tensor", "Tensor"),
        (9, "metadata", "Metadata"),
    ),
    "Metadata": ((1, "plugin_data", "PluginData"),),
    "PluginData": ((1, "plugin_name", "bytes"),),
    "Tensor": (
        (1, "dtype", "int32"),
        (2, "shape", "Shape"),
        (4, "tensor_content", "bytes"),
        (5, "float_val", "float*"),
        (6, "double_val", "double*"),
        (7, "int_val", "int32*"),
        (10, "int64_val", "int64*"),
        (11, "bool_val", "bool*"),
        (13, "half_val", "int32*"),
        (16, "uint32_val", "uint32*"),
        (17, "uint64_val", "uint64*"),
    ),
    "Shape": ((2, "dim", "Dimension*"),),
    "Dimension": ((1, "size", "int64"),),
}


def _make_event() -> Any:
    file = FileDescriptorProto(name="otel_dllogger/tensorboard.proto", package=_PACKAGE)
    for message, fields in _MESSAGES.items():
        described = file.message_type.add(name=message)
        for number, name, kind in fields:
            of_kind = kind.rstrip("*")
            field = described.field.add(
                name=name,
                number=number,
                label=Field.LABEL_REPEATED if kind.endswith("*") else Field.LABEL_OPTIONAL,
            )
            if of_kind in _MESSAGES:
                field.type, field.type_name = Field.TYPE_MESSAGE, f".{_PACKAGE}.{of_kind}"
            else:
                field.type = Field.Type.Value(f"TYPE_{of_kind.upper()}")
    pool = DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Event"))


Event = _make_event()
"""An event: its time, its step, and the values of its summary."""
