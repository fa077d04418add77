"""The row GPUs of the board Ranks: what ranks know, joined with what dcgm-exporter says."""

from __future__ import annotations

import re
import threading
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from otel_dllogger.identity import host_name
from tests.support.dashboards import BOARDS, panels_of
from tests.support.nvml import FOUR, PARTITIONED, build_library, describe
from tests.support.paths import ROOT, TESTS
from tests.support.prometheus import Prometheus, wait_for
from tests.support.rank import Rank

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.newest_only

PAGE = TESTS / "scripts" / "dcgm_exporter.prom"  # written by hand, after its template
CONFIGURATION = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [{rules}/*.yml]
scrape_configs:
  - job_name: dllogger
    file_sd_configs: [{{files: ['{discovery}/*.json'], refresh_interval: 1s}}]
  - job_name: dcgm
    static_configs: [{{targets: ['127.0.0.1:{port}']}}]
  - job_name: dcgm-of-another-team
    static_configs: [{{targets: ['127.0.0.1:{port}']}}]
"""


class _Exporter(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = PAGE.read_bytes()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def exporter_port() -> Iterator[int]:
    """Serve the page of a dcgm-exporter, on whose host nobody trains by that name."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Exporter)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory, exporter_port: int) -> Iterator:
    """Train on four GPUs, and on two instances of a fifth; the last rank of all knows no GPU."""
    folder = tmp_path_factory.mktemp("gpus")
    discovery = folder / "discovery"
    discovery.mkdir()
    configuration = folder / "prometheus.yml"
    configuration.write_text(
        CONFIGURATION.format(
            rules=ROOT / "prometheus" / "rules", discovery=discovery, port=exporter_port
        )
    )
    library = build_library(folder)
    with ExitStack() as stack:
        ranks = list(_started(folder, library))
        stack.callback(_end, ranks)
        for rank in ranks:
            rank.wait_started()
        found = stack.enter_context(
            Prometheus(folder, discovery=discovery, configuration=configuration)
        )
        found.ranks = ranks
        yield found


def _end(ranks: list[Rank]) -> None:
    for rank in ranks:
        rank.end()
        rank.process.stdout.close()


def _started(folder: Path, library: Path) -> Iterator[Rank]:
    four = describe(library, folder / "four", FOUR)
    parts = describe(library, folder / "parts", PARTITIONED)
    for run, rank, environ in (
        *(("whole", number, four) for number in range(4)),
        ("parts", 0, {**parts, "CUDA_VISIBLE_DEVICES": "MIG-one"}),
        ("parts", 1, {**parts, "CUDA_VISIBLE_DEVICES": "MIG-two"}),
        ("unknown", 0, {**parts, "CUDA_VISIBLE_DEVICES": ""}),
    ):
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
            for name, value in environ.items():
                monkeypatch.setenv(name, value)
            yield Rank(folder, rank=rank, run=run)


def queries_of(title: str) -> list[str]:
    (panel,) = (one for one in panels_of(BOARDS["ranks.json"]) if one["title"] == title)
    return [target["expr"] for target in panel["targets"]]


def answer(prometheus: Prometheus, query: str, *, run: str, rank: str = ".*") -> dict[str, float]:
    """Return what a query of a panel says by rank; there is one series for each."""
    query = query.replace("$job", "dllogger").replace("$rank", rank).replace("$run", run)
    return prometheus.by_rank(query.replace("$worst", "10").replace("$__range", "5m"))


def wait_answer(prometheus: Prometheus, query: str, *ranks: str, **options: str) -> dict:
    """Return the answer once these ranks are in it."""
    step = iter(range(1, 10**6))

    def train() -> dict[str, float]:
        number = next(step)
        for rank in prometheus.ranks:
            rank.call("log", [0, number], {"loss": 1.0})
        return answer(prometheus, query, **options)

    return wait_for(train, lambda found: {*ranks} <= found.keys())


def test_the_table_has_one_row_for_each_rank_beside_its_gpu(prometheus: Prometheus) -> None:
    """By UUID: names of hosts differ. Two exporters of the same GPU do not matter."""
    extra, known, temperature, power, clock, busy, xid = queries_of("GPUs of the slowest ranks")
    wait_answer(prometheus, temperature, *"0123", run="whole")
    shown = [answer(prometheus, one, run="whole") for one in (temperature, power, clock, busy, xid)]
    assert shown == [
        dict(zip("0123", values, strict=True))
        for values in (
            (51, 53, 88, 49),
            (612.301, 598.77, 699.904, 604.018),
            (1980, 1980, 1410, 1980),
            (99, 98, 100, 97),
            (0, 0, 0, 79),
        )
    ]
    assert answer(prometheus, extra, run="whole").keys() == set("0123")
    query = known.replace("$job", "dllogger").replace("$run", "whole").replace("$worst", "10")
    rows = {labels["rank"]: labels for labels, _one in prometheus.query(query)}
    assert [rows[rank]["gpu"] for rank in "0123"] == ["0", "1", "2", "3"]
    assert {row["host"] for row in rows.values()} == {host_name()}


def test_the_worst_are_those_of_the_slowest_ranks(prometheus: Prometheus) -> None:
    """With a limit of two, two ranks are shown by all columns, and the same ones."""
    queries = queries_of("GPUs of the slowest ranks")
    wait_answer(prometheus, queries[2], *"0123", run="whole")
    two = [one.replace("$worst", "2") for one in queries]
    assert [len(answer(prometheus, one, run="whole")) for one in two] == [2] * len(two)


def test_instances_share_what_is_of_their_gpu(prometheus: Prometheus) -> None:
    """Two ranks on one GPU, of which DCGM has a series for each instance, and no utilisation."""
    _extra, known, temperature, _power, clock, busy, _xid = queries_of("GPUs of the slowest ranks")
    wait_answer(prometheus, temperature, "0", "1", run="parts")
    assert answer(prometheus, temperature, run="parts") == {"0": 62, "1": 62}
    assert answer(prometheus, clock, run="parts") == {"0": 1095, "1": 1095}
    assert answer(prometheus, busy, run="parts") == {}
    query = known.replace("$job", "dllogger").replace("$run", "parts").replace("$worst", "10")
    profiles = {one["rank"]: one["GPU_I_PROFILE"] for one, _value in prometheus.query(query)}
    assert profiles == {"0": "1g.5gb", "1": "3g.20gb"}


def test_graphs_show_the_hottest_and_the_idlest(prometheus: Prometheus) -> None:
    """The worst ranks at the end, and the ranks that are chosen."""
    hottest, chosen = queries_of("Temperature of GPUs")
    wait_answer(prometheus, hottest, *"0123", run="whole")
    assert answer(prometheus, hottest.replace("$worst", "1"), run="whole") == {"2": 88}
    assert answer(prometheus, chosen, run="whole", rank="1") == {"1": 53}
    idlest, chosen, _of_hosts = queries_of("How busy GPUs are")
    assert answer(prometheus, idlest.replace("$worst", "1"), run="whole") == {"3": 97}
    assert answer(prometheus, chosen, run="whole", rank="0") == {"0": 99}


def test_errors_show_the_rank_of_the_gpu(prometheus: Prometheus) -> None:
    """Nothing else is an error."""
    (errors,) = queries_of("XID errors")
    wait_answer(prometheus, errors, "3", run="whole")
    assert answer(prometheus, errors, run="whole") == {"3": 79}
    assert answer(prometheus, errors, run="parts") == {}


@pytest.mark.parametrize("label", ["Hostname", "hostname"])
def test_where_no_rank_knows_its_gpu_those_of_the_host_are_shown(
    prometheus: Prometheus, label: str
) -> None:
    """By the name of the host, as far as nothing better is known."""
    *_by_uuid, of_hosts = queries_of("How busy GPUs are")
    query = of_hosts.replace("$job", "dllogger")
    named = f'label_replace(DCGM_FI_DEV_GPU_UTIL, "{label}", "{host_name()}.example.org", "", "")'
    query = query.replace("DCGM_FI_DEV_GPU_UTIL", named)
    found = wait_for(lambda: prometheus.query(query.replace("$run", "unknown")), bool)
    assert {labels["gpu"] for labels, _value in found} == set("0123")
    assert prometheus.query(query.replace("$run", "whole")) == []


def test_the_shortest_join_has_one_series_for_each_rank(prometheus: Prometheus) -> None:
    """As the documentation has it, where a GPU has one rank and one exporter."""
    guide = (ROOT / "docs" / "how-to" / "gpus.md").read_text()
    short, long, errors = re.findall(r"```promql\n(.+)\n```", guide)
    of_run = short.replace("resnet50-a", "whole").replace("GPU_TEMP", 'GPU_TEMP{job="dcgm"}')
    found = prometheus.wait_by_rank(of_run, lambda ranks: len(ranks) == 4)
    assert found == {"0": 51, "1": 53, "2": 88, "3": 49}
    temperatures = {(one["run"], one["rank"]): value for one, value in prometheus.query(long)}
    wanted = {("whole", rank): value for rank, value in found.items()}
    assert temperatures == wanted | {("parts", "0"): 62, ("parts", "1"): 62}
    assert prometheus.by_rank(errors) == {"3": 79}
