"""A dashboard with the answers to its queries, as the renderer reads it (``renderer/board.ts``)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from grafana.queries.interpolation import interpolate

if TYPE_CHECKING:
    from grafana.queries.dashboard import Dashboard, Panel
    from grafana.queries.datasource import Result


def load_board(dashboard: Dashboard) -> dict[str, Any]:
    """Send every query of a dashboard, and return all that its picture shows, ready for JSON.

    Annotations are queried as well, so that a mistake in them is an error; they are not drawn.

    Args:
        dashboard: The dashboard, with its variables resolved.

    Raises:
        DashboardError: If Prometheus refuses a query.
    """
    for query in dashboard.annotation_queries():
        dashboard.source.run(query)
    rows: list[dict[str, Any]] = []
    for panel in dashboard.panels:
        if panel.kind == "row" or not rows:
            rows.append({"title": panel.title if panel.kind == "row" else "", "panels": []})
        if panel.kind != "row":
            rows[-1]["panels"].append(_load_panel(dashboard, panel))
    return {
        "title": dashboard.model["title"],
        "from_ms": dashboard.source.start_s * 1000,
        "to_ms": dashboard.source.end_s * 1000,
        "variables": [
            {
                "label": model.get("label") or model["name"],
                "text": dashboard.variables[model["name"]].text,
            }
            for model in dashboard.model["templating"]["list"]
            if not model.get("hide") and model["type"] != "datasource"
        ],
        "rows": rows,
    }


def _load_panel(dashboard: Dashboard, panel: Panel) -> dict[str, Any]:
    targets = {str(target.get("refId")): target for target in panel.model.get("targets") or []}
    return {
        "title": panel.title,
        "model": {name: value for name, value in panel.model.items() if name != "targets"},
        "variables": {name: variable.text for name, variable in panel.variables.items()},
        "answers": [
            _describe_answer(result, targets[result.query.ref_id], panel)
            for result in dashboard.run(panel)
        ],
    }


def _describe_answer(result: Result, target: dict[str, Any], panel: Panel) -> dict[str, Any]:
    query = result.query
    return {
        "ref_id": query.ref_id,
        "format": target.get("format") or "time_series",
        "legend": interpolate(target.get("legendFormat") or "", panel.variables),
        "is_hidden": query.is_hidden,
        "step_ms": None if query.is_instant else query.intervals.step_s * 1000,
        "series": [
            {
                "labels": frame.labels,
                "samples": [
                    # JSON has no number for what is not finite.
                    (time_s * 1000, value if math.isfinite(value) else str(value))
                    for time_s, value in frame.samples
                ],
            }
            for frame in result.frames
        ],
    }
