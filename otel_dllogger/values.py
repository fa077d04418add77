"""Convert any object that a user logs into plain numbers, strings and lists.

Scripts log tensors, numpy scalars, numbers as text, whole configurations and worse.
One conversion per record gives every backend what it needs: a JSON-able copy for the
log, and the numbers for the metrics. Nothing here raises, and neither numpy nor torch
is imported: their objects are recognised by their methods.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import numbers
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from otel_dllogger.runtime.interruptions import let_through

MAX_DEPTH = 64
"""Levels of nesting that are converted; the standard encoder's own limit is about 900."""

MAX_ARRAY_ELEMENTS = 100_000
"""The most elements of an array that are written out; a larger array is described instead."""

MAX_ITEMS = 1_000_000
"""The most items converted within one value; nested lists can be larger than the memory."""

MAX_REPR_CHARACTERS = 10_000
"""The most characters of a ``repr`` that are kept."""

HASH_CHARACTERS = 16
"""Hexadecimal digits of a hash: 64 bits, so that no two of a million texts collide."""

_NUMERIC_TEXT = re.compile(
    r"\s*[+-]?(?:(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?|nan|inf|infinity)\s*",
    re.IGNORECASE | re.ASCII,
)

_Parents = tuple[Any, ...]
"""A list with the number of items that may still be converted, and the ids of the parents."""


class Values(NamedTuple):
    """The data of one ``log`` call, in the forms that backends need.

    Attributes:
        plain: A JSON-able copy; for a mapping a ``dict`` with ``str`` keys.
        numbers: The metrics in it by name: ints, floats, bools, NaN and Inf included.
        finite: Whether all numbers are finite.
        flat: Whether ``plain`` is a dict of only numbers, strings and None, so that a fast
            encoder writes it as the standard one does (if it is also finite).
    """

    plain: Any
    numbers: Mapping[str, float]
    finite: bool
    flat: bool


def convert(data: object) -> Values:
    """Convert the data of one ``log`` call.

    Args:
        data: What the user passed as ``data``: usually a dict of metrics, but possibly a
            Namespace, a configuration object or plain text.

    Returns:
        The values, which the user can no longer change.
    """
    try:
        return (_convert_numbers(data) if type(data) is dict else None) or _convert(data)
    except Exception as error:
        let_through(error)
        return Values(_beyond_showing(data), {}, finite=True, flat=False)


def _convert_numbers(data: dict[Any, Any]) -> Values | None:
    """Convert a dict that contains only finite numbers; return None for anything else."""
    numbers = data.copy()
    for key, value in numbers.items():
        kind = type(value)  # `is`, one by one: a type's own hash or comparison may raise, or lie
        if (kind is not float and kind is not int and kind is not bool) or type(key) is not str:
            return None
    try:
        total = sum(numbers.values(), 0.0)
    except OverflowError as error:  # an int beyond float's range
        let_through(error)
        return None
    if total - total != 0.0:  # like ``is_finite``, without a call for each record
        return None
    return Values(numbers, numbers, finite=True, flat=True)


def _convert(data: object) -> Values:
    pairs = _items(data)
    if pairs is None:
        return Values(to_plain(data), {}, finite=True, flat=False)
    plain: dict[str, Any] = {}
    numbers: dict[str, float] = {}
    finite = flat = True
    for key, value in pairs:
        name = key if type(key) is str else key_text(key)
        kind = type(value)
        if not (kind is float or kind is int or kind is bool or kind is str or value is None):
            value = to_plain(value)  # noqa: PLW2901 - the plain value takes its place
            kind = type(value)
        plain[name] = value
        if kind is float:
            number = value
        elif kind is int or kind is bool or kind is str:
            number = to_number(value)
            if number is None:
                continue
        else:
            flat = flat and value is None
            continue
        numbers[name] = number
        if number - number != 0.0:  # like ``is_finite``, without a call for each number
            finite = False
            plain[name] = to_plain(value)  # an int can have too many digits to be written
    return Values(plain, numbers, finite, flat)


def _items(data: object) -> list[tuple[object, Any]] | None:
    """Return the pairs of a mapping-like object; None if it is not one."""
    try:
        if isinstance(data, Mapping):
            # A copy first: another thread may be changing the dict.
            return list(dict(data).items())
        if dataclasses.is_dataclass(data) and not isinstance(data, type):
            return [(f.name, getattr(data, f.name, None)) for f in dataclasses.fields(data)]
        if type(data).__name__ == "Namespace" and hasattr(data, "__dict__"):
            return list(vars(data).items())
    except Exception as error:
        let_through(error)
    return None


def is_finite(number: float) -> bool:
    """Return whether a number is neither NaN nor Inf, which minus themselves are NaN.

    An int of any size is finite; ``math.isfinite`` raises if it does not fit into a float.
    """
    return number - number == 0.0


def to_number(value: object) -> float | None:
    """Return a plain value as a number, or None if it is not one.

    Ints beyond the range of a float become plus or minus infinity. Text counts if it
    spells a decimal number, NaN or Inf: TCAP DLLogger writes its numbers as text.

    Args:
        value: A plain value, as ``to_plain`` returns it.
    """
    if isinstance(value, str):
        if _NUMERIC_TEXT.fullmatch(value) is None:
            return None
    elif not isinstance(value, (int, float)):
        return None
    try:
        return float(value)
    except OverflowError as error:
        let_through(error)
        return float("inf") if value > 0 else float("-inf")  # type: ignore[operator]
    except ValueError as error:
        let_through(error)
        return None


def to_plain(value: object) -> Any:
    """Return a JSON-able copy of any object, without ever raising.

    Args:
        value: Anything: numpy scalars, tensors of any dtype and device, Decimals,
            bytes, sets, enums, paths, configuration objects, cycles.

    Returns:
        None, bool, int, float, str, or lists and ``str``-keyed dicts of those.
    """
    try:
        return _plain(value, ())
    except (RecursionError, MemoryError) as error:
        let_through(error)
        return f"<{_type_name(value)} too large to be logged>"


def _plain(value: Any, parents: _Parents) -> Any:
    try:  # even asking for a type can raise, if its metaclass does
        kind = type(value)
        known = _CONVERTERS.get(id(kind))
        if known is None:
            known = _CONVERTERS[id(kind)] = (kind, _converter_of(kind))
            if len(_CONVERTERS) > _MAX_CACHED_TYPES:  # types made in a loop must not pile up
                for number in list(_CONVERTERS)[len(_BUILT_IN) :]:
                    _CONVERTERS.pop(number, None)
        converter = known[1]
        if converter is _same:
            return value
        return converter(value, parents)
    except (RecursionError, MemoryError):
        raise
    except Exception as error:
        let_through(error)
        return safe_repr(value)


def _converter_of(kind: type) -> Callable[[Any, _Parents], Any]:
    """Choose the converter for a type, once: later values of the type only need the table."""
    for base, converter in _BY_BASE:
        if issubclass(kind, base):
            return converter
    if hasattr(kind, "item") and (hasattr(kind, "ndim") or hasattr(kind, "shape")):
        return _plain_array
    if dataclasses.is_dataclass(kind):
        return _plain_mapping
    if kind.__name__ == "Namespace":
        return _plain_mapping
    if hasattr(kind, "__float__"):
        return lambda value, _parents: float(value)
    if hasattr(kind, "__index__"):
        return lambda value, _parents: _plain_int(int(value), ())
    return lambda value, _parents: safe_repr(value)


def _same(value: Any, _parents: _Parents) -> Any:
    return value


def _plain_int(value: int, _parents: _Parents) -> int | str:
    value = int(value)
    if value.bit_length() > _SAFE_INT_BITS:
        try:
            str(value)
        except ValueError as error:  # sys.set_int_max_str_digits: 4,300 digits by default
            let_through(error)
            return f"{value:#x}"
    return value


def _plain_text(value: str, _parents: _Parents) -> str:
    return str.__str__(value)


def _plain_bytes(value: bytes | bytearray | memoryview, _parents: _Parents) -> str:
    return bytes(value).decode("utf-8", "backslashreplace")


def _plain_enum(value: enum.Enum, parents: _Parents) -> Any:
    return _plain(value.value, parents)


def _plain_path(value: os.PathLike[Any], _parents: _Parents) -> str:
    return os.fsdecode(value)


def _plain_date(value: dt.date, _parents: _Parents) -> str:
    return str(value)


def _plain_mapping(value: Any, parents: _Parents) -> Any:
    pairs = _items(value)
    if pairs is None:
        return safe_repr(value)
    inner = _descend(value, parents, len(pairs))
    if isinstance(inner, str):
        return inner
    return {key_text(key): _plain(item, inner) for key, item in pairs}


def _plain_sequence(value: Iterable[Any], parents: _Parents) -> Any:
    items = list(value)
    inner = _descend(value, parents, len(items))
    if isinstance(inner, str):
        return inner
    return [_plain(item, inner) for item in items]


def _plain_set(value: Iterable[Any], parents: _Parents) -> Any:
    items = _plain_sequence(value, parents)
    if isinstance(items, str):
        return items
    # Sets have no order, and the order of text changes from process to process.
    return sorted(items, key=lambda item: (type(item).__name__, repr(item)))


def _plain_array(value: Any, parents: _Parents) -> Any:
    shape = tuple(value.shape)
    if not shape:
        item = value.item()
        if type(item) is type(value):  # numpy's longdouble has no Python equivalent
            return float(item) if isinstance(item, numbers.Real) else safe_repr(item)
        return _plain(item, parents)
    size = 1
    for length in shape:
        size *= int(length)
    if size > MAX_ARRAY_ELEMENTS or (parents and size > parents[0][0]):
        return f"<{_type_name(value)} of {getattr(value, 'dtype', '?')}, shape {shape}>"
    return _plain(value.tolist(), parents)


def _descend(value: object, parents: _Parents, length: int) -> _Parents | str:
    """Return the parents for the items of a container, or text that says why it is left out."""
    budget, *around = parents or ([MAX_ITEMS],)
    budget[0] -= length
    if id(value) in around:
        return f"<{_type_name(value)}: contains itself>"
    if len(around) >= MAX_DEPTH:
        return f"<{_type_name(value)}: nested deeper than {MAX_DEPTH} levels>"
    if budget[0] < 0:
        return f"<{_type_name(value)}: more than {MAX_ITEMS} items>"
    return (budget, *around, id(value))


def key_text(key: object) -> str:
    """Return a key as JSON writes it: ``true``, ``null``, a number, or text as it is."""
    if key is None or key is True or key is False:
        return {None: "null", True: "true", False: "false"}[key]
    try:  # an object may raise when it is asked for its class
        if isinstance(key, str):
            return str.__str__(key)
        if isinstance(key, int):
            return str(_plain_int(key, ()))
        if isinstance(key, float):
            return float.__repr__(key)
    except Exception as error:  # then ``str`` of it is the key
        let_through(error)
    return safe_text(key)


def short_hash(text: str) -> str:
    """Return a hash of ``HASH_CHARACTERS`` digits, to tell a cut text from all others."""
    from hashlib import sha256  # noqa: PLC0415 - hardly ever needed, and not at import

    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:HASH_CHARACTERS]


def safe_text(value: object) -> str:
    """Return ``str(value)``, or a description of the value if that raises."""
    if type(value) is str:
        return value
    try:
        return str.__str__(str(value))[:MAX_REPR_CHARACTERS]  # may be text of a user's class
    except Exception as error:
        let_through(error)
        return _beyond_showing(value)


def safe_repr(value: object) -> str:
    """Return ``repr(value)``, cut to a limited length, or a description if that raises."""
    try:
        return str.__str__(repr(value))[:MAX_REPR_CHARACTERS]
    except Exception as error:
        let_through(error)
        return _beyond_showing(value)


def _beyond_showing(value: object) -> str:
    return f"<{_type_name(value)} that cannot be shown>"


def _type_name(value: object) -> str:
    name: str = _QUALNAME.__get__(type(value))
    return name


_QUALNAME = type.__dict__["__qualname__"]  # a metaclass may define its own, which raises


_SAFE_INT_BITS = 2_000  # 640 digits, the lowest limit that Python accepts, take 2,126 bits
_MAX_CACHED_TYPES = 1_000

_BY_BASE: tuple[tuple[Any, Callable[[Any, _Parents], Any]], ...] = (
    (bool, lambda value, _parents: bool(value)),
    (enum.Enum, _plain_enum),
    (int, _plain_int),
    (float, lambda value, _parents: float(value)),
    (str, _plain_text),
    ((bytes, bytearray, memoryview), _plain_bytes),
    (complex, lambda value, _parents: safe_repr(value)),
    (Mapping, _plain_mapping),
    ((list, tuple), _plain_sequence),
    ((set, frozenset), _plain_set),
    (os.PathLike, _plain_path),
    ((dt.date, dt.time, dt.timedelta), _plain_date),
    (type, lambda value, _parents: safe_repr(value)),
)

_BUILT_IN: dict[type, Callable[[Any, _Parents], Any]] = {
    type(None): _same,
    bool: _same,
    float: _same,
    str: _same,
    int: _plain_int,
    dict: _plain_mapping,
    list: _plain_sequence,
    tuple: _plain_sequence,
}
# The keys are the types' addresses, which are not reused while the types are in here: a type may
# have no hash, or the hash of another one.
_CONVERTERS = {id(kind): (kind, converter) for kind, converter in _BUILT_IN.items()}
