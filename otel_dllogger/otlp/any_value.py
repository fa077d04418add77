"""Plain values as OpenTelemetry's messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList

if TYPE_CHECKING:
    from collections.abc import Mapping

_INT64 = range(-(2**63), 2**63)


def key_values(values: Mapping[str, Any]) -> list[KeyValue]:
    """Return a mapping as OTLP messages.

    Args:
        values: What ``any_value`` takes, by name.
    """
    return [KeyValue(key=_text(key), value=any_value(value)) for key, value in values.items()]


def any_value(value: object) -> AnyValue:
    """Return a value as an OTLP message.

    Args:
        value: None, text, numbers, and mappings and sequences of those; anything else becomes
            text, and so does a whole number that has more than 64 bits.
    """
    if value is None:
        return AnyValue()
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int) and value in _INT64:
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, dict):
        return AnyValue(kvlist_value=KeyValueList(values=key_values(value)))
    if isinstance(value, (list, tuple)):
        return AnyValue(array_value=ArrayValue(values=map(any_value, value)))
    return AnyValue(string_value=_text(str(value)))


def _text(text: str) -> str:
    """Return a text that UTF-8 can carry: lone surrogates are escaped."""
    return text.encode("utf-8", "backslashreplace").decode()
