"""A record's step and data as compact JSON, by the fastest encoder that says the same.

orjson writes NaN as ``null``, which loses a diverged loss, and text as UTF-8, which a
script that reads in an ASCII locale cannot. So it gets what it writes as the standard
encoder does, and that one everything else.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from orjson import dumps

from otel_dllogger.values import to_plain

if TYPE_CHECKING:
    from otel_dllogger.record import Record
    from otel_dllogger.values import Values

_encode_standard = json.JSONEncoder(separators=(",", ":")).encode


def encode_record(record: Record) -> bytes:
    """Encode what a record logged, once for all backends.

    Args:
        record: The record; its ``encoded`` and ``numbers_only`` are filled in.
    """
    data = record.data
    if record.values is None:
        try:
            encoded = dumps(data)
            total = sum(data.values())  # refuses text, lists, None; is NaN if anything is
            if total - total == 0.0 and type(data) is dict and encoded.isascii():
                record.numbers_only = True
                record.encoded = encoded
                return encoded
        except Exception:  # noqa: S110 - whatever it is, the longer way can do it
            pass
    record.encoded = encode_values(record.convert())
    return record.encoded


def encode_values(values: Values) -> bytes:
    """Encode what a record logged.

    Args:
        values: The converted data.
    """
    if values.flat and values.finite:
        try:
            encoded = dumps(values.plain)
        except TypeError:  # an int of more than 64 bits, a lone surrogate
            pass
        else:
            if encoded.isascii():
                return encoded
    try:
        return encode_plain(values.plain)
    except (TypeError, ValueError):  # another thread put something else in, after the conversion
        return encode_plain(to_plain(values.plain))


def encode_spaced(plain: Any) -> bytes:
    """Encode a plain value with DLLogger's blanks after ``,`` and ``:``.

    Args:
        plain: What ``to_plain`` returned.
    """
    return json.dumps(plain).encode()


def encode_plain(plain: Any) -> bytes:
    """Encode a plain value; NaN and Inf are bare tokens, as DLLogger writes them.

    Args:
        plain: What ``to_plain`` returned.
    """
    return _encode_standard(plain).encode()
