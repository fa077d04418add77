"""A small network and its data in plain Python, enough to watch a real loss."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from operator import mul

FEATURES = 8
HIDDEN = 16


@dataclass(frozen=True, slots=True)
class Samples:
    """Labelled samples.

    Attributes:
        features: ``FEATURES`` numbers for each sample.
        labels: 0.0 or 1.0 for each sample.
    """

    features: list[list[float]]
    labels: list[float]

    def batch(self, start: int, size: int) -> Samples:
        """Return ``size`` samples from ``start`` on."""
        end = start + size
        return Samples(self.features[start:end], self.labels[start:end])


def make_samples(count: int, seed: int) -> Samples:
    """Draw samples whose two classes no straight line separates.

    Args:
        count: How many.
        seed: Another seed draws other samples of the same task.
    """
    source = random.Random(seed)  # noqa: S311 - a data set, not a secret
    features, labels = [], []
    for _ in range(count):
        x = [source.gauss(0.0, 1.0) for _ in range(FEATURES)]
        score = x[0] * x[1] + 0.8 * math.sin(2.0 * x[2]) + 0.5 * x[3] + source.gauss(0.0, 0.1)
        features.append(x)
        labels.append(1.0 if score > 0.0 else 0.0)
    return Samples(features, labels)


def with_broken_sample(samples: Samples) -> Samples:
    """Return the samples with one whose measurements are missing, which reads as NaN."""
    return Samples([[math.nan] * FEATURES, *samples.features[1:]], samples.labels)


@dataclass(slots=True)
class Gradient:
    """The derivatives of the loss with respect to every weight, and the loss itself."""

    loss: float
    hidden: list[list[float]]
    hidden_bias: list[float]
    output: list[float]
    output_bias: float


class Network:
    """A classifier with one hidden layer.

    Args:
        seed: Determines the weights it starts with.
    """

    def __init__(self, seed: int) -> None:
        source = random.Random(seed)  # noqa: S311 - weights, not a secret
        self._hidden = [[source.gauss(0.0, 0.5) for _ in range(FEATURES)] for _ in range(HIDDEN)]
        self._hidden_bias = [0.0] * HIDDEN
        self._output = [source.gauss(0.0, 0.3) for _ in range(HIDDEN)]
        self._output_bias = 0.0

    def gradient(self, batch: Samples) -> Gradient:
        """Return the mean cross-entropy of a batch and its derivatives."""
        size = len(batch.labels)
        total = Gradient(0.0, [[0.0] * FEATURES for _ in range(HIDDEN)], [0.0] * HIDDEN, [], 0.0)
        total.output = [0.0] * HIDDEN
        for x, label in zip(batch.features, batch.labels, strict=True):
            activations, logit = self._forward(x)
            total.loss += _cross_entropy(logit, label) / size
            slope = (_sigmoid(logit) - label) / size
            total.output_bias += slope
            for unit, activation in enumerate(activations):
                total.output[unit] += slope * activation
                inner = slope * self._output[unit] * (1.0 - activation * activation)
                total.hidden_bias[unit] += inner
                row = total.hidden[unit]
                for index, feature in enumerate(x):
                    row[index] += inner * feature
        return total

    def descend(self, gradient: Gradient, learning_rate: float) -> None:
        """Take one step of gradient descent."""
        for unit in range(HIDDEN):
            weights, slopes = self._hidden[unit], gradient.hidden[unit]
            for index in range(FEATURES):
                weights[index] -= learning_rate * slopes[index]
            self._hidden_bias[unit] -= learning_rate * gradient.hidden_bias[unit]
            self._output[unit] -= learning_rate * gradient.output[unit]
        self._output_bias -= learning_rate * gradient.output_bias

    def evaluate(self, samples: Samples) -> tuple[float, float]:
        """Return the mean cross-entropy of samples, and the share of right answers."""
        loss = right = 0.0
        for x, label in zip(samples.features, samples.labels, strict=True):
            _, logit = self._forward(x)
            loss += _cross_entropy(logit, label)
            right += (logit > 0.0) == (label > 0.0)
        return loss / len(samples.labels), right / len(samples.labels)

    def _forward(self, x: list[float]) -> tuple[list[float], float]:
        activations = [
            math.tanh(sum(map(mul, weights, x)) + bias)
            for weights, bias in zip(self._hidden, self._hidden_bias, strict=True)
        ]
        return activations, sum(map(mul, self._output, activations)) + self._output_bias


def _sigmoid(logit: float) -> float:
    return 0.5 * (1.0 + math.tanh(0.5 * logit))


def _cross_entropy(logit: float, label: float) -> float:
    return max(logit, 0.0) - logit * label + math.log1p(math.exp(-abs(logit)))
