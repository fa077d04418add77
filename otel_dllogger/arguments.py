"""Checks of backends' arguments, made when a backend is created.

An error is one line that includes the next step.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from otel_dllogger.errors import ConfigurationError
from otel_dllogger.values import safe_repr

if TYPE_CHECKING:
    from collections.abc import Sequence

_SHOWN_CHARACTERS = 80


def whole(name: str, value: Any, *, least: int, most: int, step: str) -> int:
    """Return an argument as an ``int``; numpy's ints are accepted, bools and text are not.

    Args:
        name: The argument's name.
        value: What was passed.
        least: The smallest valid value.
        most: The largest valid value.
        step: What to do instead, as ``pass port=0 for any free one``.

    Raises:
        ConfigurationError: If it is anything else.
    """
    try:
        number = least - 1 if isinstance(value, bool) else operator.index(value)
    except Exception:
        number = least - 1
    if not least <= number <= most:
        refuse(name, value, f"a whole number from {least} to {most}", step)
    return number


def seconds(name: str, value: Any, *, most: float, step: str, may_be_0: bool = False) -> float:
    """Return an argument as a number of seconds.

    Args:
        name: The argument's name.
        value: What was passed.
        most: The largest valid value.
        step: As for ``whole``.
        may_be_0: Whether 0 is valid as well.

    Raises:
        ConfigurationError: If it is anything else, NaN included.
    """
    try:
        number = float("nan" if isinstance(value, (bool, str, bytes)) else value)
    except Exception:
        number = float("nan")
    if not (0 < number <= most or (may_be_0 and number == 0)):
        least = "from 0" if may_be_0 else "above 0"
        refuse(name, value, f"a number of seconds {least} to {most:g}", step)
    return number


def text(name: str, value: Any, *, step: str) -> None:
    """Check that an argument is text, or None, which stands for the default.

    Raises:
        ConfigurationError: If it is anything else.
    """
    if not (value is None or isinstance(value, str)):
        refuse(name, value, "text", step)


def one_of(name: str, value: Any, allowed: Sequence[str], *, step: str) -> None:
    """Check that an argument is one of the allowed words.

    Args:
        name: The argument's name.
        value: What was passed.
        allowed: The words.
        step: As for ``whole``.

    Raises:
        ConfigurationError: If it is not.
    """
    if not (isinstance(value, str) and value in allowed):
        refuse(name, value, f"one of {', '.join(allowed)}", step)


def path(name: str, value: Any, *, step: str) -> None:
    """Check that an argument is a file system path.

    Raises:
        ConfigurationError: If it is not.
    """
    try:
        is_path = "\0" not in os.fsdecode(value)
    except Exception:
        is_path = False
    if not is_path:
        refuse(name, value, "a path", step)


def flag(name: str, value: Any, *, step: str) -> None:
    """Check that an argument is True or False, since ``"false"`` would count as True.

    Raises:
        ConfigurationError: If it is neither.
    """
    if not isinstance(value, bool):
        refuse(name, value, "True or False", step)


def function(name: str, value: Any, *, step: str) -> None:
    """Check that an argument is callable.

    Raises:
        ConfigurationError: If it cannot.
    """
    if not callable(value):
        refuse(name, value, "a function", step)


def headers(name: str, value: Any) -> None:
    """Check that an argument maps text to text, or is None; its values may be secrets.

    Raises:
        ConfigurationError: If it does not.
    """
    if value is None:
        return
    try:
        right = isinstance(value, Mapping) and all(
            isinstance(text, str) for pair in value.items() for text in pair
        )
    except Exception:
        right = False
    if not right:
        raise ConfigurationError(
            f"{name} of type {type(value).__name__} is not a mapping of names to text; pass a dict "
            f"such as {name}={{'authorization': 'Bearer ...'}}"
        )


def refuse(name: str, value: Any, rule: str, step: str) -> NoReturn:
    """Raise the error for an invalid argument.

    Args:
        name: The argument's name.
        value: What was passed.
        rule: What it should have been, as ``text``.
        step: As for ``whole``.

    Raises:
        ConfigurationError: Always.
    """
    shown = " ".join(safe_repr(value).split())
    if len(shown) > _SHOWN_CHARACTERS:
        shown = f"{shown[:_SHOWN_CHARACTERS]}..."
    raise ConfigurationError(f"{name}={shown} is not {rule}", step=step, argument=name)
