"""The files for Kubernetes: what its API takes, and the same rules and dashboards as elsewhere."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import urllib.request
from typing import Any

import pytest
import yaml
from jsonschema.validators import Draft202012Validator

from tests.support.paths import ROOT
from tests.support.rank import Rank

pytestmark = pytest.mark.newest_only

FOLDER = ROOT / "deploy" / "kubernetes"
DASHBOARDS = sorted((ROOT / "grafana" / "dashboards").glob("*.json"))
OBJECTS = [path for path in sorted(FOLDER.rglob("*.yaml")) if path.name != "kustomization.yaml"]
SCHEMA = json.loads((ROOT / "tests" / "kubernetes_schema" / "schema.json").read_text())


def faults(thing: dict[str, Any]) -> list[str]:
    schema = {**SCHEMA["kinds"][thing["kind"]], "definitions": SCHEMA["definitions"]}
    return [error.message for error in Draft202012Validator(schema).iter_errors(thing)]


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((FOLDER / name).read_text())


def job() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the pods' template and its container."""
    template = load("training/training-job.yaml")["spec"]["template"]
    (container,) = template["spec"]["containers"]
    return template, container


def build(folder: str) -> list[dict[str, Any]]:
    """Return what kustomize makes of a folder."""
    kubectl = shutil.which("kubectl") or pytest.skip("kubectl is not installed")
    done = subprocess.run(
        [kubectl, "kustomize", str(FOLDER / folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@pytest.mark.parametrize("path", OBJECTS, ids=lambda path: path.stem)
def test_kubernetes_takes_each_object(path):
    """Every field exists and has the right type, by the schema of its kind."""
    assert faults(yaml.safe_load(path.read_text())) == []


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (("spec", "completionMod"), "completionMod"),
        (("spec", "template", "spec", "subdomian"), "subdomian"),
        (("metadata", "lables"), "lables"),
    ],
)
def test_a_misspelt_field_is_found(path, message):
    """The schema is a strict one."""
    thing = load("training/training-job.yaml")
    at = thing
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = "x"
    assert any(message in fault for fault in faults(thing))


def test_kustomizations_name_every_file():
    """A file that no kustomization names would never be applied."""
    for folder in (FOLDER, FOLDER / "training"):
        resources = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
        assert all((folder / resource).exists() for resource in resources)
        own = {path.name for path in OBJECTS if path.parent == folder}
        assert own == {resource for resource in resources if not resource.startswith("..")}


@pytest.mark.parametrize("folder", [".", "training"])
def test_kustomize_builds_what_kubernetes_takes(folder):
    """With all labels and generated objects; each has a name of its own."""
    things = build(folder)
    assert [fault for thing in things for fault in faults(thing)] == []
    names = [(thing["kind"], thing["metadata"]["name"]) for thing in things]
    assert len(set(names)) == len(names)
    kinds = {"PodMonitor", "PrometheusRule", "ConfigMap"} if folder == "." else {"Job", "Service"}
    assert {kind for kind, _ in names} == kinds


def test_the_rules_are_those_of_prometheus():
    """`make kubernetes` has been run since the last change, and changes nothing in them."""
    generated = runpy.run_path(str(FOLDER / "generate.py"))["prometheus_rule"]()
    assert (FOLDER / "prometheus-rule.yaml").read_text() == generated
    ours = [
        group
        for path in sorted((ROOT / "prometheus" / "rules").glob("*.yml"))
        if path.name != "monitoring.yml"
        for group in yaml.safe_load(path.read_text())["groups"]
    ]
    assert load("prometheus-rule.yaml")["spec"]["groups"] == ours


def test_every_dashboard_is_a_config_map_for_the_sidecar():
    """Under its own name, small enough for kubectl apply, and with the label that is looked for."""
    config = yaml.safe_load((DASHBOARDS[0].parent / "kustomization.yaml").read_text())
    files = [file for one in config["configMapGenerator"] for file in one["files"]]
    assert sorted(files) == [path.name for path in DASHBOARDS]
    assert config["generatorOptions"]["labels"] == {"grafana_dashboard": "1"}
    assert max(path.stat().st_size for path in DASHBOARDS) < 200_000


def test_config_maps_hold_the_dashboards():
    """As they are in the repository."""
    maps = [thing for thing in build(".") if thing["kind"] == "ConfigMap"]
    assert all(one["metadata"]["labels"]["grafana_dashboard"] == "1" for one in maps)
    data = {name: text for one in maps for name, text in one["data"].items()}
    assert data == {path.name: path.read_text() for path in DASHBOARDS}


def test_the_monitor_scrapes_every_port_of_the_job():
    """It selects the Job's pods, and has an endpoint for each local rank's port."""
    monitor = load("pod-monitor.yaml")["spec"]
    template, container = job()
    assert monitor["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    endpoints = [one["port"] for one in monitor["podMetricsEndpoints"]]
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    assert endpoints == list(ports)
    assert list(ports.values()) == list(range(9464, 9464 + len(ports)))
    ranks = re.search(r"--nproc-per-node=(\d+)", container["command"][-1])
    assert len(ports) == int(ranks[1]) == container["resources"]["limits"]["nvidia.com/gpu"]
    shipped = yaml.safe_load((ROOT / "prometheus/prometheus.yml").read_text())
    assert monitor["sampleLimit"] == shipped["scrape_configs"][0]["sample_limit"]
    for one in monitor["podMetricsEndpoints"]:
        times = {"interval": one["interval"], "scrapeTimeout": one["scrapeTimeout"]}
        assert times == {
            "interval": shipped["global"]["scrape_interval"],
            "scrapeTimeout": shipped["global"]["scrape_timeout"],
        }


def test_pods_find_each_other():
    """The Service has the subdomain's name and selects the pods; torchrun counts them."""
    template, container = job()
    service = load("training/service.yaml")
    assert service["metadata"]["name"] == template["spec"]["subdomain"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    spec = load("training/training-job.yaml")["spec"]
    command = container["command"][-1]
    assert spec["completionMode"] == "Indexed"
    assert f"--nnodes={spec['completions']} " in command
    assert spec["completions"] == spec["parallelism"]
    assert f'"$OTEL_DLLOGGER_RUN-0.{service["metadata"]["name"]}"' in command


def test_all_pods_are_one_run_at_the_pods_address(monkeypatch, tmp_path):
    """A real rank with the Job's environment: the run is the Job, the page is not on loopback."""
    environment = {one["name"]: one for one in job()[1]["env"]}
    assert environment["OTEL_DLLOGGER_RUN"]["valueFrom"]["fieldRef"]["fieldPath"] == (
        "metadata.labels['batch.kubernetes.io/job-name']"
    )
    labels = {
        "batch.kubernetes.io/job-name": load("training/training-job.yaml")["metadata"]["name"]
    }
    for name, one in environment.items():
        field = one.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath", "")
        key = re.fullmatch(r"metadata\.labels\['(.+)'\]", field)
        value = labels[key[1]] if key else one.get("value", f"the {field}")
        # Kubernetes fills in the variables before it in the list.
        value = re.sub(r"\$\((\w+)\)", lambda match: os.environ[match[1]], value)
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OTEL_DLLOGGER_LINGER_SECONDS", "0")
    rank = Rank(tmp_path, run="none")  # what torchrun without --rdzv-id says
    try:
        rank.wait_started()
        # Another address of this machine, on which a page on 127.0.0.1 does not answer.
        with urllib.request.urlopen(f"http://127.0.0.2:{rank.port}/metrics", timeout=10) as answer:
            page = answer.read().decode()
    finally:
        rank.end()
        rank.process.stdout.close()
    assert re.search(r'^dllogger_rank_info\{.*run="resnet50-a"', page, re.MULTILINE)
    for label, field in {
        "k8s_node_name": "spec.nodeName",
        "k8s_namespace_name": "metadata.namespace",
        "k8s_pod_name": "metadata.name",
        "k8s_pod_uid": "metadata.uid",
    }.items():
        assert f'{label}="the {field}"' in page
