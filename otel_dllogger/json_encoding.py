"""Encode a record's step and data as compact JSON, with the fastest encoder that is correct.

orjson writes NaN as ``null``, which loses a diverged loss, and text as UTF-8, which a script
that reads in an ASCII locale cannot decode. It also writes beyond its buffer, and crashes the
process, where tuples are nested some hundreds of levels deep. So it only gets flat dicts of
plain values, for which its output equals the standard encoder's. The standard encoder gets
everything else.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from orjson import dumps

from otel_dllogger.runtime.interruptions import let_through

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_dllogger.record import Record

_encode_standard = json.JSONEncoder(separators=(",", ":")).encode


def encode_record(record: Record) -> bytes:
    """Encode what a record logged, once for all backends.

    Args:
        record: The record; its ``encoded`` is filled in.
    """
    data = record.data
    if record.values is None and type(data) is dict:
        # A short cut to the result of ``convert``: the check of the keys, which would take as
        # long here as that of the values, is left to orjson.
        numbers = data.copy()  # from here on nobody else can change it
        for value in numbers.values():
            kind = type(value)  # one by one, with `is`: a type's own comparison may raise, or lie
            if kind is not float and kind is not int and kind is not bool:
                break
        else:
            try:
                encoded = dumps(numbers)
                total = sum(numbers.values())
                # The sum is NaN or Inf if any of them is, and such a sum minus itself is not 0.
                if total - total == 0.0 and encoded.isascii():
                    record.values = (numbers, numbers, True, True)
                    record.encoded = encoded
                    return encoded
            except Exception as error:  # keys that are not text, ints of more than 64 bits
                let_through(error)
    record.encoded = encode_values(record.convert())
    return record.encoded


def encode_values(values: tuple[Any, Mapping[str, float], bool, bool]) -> bytes:
    """Encode the data of a record as JSON.

    Args:
        values: The fields of ``Values``.
    """
    plain, _numbers, finite, flat = values
    if flat and finite:
        try:
            encoded = dumps(plain)
        except TypeError as error:  # an int of more than 64 bits, a lone surrogate
            let_through(error)
        else:
            if encoded.isascii():
                return encoded
    return encode_plain(plain)


def encode_spaced(plain: Any) -> bytes:
    """Encode a plain value with a blank after ``,`` and ``:``, as DLLogger does.

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
