"""Log random shapes of any depth, width and mix of types, after the seed and the number of them.

Usage: log_shapes.py PATH SEED COUNT

The shapes that an encoder in C once overran its buffer on come first.
"""

import dataclasses
import enum
import random
import sys
from collections import OrderedDict, namedtuple
from decimal import Decimal

import numpy as np

from otel_dllogger import JSONStreamBackend, Logger, OTLPBackend, PrometheusBackend

path, seed, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
choose = random.Random(seed)


class Text(str):
    __slots__ = ()


class Whole(int):
    pass


class Items(list):
    pass


Pair = namedtuple("Pair", "a b")  # noqa: PYI024 - as old scripts have them


@dataclasses.dataclass
class Holder:
    """Hold anything."""

    value: object


class LikeFloat(type):
    """Make classes that pass for float where types are compared or hashed."""

    __hash__ = lambda _cls: hash(float)  # noqa: E731
    __eq__ = lambda _cls, other: other is float  # noqa: E731


class Liar(tuple, metaclass=LikeFloat):
    __slots__ = ()


def member(value):
    """Return a member of an enum that is a float and holds anything, as orjson reads it."""

    class Odd(float, enum.Enum):
        A = 1.0

    Odd.A._value_ = value
    return Odd.A


def nested(value, depth):
    """Put a value into so many containers of mixed kinds."""
    kinds = choose.choices(WRAPS, k=choose.choice((1, 1, 2, 3)))
    for level in range(depth):
        value = kinds[level % len(kinds)](value)
    return value


WRAPS = (
    lambda value: (value,),
    lambda value: [value],
    lambda value: {"a": value},
    lambda value: [(value,)],
    lambda value: (value, 1, "x" * 50),
    lambda value: OrderedDict(a=value),
    lambda value: Pair(value, [value]) if choose.random() < 0.01 else (value,),
    Holder,
    lambda value: Items((value,)),
    lambda value: Liar((value,)),
    lambda value: member(value) if choose.random() < 0.01 else [value],
)
LEAVES = (
    choose.random,
    lambda: choose.randrange(10**25),
    lambda: "x" * choose.randrange(2000),
    lambda: None,
    lambda: Text("text"),
    lambda: Whole(3),
    lambda: np.float32(1),
    lambda: np.arange(choose.randrange(300)),
    lambda: Decimal("1.5"),
    lambda: b"\xff",
    lambda: {1, 2},
    lambda: "\ud800",
    lambda: float("nan"),
)


def value():
    """Return a random value."""
    leaf = choose.choice(LEAVES)()
    if choose.random() < 0.3:
        leaf = [leaf] * choose.choice((10, 10, 2000))
    return nested(leaf, choose.choice((0, 0, 1, 5, 63, 64, 65, 100, 900, 5000)))


def deep_tuple(depth):
    """Return tuples within tuples."""
    found = ()
    for _ in range(depth):
        found = (found,)
    return found


logger = Logger(
    [
        JSONStreamBackend(1, path),
        PrometheusBackend(1, port=0),
        OTLPBackend(1, endpoint="http://127.0.0.1:1"),
    ]
)
first = (deep_tuple(2000), [deep_tuple(900)] * 50, member(deep_tuple(2000)), Liar(deep_tuple(2000)))
for number, shape in enumerate(first):
    logger.log((0, number), {"loss": 1.0, "shape": shape})
    logger.log((0, number), {"shape": shape, "loss": shape})
for number in range(count):
    data = {f"name{place}": value() for place in range(choose.choice((1, 1, 3, 20)))}
    logger.log(choose.choice(((1, number), number, value())), choose.choice((data, value(), data)))
    logger.metadata(value(), value())
    logger.info(value())
logger.close()
