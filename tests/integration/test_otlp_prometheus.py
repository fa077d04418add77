"""A real Prometheus that takes no OTLP: the warning says what to change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from otel_dllogger.backends.otlp import OTLPBackend
from otel_dllogger.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.prometheus import Prometheus

pytest.importorskip("opentelemetry.proto", reason="pip install 'otel-dllogger[otlp]'")


STEP = "that of Prometheus, with --web.enable-otlp-receiver, http://HOST:9090/api/v1/otlp"


@pytest.mark.parametrize("path", ["/api/v1/otlp", "", "/opentelemetry"])
def test_a_prometheus_that_takes_no_otlp_is_said_how_to(
    prometheus: Prometheus, caplog: Any, counted: Callable[[], dict[str, int]], path: str
) -> None:
    """Either its receiver is off, as it is by default, or the endpoint is another one."""
    backend = OTLPBackend(1, endpoint=prometheus.url + path, run="r", rank=0)
    backend.write_record(Record(1_700_000_000_000_000, 0, (0, 0), {"loss": 1.0}))
    backend.close()
    assert {"otlp_refused"} == counted().keys()
    (told,) = {record.message for record in caplog.records}
    assert STEP in told
