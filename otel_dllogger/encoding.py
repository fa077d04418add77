"""A record's step and data as compact JSON, by the fastest encoder that says the same.

orjson writes NaN as ``null``, which loses a diverged loss, and text as UTF-8, which a
script that reads in an ASCII locale cannot. So it gets what it writes as the standard
encoder does, and that one everything else.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from otel_dllogger.values import Values

_encode_standard = json.JSONEncoder(separators=(",", ":")).encode


def encode_values(values: Values) -> bytes:
    """Encode what a record logged.

    Args:
        values: The converted data.
    """
    if values.flat and values.finite:
        try:
            encoded = orjson.dumps(values.plain)
        except TypeError:  # an int of more than 64 bits, a lone surrogate
            pass
        else:
            if encoded.isascii():
                return encoded
    return encode_plain(values.plain)


def encode_plain(plain: Any) -> bytes:
    """Encode a plain value; NaN and Inf are bare tokens, as DLLogger writes them.

    Args:
        plain: What ``to_plain`` returned.
    """
    return _encode_standard(plain).encode()
