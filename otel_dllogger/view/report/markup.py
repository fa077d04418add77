"""HTML elements, whose texts and attributes are always escaped."""

from __future__ import annotations

import html
from typing import NoReturn

_VOID = frozenset({"meta", "rect", "polyline"})


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def element(name: str, /, *children: str | None, **attributes: object) -> Markup:
    """Return an element.

    Args:
        name: Its name.
        children: Elements, and texts, which are escaped; None is left out.
        attributes: ``class_`` and ``for_`` stand for those names, ``_`` for ``-``. None is left
            out, True is an attribute without a value.
    """
    written = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        attribute = key.rstrip("_").replace("_", "-")
        text = "" if value is True else f'="{html.escape(str(value))}"'
        written.append(attribute + text)
    start = f"<{' '.join(written)}>"
    if name in _VOID:
        return Markup(start if name == "meta" else f"{start[:-1]}/>")
    content = "".join(
        child if isinstance(child, Markup) else html.escape(child)
        for child in children
        if child is not None
    )
    return Markup(f"{start}{content}</{name}>")


def raw_element(name: str, content: str, /, **attributes: object) -> Markup:
    """Return a ``script`` or ``style`` element, whose content a browser takes as it is.

    Args:
        name: Its name.
        content: Our own, never a user's.
        attributes: As ``element`` takes them.
    """
    if f"</{name}" in content.lower() or "<!--" in content:
        _refuse(name)
    whole = element(name, **attributes)
    end = f"</{name}>"
    return Markup(f"{whole.removesuffix(end)}{content}{end}")


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"this would end the element {name}")
