"""Values, names and steps that no training script should log, and that some do."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import decimal
import enum
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import random

    from tests.soak.calls import Calls

DEEP = (10, 70, 1_000, 3_000, 100_000)
LONG = 1_000_000
MANY_NAMES = 3_000

ERRORS = (ValueError, TypeError, RecursionError, MemoryError, AttributeError, OSError, KeyError)
METHODS = (
    "__float__",
    "__str__",
    "__repr__",
    "__hash__",
    "__eq__",
    "__index__",
    "__int__",
    "__bool__",
    "__len__",
    "__iter__",
    "__format__",
    "__array__",
    "item",
    "tolist",
    "shape",
    "__reduce__",
)
BASES = (object, int, float, str, dict, list, tuple, collections.OrderedDict, collections.abc.Set)


def deep(dice: random.Random, _calls: Calls) -> Any:
    """Nest tuples, lists or dicts, up to where a C library's stack ends."""
    wrap = dice.choice(
        (lambda one: (one,), lambda one: [one], lambda one: {"a": one}, lambda one: ([one], 1))
    )
    value: Any = 1.5
    for _level in range(dice.choice(DEEP)):
        value = wrap(value)
    return dice.choice(({"deep": value}, {"loss": 1.0, "deep": value}, value))


def cyclic(dice: random.Random, _calls: Calls) -> Any:
    """Contain itself."""
    around: Any = dice.choice(([], {}))
    inner = {"list": [around, (around,)], "loss": 0.5}
    if isinstance(around, list):
        around.append(inner)
    else:
        around["inner"] = inner
    return dice.choice((inner, {"cycle": around}))


def number_shapes(dice: random.Random, _calls: Calls) -> Any:
    """Be a number that is not quite one."""
    return {
        "number": dice.choice(
            (
                10**5000,
                -(10**400),
                2**64,
                float("nan"),
                float("-inf"),
                5e-324,
                True,
                decimal.Decimal("1e999999"),
                decimal.Decimal("sNaN"),
                complex(1, -0.0),
                np.float16(1.5),
                np.longdouble(2),
                np.array(3),
                np.array([1.0, float("nan")]),
                np.array([object()], dtype=object),
                np.datetime64("NaT"),
                enum.IntEnum("Kind", {"one": 1}).one,  # type: ignore[attr-defined]
                "nan",
                " 1_000",
                b"\xff",
                {3, 4},
                range(5),
                (one for one in "ab"),
            )
        ),
        "loss": 0.25,
    }


def text_shapes(dice: random.Random, _calls: Calls) -> Any:
    """Hold text that files, pages and terminals stumble over."""
    text = dice.choice(
        (
            "\ud800",
            "\udcff\ud83d",
            "\0",
            "\r\n\x85\u2028",
            '"\\{}%s{0}',
            "é" * 50,
            "",
            " ",
            "\x1b[2J",
        )
    )
    return dice.choice(({text: 1.0}, {"text": text}, {text: text, "loss": 1}, text))


def names(dice: random.Random, _calls: Calls) -> Any:
    """Use more names than may be exported."""
    return {f"name{dice.randrange(MANY_NAMES)}": dice.random() for _ in range(dice.randrange(1, 9))}


def long_text(dice: random.Random, _calls: Calls) -> Any:
    """Be a text of 1 MB, or a list that long."""
    return dice.choice(({"text": "x" * LONG}, {"list": [0.5] * 150_000}))


def long_name(dice: random.Random, _calls: Calls) -> Any:
    """Use a name of 1 MB; there are two of them, since every page has them."""
    return {dice.choice("xy") * LONG: dice.random()}


def keys(dice: random.Random, _calls: Calls) -> Any:
    """Have keys that are not text."""
    some = (None, True, 1.5, float("nan"), (1, 2), b"k", 10**4500, frozenset((1,)), object(), int)
    return {one: dice.random() for one in dice.sample(some, 3)}


def not_a_dict(dice: random.Random, _calls: Calls) -> Any:
    """Be no dict of metrics."""

    @dataclasses.dataclass
    class Config:
        loss: float = 1.0
        inner: Any = None

    return dice.choice(
        (
            None,
            "text",
            3,
            [1, 2],
            {1, 2},
            (),
            argparse.Namespace(loss=1, x=None),
            Config(inner=Config()),
            Config,
            object(),
            collections.Counter("aab"),
            collections.ChainMap({"loss": 1}),
            [("loss", 1.0)],
        )
    )


def hostile(dice: random.Random, calls: Calls) -> Any:
    """Raise, sleep, flush or log where a value is asked for anything."""
    what = dice.choice(("raise", "raise", "sleep", "flush", "log", "info", "logger"))
    base = dice.choice(BASES) if what == "raise" else object
    methods = dice.sample(METHODS, dice.randrange(1, 6))
    kind = _hostile_type(dice, calls, what, base, methods)
    try:
        value = kind()
    except Exception:  # it cannot even be made: then its type is logged
        value = kind
    return dice.choice(({"hostile": value}, {"loss": 1.0, "list": [value, {"a": value}]}, value))


def _hostile_type(
    dice: random.Random, calls: Calls, what: str, base: Any, methods: list[str]
) -> type:
    error = dice.choice(ERRORS)
    act = dice.choice

    def method(_self: Any, *_arguments: Any) -> Any:
        if what == "raise":
            raise error("soak")
        if what == "sleep":
            time.sleep(0.002)
        elif not calls.deep:
            if what == "flush":
                calls.flush()
            elif what == "info":
                calls.info({"from": "value"})
            else:
                calls.log_simple()
        return act((1.0, 1, "text", None))

    members: dict[str, Any] = dict.fromkeys(methods, method)
    if base is not object and base is not collections.abc.Set:
        members.pop("__hash__", None)
    if dice.random() < 0.3:
        members["__class__"] = property(method)
    if dice.random() < 0.2:
        members["__getattr__"] = method
    if base is collections.abc.Set:
        members.setdefault("__contains__", method)
        members.setdefault("__iter__", method)
        members.setdefault("__len__", method)
    return type("Hostile", (base,), members)


class Refusing(Mapping[str, Any]):
    """A mapping that raises in its midst."""

    def __init__(self, dice: random.Random) -> None:
        self._left = dice.randrange(3)

    def __getitem__(self, key: str) -> Any:
        if self._left <= 0:
            raise KeyError(key)
        self._left -= 1
        return 1.0

    def __iter__(self) -> Iterator[str]:
        yield from "abc"

    def __len__(self) -> int:
        return 3


def mappings(dice: random.Random, _calls: Calls) -> Any:
    """Be a mapping that does not hold what it promises."""
    return dice.choice((Refusing(dice), {"inner": Refusing(dice)}))


class Changing:
    """A dict that other threads change while it is logged."""

    def __init__(self) -> None:
        self._data: dict[Any, Any] = {"loss": 1.0}

    def __call__(self, dice: random.Random, _calls: Calls) -> Any:
        """Change it a little and return it."""
        self._data[f"key{dice.randrange(50)}"] = dice.choice((1.0, "text", [1], float("nan")))
        if len(self._data) > 40:
            self._data.clear()
        return self._data


STEPS: tuple[Callable[[random.Random], Any], ...] = (
    lambda _dice: (),
    lambda _dice: "PARAMETER",
    lambda _dice: "text \ud800",
    lambda _dice: None,
    lambda _dice: float("nan"),
    lambda _dice: (10**5000, 1),
    lambda _dice: ("Calibration", 3),
    lambda _dice: [1, 2, 3, 4, 5],
    lambda _dice: {"epoch": 1},
    lambda _dice: object(),
    lambda dice: deep(dice, None),  # type: ignore[arg-type]
)

SHAPES: dict[str, Callable[[random.Random, Calls], Any]] = {
    "deep": deep,
    "cyclic": cyclic,
    "numbers": number_shapes,
    "texts": text_shapes,
    "names": names,
    "keys": keys,
    "not_a_dict": not_a_dict,
    "hostile": hostile,
    "mappings": mappings,
    "changing": Changing(),
}
"""By name, as ``--without`` takes it; the long ones come less often than these."""

METADATA: tuple[Any, ...] = (
    {"unit": "s", "GOAL": "MINIMIZE", "STAGE": "TRAIN"},
    {"unit": "ms", "GOAL": "MAXIMIZE", "STAGE": "VAL"},
    {"unit": "imgs/s", "format": ":.3f"},
    {"unit": "tokens/s", "format": ":d"},
    {"unit": None, "GOAL": 3, "STAGE": ["TRAIN"], "format": "{"},
    {"unit": "\ud800\n", "description": "x" * 300},
    {"unit": "%", "SCOPE": "global", 5: 6},
    {},
)
