"""Those of Grafana's transformations of tables that the dashboards use.

The rules are from grafana/grafana: ``packages/grafana-prometheus/src/result_transformer.ts``
(``transformDFToTable``) for the tables, and for the rest ``merge.ts``, ``organize.ts`` and
``groupingToMatrix.ts`` in ``packages/grafana-data/src/transformations/transformers`` and
``public/app/features/transformers/partitionByValues/partitionByValues.ts``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from grafana.preview.datasource import Result

Cell = float | str | None
TIME, VALUE = "Time", "Value"


@dataclass(frozen=True, slots=True)
class Table:
    """A data frame of Grafana.

    Attributes:
        columns: The names of the columns, from left to right.
        rows: The rows, each with a cell for each column.
        labels: The values that all rows have in common, after the table was split by them.
        sources: The names of the columns before they were renamed.
    """

    columns: list[str]
    rows: list[list[Cell]]
    labels: dict[str, str] = field(default_factory=dict)
    sources: list[str] = field(default_factory=list)

    def column(self, name: str) -> list[Cell]:
        """Return the cells of a column."""
        index = self.columns.index(name)
        return [row[index] for row in self.rows]


def make_tables(results: Sequence[Result]) -> list[Table]:
    """Make a table from each answer that is not empty: time, labels by name, value."""
    filled = [result for result in results if result.frames and not result.query.is_hidden]
    tables = []
    for result in filled:
        value = f"{VALUE} #{result.query.ref_id}" if len(filled) > 1 else VALUE
        names = list(
            dict.fromkeys(name for frame in result.frames for name in sorted(frame.labels))
        )
        rows: list[list[Cell]] = [
            [time_s * 1000, *(frame.labels.get(name, "") for name in names), number]
            for frame in result.frames
            for time_s, number in frame.samples
        ]
        rows.sort(key=lambda row: float(row[0] or 0))
        tables.append(Table([TIME, *names, value], rows))
    return tables


def transform(tables: list[Table], transformations: Iterable[Mapping[str, Any]]) -> list[Table]:
    """Apply the transformations of a panel, one after the other.

    Raises:
        ValueError: If one is not supported.
    """
    for one in transformations:
        if one.get("disabled"):
            continue
        if one["id"] not in TRANSFORMATIONS:
            raise ValueError(f"transformation {one['id']!r} is not known; add it to {__name__}")
        tables = TRANSFORMATIONS[one["id"]](tables, one.get("options") or {})
    return tables


def merge(tables: list[Table], _options: Mapping[str, Any]) -> list[Table]:
    """Merge tables into one: rows that agree in all shared columns become one."""
    if len(tables) < 2:
        return tables
    names = list(dict.fromkeys(name for table in tables for name in table.columns))
    keys = [name for name in names if all(name in table.columns for table in tables)]
    if not keys:
        return tables
    found: dict[tuple[Cell, ...], list[dict[str, Cell]]] = {}
    ordered: list[dict[str, Cell]] = []
    for table in tables:
        for row in table.rows:
            cells = dict(zip(table.columns, row, strict=True))
            alike = found.setdefault(tuple(cells[name] for name in keys), [])
            fitting = [one for one in alike if _agree(one, cells)]
            for one in fitting:
                one.update(cells)
            if not fitting:
                alike.append(cells)
                ordered.append(cells)
    return [Table(names, [[cells.get(name) for name in names] for cells in ordered])]


def organize(tables: list[Table], options: Mapping[str, Any]) -> list[Table]:
    """Remove, reorder and rename columns."""
    excluded = {name for name, is_out in (options.get("excludeByName") or {}).items() if is_out}
    included = {name for name, is_in in (options.get("includeByName") or {}).items() if is_in}
    places, titles = options.get("indexByName") or {}, options.get("renameByName") or {}
    organized = []
    for table in tables:
        kept = [
            name
            for name in table.columns
            if name not in excluded and (not included or name in included)
        ]
        kept.sort(key=lambda name: places.get(name, math.inf))
        indices = [table.columns.index(name) for name in kept]
        rows = [[row[index] for index in indices] for row in table.rows]
        organized.append(Table([titles.get(name) or name for name in kept], rows, sources=kept))
    return organized


def grouping_to_matrix(tables: list[Table], options: Mapping[str, Any]) -> list[Table]:
    """Make a row for each value of one column, and a column for each value of another."""
    row_name, column_name = options.get("rowField", TIME), options.get("columnField", TIME)
    value_name = options.get("valueField", VALUE)
    if len(tables) != 1 or {row_name, column_name, value_name} - set(tables[0].columns):
        return tables
    table = tables[0]
    rows, columns = table.column(row_name), table.column(column_name)
    cells = dict(zip(zip(rows, columns, strict=True), table.column(value_name), strict=True))
    titles = list(dict.fromkeys(columns))
    grid = [[row, *(cells.get((row, title)) for title in titles)] for row in dict.fromkeys(rows)]
    return [Table([f"{row_name}\\{column_name}", *map(str, titles)], grid)]


def partition_by_values(tables: list[Table], options: Mapping[str, Any]) -> list[Table]:
    """Split a table into one for each set of values of some columns, which become labels.

    Raises:
        ValueError: If the values should become names instead of labels.
    """
    if not (options.get("naming") or {}).get("asLabels", True):
        raise ValueError("partitionByValues is only drawn with naming.asLabels")
    if not tables:
        return tables
    table = tables[0]
    keys = [name for name in table.columns if name in options.get("fields", [])]
    if not keys:
        return [table]
    rest = [name for name in table.columns if name not in keys or options.get("keepFields", False)]
    parts: dict[tuple[Cell, ...], Table] = {}
    for row in table.rows:
        cells = dict(zip(table.columns, row, strict=True))
        values = tuple(cells[name] for name in keys)
        labels = {name: str(value) for name, value in zip(keys, values, strict=True)}
        part = parts.setdefault(values, Table(rest, [], labels))
        part.rows.append([cells[name] for name in rest])
    return list(parts.values())


TRANSFORMATIONS: dict[str, Callable[[list[Table], Mapping[str, Any]], list[Table]]] = {
    "groupingToMatrix": grouping_to_matrix,
    "merge": merge,
    "organize": organize,
    "partitionByValues": partition_by_values,
}


def _agree(left: Mapping[str, Cell], right: Mapping[str, Cell]) -> bool:
    return all(left.get(name) is None or left[name] == value for name, value in right.items())
