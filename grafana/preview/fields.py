"""A panel's settings for its series and columns: units, colours, names."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from grafana.preview.units import format_value

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_LABEL = re.compile(r"\{\{\s*(.+?)\s*\}\}")
_FIELD_LABEL = re.compile(r"\$\{__field\.labels\.(\w+)\}|\$\{__field\.labels\[\"?(\w+)\"?\]\}")


@dataclass(frozen=True, slots=True)
class Field:
    """The settings of one series or column: the panel's defaults, then its overrides.

    Attributes:
        settings: By path, such as ``custom.lineWidth``.
    """

    settings: dict[str, Any]

    @property
    def unit(self) -> str:
        """Return Grafana's id of the unit."""
        return str(self.settings.get("unit") or "")

    @property
    def steps(self) -> list[dict[str, Any]]:
        """Return the thresholds."""
        thresholds = self.settings.get("thresholds") or {}
        if thresholds.get("mode", "absolute") != "absolute":
            raise ValueError("thresholds in percent are not drawn; use absolute ones")
        return list(thresholds.get("steps") or [])

    @property
    def is_dashed(self) -> bool:
        """Return whether the line is dashed."""
        style = self.settings.get("custom.lineStyle") or {}
        return style.get("fill") in ("dash", "dot")

    def format(self, value: float | None) -> str:
        """Return a value as text, using its mapping if there is one."""
        mapped = self._map(value)
        return mapped or format_value(value, self.unit, self.settings.get("decimals"))

    def colour_name(self) -> str | None:
        """Return the name of the fixed colour; None if it is not fixed."""
        colour = self.settings.get("color") or {}
        return str(colour["fixedColor"]) if colour.get("mode") == "fixed" else None

    def _map(self, value: float | None) -> str:
        for mapping in self.settings.get("mappings") or []:
            options = mapping["options"]
            if mapping["type"] == "value" and value is not None and math.isfinite(value):
                found = options.get(f"{value:g}")
            elif mapping["type"] == "special":
                is_null = value is None or math.isnan(value)
                found = options["result"] if is_null and "n" in options["match"] else None
            else:
                found = None
            if found:
                return str(found.get("text", ""))
        return ""


def find_field(model: Mapping[str, Any], names: set[str], ref_id: str | None = None) -> Field:
    """Return the settings of a series or column.

    Args:
        model: The panel's JSON.
        names: Its names: the one in the data and the one that is shown.
        ref_id: The target that it belongs to; None if it belongs to several.

    Raises:
        ValueError: If an override uses a matcher that is not supported.
    """
    config = model.get("fieldConfig") or {}
    settings = dict(_flatten(config.get("defaults") or {}))
    for override in config.get("overrides") or []:
        if _matches(override["matcher"], names, ref_id):
            settings |= {one["id"]: one.get("value") for one in override["properties"]}
    return Field(settings)


def fill_legend(legend: str, labels: Mapping[str, str]) -> str:
    """Put labels into the name of a series.

    Args:
        legend: The template, with ``{{label}}`` for each; empty or ``__auto`` is all of them.
        labels: The labels of the series.
    """
    if legend in ("", "__auto"):
        return format_labels(labels)
    return _LABEL.sub(lambda found: labels.get(found[1], ""), legend).strip()


def format_labels(labels: Mapping[str, str]) -> str:
    """Return labels as text, as Prometheus writes them."""
    inner = ", ".join(f'{name}="{labels[name]}"' for name in sorted(labels) if name != "__name__")
    name = labels.get("__name__", "")
    return f"{name}{{{inner}}}" if inner or not name else name


def fill_display_name(text: str, labels: Mapping[str, str]) -> str:
    """Put the labels of a field into its display name from an override."""
    return _FIELD_LABEL.sub(lambda found: labels.get(found[1] or found[2], ""), text).strip()


def _matches(matcher: Mapping[str, Any], names: set[str], ref_id: str | None) -> bool:
    kind, options = matcher["id"], matcher.get("options")
    if kind == "byName":
        return options in names
    if kind == "byFrameRefID":
        return bool(options == ref_id)
    if kind == "byRegexp":
        pattern = re.compile(str(options).strip("/"))
        return any(pattern.search(name) for name in names)
    raise ValueError(f"overrides {kind!r} are not drawn; use byName, byFrameRefID or byRegexp")


def _flatten(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if name == "custom":
            yield from ((f"custom.{inner}", one) for inner, one in value.items())
        else:
            yield name, value
