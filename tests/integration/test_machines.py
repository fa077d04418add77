"""The row Machines of the board Ranks, with a real node_exporter."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

import otel_dllogger as dllogger
from otel_dllogger.identity import host_name
from tests.support.collector import free_port
from tests.support.dashboards import BOARDS, panels_of
from tests.support.paths import ROOT
from tests.support.prometheus import Prometheus, find_program, wait_for

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.newest_only

CONFIGURATION = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [{rules}/*.yml]
scrape_configs:
  - job_name: dllogger
    file_sd_configs: [{{files: ['{discovery}/*.json']}}]
  - job_name: node
    static_configs: [{{targets: ['127.0.0.1:{port}']}}]
"""


def test_the_hosts_of_a_run_are_found_at_the_node_exporter(tmp_path: Path) -> None:
    """By the name of the host, and only for hosts on which a rank of the run is."""
    port, discovery = free_port(), tmp_path / "discovery"
    discovery.mkdir()
    configuration = tmp_path / "prometheus.yml"
    rules = ROOT / "prometheus" / "rules"
    configuration.write_text(CONFIGURATION.format(rules=rules, discovery=discovery, port=port))
    command = [find_program("prometheus-node-exporter"), f"--web.listen-address=127.0.0.1:{port}"]
    exporter = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    backend = dllogger.PrometheusBackend(
        dllogger.Verbosity.VERBOSE, port=0, run="r", discovery_dir=discovery
    )
    logger = dllogger.Logger([backend])
    try:
        logger.log((0, 1), {"loss": 1.0})
        with Prometheus(tmp_path, discovery=discovery, configuration=configuration) as prometheus:
            for title in ("Processor", "Memory"):
                (panel,) = (one for one in panels_of(BOARDS["ranks.json"]) if one["title"] == title)
                query = panel["targets"][0]["expr"].replace("$job", "dllogger")
                query = query.replace("$__rate_interval", "5s")
                of_run, of_none = query.replace("$run", "r"), query.replace("$run", "other")
                found = wait_for(lambda one=of_run: prometheus.query(one), bool)
                ((labels, share),) = found
                assert labels["host"] == labels["nodename"] == host_name()
                assert 0 <= share <= 1
                assert prometheus.query(of_none) == []
    finally:
        logger.close()
        exporter.terminate()
        exporter.wait()
