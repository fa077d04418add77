"""The words and thresholds for what is wrong with a run are those of the alert rules."""

from __future__ import annotations

import re

import pytest
import yaml

from otel_dllogger.metrics import health
from tests.support.paths import ROOT

pytestmark = pytest.mark.newest_only

GROUPS = yaml.safe_load((ROOT / "prometheus/rules/alerts.yml").read_text())["groups"]
RULES = {rule["alert"]: rule for group in GROUPS for rule in group["rules"] if "alert" in rule}
THRESHOLDS = {
    rule["record"].rpartition(":")[2]: float(rule["expr"].removeprefix("vector(").rstrip(")"))
    for group in GROUPS
    for rule in group["rules"]
    if rule.get("record", "").startswith("dllogger:threshold:")
}
FORMS = {
    "humanizeDuration": "duration",
    "humanizePercentage": "percentage",
    "humanizeTimestamp": "time",
    "humanize": "si",
}


def in_our_words(summary: str) -> str:
    """Return a summary of a rule, a template of Go, as a template of ``health.ALERTS``."""
    text = " ".join(summary.split())
    text = re.sub(
        r"\{\{ if eq \$value 1\.0 \}\}once\{\{ else \}\}.*?times\{\{ end \}\}",
        "{value:times}",
        text,
    )
    text = re.sub(
        r"\{\{ with \$labels\.(\w+) \}\}its \{\{ \. \}\}\{\{ else \}\}its (\w+)\{\{ end \}\}",
        r"its {\1|\2}",
        text,
    )
    text = re.sub(
        r" ?\{\{- with \$labels\.(\w+) \}\}(.*?)\{\{ \. \}\}(.*?)\{\{ end \}\}", r"[\2{\1}\3]", text
    )
    text = re.sub(r'\{\{ \$value \| printf "%\.0f" \}\}', "{value:rounded}", text)
    for go, form in FORMS.items():
        text = text.replace(f"{{{{ $value | {go} }}}}", f"{{value:{form}}}")
    text = text.replace("{{ $value }}", "{value}")
    return re.sub(r"\{\{ \$labels\.(\w+) \}\}", r"{\1}", text)


def test_every_alert_of_a_run_has_words() -> None:
    """No alert is missing here, and none is only here."""
    assert set(health.ALERTS) == set(RULES)


@pytest.mark.parametrize("name", RULES)
def test_the_words_are_those_of_the_rule(name: str) -> None:
    """What the page says is what Alertmanager sends."""
    assert in_our_words(RULES[name]["annotations"]["summary"]) == health.ALERTS[name].words
    assert RULES[name]["labels"]["severity"] == health.ALERTS[name].severity


def test_the_thresholds_are_those_of_the_rules() -> None:
    """Each threshold is there, under the name that it has in the rules."""
    ours = {
        "stalled_seconds": health.STALLED_S,
        "stalled_intervals": health.STALLED_INTERVALS,
        "phase_seconds": health.PHASE_S,
        "straggler_step_ratio": health.STRAGGLER_STEP_RATIO,
        "straggler_duration_ratio": health.STRAGGLER_DURATION_RATIO,
        "straggler_ranks": health.STRAGGLER_RANKS,
        "throughput_ratio": health.THROUGHPUT_RATIO,
        "settled_seconds": health.SETTLED_S,
        "skew_seconds": health.SKEW_S,
        "skew_epochs": health.SKEW_EPOCHS,
        "alive_seconds": health.ALIVE_S,
        "crash_attempts": health.CRASH_ATTEMPTS,
        "overhead_ratio": health.OVERHEAD_RATIO,
    }
    assert ours == THRESHOLDS


def summaries() -> list[tuple[str, dict[str, str], str]]:
    """Return what promtool expects of the rules in ``tests/rules``: alert, labels and summary."""
    found = []
    for path in sorted((ROOT / "tests/rules").glob("*.yml")):
        for test in yaml.safe_load(path.read_text())["tests"]:
            for case in test.get("alert_rule_test", []):
                for alert in case.get("exp_alerts", []):
                    summary = alert.get("exp_annotations", {}).get("summary")
                    if summary and case["alertname"] in health.ALERTS:
                        found.append((case["alertname"], alert["exp_labels"], summary))
    return found


SUMMARIES = summaries()


def test_the_rules_are_tested_with_many_values() -> None:
    """Nearly every alert is among the expectations, so that the next test means something."""
    assert len({name for name, _labels, _summary in SUMMARIES}) >= len(health.ALERTS) - 2


@pytest.mark.parametrize(("name", "labels", "summary"), SUMMARIES)
def test_a_value_is_formatted_as_prometheus_does(
    name: str, labels: dict[str, str], summary: str
) -> None:
    """For each expectation there is a value with which the words here are the same text."""
    texts = {health.alert_words(name, labels, value) for value in values_like(summary)}
    assert summary in texts


def values_like(text: str) -> list[float]:
    """Return the numbers that a text may show, by the forms of ``health``."""
    units = {"d": 86400, "h": 3600, "m": 60, "s": 1}
    found = [1.0]
    for number in re.findall(r"-?\d+(?:\.\d+)?", text):
        found += [float(number), float(number) / 100]
    parts = re.findall(r"\b(\d+)([dhms])\b", text)
    found.append(float(sum(int(number) * units[unit] for number, unit in parts)))
    moments = re.findall(r"(\d{4})-(\d\d)-(\d\d) (\d\d):(\d\d):(\d\d)", text)
    for moment in moments:
        from datetime import datetime, timezone  # noqa: PLC0415 - rarely needed

        found.append(datetime(*map(int, moment), tzinfo=timezone.utc).timestamp())
    return found


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0s"),
        (0.0123, "12.3ms"),
        (1.5, "1.5s"),
        (59.99, "59.99s"),
        (60.0, "1m 0s"),
        (3723.9, "1h 2m 3s"),
        (90061.0, "1d 1h 1m 1s"),
        (-90.0, "-1m 30s"),
        (float("nan"), "nan"),
    ],
)
def test_a_duration_reads_as_in_prometheus(value: float, text: str) -> None:
    """The forms are those of humanizeDuration."""
    assert health.format_duration(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (5.5512, "5.551"), (1234567.0, "1.235M"), (0.00012, "120u"), (-0.5, "-500m")],
)
def test_a_number_reads_as_in_prometheus(value: float, text: str) -> None:
    """The forms are those of humanize."""
    words = health.alert_words("DLLoggerLossDiverging", {"metric": "m", "run": "r"}, value)
    assert words.startswith(f"m of run r is at {text}, ")


def test_a_label_cannot_pass_for_a_field() -> None:
    """A run may have any name: braces and brackets in it are text."""
    name = "{value} [on {host}] {rank}"
    labels = {"run": name, "metric": "{run}"}
    words = health.alert_words("DLLoggerThroughputDrop", labels, 0.5)
    assert words == f"Run {name} trains at 50% of its usual speed, by {{run}}"


def test_every_state_has_words_and_a_place() -> None:
    """Whatever a rank does, it can be named and sorted."""
    assert set(health.URGENCY) == set(health.STATES)
