"""What recording rules would have recorded of series that were written at once."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import yaml

from tests.support.paths import ROOT
from tests.support.prometheus import Prometheus, find_program
from tests.support.promql import read

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RULES = ROOT / "prometheus" / "rules"
INTERVAL_S = 15

# Prometheus 2.42 refuses it over a range of time, where count_values has several values in turn.
_ONLY_AT_A_MOMENT = "run:dllogger_iteration_skew:max"


def record_past(folder: Path, start_s: float, end_s: float) -> None:
    """Evaluate the recording rules over a time that is over.

    ``promtool`` evaluates a rule over all of the time at once, without the others: those that a
    rule reads must be in the database before.

    Args:
        folder: The folder of a Prometheus that does not run, with its ``data``.
        start_s: The begin of the time, in seconds since the Unix epoch.
        end_s: Its end.
    """
    for number, rules in enumerate(_levels()):
        level = folder / f"level{number}"
        level.mkdir()
        path = level / "rules.yml"
        groups = [{"name": rule["record"], "rules": [rule]} for rule in rules]
        path.write_text(yaml.safe_dump({"groups": groups}))
        command = [find_program("promtool"), "tsdb", "create-blocks-from", "rules"]
        command += [f"--start={int(start_s)}", f"--end={int(end_s)}"]
        command += [f"--eval-interval={INTERVAL_S}s", f"--output-dir={level / 'blocks'}"]
        configuration = level / "prometheus.yml"
        configuration.write_text(f"global: {{scrape_interval: {INTERVAL_S}s}}\n")
        with Prometheus(folder, discovery=folder, configuration=configuration) as running:
            done = subprocess.run(
                [*command, f"--url={running.url}", path],
                check=False,
                capture_output=True,
                text=True,
            )
        assert "error" not in done.stderr + done.stdout, done.stderr + done.stdout
        for block in (level / "blocks").iterdir():
            block.rename(folder / "data" / block.name)


def _levels() -> Iterator[list[dict[str, Any]]]:
    """Yield the rules that read none of those that come later."""
    rules = [
        rule
        for name in ("alerts", "recording", "dashboards")
        for group in yaml.safe_load((RULES / f"{name}.yml").read_text())["groups"]
        for rule in group["rules"]
        if rule.get("record", _ONLY_AT_A_MOMENT) != _ONLY_AT_A_MOMENT
    ]
    while rules:
        later = {rule["record"] for rule in rules}
        ready = [
            rule for rule in rules if not read(rule["expr"]).names & (later - {rule["record"]})
        ]
        assert ready, f"in a circle: {later}"
        yield ready
        rules = [rule for rule in rules if rule not in ready]
