"""Panels that are tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from grafana.source.panels import About, Query, ask, describe, mapping
from grafana.source.sdk import common, models, table

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        field: A label, or ``Value``; with several queries, ``Value #A`` for the first one's value.
        title: Its heading.
        unit: Grafana's id of the unit, for a value; a label is text, whatever it looks like.
        steps: Colours of the cell, as in ``About``.
        link: Where a click leads.
        decimals: Digits after the decimal point.
        width: In pixels; by default, as wide as there is room for.
        names: Words for values.
        empty: What a cell without a value says.
    """

    field: str
    title: str
    unit: str | None = None
    steps: tuple[tuple[float | None, str], ...] | None = None
    link: str | None = None
    decimals: int | None = None
    width: int | None = None
    names: tuple[tuple[str, str, str], ...] = ()
    empty: str = ""


def rows(
    about: About,
    queries: Sequence[Query],
    columns: Sequence[Column],
    *,
    sort_by: str | Sequence[str] = (),
    ascending: bool = False,
    hidden: Sequence[str] = (),
    width: int = 12,
    height: int = 9,
) -> table.Panel:
    """Show the current values of several queries as a table, with a row for each set of labels.

    Args:
        about: The texts and settings that every panel has.
        queries: Their values are merged into one row where their labels agree.
        columns: From left to right.
        sort_by: The titles of the columns whose largest values come first.
        ascending: Begin with the smallest values instead.
        hidden: Labels, or values of queries, that have no column.
        width: In columns of the dashboard, which has 24.
        height: In units of the dashboard's grid.
    """
    panel = describe(table.Panel(), about, width, height)
    ask(panel, queries, instant=True, as_table=True)
    if len(queries) > 1:
        panel.with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
    fields = [column.field for column in columns]
    panel.with_transformation(
        models.DataTransformerConfig(
            id_val="organize",
            options={
                "excludeByName": {
                    field: True
                    for field in ("Time", "__name__", "Value", *hidden)
                    if field not in fields
                },
                "includeByName": {},
                "indexByName": {field: index for index, field in enumerate(fields)},
                "renameByName": {
                    field: column.title for field, column in zip(fields, columns, strict=True)
                },
            },
        )
    )
    for column in columns:
        properties = []
        # Grafana gives a label that looks like a number the table's unit: rank 1000 would be "1 K".
        unit = column.unit or (None if column.field.startswith("Value") else "string")
        if unit is not None:
            properties.append(models.DynamicConfigValue(id_val="unit", value=unit))
        if column.steps is not None:
            steps = [{"color": color, "value": value} for value, color in column.steps]
            properties += [
                models.DynamicConfigValue(
                    id_val="thresholds", value={"mode": "absolute", "steps": steps}
                ),
                models.DynamicConfigValue(
                    id_val="custom.cellOptions", value={"type": "color-background", "mode": "basic"}
                ),
            ]
        if column.decimals is not None:
            properties.append(models.DynamicConfigValue(id_val="decimals", value=column.decimals))
        if column.width is not None:
            properties.append(models.DynamicConfigValue(id_val="custom.width", value=column.width))
        if about.nothing:  # which empty cells would say as well
            properties.append(models.DynamicConfigValue(id_val="noValue", value=column.empty))
        if column.names:
            names = [mapping(column.names)]
            properties.append(models.DynamicConfigValue(id_val="mappings", value=names))
        if column.link is not None:
            links = [{"title": "Show it", "url": column.link}]
            properties.append(models.DynamicConfigValue(id_val="links", value=links))
        if properties:
            panel.override_by_name(column.title, properties)
    panel.show_header(True).filterable(True)
    panel.sort_by(
        [
            common.TableSortByFieldState().display_name(title).desc(not ascending)
            for title in ([sort_by] if isinstance(sort_by, str) else sort_by)
        ]
    )
    return panel


def matrix(
    about: About, query: Query, *, row: str, column: str, width: int = 12, height: int = 9
) -> table.Panel:
    """Show current values as a table of one label by another.

    Args:
        about: The texts and settings that every panel has.
        query: The values.
        row: The label with a row for each of its values.
        column: The label with a column for each of its values.
        width: In columns of the dashboard, which has 24.
        height: In units of the dashboard's grid.
    """
    panel = describe(table.Panel(), about, width, height)
    ask(panel, [query], instant=True, as_table=True)
    panel.with_transformation(
        models.DataTransformerConfig(
            id_val="groupingToMatrix",
            options={"columnField": column, "rowField": row, "valueField": "Value"},
        )
    )
    # Grafana gives a label that looks like a number the table's unit: rank 1 would be "100 %".
    unit = models.DynamicConfigValue(id_val="unit", value="string")
    panel.override_by_name(f"{row}\\{column}", [unit])
    return panel.show_header(True).filterable(True)
