"""A ``caplog`` that includes the warnings so far, which a thread of the package writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from otel_dllogger.diagnostics import Diagnostics


class SpokenLog:
    """A ``caplog`` that waits for warnings before it is looked at.

    Args:
        caplog: pytest's fixture.
        diagnostics: The source of the warnings.
    """

    def __init__(self, caplog: Any, diagnostics: Diagnostics) -> None:
        self._caplog = caplog
        self._faults = diagnostics

    def __getattr__(self, name: str) -> Any:
        self._faults.drain()
        return getattr(self._caplog, name)
