"""``otel-dllogger run`` sends to the collector that the environment names, from any script."""

from __future__ import annotations

import os
import textwrap
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.command import otel_dllogger
from tests.support.victoriametrics import VictoriaMetrics

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest.importorskip("opentelemetry.proto", reason="pip install 'otel-dllogger[otlp]'")

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
STEPS = 5
LOG = f"""
import dllogger
dllogger.init([])
for step in range({STEPS}):
    dllogger.log((0, step), {{"loss": 1.0 + step}})
"""


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VictoriaMetrics]:
    """One for all tests; each has a run of its own."""
    with VictoriaMetrics(tmp_path_factory.mktemp("otlp") / "data") as server:
        yield server


def run_script(folder: Path, script: str, *options: str, **variables: str) -> Any:
    """Run a script, and return the process that ended."""
    (folder / "train.py").write_text(textwrap.dedent(script))
    variables = {"OTEL_DLLOGGER_DISCOVERY_DIR": "none", **variables}
    return otel_dllogger("run", "--port", "0", *options, "train.py", cwd=folder, **variables)


def ranks_of(database: VictoriaMetrics, run: str) -> dict[str, int]:
    """Return the number of losses of each rank that arrived."""
    found = database.export(f'dl_loss{{run="{run}"}}')
    return {series["metric"]["rank"]: len(series["values"]) for series in found}


def test_a_script_that_knows_nothing_of_it_sends_every_step(
    tmp_path: Path, database: VictoriaMetrics
) -> None:
    """Each with its own time, and a line at the first says where to."""
    endpoint = f"{database.url}/opentelemetry"
    done = run_script(tmp_path, LOG, "--run", "plain", **{ENDPOINT: endpoint, "RANK": "3"})
    assert (0, "") == (done.returncode, done.stdout)
    page, sent = done.stderr.splitlines()
    assert page.startswith("otel-dllogger: metrics of rank 3, run plain: http://")
    assert f"otel-dllogger: every step is sent to {endpoint}/v1/metrics" == sent
    assert {"3": STEPS} == ranks_of(database, "plain")
    quiet = run_script(tmp_path, LOG, "--run", "quiet", "-q", **{ENDPOINT: endpoint})
    assert (0, "") == (quiet.returncode, quiet.stderr)
    assert {"0": STEPS} == ranks_of(database, "quiet")


def test_a_script_that_sends_itself_sends_once(tmp_path: Path, database: VictoriaMetrics) -> None:
    """Its own backend is the only one, and nothing is said of another."""
    script = LOG.replace("init([])", "init([dllogger.OTLPBackend(1)])")
    settings = {ENDPOINT: f"{database.url}/opentelemetry", "OTEL_DLLOGGER_RUN": "own"}
    done = run_script(tmp_path, script, **settings)
    assert (0, 1) == (done.returncode, done.stderr.count("\n")), done.stderr
    assert {"0": STEPS} == ranks_of(database, "own")


def test_processes_that_log_send_and_their_launcher_does_not(
    tmp_path: Path, database: VictoriaMetrics
) -> None:
    """Spawned ones are ranks; a forked one and the parent that only starts them are not."""
    script = f"""
    import multiprocessing, os
    import dllogger

    def train(rank):
        os.environ["RANK"] = str(rank)
        dllogger.init([])
        for step in range({STEPS}):
            dllogger.log((0, step), {{"loss": 1.0}})

    if __name__ == "__main__":
        for rank in (1, 2):
            child = multiprocessing.get_context("spawn").Process(target=train, args=(rank,))
            child.start()
            child.join()
            assert child.exitcode == 0
        if os.fork() == 0:
            train(3)  # and ends as every script does, which would send what there is
        else:
            os.wait()
    """
    done = run_script(
        tmp_path, script, "--run", "many", **{ENDPOINT: f"{database.url}/opentelemetry"}
    )
    assert 0 == done.returncode, done.stderr
    assert {"1": STEPS, "2": STEPS} == ranks_of(database, "many")
    everything = database.export('{run="many"}')
    assert {"1", "2"} == {series["metric"]["rank"] for series in everything}


@pytest.mark.parametrize(
    "variables",
    [
        {ENDPOINT: ""},
        {"OTEL_SDK_DISABLED": "TRUE"},
        {"OTEL_METRICS_EXPORTER": "none"},
        {"OTEL_METRICS_EXPORTER": "prometheus, console"},
    ],
)
def test_nothing_is_sent_where_that_was_not_asked_for(
    tmp_path: Path, database: VictoriaMetrics, variables: dict[str, str]
) -> None:
    """Neither a word of it, nor a value."""
    settings = {ENDPOINT: f"{database.url}/opentelemetry", **variables}
    done = run_script(tmp_path, LOG, "--run", "off", **settings)
    (page,) = done.stderr.splitlines()
    assert page.startswith("otel-dllogger: metrics of")
    assert {} == ranks_of(database, "off")


def test_what_cannot_be_sent_is_said_and_the_training_runs(tmp_path: Path) -> None:
    """An address that is none, and packages that are missing: one line each, with the next step."""
    script = f"{LOG}print('trained')"
    done = run_script(tmp_path, script, **{ENDPOINT: "localhost"})
    assert (0, "trained\n") == (done.returncode, done.stdout)
    warning, _page = done.stderr.splitlines()
    assert f"nothing is sent over OTLP: {ENDPOINT}='localhost' is not the address" in warning
    assert "set it to an address such as http://localhost:4318" in warning
    logs_endpoint = "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"
    settings = {ENDPOINT: "http://127.0.0.1:1", logs_endpoint: "localhost"}
    done = run_script(tmp_path, script, **settings)
    assert (0, "trained\n") == (done.returncode, done.stdout)
    warning, _page = done.stderr.splitlines()
    assert f"nothing is sent over OTLP: {logs_endpoint}='localhost' is not the address" in warning
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['requests'] = None")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    for setting in (ENDPOINT, "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"):
        done = run_script(tmp_path, script, **{setting: "http://127.0.0.1:1"}, PYTHONPATH=path)
        assert (0, "trained\n") == (done.returncode, done.stdout)
        warning, _page = done.stderr.splitlines()
        assert "needs the package requests: pip install 'otel-dllogger[otlp]', or pip" in warning
