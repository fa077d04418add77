"""Pages of something else than this package: they hide no other page, and no view fails."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from otel_dllogger.view.assessment import assess
from otel_dllogger.view.model import Model
from otel_dllogger.view.page_source import FixedPlaces, PageSource
from otel_dllogger.view.plain import plain_run
from otel_dllogger.view.server.changes import encode
from otel_dllogger.view.table import make_table
from otel_dllogger.view.terminal.run_line import plain_line

pytestmark = pytest.mark.newest_only

GAUGES = (
    "dllogger_epoch",
    "dllogger_iteration",
    "dllogger_steps_total",
    "dllogger_step_seconds_total",
    "dllogger_last_log_timestamp_seconds",
    "dllogger_run_start_timestamp_seconds",
    "dllogger_run_finished",
    "dllogger_records_total",
    "dllogger_nonfinite_total",
    "dllogger_dropped_total",
    "dllogger_parameter",
    "dl_loss",
)
LABELS = 'type="log",name="lr",metric="loss",kind="loss",granularity="iteration",reason="x"'


class Pages(BaseHTTPRequestHandler):
    """The path is a value, for every metric; each page also has a rank that is well."""

    def do_GET(self) -> None:
        value = self.path.strip("/")
        lines = [f'{name}{{run="odd",rank="0",{LABELS}}} {value}' for name in GAUGES]
        info = f'attempt="{value}",world_size="{value}",pid="1"'
        lines += [f'dllogger_rank_info{{run="odd",rank="{rank}",{info}}} 1' for rank in (0, 10**30)]
        lines.append('dllogger_iteration{run="well",rank="0"} 5')
        body = "\n".join([*lines, ""]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf", "1e300", "-1e300", "0"])
def test_values_that_cannot_be(value: str) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        model = Model()
        source = PageSource(
            [FixedPlaces([f"http://127.0.0.1:{server.server_port}/{value}"])], model
        )
        source.poll()
        source.close()
        server.shutdown()
    assert not source.errors
    assert model.runs["well"].ranks[0].iteration == 5
    for run in model.runs.values():
        status = assess(run, 1_700_000_000.0)
        json.loads(encode(plain_run(status)))
        assert plain_line(status, make_table(status)).startswith(run.name)
