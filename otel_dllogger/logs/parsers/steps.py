"""Steps as StdOutBackend prints them, by DLLogger's default and by formats of scripts."""

from __future__ import annotations

import re
from typing import Any

from otel_dllogger.logs.parsers.python_repr import parse_repr
from otel_dllogger.logs.parsers.skipped import SkippedError
from otel_dllogger.record import is_parameter_step

# "Epoch: 0 Iteration: 3 Validation Iteration: 2", "Training Epoch: 0", "Step: 5/100".
_LABEL = re.compile(
    r"(?:(?P<of>[a-z][a-z-]{0,30}) )?(?P<what>epoch|iteration|iter|step):? +"
    r"(?P<number>-?\d{1,18})(?:/\d{1,18})?(?: |$)",
    re.ASCII | re.IGNORECASE,
)
_PAIR = re.compile(r"[(\[](-?\d{1,18}), (-?\d{1,18})[)\]](?: |$)", re.ASCII)
_TUPLE = re.compile(r"[(\[][^()\[\]]{0,200}[)\]](?= |$)")
_NUMBER = re.compile(r"-?\d{1,18}(?P<fraction>\.\d{1,30}(?:e[-+]\d{1,3})?)?(?: |$)", re.ASCII)
_SUMMARY = re.compile(r"summary:(?: |$)", re.ASCII | re.IGNORECASE)
_VALIDATION = ("validation", "valid", "val", "eval", "evaluation")


def split_step(body: str) -> tuple[Any, str]:
    """Split a printed line's step off.

    Labels are read as scripts' formats for DLLogger's tuples write them: an epoch, an
    iteration and a validation's iteration; an iteration alone is a number. ``Summary:``
    and no text at all are the run's ``()``.

    Args:
        body: What follows the ``-`` and one blank.

    Returns:
        The step, None where it is not of these forms, and the rest of the line.
    """
    if body.startswith(" "):
        return (), body
    found: Any = _PAIR.match(body)  # nearly always
    if found:
        return (int(found[1]), int(found[2])), body[found.end() :]
    found = _TUPLE.match(body)
    if found:
        try:
            step = parse_repr(found[0])
        except SkippedError:
            return None, body
        # "(3)" is no tuple and "(loss)" no step.
        return (tuple(step), body[found.end() :]) if type(step) in (tuple, list) else (None, body)
    found = _NUMBER.match(body)
    if found:
        text = found[0].strip()
        return (float(text) if found["fraction"] else int(text)), body[found.end() :]
    found = _SUMMARY.match(body)
    if found:
        return (), body[found.end() :]
    word = body.split(" ", 1)[0]
    if is_parameter_step(word):
        return word, body[len(word) + 1 :]
    return _split_labels(body)


def _split_labels(body: str) -> tuple[Any, str]:
    epoch = iteration = validation = None
    at = 0
    while found := _LABEL.match(body, at):
        number = int(found["number"])
        if found["what"].lower() == "epoch":
            epoch = number
        elif (found["of"] or "").lower() in _VALIDATION:
            validation = number
        else:
            iteration = number
        at = found.end()
    rest = body[at:]
    if validation is not None:
        return (epoch, iteration, validation), rest
    if epoch is not None:
        return ((epoch,) if iteration is None else (epoch, iteration)), rest
    return iteration, rest
