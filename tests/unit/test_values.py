"""Whatever a user logs becomes plain values, and never an exception."""

from __future__ import annotations

import argparse
import collections
import datetime as dt
import enum
import json
import math
import sys
import threading
import time
import types
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import pytest

from otel_dllogger import JSONStreamBackend, Logger
from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.json_encoding import encode_plain, encode_values
from otel_dllogger.values import (
    MAX_ARRAY_ELEMENTS,
    MAX_DEPTH,
    MAX_ITEMS,
    MAX_REPR_CHARACTERS,
    Values,
    convert,
    key_text,
    safe_repr,
    safe_text,
    to_number,
    to_plain,
)

pytestmark = pytest.mark.newest_only

HUGE = 10**5000


class Tensor:
    """Do what a torch tensor does, without torch."""

    def __init__(self, values, dtype="torch.bfloat16") -> None:
        self._values = np.asarray(values)
        self.dtype = dtype

    @property
    def shape(self):
        return self._values.shape

    def item(self):
        if self._values.size != 1:
            raise RuntimeError("a Tensor with 2 elements cannot be converted to Scalar")
        return self._values.item()

    def tolist(self):
        return self._values.tolist()

    def __float__(self) -> float:
        return float(self.item())

    def __bool__(self) -> bool:
        raise RuntimeError("Boolean value of Tensor is ambiguous")

    def __eq__(self, other):
        raise RuntimeError("compare elements instead")

    __hash__ = object.__hash__


class Color(enum.Enum):
    RED = "red"
    DEEP = (1, 2)


class Level(enum.IntEnum):
    HIGH = 3


@dataclass
class Config:
    lr: float = 0.1
    betas: tuple = (0.9, 0.999)
    inner: dict = field(default_factory=lambda: {"a": Path("/x")})


@dataclass(slots=True)
class Slotted:
    lr: float = 0.5


class Raising:
    """Raise whatever is asked of it."""

    def __repr__(self) -> str:
        raise ValueError("no repr")

    __str__ = __repr__

    def __float__(self) -> float:
        raise TypeError("no float")


class RaisingArray(Raising):
    shape = ()
    ndim = 0

    def item(self):
        raise RuntimeError("on another device")


class Liar(Raising):
    @property
    def __class__(self):
        raise RuntimeError("no class")


class RaisingMeta(type):
    def __getattr__(cls, name):
        raise RuntimeError("no attributes")


class OfRaisingMeta(metaclass=RaisingMeta):
    def __repr__(self) -> str:
        return "OfRaisingMeta()"


class Exotic(Mapping):
    """Be a mapping and nothing else."""

    def __init__(self, pairs) -> None:
        self._pairs = pairs

    def __getitem__(self, key):
        return dict(self._pairs)[key]

    def __iter__(self):
        return iter(dict(self._pairs))

    def __len__(self) -> int:
        return len(self._pairs)


class RaisingMapping(Exotic):
    def __init__(self) -> None:
        super().__init__({})

    def __iter__(self):
        raise KeyError("no keys")

    def __repr__(self) -> str:
        return "RaisingMapping()"


class Floats:
    """Convert to a float, as any scalar of a library does."""

    def __float__(self) -> float:
        return 2.5


class Indexed:
    """Convert to an int only."""

    def __index__(self) -> int:
        return 7


class EndlessRepr:
    def __repr__(self) -> str:
        return repr(self)


class Pair(NamedTuple):
    x: int
    y: int


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        raise ValueError("no str")


def cycle():
    """Make a list that contains itself."""
    items = [1]
    items.append(items)
    return items


def deep(levels):
    """Make lists within lists."""
    items = []
    for _ in range(levels):
        items = [items]
    return items


NUMBERS = [
    (1, 1),
    (-0.5, -0.5),
    (True, True),
    (np.float64(0.25), 0.25),
    (np.float32(0.25), 0.25),
    (np.float16(0.25), 0.25),
    (np.longdouble("0.25"), 0.25),
    *((kind(3), 3) for kind in (np.int8, np.int16, np.int32, np.int64, np.longlong, np.intp)),
    *((kind(3), 3) for kind in (np.uint8, np.uint16, np.uint32, np.uint64, np.ulonglong)),
    (np.bool_(True), True),
    (np.array(1.5), 1.5),
    (np.array(3, dtype=np.int32), 3),
    (Tensor(1.5), 1.5),
    (Tensor(7, "torch.int64"), 7),
    (Decimal("1.5"), 1.5),
    (Fraction(3, 2), 1.5),
    (Level.HIGH, 3),
    (Floats(), 2.5),
    (Indexed(), 7),
    ("1.5", "1.5"),
    (" 2e-3 ", " 2e-3 "),
    (np.str_("4"), "4"),
    (2**70, 2**70),
]


@pytest.mark.parametrize(("value", "plain"), NUMBERS, ids=lambda value: type(value).__name__)
def test_numbers_of_every_kind_are_metrics(value, plain):
    """Whatever is a number, of Python or of a library, is one in the log and a metric."""
    values = convert({"loss": value})
    assert ({"loss": plain}, {"loss": float(plain)}) == (values.plain, values.numbers)
    assert type(plain) is type(values.plain["loss"])
    assert values.finite


OTHERS = [
    (None, None),
    ("text", "text"),
    ("", ""),
    ("1_000", "1_000"),
    ("0x10", "0x10"),
    ("٣", "٣"),
    (Text("x"), "x"),
    (b"bytes \xff", "bytes \\xff"),
    (bytearray(b"ab"), "ab"),
    (memoryview(b"ab"), "ab"),
    (1 + 2j, "(1+2j)"),
    (np.complex64(1 + 2j), "(1+2j)"),
    ({3, 1, 2}, [1, 2, 3]),
    (frozenset({"b", "a"}), ["a", "b"]),
    ((1, (2, 3)), [1, [2, 3]]),
    ([np.float32(0.5), None], [0.5, None]),
    (np.arange(3), [0, 1, 2]),
    (np.array([[1.5], [math.inf]]), [[1.5], [math.inf]]),
    (np.array(["a", 1, None], dtype=object), ["a", 1, None]),
    (np.datetime64("2024-01-02"), "2024-01-02"),
    (np.bytes_(b"x"), "x"),
    (np.zeros(0), []),
    (Tensor([1, 2]), [1, 2]),
    (Color.RED, "red"),
    (Color.DEEP, [1, 2]),
    (Config(), {"lr": 0.1, "betas": [0.9, 0.999], "inner": {"a": "/x"}}),
    (Slotted(), {"lr": 0.5}),
    (argparse.Namespace(lr=1, path=Path("p")), {"lr": 1, "path": "p"}),
    (PurePosixPath("/a/b"), "/a/b"),
    (dt.datetime(2024, 1, 2, 3, 4, 5), "2024-01-02 03:04:05"),  # noqa: DTZ001
    (dt.date(2024, 1, 2), "2024-01-02"),
    (dt.timedelta(seconds=90), "0:01:30"),
    (collections.OrderedDict(a=1), {"a": 1}),
    (collections.defaultdict(list, a=[1]), {"a": [1]}),
    (collections.Counter("aa"), {"a": 2}),
    (Pair(1, 2), [1, 2]),
    (Exotic({"a": {"b": (1,)}}), {"a": {"b": [1]}}),
    (types.MappingProxyType({"a": 1}), {"a": 1}),
    (range(3), "range(0, 3)"),
    (int, "<class 'int'>"),
    (uuid.UUID(int=1), "UUID('00000000-0000-0000-0000-000000000001')"),
    (OfRaisingMeta(), "OfRaisingMeta()"),
    (RaisingMapping(), "RaisingMapping()"),
    (Raising(), "<Raising that cannot be shown>"),
    (RaisingArray(), "<RaisingArray that cannot be shown>"),
    (EndlessRepr(), "<EndlessRepr that cannot be shown>"),
    (Decimal("sNaN"), "Decimal('sNaN')"),
    (cycle(), [1, "<list: contains itself>"]),
    (HUGE, f"{HUGE:#x}"),
    (np.zeros(MAX_ARRAY_ELEMENTS + 1), "<ndarray of float64, shape (100001,)>"),
]


@pytest.mark.parametrize(("value", "plain"), OTHERS, ids=lambda value: type(value).__name__)
def test_anything_else_is_written_as_it_can_be(value, plain):
    """What is no number is text, a list or a dict in the log, that JSON can hold."""
    assert plain == to_plain(value)
    values = convert({"x": value})
    assert plain == values.plain["x"]
    assert {"x": plain} == json.loads(encode_values(values))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "nan", "-Inf", np.float32("nan")])
def test_nonfinite_numbers_are_kept_and_told_apart(value):
    """NaN and Inf stay what they are, in the log and for the metrics to count."""
    values = convert({"loss": value, "other": 1})
    assert not values.finite
    assert str(float(value)) == str(values.numbers["loss"])
    logged = json.loads(encode_values(values))["loss"]
    assert str(float(value)) == str(float(logged))


@pytest.mark.parametrize(
    "data",
    [{"a": HUGE}, {"a": -HUGE, "b": 1.5}, {"a": HUGE, "b": -HUGE}, {"a": 10**400, "b": -(10**400)}],
)
def test_ints_beyond_a_float_are_written_and_not_finite(data):
    """An int of any length is in the log, as digits where Python writes them, else as hex."""
    values = convert(data)
    read = json.loads(encode_values(values))
    assert not values.finite
    assert data == {
        name: int(value, 16) if isinstance(value, str) else value for name, value in read.items()
    }
    assert all(
        number == (math.inf if data[name] > 0 else -math.inf)
        for name, number in values.numbers.items()
        if abs(data[name]) > 2
    )


def test_nesting_is_cut():
    """100,000 levels become MAX_DEPTH, whatever the interpreter's limit."""
    plain, levels = to_plain(deep(100_000)), 0
    while isinstance(plain, list):
        (plain,), levels = plain, levels + 1
    assert (f"<list: nested deeper than {MAX_DEPTH} levels>", MAX_DEPTH) == (plain, levels)


def test_a_call_near_the_limit_of_recursion_is_survived():
    """Where the user's own recursion left no room, there still is a value."""

    def recurse():
        try:
            return recurse()
        except RecursionError:
            return to_plain([[[[[[[[[[1.5]]]]]]]]]])

    assert isinstance(recurse(), (str, list))


@pytest.mark.slow
def test_shared_lists_do_not_multiply_without_end():
    """Lists that hold a list twice, 60 deep, are 2**60 items: they are cut, soon."""
    items = [1.5]
    for _ in range(60):
        items = [items, items]
    start_s = time.monotonic()
    encoded = encode_plain(to_plain(items))
    assert time.monotonic() - start_s < 20
    assert b"more than %d items" % MAX_ITEMS in encoded
    assert encoded.count(b"1.5") < MAX_ITEMS


@pytest.mark.parametrize("text", ["1" * 200_000 + "x", " " * 200_000 + "x", "1e" + "1" * 200_000])
def test_long_text_is_looked_at_once(text):
    """Text that nearly is a number does not take time with the square of its length."""
    start_s = time.monotonic()
    number = to_number(text)
    assert time.monotonic() - start_s < 5
    assert number in (None, math.inf)


@pytest.mark.parametrize("text", ["1_0", "1_0.5", "1e1_0", "\u0661\u0662", "\uff11", "0x10", "1 0"])
def test_text_that_python_alone_takes_for_a_number_is_text(text):
    """No other program would read it as one."""
    assert to_number(text) is None


def test_what_is_shown_is_bounded():
    """A repr or str is cut."""

    class Long:
        def __repr__(self) -> str:
            return "x" * 10**6

    assert MAX_REPR_CHARACTERS == len(safe_repr(Long())) == len(safe_text(Long()))
    assert "<Raising that cannot be shown>" == safe_text(Raising())


KEYS = [
    ("loss", "loss"),
    (Text("loss"), "loss"),
    (None, "null"),
    (True, "true"),
    (False, "false"),
    (1, "1"),
    (1.5, "1.5"),
    (math.inf, "inf"),
    (Level.HIGH, "3"),
    (HUGE, f"{HUGE:#x}"),
    (np.int64(2), "2"),
    (np.float32(0.5), "0.5"),
    ((1, 2), "(1, 2)"),
    (b"k", "b'k'"),
    (Color.RED, "Color.RED"),
    (Raising(), "<Raising that cannot be shown>"),
    (Liar(), "<Liar that cannot be shown>"),
    (OfRaisingMeta(), "OfRaisingMeta()"),
]


@pytest.mark.parametrize(("key", "text"), KEYS, ids=lambda key: type(key).__name__)
def test_keys_of_every_kind_are_text(key, text):
    """A key is written as the standard encoder writes it, anything else as its str."""
    assert text == key_text(key)
    values = convert({key: 1.5})
    assert ({text: 1.5}, {text: 1.5}) == (values.plain, values.numbers)
    assert {text: 1.5} == json.loads(encode_values(values))


@pytest.mark.parametrize(
    ("data", "plain"),
    [
        (None, None),
        ("just text", "just text"),
        (1.5, 1.5),
        ([1, 2], [1, 2]),
        (Liar(), "<Liar that cannot be shown>"),
        (RaisingMapping(), "RaisingMapping()"),
        ((number for number in (1, 2)), None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_data_that_is_no_dict_has_no_metrics(data, plain):
    """Text, lists and objects in the place of a dict are written, and are no metrics."""
    values = convert(data)
    assert {} == values.numbers
    assert plain == values.plain or values.plain.startswith("<generator object")


@pytest.mark.parametrize(
    "data",
    [Config(), Slotted(), argparse.Namespace(lr=0.5), Exotic({"lr": 0.5}), {"lr": np.float32(0.5)}],
    ids=lambda value: type(value).__name__,
)
def test_data_like_a_dict_has_metrics(data):
    """A dataclass, a Namespace or any mapping in the place of a dict has its numbers."""
    assert isinstance(convert(data).numbers["lr"], float)


def test_a_flat_finite_dict_is_copied_once():
    """What training loops log is taken as it is, and the loop may go on changing it."""
    data = {"loss": 0.5, "step": 3}
    values = convert(data)
    assert Values(data, data, finite=True, flat=True) == values
    assert data is not values.plain is values.numbers


def test_a_dict_that_changes_after_its_conversion_does_not_matter():
    """What another thread puts into a dict between conversion and encoding is not in the line."""
    data = {"loss": 0.5}
    values = convert(data)
    data |= {"raising": Raising(), "number": HUGE}
    assert {"loss": 0.5} == json.loads(encode_values(values))


@pytest.mark.slow
def test_a_dict_that_changes_all_the_time_is_written(tmp_path):
    """A dict that other threads fill and empty meanwhile costs neither line nor backend."""
    data = {"loss": 0.5}
    ended = threading.Event()
    odd = [1, 0.5, "text", None, Raising(), HUGE, np.float32(1), [1, [2]], math.nan]

    def change(offset):
        number = offset
        while not ended.is_set():
            number += 1
            data[f"key{number % 50}"] = odd[number % len(odd)]
            data.pop(f"key{(number + 25) % 50}", None)

    threads = [threading.Thread(target=change, args=(one,), daemon=True) for one in (0, 7)]
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        with Logger([JSONStreamBackend(1, tmp_path / "log")]) as logger:
            for number in range(1500):
                logger.log((0, number), data)
    finally:
        ended.set()
        sys.setswitchinterval(interval_s)
    for thread in threads:
        thread.join(20)
    lines = [json.loads(line[5:]) for line in (tmp_path / "log").read_text().splitlines()]
    assert [[0, number] for number in range(1500)] == [line["step"] for line in lines]
    assert all(line["data"]["loss"] == 0.5 for line in lines)
    assert 0 == DIAGNOSTICS.dropped["backend_failed"]


@pytest.mark.slow
def test_types_made_in_a_loop_do_not_pile_up():
    """10,000 classes leave a table of 1,000 at most."""
    from otel_dllogger import values  # noqa: PLC0415

    for _ in range(10_000):
        to_plain(type("Passing", (), {})())
    assert len(values._CONVERTERS) <= values._MAX_CACHED_TYPES + 1
