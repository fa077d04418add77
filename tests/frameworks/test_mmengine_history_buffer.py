"""The HistoryBuffer holds and gives what MMEngine's does, whatever is put into it."""

from __future__ import annotations

import random
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer as MMEngineBuffer

from otel_dllogger.training import HistoryBuffer, MessageHub

WINDOWS = (None, 1, 2, 10, 500, 1024, 1025, 2500, 5000, 10**7, 0, -2)
EXACT_WINDOW = 1024
"""Longer sums are added up in another order."""


def values(kind: str, generator: random.Random) -> Any:
    """Return a value of a kind."""
    if kind == "mixed":
        kind = generator.choice(("int", "float"))
    if kind == "int":
        return generator.randint(-5, 5)
    if kind == "bool":
        return generator.random() > 0.5
    return float("nan") if generator.random() < 0.01 else generator.uniform(-1, 1)


def asked(buffer: Any, method: str, window: int | None) -> Any:
    """Return a statistic, or the kind of error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return getattr(buffer, method)(window)
        except ValueError:
            return ValueError


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("kind", ["int", "float", "mixed", "bool"])
def test_same_updates_give_the_same(kind: str, seed: int) -> None:
    """Arrays are equal with their types, statistics too; long sums up to their last digit."""
    generator = random.Random(seed)
    before = [values(kind, generator) for _ in range(generator.choice((0, 1, 5, 3000)))]
    counts = [generator.choice((1, 1, 8)) if seed % 2 else 1 for _ in before]
    max_length = generator.choice((1_000_000, 2, 100, 1500, 3000))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = MMEngineBuffer(before, counts, max_length)
        ours = HistoryBuffer(before, counts, max_length)
    for _ in range(generator.choice((3, 50, 2500))):
        value = values(kind, generator)
        count = generator.choice((1, 3, 2.5)) if generator.random() > 0.9 else 1
        theirs.update(value, count)
        ours.update(value, count)
        if generator.random() > 0.02:
            continue
        window = generator.choice(WINDOWS)
        for method in ("mean", "min", "max"):
            expected, actual = asked(theirs, method, window), asked(ours, method, window)
            if expected is ValueError:
                assert actual is ValueError
                continue
            assert type(expected) is type(actual)
            if window is not None and 0 < window <= EXACT_WINDOW:
                np.testing.assert_array_equal(expected, actual)
            else:
                np.testing.assert_allclose(expected, actual, rtol=1e-12, atol=1e-12)
    for expected, actual in zip(theirs.data, ours.data, strict=True):
        assert expected.dtype == actual.dtype
        np.testing.assert_array_equal(expected, actual)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64])
def test_tensors_are_read(dtype: torch.dtype) -> None:
    """A tensor with one element counts as its value, one with a gradient too."""
    hub = MessageHub("tensors")
    hub.update_scalar("train/loss", torch.tensor([3], dtype=dtype))
    assert 3 == hub.get_scalar("train/loss").current()
    leaf = torch.tensor(2.0, requires_grad=True)
    hub.update_scalar("train/product", leaf * 2)
    assert 4.0 == hub.get_scalar("train/product").current()


class Elsewhere(torch.Tensor):
    """A tensor that says it is on an accelerator, and counts who waits for it."""

    waits = 0

    @property
    def device(self) -> Any:
        return torch.device("cuda")

    def new_empty(self, *size: int) -> Any:
        return torch.empty(*size, dtype=self.dtype).as_subclass(Elsewhere)

    def item(self) -> Any:
        Elsewhere.waits += 1
        return super().item()

    def tolist(self) -> Any:
        Elsewhere.waits += 1
        return super().tolist()


def test_an_accelerator_is_not_waited_for() -> None:
    """Values are kept as they were, and fetched at once when a statistic is asked for."""
    hub = MessageHub("elsewhere")
    total = torch.zeros((), requires_grad=False).as_subclass(Elsewhere)
    weight = torch.ones((), requires_grad=True)
    for _ in range(500):
        total += 1.0  # in place, as running losses are
        hub.update_scalar("train/total", total)
        hub.update_scalar("train/scaled", (total * weight).as_subclass(Elsewhere))
    with torch.inference_mode():
        hub.update_scalar("train/scaled", torch.zeros(1).as_subclass(Elsewhere))
    hub.update_scalar("train/scaled", torch.ones(1, 1).as_subclass(Elsewhere))
    assert 0 == Elsewhere.waits
    history, _ = hub.get_scalar("train/total").data
    np.testing.assert_array_equal(np.arange(1.0, 501.0), history)
    history, _ = hub.get_scalar("train/scaled").data
    np.testing.assert_array_equal([*np.arange(1.0, 501.0), 0.0, 1.0], history)
    assert Elsewhere.waits <= 4
