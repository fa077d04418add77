"""Read the step that a printed line begins with, the stage that its labels name, and a rank's tag.

DLLogger prints a step as Python does, ``(0, 1)``; scripts that pass a format of their own, and
people who print the lines by hand, write labels, ``Validation Epoch: 0/90, Iter: [1/100]``.
"""

from __future__ import annotations

import re
from typing import Any

from otel_dllogger.logs.parsers.context import SkippedError
from otel_dllogger.logs.parsers.literals import parse_repr
from otel_dllogger.metrics.naming import is_stage, parse_stage
from otel_dllogger.record import is_parameter_step

_LABELS = "epoch|iteration|iter|step"
_TOTAL = r"(?: ?/ ?\d{1,18})?"

# Such as "Training Epoch: 0/90 Validation Iteration: 2", "[Epoch: 0, Iter: 1]", "Step [1/100]".
_LABEL = re.compile(
    r"(?:(?P<open>[\[(])?(?P<of>[a-z][a-z-]{0,30})(?P<mark>[\])]?(?: ?[:,|])?) {1,9})?"
    rf"[\[(]?(?P<what>{_LABELS})(?:[:=]? {{0,9}}[\[(]|[:=] *| = | +)"
    rf"(?P<number>-?\d{{1,18}}){_TOTAL}[\])]{{0,2}}"
    r"(?: {0,9}[,;:](?=[\sa-z\[(]|$) *| +|(?=[\[(|])|$)",
    re.ASCII | re.IGNORECASE,
)
_USUAL_LABELS = re.compile(r"Epoch: (\d{1,18}) Iteration: (\d{1,18}) (?= )", re.ASCII)
# "[10/5005]" behind an epoch.
_OF_TOTAL = re.compile(r"[\[(](\d{1,18}) ?/ ?\d{1,18}[\])](?:[,:]?(?: +|$)|(?=\[))", re.ASCII)
# "E0 I1", "Ep 0 It 1", "ep:0, it:1": only both together are clear.
_SHORT = re.compile(
    rf"[\[(]?(?:e|ep|epoch)[:= ]? ?(\d{{1,18}}){_TOTAL}[\])]?[ ,/]{{1,3}}"
    rf"[\[(]?(?:i|it|iter|iteration|s|st|step|b|batch)[:= ]? ?(\d{{1,18}}){_TOTAL}[\])]?"
    r"(?:[,:]? +|$)",
    re.ASCII | re.IGNORECASE,
)
_PAIR = re.compile(r"[(\[](-?\d{1,18}), (-?\d{1,18})[)\]](?:[,:]? |$)", re.ASCII)
_TUPLE = re.compile(r"[(\[][^()\[\]]{0,200}[)\]](?= |$)")
_NUMBER = re.compile(
    r"-?\d{1,18}(?:/\d{1,18}|(?P<fraction>\.\d{1,30}(?:e[-+]\d{1,3})?))?(?: |$)", re.ASCII
)
_SUMMARY = re.compile(r"summary:(?: |$)", re.ASCII | re.IGNORECASE)

# "rank:3", "rank=3", "[rank 3]", "(Rank: 3/8)"; "rank 3" only before a step.
RANK = re.compile(
    r"(?:^[\[(]?rank ?[:=] ?|(?<=\s)[\[(]?rank(?:: ?|=)|(?<!\S)[\[(]rank ?"
    rf"|^rank (?=\d{{1,9}},? {{1,9}}(?:{_LABELS}|[\[(])))"
    r"(-?\d{1,9})(?:/\d{1,9})?[\])]?(?:[,:]?\s+(?:\|\s+)?|$)",
    re.ASCII | re.IGNORECASE,
)

_IN_BRACKETS = r"[\[({][^\])}]{0,200}(?<![A-Za-z_])\d"
# What begins with a step, and so is not a name.
BEGINS_WITH_STEP = re.compile(
    rf"(?:[a-z-]{{1,30}}:? )?(?:{_LABELS})(?:[:= ] ?[\[(]?|[\[(])\d|{_IN_BRACKETS}",
    re.ASCII | re.IGNORECASE,
)
COMMA_IN_STEP = re.compile(
    rf"[\[(]?(?:[a-z-]{{1,30}} )?(?:{_LABELS})(?:[:=] ?| )[\[(]?\d{{1,18}},\d{{1,18}}",
    re.ASCII | re.IGNORECASE,
)
# "I1 loss", where no other iteration is known.
_BEGINS_SHORT = re.compile(
    r"(?:e|ep|i|it|iter|s|st|step|b|batch)[:=]?\d+[,:]?\s", re.ASCII | re.IGNORECASE
)
_BEGINS_WITH_CODE = re.compile(r"[A-Za-z]{1,2}[:=]?\d+[,:]?\s", re.ASCII)
_HOLDS_STEP = re.compile(
    rf"(?<![A-Za-z_])(?:{_LABELS})(?:[:= ] ?[\[(]?\d|\d+[\s,:])|\s[\[(]-?\d{{1,18}}, ?-?\d",
    re.ASCII | re.IGNORECASE,
)


def split_step(body: str) -> tuple[Any, str | None, str]:
    """Split a printed line's step off.

    Labels are read as scripts format DLLogger's tuples: an epoch, an iteration and a
    validation iteration; an iteration alone is a number. ``Summary:``, or no text at all,
    is the run's step ``()``.

    Args:
        body: What follows the ``-`` and one blank.

    Returns:
        The step, None if it has none of these forms; the stage that its labels name, None if they
        name none; and the rest of the line.
    """
    if body.startswith(" "):
        return (), None, body
    found: Any = _PAIR.match(body)  # nearly always
    if found:
        return (int(found[1]), int(found[2])), None, body[found.end() :]
    if (found := _USUAL_LABELS.match(body)) is not None:
        return (int(found[1]), int(found[2])), None, body[found.end() :]
    labels = Labels()
    at = labels.read(body)
    if at:
        return labels.step, labels.stage, body[at:]
    step, rest = _split_other(body)
    return step, None, rest


def _split_other(body: str) -> tuple[Any, str]:
    """Split off a step that has neither the form of a pair nor labels in words."""
    found: Any = _SHORT.match(body)
    if found:
        return (int(found[1]), int(found[2])), body[found.end() :]
    found = _OF_TOTAL.match(body)
    if found:
        return int(found[1]), body[found.end() :]
    found = _TUPLE.match(body)
    if found:
        try:
            step = parse_repr(found[0])
        except SkippedError:
            return None, body
        # "(3)" is not a tuple, and "(loss)" is not a step.
        return (tuple(step), body[found.end() :]) if type(step) in (tuple, list) else (None, body)
    found = _NUMBER.match(body)
    if found:
        text = found[0].strip().partition("/")[0]
        return (float(text) if found["fraction"] else int(text)), body[found.end() :]
    found = _SUMMARY.match(body)
    if found:
        return (), body[found.end() :]
    word = body.split(" ", 1)[0]
    if is_parameter_step(word):
        return word, body[len(word) + 1 :]
    return None, body


class Labels:
    """The labels of one line: an epoch, an iteration, or one of a validation or a test."""

    __slots__ = ("_epoch", "_iteration", "_of", "_of_other", "_other")

    def __init__(self) -> None:
        self._epoch: int | None = None
        self._iteration: int | None = None
        self._of: str | None = None
        self._other: int | None = None
        self._of_other: str | None = None

    def read(self, text: str) -> int:
        """Read the labels that a text begins with, and return where they end."""
        at = 0
        while found := _LABEL.match(text, at):
            word = found["of"] or ""
            stage = parse_stage(word) if is_stage(word) else None
            if stage is None and (found["open"] or found["mark"]):
                break
            self._add(found["what"].lower(), int(found["number"]), stage)
            at = found.end()
            total = _OF_TOTAL.match(text, at) if self._iteration is None else None
            if total is not None and self._epoch is not None:
                self._add("iteration", int(total[1]), None)
                at = total.end()
        return at

    def read_whole(self, text: str) -> bool:
        """Read a text that is labels and nothing else, and return whether it is."""
        if Labels().read(text) < len(text):
            return False
        self.read(text)
        return True

    def _add(self, what: str, number: int, stage: str | None) -> None:
        if what != "epoch" and stage not in (None, "train"):
            self._other, self._of_other = number, stage
            return
        if what == "epoch":
            self._epoch = number
        else:
            self._iteration = number
        self._of = stage or self._of

    @property
    def step(self) -> Any:
        """Return the step; an iteration of a validation stands at the third place of three."""
        epoch, iteration = self._epoch, self._iteration
        if self._other is not None:
            return (epoch, iteration, self._other)
        if epoch is None and self._of in (None, "train"):
            return iteration
        if iteration is None:
            return (epoch,)
        return (epoch, iteration) if self._of in (None, "train") else (epoch, None, iteration)

    @property
    def stage(self) -> str | None:
        """Return the stage; "Validation Iteration", DLLogger's own label, needs none."""
        if self._other is None:
            return self._of
        if self._of_other != "val":
            return self._of_other
        return None if self._of == "train" else self._of


def hides_step(word: str, name: str) -> bool:
    """Return whether the step seems to be in what follows a first word, which may not be the step.

    Args:
        word: The first word of a line that begins with no known step.
        name: The words between it and the first value.
    """
    return (
        _HOLDS_STEP.search(name) is not None
        or BEGINS_WITH_STEP.match(name) is not None
        or _BEGINS_SHORT.match(name) is not None
        or (any(map(str.isdigit, word)) and _BEGINS_WITH_CODE.match(name) is not None)
    )


def hides_iteration(step: Any, name: str) -> bool:
    """Return whether a name behind a step that is an epoch alone begins as ``I1 loss`` does."""
    return type(step) is tuple and len(step) == 1 and _BEGINS_SHORT.match(name) is not None
