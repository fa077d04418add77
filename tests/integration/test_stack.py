"""The Compose stack: its files fit together, real programs take them, and ranks get through.

There may be no Docker here, so a test does what Compose would do: it fills in variables, lays
one file over the other and looks through the mounts. Where Compose is installed, one test
compares.
"""

from __future__ import annotations

import contextlib
import importlib.resources
import json
import os
import re
import shutil
import socket
import subprocess
import urllib.request
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import pytest
import yaml
from jsonschema.validators import validator_for

from tests.support.paths import ROOT
from tests.support.prometheus import Prometheus, find_program, wait_for
from tests.system.test_end_to_end import Rank

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

pytestmark = pytest.mark.newest_only

COMPOSE, DESKTOP = "docker-compose.yml", "deploy/docker-desktop.yml"
DASHBOARDS = sorted((ROOT / "grafana" / "dashboards").glob("*.json"))
DATA_SOURCE = ROOT / "grafana/provisioning/datasources/prometheus.yml"
DASHBOARD_PROVIDER = ROOT / "grafana/provisioning/dashboards/otel-dllogger.yml"
COLLECTOR = ROOT / "deploy/otel-collector.yml"
LOOPBACK = "127.0.0.1"

# Flags of the pinned versions that Debian's older programs do not know yet.
NEWER_FLAGS = ("-opentelemetry.usePrometheusNaming", "-notifier.blackhole")


# What Compose does.


def interpolate(text: str, variables: Mapping[str, str]) -> str:
    """Fill in variables as Compose does: ``$A``, ``${A}``, ``${A:-b}``, ``${A-b}``, ``$$``.

    A default may hold further variables. ``https://docs.docker.com/reference/compose-file/interpolation/``
    """
    done, position = "", 0
    while (dollar := text.find("$", position)) >= 0:
        done += text[position:dollar]
        if text.startswith("$$", dollar):
            done, position = f"{done}$", dollar + 2
        elif plain := re.compile(r"\$([A-Za-z_]\w*)").match(text, dollar):
            done, position = done + variables.get(plain[1], ""), plain.end()
        else:
            end = _closing_brace(text, dollar)
            inner = re.fullmatch(r"([A-Za-z_]\w*)(:?-)?(.*)", text[dollar + 2 : end], re.DOTALL)
            assert inner, f"not understood: {text!r}"
            name, operator, default = inner.groups()
            assert operator or not default, f"not understood: {text!r}"
            is_set = bool(variables.get(name)) if operator == ":-" else name in variables
            done += variables.get(name, "") if is_set else interpolate(default, variables)
            position = end + 1
    return done + text[position:]


def _closing_brace(text: str, dollar: int) -> int:
    assert text.startswith("${", dollar), f"not understood: {text!r}"
    depth = 0
    for position in range(dollar + 1, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return position
    raise AssertionError(f"no closing brace: {text!r}")


def fill_in(value: Any, variables: Mapping[str, str]) -> Any:
    """Fill in the variables of every string in a document."""
    if isinstance(value, dict):
        return {key: fill_in(one, variables) for key, one in value.items()}
    if isinstance(value, list):
        return [fill_in(one, variables) for one in value]
    return interpolate(value, variables) if isinstance(value, str) else value


def lay_over(below: Any, above: Any, key: str = "") -> Any:
    """Merge an override as Compose does: mappings by key, lists appended, commands replaced."""
    if isinstance(below, dict) and isinstance(above, dict):
        merged = {name: lay_over(below.get(name), one, name) for name, one in above.items()}
        return {**below, **merged}
    if isinstance(below, list) and key not in ("command", "entrypoint", "test"):
        return below + above
    return above


@dataclass(frozen=True)
class Stack:
    """What ``docker compose`` sees."""

    files: tuple[str, ...] = (COMPOSE,)
    env_file: str | None = None

    def variables(self) -> dict[str, str]:
        lines = (ROOT / self.env_file).read_text().splitlines() if self.env_file else []
        return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))

    def model(self, **variables: str) -> dict[str, Any]:
        merged: Any = None
        for file in self.files:
            merged = lay_over(merged, yaml.safe_load((ROOT / file).read_text()))
        return fill_in(merged, {**self.variables(), **variables})

    def services(self, **variables: str) -> dict[str, dict[str, Any]]:
        """Return the services that run."""
        on = set(self.variables().get("COMPOSE_PROFILES", "").split(","))
        return {
            name: service
            for name, service in self.model(**variables)["services"].items()
            if on.intersection(service.get("profiles", on))
            if str(service.get("scale", 1)) != "0"
        }


STACKS = {
    "default": Stack(),
    "otlp": Stack(env_file="deploy/otlp.env"),
    "scale": Stack(env_file="deploy/scale.env"),
    "desktop": Stack(files=(COMPOSE, DESKTOP)),
}
EVERY_STACK = pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)


def binds(service: dict[str, Any]) -> dict[PurePosixPath, Path]:
    """Return the files and folders of the host that a service sees, by where it sees them."""
    return {
        PurePosixPath(volume["target"]): ROOT / volume["source"]
        for volume in service.get("volumes", [])
        if isinstance(volume, dict)
    }


def on_host(service: dict[str, Any], path: str) -> Path:
    """Return where a path inside the container lies on the host."""
    inside = PurePosixPath(path)
    for target, source in binds(service).items():
        if inside.is_relative_to(target):
            return source / inside.relative_to(target)
    raise AssertionError(f"{path} is in no mount: {binds(service)}")


def flags(service: dict[str, Any]) -> dict[str, str]:
    """Return a command's flags and values; a flag without value has an empty one."""
    command = service.get("command", [])
    return {name: value for name, _, value in (flag.partition("=") for flag in command)}


def addresses(service: dict[str, Any]) -> list[str]:
    """Return where a service listens: ``host:port``."""
    found = [value for name, value in flags(service).items() if "listen" in name.lower()]
    environment = service.get("environment", {})
    if "GF_SERVER_HTTP_ADDR" in environment:
        port = environment["GF_SERVER_HTTP_PORT"]
        found.append(f"{environment['GF_SERVER_HTTP_ADDR']}:{port}")
    if "--config=/etc/otelcol/config.yaml" in service.get("command", []):
        protocols = collector()["receivers"]["otlp"]["protocols"]
        found += [protocol["endpoint"] for protocol in protocols.values()]
    return found


def collector() -> dict[str, Any]:
    return yaml.safe_load(COLLECTOR.read_text())


# The files fit together.


def test_interpolation_is_that_of_compose() -> None:
    """Defaults, nested defaults, empty values and escaped dollars come out as documented."""
    variables = {"A": "a", "EMPTY": ""}
    cases = {
        "$A ${A} ${NONE} $$A": "a a  $A",
        "${A:-b}${NONE:-b}${EMPTY:-b}${EMPTY-b}": "abb",
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
    assert {"prometheus", "grafana"} == STACKS["default"].services().keys()
    assert {"prometheus", "grafana"} == STACKS["desktop"].services().keys()
    assert {"prometheus", "grafana", "otel-collector"} == STACKS["otlp"].services().keys()
    scale = {"victoriametrics", "vmagent", "vmalert", "grafana"}
    assert scale == STACKS["scale"].services().keys()


@EVERY_STACK
def test_everything_that_is_mounted_exists(stack: Stack) -> None:
    """No bind mount is missing, writable or made by Compose; each named volume is declared."""
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
    """The variable that ranks read moves the mount; without it there is a folder, for no commit."""
    for name in ("prometheus", "vmagent"):
        default = on_host(STACKS["default"].model()["services"][name], "/var/run/dllogger")
        assert "*\n!.gitignore\n" == (default / ".gitignore").read_text()
        model = STACKS["default"].model(OTEL_DLLOGGER_DISCOVERY_DIR="/elsewhere")
        assert Path("/elsewhere") == on_host(model["services"][name], "/var/run/dllogger")


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
        asked = urlsplit(service["healthcheck"]["test"][-1].removeprefix("--url="))
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


# Real programs.


def copy_configuration(folder: Path, *, discovery: Path) -> Path:
    """Copy what is mounted at /etc/prometheus, with another discovery folder."""
    inside = folder / "etc-prometheus"
    shutil.copytree(on_host(STACKS["scale"].services()["vmagent"], "/etc/prometheus"), inside)
    config = inside / "prometheus.yml"
    text = config.read_text()
    assert "/var/run/dllogger/" in text
    config.write_text(text.replace("/var/run/dllogger", str(discovery)))
    return inside


def promtool_check(config: Path) -> str:
    done = subprocess.run(
        [find_program("promtool"), "check", "config", config],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "stack", [STACKS["default"], STACKS["desktop"]], ids=["default", "desktop"]
)
def test_prometheus_takes_its_configuration(stack: Stack, tmp_path: Path) -> None:
    """Seen through the mounts the configuration is valid, and all rule files are found."""
    service = stack.services()["prometheus"]
    config = on_host(service, flags(service)["--config.file"])
    inside = copy_configuration(tmp_path, discovery=tmp_path)
    copied = inside / "checked.yml"
    copied.write_text(config.read_text().replace("/etc/prometheus", str(inside)))
    rules = sorted(path.name for path in (ROOT / "prometheus/rules").glob("*.yml"))
    assert rules
    checked = promtool_check(copied)
    assert f"{len(rules)} rule files found" in checked
    for name in rules:
        assert f"{inside}/rules/{name}" in checked


def test_docker_desktop_differs_in_how_targets_are_reached() -> None:
    """All else in the configuration for Docker Desktop is the same, the flags included."""
    ours = yaml.safe_load((ROOT / "prometheus/prometheus.yml").read_text())
    theirs = yaml.safe_load((ROOT / "deploy/docker-desktop-prometheus.yml").read_text())
    theirs["rule_files"] = [
        str(PurePosixPath(path).relative_to("/etc/prometheus")) for path in theirs["rule_files"]
    ]
    for job in theirs["scrape_configs"]:
        rewriting = job.pop("relabel_configs")
        assert ["instance", "__address__"] == [rule["target_label"] for rule in rewriting]
    assert ours == theirs

    def others(stack: Stack) -> dict[str, str]:
        all_flags = flags(stack.services()["prometheus"])
        return {
            n: v for n, v in all_flags.items() if n not in ("--config.file", "--web.listen-address")
        }

    assert others(STACKS["default"]) == others(STACKS["desktop"])


def known_flags(program: str, service: dict[str, Any]) -> list[str]:
    """Return a service's flags, without those that an older program does not know yet."""
    shown = subprocess.run([program, "-help"], capture_output=True, text=True, check=False)
    shown_flags = re.findall(r"^ +(-\S+)", shown.stdout + shown.stderr, re.MULTILINE)
    assert "-httpListenAddr" in shown_flags
    return [
        flag
        for flag in service["command"]
        if flag not in NEWER_FLAGS or flag.partition("=")[0] in shown_flags
    ]


@pytest.mark.parametrize(
    ("service", "name"),
    [("victoriametrics", "victoria-metrics"), ("vmagent", "vmagent"), ("vmalert", "vmalert")],
)
def test_victoriametrics_knows_its_flags(service: str, name: str) -> None:
    """The program accepts each flag; with ``-version`` it goes no further."""
    program = find_program(name)
    command = known_flags(program, STACKS["scale"].services()[service])
    done = subprocess.run(
        [program, *command, "-version"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("stack", [STACKS["default"], STACKS["otlp"]], ids=["default", "otlp"])
def test_prometheus_knows_its_flags(stack: Stack, tmp_path: Path) -> None:
    """Prometheus gets as far as its configuration, which is not there, and minds no flag."""
    program = find_program("prometheus")
    command = stack.services()["prometheus"]["command"]
    shown = subprocess.run([program, "--help"], capture_output=True, text=True, check=True)
    if "web.enable-otlp-receiver" not in shown.stdout + shown.stderr:  # Prometheus 2, Debian's 3
        command = [flag for flag in command if not flag.endswith("web.enable-otlp-receiver")]
    command = [flag.replace("=/", f"={tmp_path}/") for flag in command]
    done = subprocess.run([program, *command], capture_output=True, text=True, check=False)
    assert "Error loading config" in done.stderr, done.stderr
    assert "unknown" not in done.stderr, done.stderr


def test_vmagent_and_vmalert_take_the_same_files(tmp_path: Path) -> None:
    """A dry run of vmagent takes Prometheus' configuration, one of vmalert its rules."""
    inside = copy_configuration(tmp_path, discovery=tmp_path)
    for name in ("vmagent", "vmalert"):
        program = find_program(name)
        command = [
            flag.replace("/etc/prometheus", str(inside))
            for flag in known_flags(program, STACKS["scale"].services()[name])
        ]
        done = subprocess.run(
            [program, *command, "-dryRun"],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        if name == "vmalert":
            assert f"{inside}/rules" in " ".join(command)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def running(command: list[str], log: Path) -> Iterator[None]:
    """Run a server for as long as the block lasts; one that ends by itself fails the test."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=log.parent)
    try:
        yield
        assert process.poll() is None, log.read_text()
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def ask(url: str, **arguments: str) -> Any:
    """Return the JSON of an answer, None while nobody listens."""
    try:
        with urllib.request.urlopen(f"{url}?{urlencode(arguments)}", timeout=5) as answer:
            return json.load(answer)
    except OSError:
        return None


@pytest.fixture
def announced_rank(tmp_path: Path) -> Iterator[Rank]:
    """Start a rank that has logged a loss and announces itself in the folder ``discovery``."""
    rank = Rank(tmp_path, run="stack")
    try:
        rank.wait_started()
        rank.call("metadata", "train.loss", {"GOAL": "MINIMIZE", "STAGE": "TRAIN"})
        rank.call("log", [0, 1], {"train.loss": 0.5})
        yield rank
    finally:
        rank.end()
        rank.process.stdout.close()


def test_a_rank_gets_through_to_victoriametrics(tmp_path: Path, announced_rank: Rank) -> None:
    """vmagent finds a real rank by its file, VictoriaMetrics answers, vmalert evaluates.

    The flags and files are those of the stack, with other folders and free ports.
    """
    inside = copy_configuration(tmp_path, discovery=tmp_path / "discovery")
    services = STACKS["scale"].services()
    ports = {
        address.rpartition(":")[2]: free_port()
        for name in ("victoriametrics", "vmagent", "vmalert")
        for address in addresses(services[name])
    }

    def command(service: str, name: str) -> list[str]:
        program = find_program(name)
        moved = [program]
        for flag in known_flags(program, services[service]):
            here = flag.replace("/etc/prometheus", str(inside))
            here = re.sub(r"=(/v\S+-data)$", rf"={tmp_path}\1", here)
            moved.append(re.sub(r":(8\d{3})\b", lambda port: f":{ports[port[1]]}", here))
        if name == "vmalert" and "-notifier.blackhole" not in moved:
            moved.append("-notifier.url=http://127.0.0.1:9")  # older: nobody listens there
        return moved

    store = f"http://{LOOPBACK}:{ports['8428']}"
    with contextlib.ExitStack() as stack:
        for service, name in (
            ("victoriametrics", "victoria-metrics"),
            ("vmagent", "vmagent"),
            ("vmalert", "vmalert"),
        ):
            stack.enter_context(running(command(service, name), tmp_path / f"{name}.log"))

        def query(expression: str) -> list[dict[str, Any]]:
            # Without the cache it does not hold back the newest 30 seconds.
            answer = ask(f"{store}/api/v1/query", query=expression, nocache="1")
            return answer["data"]["result"] if answer else []

        (loss,) = wait_for(lambda: query('dl_loss{run="stack"}'), bool, within_s=120)
        assert ("0", "train", "minimize", "0.5") == (
            *(loss["metric"][label] for label in ("rank", "stage", "goal")),
            loss["value"][1],
        )
        (up,) = wait_for(lambda: query("up"), bool, within_s=120)  # comes in a write of its own
        assert "1" == up["value"][1]

        groups = wait_for(lambda: evaluated_groups(store, ports["8880"]), bool, within_s=120)
        rules = [rule for group in groups for rule in group["rules"]]
        assert rules
        assert [] == [rule["lastError"] for rule in rules if rule["lastError"]]
    assert announced_rank.process.poll() is None


def test_docker_desktops_addresses_lead_to_the_rank(tmp_path: Path, announced_rank: Rank) -> None:
    """A target is scraped by the name that stands for the host, and keeps its address as label.

    Here that name is ``localhost``.
    """
    config = tmp_path / "desktop.yml"
    text = (ROOT / "deploy/docker-desktop-prometheus.yml").read_text()
    for shipped, here in (
        ("/var/run/dllogger", str(tmp_path / "discovery")),
        ("/etc/prometheus", str(ROOT / "prometheus")),
        ("host.docker.internal:$1", "localhost:$1"),
        ("15s", "1s"),
        ("10s", "1s"),
    ):
        assert shipped in text
        text = text.replace(shipped, here)
    config.write_text(text)
    folder = tmp_path / "prometheus"
    with Prometheus(folder, discovery=tmp_path, configuration=config) as server:
        ((labels, _loss),) = wait_for(lambda: server.query("dl_loss"), bool)
        assert f"{LOOPBACK}:{announced_rank.port}" == labels["instance"]
        (target,) = server.get("targets")["activeTargets"]
        assert f"http://localhost:{announced_rank.port}/metrics" == target["scrapeUrl"]


def evaluated_groups(store: str, vmalert_port: int) -> list[dict[str, Any]]:
    """Return vmalert's groups, asked through VictoriaMetrics, once each was evaluated."""
    answer = ask(f"{store}/api/v1/rules") or ask(f"http://{LOOPBACK}:{vmalert_port}/api/v1/rules")
    groups = answer["data"]["groups"] if answer else []
    done = [rule["lastEvaluation"][:4] != "0001" for group in groups for rule in group["rules"]]
    return groups if done and all(done) else []


# The documentation.


def test_every_variable_is_documented_and_used() -> None:
    """docs/stack.md names each variable, and no file sets one that Compose does not read."""
    text = "".join((ROOT / file).read_text() for file in (COMPOSE, DESKTOP))
    code = "\n".join(line.partition(" #")[0] for line in text.splitlines() if line[:1] != "#")
    used = set(re.findall(r"(?<!\$)\$\{([A-Z_]+)", code))
    documented = set(re.findall(r"`([A-Z_]+)`", (ROOT / "docs/stack.md").read_text()))
    assert used - documented == set()
    for stack in STACKS.values():
        assert stack.variables().keys() - used <= {"COMPOSE_PROFILES"}
