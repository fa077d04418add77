"""A small network and its data, enough to watch a real loss."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_FEATURES = 8
_HIDDEN = 32


class Samples(NamedTuple):
    """Labelled samples.

    Attributes:
        features: A row of numbers for each sample.
        labels: 0.0 or 1.0 for each sample.
    """

    features: Floats
    labels: Floats

    def batch(self, start: int, size: int) -> Samples:
        """Return ``size`` samples from ``start`` on."""
        chosen = slice(start, start + size)
        return Samples(self.features[chosen], self.labels[chosen])

    def with_broken_sample(self) -> Samples:
        """Return the samples with one whose measurements are missing, which reads as NaN."""
        features = self.features.copy()
        features[0] = math.nan
        return self._replace(features=features)


def make_samples(count: int, seed: int) -> Samples:
    """Draw samples whose two classes no straight line separates.

    Args:
        count: How many.
        seed: Another seed draws other samples of the same task.
    """
    source = np.random.default_rng(seed)
    x = source.normal(size=(count, _FEATURES))
    noise = source.normal(scale=0.1, size=count)
    score = x[:, 0] * x[:, 1] + 0.8 * np.sin(2.0 * x[:, 2]) + 0.5 * x[:, 3] + noise
    return Samples(x, (score > 0.0).astype(np.float64))


class Gradient(NamedTuple):
    """The loss of a batch, and its derivatives.

    Attributes:
        loss: The mean cross-entropy.
        slopes: Its derivatives with respect to each of ``Network.weights``.
    """

    loss: float
    slopes: dict[str, Floats]


class Network:
    """A classifier with one hidden layer.

    Args:
        seed: Determines the weights it starts with.

    Attributes:
        weights: Its weights by name.
    """

    def __init__(self, seed: int) -> None:
        source = np.random.default_rng(seed)
        self.weights: dict[str, Floats] = {
            "hidden": source.normal(scale=0.5, size=(_FEATURES, _HIDDEN)),
            "hidden_bias": np.zeros(_HIDDEN),
            "output": source.normal(scale=0.3, size=_HIDDEN),
            "output_bias": np.zeros(1),
        }

    def gradient(self, batch: Samples) -> Gradient:
        """Return the mean cross-entropy of a batch and its derivatives."""
        activations, logits = self._forward(batch.features)
        outer = (_sigmoid(logits) - batch.labels) / len(logits)
        inner = np.outer(outer, self.weights["output"]) * (1.0 - activations**2)
        slopes = {
            "hidden": batch.features.T @ inner,
            "hidden_bias": inner.sum(axis=0),
            "output": outer @ activations,
            "output_bias": outer.sum(keepdims=True),
        }
        return Gradient(_cross_entropy(logits, batch.labels), slopes)

    def descend(self, gradient: Gradient, learning_rate: float) -> None:
        """Take one step of gradient descent."""
        for name, slope in gradient.slopes.items():
            self.weights[name] -= learning_rate * slope

    def evaluate(self, samples: Samples) -> tuple[float, float]:
        """Return the mean cross-entropy of samples, and the share of right answers."""
        _activations, logits = self._forward(samples.features)
        right = (logits > 0.0) == (samples.labels > 0.0)
        return _cross_entropy(logits, samples.labels), float(right.mean())

    def _forward(self, features: Floats) -> tuple[Floats, Floats]:
        weights = self.weights
        activations = np.tanh(features @ weights["hidden"] + weights["hidden_bias"])
        return activations, activations @ weights["output"] + weights["output_bias"]


def _sigmoid(logits: Floats) -> Floats:
    return 0.5 * (1.0 + np.tanh(0.5 * logits))


def _cross_entropy(logits: Floats, labels: Floats) -> float:
    each = np.maximum(logits, 0.0) - logits * labels + np.log1p(np.exp(-np.abs(logits)))
    return float(each.mean())
