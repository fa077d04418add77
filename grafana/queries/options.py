"""Choice of a variable's value from its options, as in Grafana.

Taken from grafana/scenes: ``packages/scenes/src/variables/variants/MultiValueVariable.ts`` chooses,
``query/utils.ts`` beside it applies regex and sort.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from grafana.queries.datasource import python_regex
from grafana.queries.interpolation import (
    ALL,
    DashboardError,
    Variable,
    format_interval,
    parse_duration,
    round_interval,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from grafana.queries.datasource import DataSource


def check_offered(model: dict[str, Any], options: list[str]) -> None:
    """Refuse a default that is not among the options: Grafana would silently replace it.

    Raises:
        DashboardError: If the default is not an option.
    """
    wanted = model["current"]["value"]
    offered = [*options, *([ALL] if model.get("includeAll") else [])]
    missing = set([wanted] if isinstance(wanted, str) else wanted) - set(offered)
    if missing and model["type"] != "textbox":
        raise DashboardError(f"variable {model['name']!r} does not offer {sorted(missing)}")


def choose(model: dict[str, Any], options: list[str], source: DataSource) -> Variable:
    """Return a variable with its default, if that is an option, else with Grafana's choice."""
    name, kind = str(model["name"]), model["type"]
    current = (model.get("current") or {}).get("value", "")
    if kind == "interval":
        return Variable(name, _choose_interval(model, current, options, source), options=options)
    if kind in ("textbox", "constant", "datasource"):
        value = current if current and kind == "textbox" else options[0]
        return Variable(name, value, str(value), options=options)
    multi, all_too = bool(model.get("multi")), bool(model.get("includeAll"))
    wanted = [current] if isinstance(current, str) else list(current)
    valid = [value for value in wanted if value in options]
    made = Variable(name, "", is_list=multi or all_too, options=options)
    if all_too and (ALL in wanted or not valid):
        if all_value := model.get("allValue"):
            return replace(made, value=str(all_value), text="All", is_raw=True)
        return replace(made, value=options, text="All")
    if not options:
        return replace(made, value=[] if multi else "")
    chosen = valid or options[:1]
    if multi:
        return replace(made, value=chosen, text=" + ".join(chosen))
    return replace(made, value=chosen[0], text=chosen[0])


def _choose_interval(
    model: dict[str, Any], current: str, options: list[str], source: DataSource
) -> str:
    is_auto = current.startswith("$__auto") or current == "auto"
    if is_auto or (not current and model.get("auto")):
        ideal_s = (source.end_s - source.start_s) / int(model.get("auto_count") or 30)
        minimum_s = parse_duration(model.get("auto_min") or "10s")
        return format_interval(max(round_interval(ideal_s), minimum_s))
    return current if current in options else options[0]


def filter_options(found: list[str], pattern: str) -> list[str]:
    """Return what a variable's regex finds in the values, without duplicates."""
    if not pattern:
        return list(dict.fromkeys(found))
    regex = re.compile(python_regex(pattern if pattern.startswith("/") else f"^{pattern}$"))
    kept: list[str] = []
    for text in found:
        matches = list(regex.finditer(text))
        if not matches:
            continue
        first = matches[0]
        named = first.groupdict()
        if "value" in named or "text" in named:
            kept.append(named.get("value") or named.get("text") or "")
        elif regex.groups:
            is_global = pattern.startswith("/") and "g" in pattern.rpartition("/")[2]
            kept += [match[1] for match in (matches if is_global else matches[:1])]
        else:
            kept.append(text)
    return list(dict.fromkeys(kept))


def sort_options(options: list[str], order: int) -> list[str]:
    """Sort options in one of Grafana's nine orders; 0 keeps the order."""

    def number(option: str) -> int:
        found = re.search(r"\d+", option)
        return int(found[0]) if found else -1

    def natural(option: str) -> list[tuple[int, str]]:
        parts = re.split(r"(\d+)", option.lower())
        return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]

    keys: list[Callable[[str], Any]] = [str, number, str.lower, natural]
    if order == 0:
        return options
    ordered = sorted(options, key=keys[(order - 1) // 2])
    return ordered if order % 2 else ordered[::-1]
