"""What is known of a series besides its rank and its values."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from otel_dllogger.metrics.naming import unit_of_name
from otel_dllogger.metrics.text_format import format_series

if TYPE_CHECKING:
    from collections.abc import Mapping


class Metric(NamedTuple):
    """What tells a series apart from the others of its rank: its name, and three of its labels.

    Attributes:
        name: The name in Prometheus.
        metric: The name as it was logged.
        stage: The stage; empty if there is none.
        granularity: The kind of step at which it was logged.
    """

    name: str
    metric: str
    stage: str
    granularity: str

    @classmethod
    def of(cls, name: str, labels: Mapping[str, str]) -> Metric:
        """Return the metric of a series.

        Args:
            name: Its name in Prometheus.
            labels: Its labels.
        """
        return cls(
            name,
            labels.get("metric", ""),
            labels.get("stage", ""),
            labels.get("granularity", ""),
        )

    @property
    def selector(self) -> str:
        """Return it as a query in PromQL, which selects its series of all runs and ranks."""
        labels = (
            ("granularity", self.granularity),
            ("metric", self.metric),
            ("stage", self.stage),
        )
        return format_series(self.name, [pair for pair in labels if pair[1]])


class Traits(NamedTuple):
    """What else is known of a series, by its other labels; empty where it is not known.

    Attributes:
        goal: ``minimize`` or ``maximize``.
        kind: One of ``metrics.kinds.KINDS``.
        unit: The unit, for people.
        scope: ``rank`` or ``global``.
    """

    goal: str = ""
    kind: str = ""
    unit: str = ""
    scope: str = ""

    @classmethod
    def of(cls, name: str, labels: Mapping[str, str]) -> Traits:
        """Return the traits of a series.

        Args:
            name: Its name in Prometheus, which may end with its unit.
            labels: Its labels.
        """
        goal, kind, scope = (labels.get(label, "") for label in ("goal", "kind", "scope"))
        return cls(goal, kind, labels.get("unit", "") or unit_of_name(name), scope)

    def completed_by(self, other: Traits) -> Traits:
        """Return these traits, and those of another series where these are not known."""
        return Traits(*(own or others for own, others in zip(self, other, strict=True)))
