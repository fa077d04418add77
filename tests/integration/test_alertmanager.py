"""Being told: real Alertmanagers with the shipped files, and a receiver that counts messages."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.support.alertmanager import Alertmanager, Receiver
from tests.support.compose import STACKS, flags, on_host
from tests.support.paths import ROOT
from tests.support.prometheus import OF_THEMSELVES, Prometheus, find_program, wait_for
from tests.support.rank import Rank

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.newest_only

FOLDER = ROOT / "deploy" / "alertmanager"
CONFIGURATION = FOLDER / "alertmanager.yml"


def amtool(*arguments: object) -> str:
    done = subprocess.run(
        [find_program("amtool"), *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def configured(folder: Path, receiver: Receiver, *, group_interval: str) -> Path:
    """Copy the shipped configuration, with a webhook for each receiver, in less time."""
    config = yaml.safe_load(CONFIGURATION.read_text())
    config["route"].update(group_wait="1s", group_interval=group_interval)
    config["templates"] = [str(FOLDER / "templates" / "*.tmpl")]
    for one in config["receivers"]:
        one["webhook_configs"] = [{"url": f"{receiver.url}/{one['name']}", "send_resolved": True}]
    path = folder / "alertmanager.yml"
    path.write_text(yaml.safe_dump(config))
    return path


def names_of_alerts() -> set[str]:
    return {
        rule["alert"]
        for path in (ROOT / "prometheus" / "rules").glob("*.yml")
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }


def alert(name: str, run: str, severity: str = "critical", **labels: str) -> dict[str, Any]:
    return {"labels": {"alertname": name, "job": "j", "run": run, "severity": severity, **labels}}


def told(receiver: Receiver) -> list[tuple[str, str, str, list[str]]]:
    """Return path, run, status and the alerts of each message."""
    return [
        (
            path,
            message["groupLabels"].get("run", ""),
            message["status"],
            sorted(
                f"{one['labels']['alertname']} {one['labels'].get('rank', '')}".strip()
                for one in message["alerts"]
            ),
        )
        for path, message in receiver.messages
    ]


# The files.


def test_alertmanager_takes_the_configuration():
    """As it is shipped, where it is mounted."""
    assert "SUCCESS" in amtool("check-config", CONFIGURATION)
    service = STACKS["alerts"].services()["alertmanager"]
    assert CONFIGURATION == on_host(service, flags(service)["--config.file"])


def test_alertmanager_takes_every_example_of_a_receiver(tmp_path):
    """What somebody takes the # off is right, and its secrets are files that git ignores."""
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    text = re.sub(r"^    # ", "    ", CONFIGURATION.read_text(), flags=re.MULTILINE)
    path = tmp_path / "alertmanager.yml"
    path.write_text(text)
    team, info = yaml.safe_load(text)["receivers"]
    assert {"webhook_configs", "slack_configs", "email_configs", "pagerduty_configs"} < team.keys()
    assert "webhook_configs" in info
    amtool("check-config", path)
    assert set(re.findall(r"_file: (\w+)/", text)) == {"secrets"}
    assert (FOLDER / "secrets" / ".gitignore").read_text() == "*\n!.gitignore\n"


def test_receivers_tell_nobody_until_they_are_filled_in():
    """An address that is made up would be told of somebody's training."""
    assert yaml.safe_load(CONFIGURATION.read_text())["receivers"] == [
        {"name": "team"},
        {"name": "info"},
    ]


def test_alertmanager_knows_its_flags(tmp_path):
    """With a configuration that is not there it goes no further, and minds no flag."""
    service = STACKS["alerts"].services()["alertmanager"]
    command = [flag.replace("=/", f"={tmp_path}/") for flag in service["command"]]
    command = [flag.replace(":9093", ":0") for flag in command if "route-prefix" not in flag]
    done = subprocess.run(
        [find_program("prometheus-alertmanager"), *command, "--web.route-prefix=/"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Loading configuration file failed" in done.stderr, done.stderr
    assert done.returncode == 1


def test_inhibition_names_alerts_that_there_are():
    """An alert that was renamed would be told of once per rank again."""
    rules = yaml.safe_load(CONFIGURATION.read_text())["inhibit_rules"]
    named = [
        name
        for rule in rules
        for matcher in (*rule["source_matchers"], *rule["target_matchers"])
        for name in re.fullmatch(r'alertname=~?"([\w|]+)"', matcher)[1].split("|")
    ]
    assert set(named) - names_of_alerts() == set()
    assert all(rule["equal"] in (["job", "run"], ["job"]) for rule in rules)


def test_the_text_of_a_message_has_all_that_one_needs(tmp_path):
    """Summary and description while it fires, links with an address before them, then the end."""
    annotations = {
        "summary": "Run r is gone",
        "description": "It crashed.",
        "dashboard": "/d/x?var-run=r",
        "runbook_url": "docs/reference/alerts.md#x",
    }
    labels = {"alertname": "DLLoggerRunVanished", "run": "r", "severity": "critical"}
    one = {"labels": labels, "annotations": annotations, "generatorURL": "http://p/graph"}
    data = {
        "status": "firing",
        "commonLabels": labels,
        "alerts": [{"status": "firing", **one}, {"status": "resolved", **one}],
    }
    path = tmp_path / "data.json"
    path.write_text(json.dumps(data))
    title, text = (
        amtool(
            "template",
            "render",
            f"--template.glob={FOLDER}/templates/*.tmpl",
            f"--template.data={path}",
            f'--template.text={{{{ template "dllogger.{name}" . }}}}',
        ).strip()
        for name in ("title", "text")
    )
    assert title == "[FIRING] r: DLLoggerRunVanished"
    assert text.splitlines() == [
        "[firing, critical] Run r is gone",
        "It crashed.",
        "Dashboard: http://127.0.0.1:3000/d/x?var-run=r",
        "What to do: docs/reference/alerts.md#x",
        "Query: http://p/graph",
        "",
        "[resolved, critical] Run r is gone",
    ]


# Real programs.


def test_a_run_is_told_of_once_and_its_end_too(tmp_path):
    """Two real ranks are killed: one message about the run, none about ranks. They come back."""
    receiver = Receiver()
    shutil.copytree(ROOT / "prometheus", tmp_path / "prometheus")
    for path in (tmp_path / "prometheus" / "rules").glob("*.yml"):
        path.write_text(re.sub(r"for: \d+m$", "for: 3s", path.read_text(), flags=re.MULTILINE))

    def start() -> list[Rank]:
        ranks = [Rank(tmp_path, rank=rank, world_size=2, run="gone") for rank in range(2)]
        for rank in ranks:
            rank.wait_started()
            rank.call("log", [0, 1], {"train.loss": 0.5})
        return ranks

    with (
        receiver,
        Alertmanager(tmp_path, configured(tmp_path, receiver, group_interval="1s")) as alertmanager,
    ):
        config = tmp_path / "prometheus" / "prometheus.yml"
        text = config.read_text()
        for shipped, here in (
            ("/var/run/dllogger", str(tmp_path / "discovery")),
            ("127.0.0.1:9093", alertmanager.address),
            ("15s", "1s"),
            ("10s", "1s"),
        ):
            assert shipped in text
            text = text.replace(shipped, here)
        config.write_text(text)
        ranks = start()
        try:
            with Prometheus(
                tmp_path / "prometheus", discovery=tmp_path, configuration=config
            ) as server:
                wait_for(
                    lambda: server.query("dllogger_run_finished"), lambda found: len(found) == 2
                )
                for rank in ranks:
                    rank.process.kill()
                wait_for(lambda: told(receiver), bool)
                for rank in ranks:
                    rank.process.wait()
                    rank.process.stdout.close()
                    rank.process.stdin.close()
                ranks = start()
                wait_for(lambda: told(receiver)[-1][2], lambda status: status == "resolved")
                assert told(receiver) == [
                    ("/team", "gone", status, ["DLLoggerRunVanished"])
                    for status in ("firing", "resolved")
                ]

                # What the rules in monitoring.yml look at exists, and Alertmanager is scraped.
                assert server.query('up{job="alertmanager"} == 1')
                with urllib.request.urlopen(f"{server.url}/metrics", timeout=10) as answer:
                    own = answer.read().decode()
                for page, name in ((own, "prometheus"), (alertmanager.page(), "alertmanager")):
                    found = set(re.findall(r"^(\w+)[{ ]", page, re.MULTILINE))
                    assert OF_THEMSELVES[name] - found == set()
        finally:
            for rank in ranks:
                rank.process.kill()
                rank.process.wait()
                rank.process.stdout.close()
                rank.process.stdin.close()


def test_what_another_alert_says_is_not_said_again(tmp_path):
    """Each run is one message, without what its worse alerts explain; info goes elsewhere."""
    ranks = [str(rank) for rank in range(8)]
    with (
        Receiver() as receiver,
        Alertmanager(tmp_path, configured(tmp_path, receiver, group_interval="5m")) as server,
    ):
        server.send(
            [
                alert("DLLoggerRunVanished", "vanished"),
                *(alert("DLLoggerRankVanished", "vanished", rank=rank) for rank in ranks),
                *(alert("DLLoggerRankStalled", "vanished", rank=rank) for rank in ranks),
                alert("DLLoggerThroughputDrop", "vanished", "warning"),
                alert("DLLoggerRecordsDropped", "vanished", "warning"),
                alert("DLLoggerRunStalled", "still"),
                alert("DLLoggerRankVanished", "still", rank="3"),
                alert("DLLoggerStraggler", "still", "warning", rank="2"),
                alert("DLLoggerNonFiniteLoss", "nan", rank="0"),
                alert("DLLoggerLossDiverging", "nan", "warning"),
                alert("DLLoggerStraggler", "slow", "warning", rank="2"),
                alert("DLLoggerRankStalled", "slow", rank="5"),
                alert("DLLoggerThroughputDrop", "fine", "warning"),
                alert("DLLoggerRunFinished", "done", "info"),
            ]
        )
        expected = [
            ("/info", "done", "firing", ["DLLoggerRunFinished"]),
            ("/team", "fine", "firing", ["DLLoggerThroughputDrop"]),
            ("/team", "nan", "firing", ["DLLoggerNonFiniteLoss 0"]),
            ("/team", "slow", "firing", ["DLLoggerRankStalled 5"]),
            ("/team", "still", "firing", ["DLLoggerRankVanished 3", "DLLoggerRunStalled"]),
            ("/team", "vanished", "firing", ["DLLoggerRecordsDropped", "DLLoggerRunVanished"]),
        ]
        wait_for(lambda: {run for _, run, _, _ in told(receiver)}, lambda runs: len(runs) == 6)
        # Whatever else there was to say of these would come before this.
        server.send([alert("DLLoggerRunVanished", "later")])
        wait_for(lambda: [run for _, run, _, _ in told(receiver)], lambda runs: "later" in runs)
        later = ("/team", "later", "firing", ["DLLoggerRunVanished"])
        assert sorted(told(receiver)) == sorted([*expected, later])


def test_runs_that_are_lost_at_once_are_one_message(tmp_path):
    """Nothing is scraped: that is said, and not that each run is gone. Another job's runs are."""
    runs = [f"run-{number}" for number in range(20)]
    with (
        Receiver() as receiver,
        Alertmanager(tmp_path, configured(tmp_path, receiver, group_interval="5m")) as server,
    ):
        lost = {
            "labels": {"alertname": "DLLoggerNothingScraped", "job": "j", "severity": "critical"}
        }
        other = alert("DLLoggerRunVanished", "other")
        other["labels"]["job"] = "other"
        server.send([lost, other, *(alert("DLLoggerRunVanished", run) for run in runs)])
        wait_for(lambda: told(receiver), lambda messages: len(messages) >= 2)
        assert sum(server.suppressed().values()) == len(runs)
        assert sorted(told(receiver)) == [
            ("/team", "", "firing", ["DLLoggerNothingScraped"]),
            ("/team", "other", "firing", ["DLLoggerRunVanished"]),
        ]
