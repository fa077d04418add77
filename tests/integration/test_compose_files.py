"""The Compose stack as files: they fit together, and every mount and address leads somewhere."""

from __future__ import annotations

import importlib.resources
import json
import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import yaml
from jsonschema.validators import validator_for

from otel_dllogger.http.discovery_folder import folder_to_write
from tests.support.compose import (
    COLLECTOR,
    COMPOSE,
    DESKTOP,
    LOOPBACK,
    STACKS,
    MissingError,
    Stack,
    addresses,
    collector,
    flags,
    interpolate,
    on_host,
)
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.newest_only

DASHBOARDS = sorted((ROOT / "grafana" / "dashboards").glob("*.json"))
DATA_SOURCE = ROOT / "grafana/provisioning/datasources/prometheus.yml"
DASHBOARD_PROVIDER = ROOT / "grafana/provisioning/dashboards/otel-dllogger.yml"
EVERY_STACK = pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)


# The files fit together.


def test_interpolation_is_that_of_compose() -> None:
    """Defaults, nested defaults, empty values and escaped dollars come out as documented."""
    variables = {"A": "a", "EMPTY": ""}
    cases = {
        "$A ${A} ${NONE} $$A": "a a  $A",
        "${A:-b}${NONE:-b}${EMPTY:-b}${EMPTY-b}": "abb",
        "${A:?b}${NONE:-${A:?b}/c}": "aa/c",
        "${NONE:-x${A}y}${NONE:-${NONE:-z}}": "xayz",
        "${NONE:---flag}": "--flag",
    }
    assert list(cases.values()) == [interpolate(case, variables) for case in cases]


@pytest.mark.parametrize("file", [COMPOSE, DESKTOP])
def test_compose_files_follow_the_specification(file: str) -> None:
    """The schema of the Compose specification, as check-jsonschema brings it, finds no fault."""
    schemas = importlib.resources.files("check_jsonschema.builtin_schemas.vendor")
    schema = json.loads((schemas / "compose-spec.json").read_text())
    document = yaml.safe_load((ROOT / file).read_text())
    validator = validator_for(schema)(schema)
    assert [] == [error.message for error in validator.iter_errors(document)]


def test_each_stack_runs_what_it_should() -> None:
    """Without an option Prometheus and Grafana run; ``scale`` has VictoriaMetrics instead."""
    for with_alerts in ("alerts", "desktop-alerts"):
        services = STACKS[with_alerts].services().keys()
        assert {"prometheus", "grafana", "alertmanager"} == services
    assert {"prometheus", "grafana"} == STACKS["default"].services().keys()
    assert {"prometheus", "grafana"} == STACKS["desktop"].services().keys()
    assert {"prometheus", "grafana", "otel-collector"} == STACKS["otlp"].services().keys()
    scale = {"victoriametrics", "vmagent", "vmalert", "grafana"}
    assert scale == STACKS["scale"].services().keys()


@EVERY_STACK
def test_everything_that_is_mounted_exists(stack: Stack) -> None:
    """No bind mount is missing, writable or made by Compose; each named volume is declared."""
    folder_to_write(None)  # a first training makes it
    model = stack.model()
    for name, service in model["services"].items():
        for volume in service.get("volumes", []):
            if isinstance(volume, str):
                assert volume.partition(":")[0] in model["volumes"], (name, volume)
                continue
            assert (ROOT / volume["source"]).exists(), (name, volume)
            assert volume["read_only"] is True, (name, volume)
            assert volume["bind"]["create_host_path"] is False, (name, volume)


def test_the_discovery_folder_is_the_one_that_ranks_use() -> None:
    """The variable that ranks read moves the mount; without it, both have the same default."""
    default = folder_to_write(None)
    assert default is not None
    for expected, variables in (
        (default.path, {}),
        (Path("/elsewhere"), {"OTEL_DLLOGGER_DISCOVERY_DIR": "/elsewhere"}),
    ):
        services = STACKS["default"].model(**variables)["services"]
        for name in ("prometheus", "vmagent"):
            assert expected == on_host(services[name], "/var/run/dllogger")


def test_compose_says_what_to_do_without_a_folder() -> None:
    """Over SSH without PAM, and on macOS, there is no XDG_RUNTIME_DIR."""
    with pytest.raises(MissingError, match="set OTEL_DLLOGGER_DISCOVERY_DIR to a folder"):
        STACKS["default"].services(XDG_RUNTIME_DIR="")


@EVERY_STACK
def test_everything_listens_on_loopback(stack: Stack) -> None:
    """A service on the host's network listens on 127.0.0.1; one that is not publishes there."""
    for name, service in stack.services().items():
        if service["network_mode"] == "host":
            assert addresses(service), f"where does {name} listen?"
            hosts = [address.rpartition(":")[0] for address in addresses(service)]
            assert {LOOPBACK} == set(hosts), name
            assert "ports" not in service
        else:
            assert service["ports"], name
            for port in service["ports"]:
                host, published, target = port.split(":")
                assert LOOPBACK == host, name
                inside = {address.rpartition(":")[2] for address in addresses(service)}
                assert {target} == inside == {published}, name


@EVERY_STACK
def test_services_may_do_no_more_than_they_need(stack: Stack) -> None:
    """Every container is read-only, without capabilities, and comes back after a reboot."""
    for name, service in stack.services().items():
        assert service["read_only"] is True, name
        assert ["ALL"] == service["cap_drop"], name
        assert ["no-new-privileges:true"] == service["security_opt"], name
        assert "unless-stopped" == service["restart"], name


@EVERY_STACK
def test_no_service_fills_the_memory_or_the_disk(stack: Stack) -> None:
    """Each has a limit of memory with a variable of its own, and its output is rotated."""
    for name, service in stack.services().items():
        variable = f"{name.upper().replace('-', '_')}_MEMORY"
        assert re.fullmatch(r"\d+[mg]", service["mem_limit"]), name
        assert "3g" == stack.services(**{variable: "3g"})[name]["mem_limit"], name
        assert "json-file" == service["logging"]["driver"], name
        assert {"max-size", "max-file"} == service["logging"]["options"].keys(), name


def test_every_image_is_pinned_and_can_be_replaced() -> None:
    """An image has a full version, no ``latest``, and a variable of its own that takes a digest."""
    images = {
        name: service["image"]
        for name, service in yaml.safe_load((ROOT / COMPOSE).read_text())["services"].items()
    }
    variables = []
    for name, image in images.items():
        match = re.fullmatch(r"\$\{([A-Z]+(?:_[A-Z]+)*_IMAGE):-[a-z/-]+:v?\d+\.\d+\.\d+\}", image)
        assert match, (name, image)
        variables.append(match[1])
        digest = f"example/image:v1.2.3@sha256:{'0' * 64}"
        assert digest == interpolate(image, {match[1]: digest})
    assert len(variables) == len(set(variables))


@EVERY_STACK
def test_health_checks_ask_where_the_service_listens(stack: Stack) -> None:
    """A check that asked another port would hold up Grafana for ever."""
    for name, service in stack.services(PROMETHEUS_PORT="19090", GRAFANA_PORT="13000").items():
        if name == "otel-collector":  # its image has no program that could ask
            assert "healthcheck" not in service
            continue
        last = service["healthcheck"]["test"][-1]
        asked = urlsplit(re.sub(r"^--(?:alertmanager\.)?url=", "", last))
        ports = {address.rpartition(":")[2] for address in addresses(service)}
        assert (LOOPBACK, {str(asked.port)}) == (asked.hostname, ports), name


@EVERY_STACK
def test_grafana_and_the_collector_ask_the_store_that_runs(stack: Stack) -> None:
    """The data source's URL and the Collector's go to Prometheus or VictoriaMetrics, as runs."""
    services = stack.services(PROMETHEUS_PORT="19090")
    store = services.get("prometheus") or services["victoriametrics"]
    (address,) = addresses(store)
    port = int(address.rpartition(":")[2])
    url = urlsplit(services["grafana"]["environment"]["DATASOURCE_URL"])
    reached = LOOPBACK if services["grafana"]["network_mode"] == "host" else "host.docker.internal"
    assert (reached, port) == (url.hostname, url.port)

    collector_service = stack.model(PROMETHEUS_PORT="19090")["services"]["otel-collector"]
    metrics_url = urlsplit(collector_service["environment"]["METRICS_URL"])
    assert (LOOPBACK, port) == (metrics_url.hostname, metrics_url.port)
    paths = {"19090": "/api/v1/otlp/v1/metrics", "8428": "/opentelemetry/v1/metrics"}
    assert paths[str(port)] == metrics_url.path


@EVERY_STACK
def test_links_lead_to_the_address_that_is_set(stack: Stack) -> None:
    """By default to where the service listens; behind a proxy the path of the URL is its own."""
    proxy = "https://training.example.org/there"
    for name in ("prometheus", "alertmanager"):
        variable = f"{name.upper()}_EXTERNAL_URL"
        services = stack.services(PROMETHEUS_PORT="19090")
        if name not in services:
            continue
        url = urlsplit(flags(services[name])["--web.external-url"])
        (address,) = addresses(services[name])
        assert (LOOPBACK, address.rpartition(":")[2]) == (url.hostname, str(url.port))
        moved = flags(stack.services(**{variable: proxy})[name])
        assert (proxy, "/") == (moved["--web.external-url"], moved["--web.route-prefix"])
    grafana = stack.services(GRAFANA_PORT="13000")["grafana"]["environment"]
    assert f"http://{LOOPBACK}:13000" == grafana["GF_SERVER_ROOT_URL"]
    grafana = stack.services(GRAFANA_EXTERNAL_URL=proxy)["grafana"]["environment"]
    assert proxy == grafana["GF_SERVER_ROOT_URL"]


@pytest.mark.parametrize(
    ("name", "configuration"),
    [
        ("alerts", "prometheus/prometheus.yml"),
        ("desktop-alerts", "deploy/docker-desktop-prometheus.yml"),
    ],
)
def test_prometheus_asks_and_tells_who_runs(name: str, configuration: str) -> None:
    """It scrapes itself and Alertmanager, and sends alerts, where the two listen."""
    services = STACKS[name].services()
    ports = {one: addresses(services[one])[0].rpartition(":")[2] for one in services}
    config = yaml.safe_load((ROOT / configuration).read_text())
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    reached = "host.docker.internal" if name.startswith("desktop") else LOOPBACK
    alertmanager = [{"targets": [f"{reached}:{ports['alertmanager']}"]}]
    assert [{"static_configs": alertmanager}] == config["alerting"]["alertmanagers"]
    assert alertmanager == jobs["alertmanager"]["static_configs"]
    own = [{"targets": [f"{LOOPBACK}:{ports['prometheus']}"]}]
    assert own == jobs["prometheus"]["static_configs"]


def test_otlp_is_taken_where_it_is_wanted() -> None:
    """Prometheus' receiver is on with the Collector and off without; VictoriaMetrics translates."""
    receiver = "--web.enable-otlp-receiver"
    assert receiver not in STACKS["default"].services()["prometheus"]["command"]
    assert receiver in STACKS["otlp"].services()["prometheus"]["command"]
    victoriametrics = STACKS["scale"].services()["victoriametrics"]
    assert "-opentelemetry.usePrometheusNaming" in victoriametrics["command"]


# Grafana.


def test_dashboards_ask_the_data_source_that_is_provisioned() -> None:
    """Every panel's data source is the provisioned one, by its uid or by a variable."""
    (source,) = yaml.safe_load(DATA_SOURCE.read_text())["datasources"]
    assert ("otel-dllogger", True, False) == (
        source["uid"],
        source["isDefault"],
        source["editable"],
    )
    assert DASHBOARDS, "there are no dashboards in grafana/dashboards"
    for path in DASHBOARDS:
        dashboard = json.loads(path.read_text())
        variables = {
            variable["name"]: variable
            for variable in dashboard.get("templating", {}).get("list", [])
            if variable["type"] == "datasource"
        }
        references = {
            one for one in data_sources(dashboard) if one not in ("-- Grafana --", "grafana")
        }
        assert references, path.name
        for reference in references:
            name = re.fullmatch(r"\$\{?(\w+)\}?", reference)
            if name is None:
                assert source["uid"] == reference, path.name
            else:
                variable = variables[name[1]]
                assert source["type"] == variable["query"], path.name
                current = variable.get("current", {}).get("value", source["uid"])
                assert current in (source["uid"], "default"), path.name


def data_sources(part: Any) -> Iterator[str]:
    """Give the uid of each data source that a part of a dashboard asks."""
    for key, value in part.items() if isinstance(part, dict) else enumerate(part):
        if key == "datasource" and value is not None:
            yield value if isinstance(value, str) else value["uid"]
        elif isinstance(value, dict | list):
            yield from data_sources(value)


@EVERY_STACK
def test_grafana_finds_its_files_through_the_mounts(stack: Stack) -> None:
    """The home dashboard, the folder of dashboards and the provisioning are where Grafana looks."""
    grafana = stack.services()["grafana"]
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert "otel-dllogger-overview" == json.loads(on_host(grafana, home).read_text())["uid"]
    (provider,) = yaml.safe_load(DASHBOARD_PROVIDER.read_text())["providers"]
    assert ROOT / "grafana/dashboards" == on_host(grafana, provider["options"]["path"])
    for path in (DATA_SOURCE, DASHBOARD_PROVIDER):
        inside = f"/etc/grafana/provisioning/{path.parent.name}/{path.name}"
        assert path == on_host(grafana, inside)


@EVERY_STACK
def test_variables_of_the_provisioning_are_given_to_grafana(stack: Stack) -> None:
    """Grafana knows no defaults: a variable that is not given to it would be an empty URL."""
    environment = stack.services()["grafana"]["environment"]
    for path in (DATA_SOURCE, DASHBOARD_PROVIDER):
        used = re.findall(r"^[^#\n]*\$\{(\w+)\}", path.read_text(), re.MULTILINE)
        assert all(environment.get(name) for name in used), (path.name, used)
    assert ["DATASOURCE_URL"] == re.findall(r"\$\{(\w+)\}", DATA_SOURCE.read_text())


def test_the_data_source_knows_the_scrape_interval() -> None:
    """``$__rate_interval`` is computed from it: too short an interval leaves panels empty."""
    (source,) = yaml.safe_load(DATA_SOURCE.read_text())["datasources"]
    config = yaml.safe_load((ROOT / "prometheus/prometheus.yml").read_text())
    intervals = {
        job.get("scrape_interval", config.get("global", {}).get("scrape_interval"))
        for job in config["scrape_configs"]
    }
    assert {source["jsonData"]["timeInterval"]} == intervals


def test_there_is_no_default_password(tmp_path: Path) -> None:
    """Grafana starts with the admin's password that was given, or one that nobody knows."""
    shell, option, script = STACKS["default"].services()["grafana"]["entrypoint"]
    assert "exec /run.sh" in script
    run = tmp_path / "run.sh"
    run.write_text('#!/bin/sh\nprintf %s "$GF_SECURITY_ADMIN_PASSWORD"\n')
    run.chmod(0o755)

    def password(given: str) -> str:
        return subprocess.run(
            [shell, option, script.replace("/run.sh", str(run))],
            env={**os.environ, "GF_SECURITY_ADMIN_PASSWORD": given},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    assert "a $(given) 'one'" == password("a $(given) 'one'")
    first, second = password(""), password("")
    assert first != second
    assert 32 == len(first) == len(second)
    environment = STACKS["default"].services(GRAFANA_ADMIN_PASSWORD="x")["grafana"]["environment"]
    assert "x" == environment["GF_SECURITY_ADMIN_PASSWORD"]
    assert ("true", "Viewer") == (
        environment["GF_AUTH_ANONYMOUS_ENABLED"],
        environment["GF_AUTH_ANONYMOUS_ORG_ROLE"],
    )


# The Collector. It cannot be installed from a package index, so its file is only read.


def test_the_collectors_pipelines_use_what_is_defined() -> None:
    """Every component of a pipeline is defined, and every one that is defined is used."""
    config = collector()
    pipelines = config["service"]["pipelines"].values()
    for kind in ("receivers", "processors", "exporters"):
        used = {component for pipeline in pipelines for component in pipeline[kind]}
        assert used == config[kind].keys(), kind
    service = STACKS["otlp"].services()["otel-collector"]
    variables = set(re.findall(r"\$\{env:(\w+)\}", COLLECTOR.read_text()))
    assert variables == service["environment"].keys()
    assert COLLECTOR == on_host(service, flags(service)["--config"])


# The documentation.


def test_every_variable_is_documented_and_used() -> None:
    """The pages in docs/how-to name each variable, and no file sets one that Compose ignores."""
    text = "".join((ROOT / file).read_text() for file in (COMPOSE, DESKTOP))
    code = "\n".join(line.partition(" #")[0] for line in text.splitlines() if line[:1] != "#")
    used = set(re.findall(r"(?<!\$)\$\{([A-Z_]+)", code))
    pages = "".join(page.read_text() for page in (ROOT / "docs/how-to").glob("*.md"))
    documented = set(re.findall(r"`([A-Z_]+)`", pages))
    assert used - documented - {"XDG_RUNTIME_DIR"} == set()  # it is the session's
    for stack in STACKS.values():
        assert stack.variables().keys() - used <= {"COMPOSE_PROFILES"}
