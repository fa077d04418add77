"""The Compose stack in real programs: they take its files, and ranks get through."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import subprocess
import urllib.request
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
import yaml

from tests.support.compose import LOOPBACK, STACKS, Stack, addresses, flags, on_host
from tests.support.paths import ROOT
from tests.support.prometheus import Prometheus, find_program, wait_for
from tests.support.rank import Rank

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.newest_only

# Flags of the pinned versions that Debian's older programs do not know yet.
NEWER_FLAGS = ("-opentelemetry.usePrometheusNaming", "-notifier.blackhole")


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
    text = (ROOT / "deploy/docker-desktop-prometheus.yml").read_text()
    theirs = yaml.safe_load(text.replace("host.docker.internal:9093", f"{LOOPBACK}:9093"))
    theirs["rule_files"] = [
        str(PurePosixPath(path).relative_to("/etc/prometheus")) for path in theirs["rule_files"]
    ]
    rewriting = theirs["scrape_configs"][0].pop("relabel_configs")
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
        (up,) = wait_for(
            lambda: query('up{job="dllogger"}'), bool, within_s=120
        )  # comes in a write of its own
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
        (target,) = (
            target
            for target in server.get("targets")["activeTargets"]
            if target["labels"]["job"] == "dllogger"
        )
        assert f"http://localhost:{announced_rank.port}/metrics" == target["scrapeUrl"]


def evaluated_groups(store: str, vmalert_port: int) -> list[dict[str, Any]]:
    """Return vmalert's groups, asked through VictoriaMetrics, once each was evaluated."""
    answer = ask(f"{store}/api/v1/rules") or ask(f"http://{LOOPBACK}:{vmalert_port}/api/v1/rules")
    groups = answer["data"]["groups"] if answer else []
    done = [rule["lastEvaluation"][:4] != "0001" for group in groups for rule in group["rules"]]
    return groups if done and all(done) else []
