"""The resource of a rank: what the environment says of it, less secrets."""

from __future__ import annotations

import os
import platform
from typing import Any

import pytest
from opentelemetry.sdk.resources import ProcessResourceDetector, Resource
from opentelemetry.semconv.schemas import Schemas

from otel_dllogger import Logger, PrometheusBackend
from otel_dllogger.identity import host_name
from otel_dllogger.metrics.resource import (
    SCHEMA_URL,
    _clean,
    logged_resource,
    process_resource,
    rank_resource,
)
from tests.support.http import ask


def test_the_resource_has_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by their names nor in URLs and command lines."""
    attributes = "api_key=hunter2,db=pg://me:hunter2@h,cmd=x --token hunter2,team=a%20b"
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", attributes)
    found = rank_resource("run", 3).attributes
    assert "hunter2" not in str(found)
    assert "api_key" not in found
    assert found["db"] == "pg://[redacted]@h"
    assert found["cmd"] == "x --token [redacted]"
    assert (found["team"], found["service.instance.id"]) == ("a b", "run/3")


@pytest.mark.parametrize("kind", [tuple, list])
def test_arguments_in_the_resource_have_no_secrets(kind: type) -> None:
    """Those of the process, which a detector of OpenTelemetry may add."""
    arguments = kind(["train.py", "--password", "my hunter2", "--lr=0.1"])
    assert _clean(arguments) == ["train.py", "--password", "[redacted]", "--lr=0.1"]
    assert [_clean(kind([1, 2])), _clean(3), _clean(True)] == [kind([1, 2]), 3, True]


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin without what the machine of the tests says of itself."""
    for name in (
        "OTEL_RESOURCE_ATTRIBUTES",
        "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS",
        "SLURM_JOB_ID",
    ):
        monkeypatch.delenv(name, raising=False)


def test_the_resource_says_where_the_rank_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Host, Python and Slurm job; nothing that is new at each restart, except of log records."""
    monkeypatch.setenv("SLURM_JOB_ID", "4242")
    found = rank_resource("run", 3).attributes
    assert {
        "host.name": host_name(),
        "slurm.job.id": "4242",
        "process.runtime.name": "cpython",
        "process.runtime.version": platform.python_version(),
        "service.name": "otel_dllogger",
        "service.instance.id": "run/3",
    }.items() <= found.items()
    assert "process.pid" not in found
    assert {"process.pid": os.getpid()} == dict(
        process_resource("run", 3).attributes.items() - found.items()
    )


def test_the_environment_knows_better(monkeypatch: pytest.MonkeyPatch) -> None:
    """Detectors that are asked for come before ours, and OTEL_RESOURCE_ATTRIBUTES before all."""
    monkeypatch.setenv("SLURM_JOB_ID", "4242")
    monkeypatch.setenv("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", "host,os,process")
    monkeypatch.setenv(
        "OTEL_RESOURCE_ATTRIBUTES", "slurm.job.id=7,process.pid=8,k8s.pod.name=train-0-x"
    )
    found = rank_resource("run", 3).attributes
    assert ("7", "8", "train-0-x") == (
        found["slurm.job.id"],
        found["process.pid"],
        found["k8s.pod.name"],
    )
    assert found["os.type"] == platform.system().lower()
    assert found["host.name"] == platform.node()


def test_a_rank_of_a_log_is_not_where_its_log_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bridge's host, job and process are not the rank's."""
    monkeypatch.setenv("SLURM_JOB_ID", "4242")
    found = logged_resource("run", 3).attributes
    assert not [name for name in found if name.startswith(("host", "process", "slurm"))]
    assert ("otel_dllogger", "run/3") == (found["service.name"], found["service.instance.id"])


def test_a_detector_that_fails_costs_nothing_else(
    monkeypatch: pytest.MonkeyPatch, counted: Any
) -> None:
    """The fault is counted, and the rest of the resource is there."""

    def fail(_self: object) -> Resource:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr(ProcessResourceDetector, "detect", fail)
    found = process_resource("run", 3).attributes
    assert ("run/3", host_name()) == (found["service.instance.id"], found["host.name"])
    assert {"backend_failed": 1} == counted()


def test_the_conventions_are_known_to_opentelemetry() -> None:
    """To the oldest version that is supported as to the newest."""
    assert SCHEMA_URL in {schema.value for schema in Schemas}
    assert {SCHEMA_URL} == {
        made("run", 3).schema_url for made in (rank_resource, process_resource, logged_resource)
    }


def test_target_info_is_the_same_after_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has what the resource has, and no attribute of this process alone."""
    monkeypatch.setenv("SLURM_JOB_ID", "4242")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "k8s.node.name=node-1")
    backend = PrometheusBackend(1, port=0, run="r", rank=3, linger_s=0)
    logger = Logger([backend])
    logger.log((0, 1), {"loss": 1.0})
    assert backend.endpoint is not None
    page = ask(backend.endpoint.port).body.decode()
    logger.close()
    (line,) = [line for line in page.splitlines() if line.startswith("target_info{")]
    for label in ('slurm_job_id="4242"', f'host_name="{host_name()}"', 'k8s_node_name="node-1"'):
        assert label in line
    assert "pid" not in line
