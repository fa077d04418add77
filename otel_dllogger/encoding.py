"""A record's step and data as compact JSON, by the fastest encoder that says the same.

orjson writes NaN as ``null``, which loses a diverged loss, and text as UTF-8, which a
script that reads in an ASCII locale cannot. It also writes beyond its buffer, and ends the
process, where tuples are nested some hundreds deep. So it is given flat dicts of plain values
alone, where it writes what the standard encoder does, and that one everything else.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from orjson import (
    OPT_PASSTHROUGH_DATACLASS,
    OPT_PASSTHROUGH_DATETIME,
    OPT_PASSTHROUGH_SUBCLASS,
    dumps,
)

from otel_dllogger.interruptions import let_through
from otel_dllogger.values import NUMBER_TYPES

if TYPE_CHECKING:
    from otel_dllogger.record import Record
    from otel_dllogger.values import Values

# It would otherwise look into what pretends to be of a plain type.
_STRICT = OPT_PASSTHROUGH_SUBCLASS | OPT_PASSTHROUGH_DATACLASS | OPT_PASSTHROUGH_DATETIME

_encode_standard = json.JSONEncoder(separators=(",", ":")).encode


def encode_record(record: Record) -> bytes:
    """Encode what a record logged, once for all backends.

    Args:
        record: The record; its ``encoded`` and ``numbers_only`` are filled in.
    """
    data = record.data
    if type(data) is dict and record.values is None:
        numbers = data.copy()  # from here on nobody else has it
        try:
            if NUMBER_TYPES.issuperset(map(type, numbers.values())):
                encoded = dumps(numbers, None, _STRICT)
                if encoded.isascii() and b"null" not in encoded:  # which stands for NaN and Inf
                    record.data = numbers
                    record.numbers_only = True
                    record.encoded = encoded
                    return encoded
        except Exception as error:  # keys that are not text, ints of over 64 bits: the longer way
            let_through(error)
    record.encoded = encode_values(record.convert())
    return record.encoded


def encode_values(values: Values) -> bytes:
    """Encode what a record logged.

    Args:
        values: The converted data.
    """
    if values.flat and values.finite:
        try:
            encoded = dumps(values.plain, None, _STRICT)
        except TypeError as error:  # an int of more than 64 bits, a lone surrogate
            let_through(error)
        else:
            if encoded.isascii():
                return encoded
    return encode_plain(values.plain)


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
