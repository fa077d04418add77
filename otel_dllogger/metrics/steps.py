"""What the tuples that a script passes as steps mean, as far as its records show it.

DLLogger defines ``(epoch, iteration)`` and ``(epoch, iteration, validation iteration)``. Many
published scripts put a total at the end instead: ``(epoch, iteration, iterations per epoch)``, as
FastPitch, HiFi-GAN, Jasper and wav2vec 2.0 in NVIDIA's DeepLearningExamples, and ``(iteration, all
iterations)``. The stage of the metrics decides between the two; without one, a last element does
that stays the same while the one before it counts up to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otel_dllogger.record import ITERATION, VALIDATION
from otel_dllogger.settings import AUTO, TOTAL
from otel_dllogger.values import safe_repr, to_plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_dllogger.record import Position, Record

_MIN_REPEATS = 3
"""Steps with one total that show it; two of them may be the last iterations of two epochs."""

_OF_EPOCH = "(epoch, iteration, iterations per epoch)"
_TRIPLE = 3
_NUMBER = (int, float)
_MAX_SHOWN = 60


class StepMeaning:
    """The meaning of one rank's steps.

    Args:
        setting: ``settings.AUTO`` to decide by the records, ``TOTAL`` for a total at the end of
            each tuple, ``DEFINED`` for DLLogger's definition.
        tell: Takes a decision, in one line, when it is made.

    Attributes:
        pair_total: The total at the end of the rank's pairs; None while they are ``(epoch,
            iteration)``.
        decisions: What was decided and why, in words, by the form of the step.
    """

    __slots__ = (
        "_first",
        "_is_training",
        "_repeats",
        "_setting",
        "_tell",
        "_total",
        "_triple",
        "_triple_total",
        "_triples",
        "decisions",
        "pair_total",
    )

    def __init__(
        self, setting: str = AUTO, tell: Callable[[str], object] = lambda _line: None
    ) -> None:
        self.pair_total: float | None = None
        self.decisions: dict[str, str] = {}
        self._setting = setting
        self._tell = tell
        self._total: float | None = None
        self._first: float = 0
        self._repeats = 0
        self._triple: tuple[Any, Any, Any] | None = None
        self._triples = 1
        self._triple_total: float | None = None
        self._is_training = False

    def is_of_total(self, pair: tuple[int, int]) -> bool:
        """Return whether a pair is ``(iteration, all iterations)``.

        Call it for each new pair whose last element is that of the pair before, and for every new
        pair while ``pair_total`` is set.
        """
        first, total = pair
        if self._setting != AUTO:
            self.pair_total = total if self._setting == TOTAL and first <= total else None
        elif total != self._total or not self._first < first <= total:
            self._total, self._repeats, self.pair_total = total, 2, None
        else:
            self._repeats += 1
            if self._repeats >= _MIN_REPEATS and self.pair_total is None:
                self.pair_total = total
                self._decide(
                    "(iteration, all iterations)",
                    f"in steps such as {pair}, the last element stays {total} while the first one "
                    "counts up to it",
                )
        self._first = first
        return self.pair_total is not None

    def position_of(self, record: Record, stage: str | None) -> Position:
        """Return the position of a record whose step may be a triple, and note it in the record.

        Args:
            record: A record whose granularity is ``validation`` by DLLogger's definition.
            stage: The stage of its metrics, None if they have none.
        """
        step = to_plain(record.step)
        if len(step) != _TRIPLE:
            return record.position
        return record.reposition(self._of_triple(tuple(step), stage))

    def _of_triple(self, step: tuple[Any, Any, Any], stage: str | None) -> str:
        if self._setting != AUTO:
            return ITERATION if self._setting == TOTAL else VALIDATION
        _epoch, iteration, last = step
        if not isinstance(last, _NUMBER) or not isinstance(iteration, _NUMBER):
            self._triple = None
            return VALIDATION
        before, self._triple = self._triple, step
        if stage is not None:
            if stage == "train":
                self._decide_triple(step, "have metrics of the stage train")
            return ITERATION if stage == "train" else VALIDATION
        if before is not None:
            _, iteration_before, last_before = before
            if last != last_before or max(iteration, iteration_before) > last:
                self._triples = 1
                self._is_training = last == self._triple_total and iteration <= last
            elif iteration != iteration_before:
                self._triples += 1
            if self._triples >= _MIN_REPEATS:
                self._is_training, self._triple_total = True, last
                self._decide_triple(
                    step, f"end in {last} while the element before it counts up to it"
                )
        return ITERATION if self._is_training else VALIDATION

    def _decide_triple(self, step: tuple[Any, Any, Any], why: str) -> None:
        shown = safe_repr(step)[:_MAX_SHOWN]
        self._decide(_OF_EPOCH, f"steps such as {shown} {why}")

    def _decide(self, form: str, why: str) -> None:
        if form not in self.decisions:
            self.decisions[form] = why
            self._tell(
                f"steps are read as {form}: {why}; set OTEL_DLLOGGER_STEPS=dllogger if the last "
                "element is what DLLogger defines"
            )

    def to_plain(self) -> list[Any]:
        """Return the state as types of Python's JSON."""
        triple = None if self._triple is None else list(self._triple)
        return [
            self.pair_total,
            self._total,
            self._first,
            self._repeats,
            triple,
            self._triples,
            self._is_training,
            self._triple_total,
            self.decisions,
        ]

    def load_plain(self, plain: list[Any]) -> None:
        """Restore the state from the result of ``to_plain``, written to JSON and read back.

        Raises:
            LookupError, TypeError, ValueError: If ``plain`` is anything else.
        """
        pair_total, total, first, repeats, triple, triples, *rest = plain
        is_training, self._triple_total, decisions = rest
        self.pair_total, self._total, self._first, self._repeats = pair_total, total, first, repeats
        self._triple = None if triple is None else tuple(triple)
        self._triples, self._is_training = int(triples), bool(is_training)
        self.decisions = {str(form): str(why) for form, why in decisions.items()}
