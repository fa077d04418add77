"""The words in which the demo says at its end what was seen."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from otel_dllogger.cli.demo import seen
from otel_dllogger.metrics.kinds import LOSS


@pytest.mark.parametrize(
    ("times", "words"), [(1, ""), (2, ", and once more"), (3, ", and 2 times more")]
)
def test_a_loss_that_was_nan_again_is_counted_in_words(times: int, words: str) -> None:
    """The first is named, the others are counted."""
    first = SimpleNamespace(x=7, value=math.nan)
    history = SimpleNamespace(first_nonfinite=first, nonfinite=times)
    series = SimpleNamespace(history=history, traits=SimpleNamespace(kind=LOSS))
    metric: Any = type("Metric", (), {"metric": "loss"})
    rank: Any = SimpleNamespace(number=1, series={metric: series})
    assert [f"rank 1 had a NaN in loss at step 7{words}"] == list(seen._nonfinite(rank))
