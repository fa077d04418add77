"""The configuration and rules for Prometheus: that they hold together, and what they say when."""

from __future__ import annotations

import functools
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

import otel_dllogger as dllogger
from tests.support import promql
from tests.support.dashboards import BOARDS, expressions_of
from tests.support.http import ask
from tests.support.paths import ROOT
from tests.support.prometheus import OF_THEMSELVES, find_program

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.newest_only

CONFIGURATION = ROOT / "prometheus" / "prometheus.yml"
RULE_FILES = sorted((ROOT / "prometheus" / "rules").glob("*.yml"))
TEST_FILES = sorted((ROOT / "tests" / "rules").glob("*.yml"))

# A duration as PromQL writes it, and what stands between quotes.
DURATION = re.compile(r"\b(?:\d+(?:ms|[smhdwy]))+\b")
QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
LABEL_LIST = re.compile(
    r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^()]*\)", re.IGNORECASE
)
NAME = re.compile(r"[A-Za-z_:][A-Za-z0-9_:]*")
NUMBER = re.compile(r"(?<![\w.:])\d+(?:\.\d+)?(?![\w.:])")
WORDS = {"and", "or", "unless", "bool", "offset", "by", "on", "group_left"}
# test_alertmanager.py looks for those on the programs' own pages.
NOT_FROM_THE_PACKAGE = {"up"}.union(*OF_THEMSELVES.values())
MONITORING = ROOT / "prometheus" / "rules" / "monitoring.yml"


@functools.cache
def rules() -> list[dict[str, Any]]:
    """Return every rule of every file."""
    groups = [group for path in RULE_FILES for group in yaml.safe_load(path.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def records() -> dict[str, dict[str, Any]]:
    return {rule["record"]: rule for rule in rules() if "record" in rule}


def is_of_a_run(rule: dict[str, Any]) -> bool:
    """Tell the alerts about runs from those about what watches them."""
    groups = yaml.safe_load(MONITORING.read_text())["groups"]
    return rule not in [one for group in groups for one in group["rules"]]


ALERTS = [pytest.param(rule, id=rule["alert"]) for rule in alerts()]
RUN_ALERTS = [pytest.param(rule, id=rule["alert"]) for rule in alerts() if is_of_a_run(rule)]
MONITORING_ALERTS = [
    pytest.param(rule, id=rule["alert"]) for rule in alerts() if not is_of_a_run(rule)
]


def without_text(expr: str) -> str:
    return QUOTED.sub('""', expr)


def names_in(expr: str) -> set[str]:
    """Return the metrics that an expression names: what is no function, label, word or number."""
    bare = re.sub(r"\{[^{}]*\}", "", without_text(expr))
    bare = re.sub(r"\[[^\[\]]*\]", "", LABEL_LIST.sub("", bare))
    bare = DURATION.sub("", bare)
    functions = set(re.findall(r"([A-Za-z_]\w*)\s*(?:by\s*)?\(", bare))
    return set(NAME.findall(bare)) - functions - WORDS


def name_patterns_in(expr: str) -> set[str]:
    return set(re.findall(r'__name__=~"([^"]*)"', expr))


def run(*command: object) -> None:
    """Run a program that must be content."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def exported(tmp_path: Path) -> set[str]:
    """Return the names on the page of a rank that logged a bit of everything."""
    backend = dllogger.PrometheusBackend(
        dllogger.Verbosity.VERBOSE, port=0, run="r", step_histogram=True
    )
    logger = dllogger.Logger([backend])
    logger.metadata("loss", {"GOAL": "MINIMIZE"})
    logger.metadata("ips", {"unit": "img/s", "GOAL": "MAXIMIZE"})
    logger.metadata("data_time", {"unit": "s"})
    logger.metadata("forward", {"unit": "ms"})
    logger.metadata("launch", {"unit": "us"})
    logger.log("PARAMETER", {"lr": 0.1})
    logger.log((0, 1), {"loss": 1.0, "ips": 9.0, "data_time": 0.1, "forward": 5.0, "launch": 9.0})
    with logger.phase("checkpoint"):
        pass
    logger.event("checkpoint_saved")
    assert backend.endpoint is not None
    try:
        page = ask(backend.endpoint.port).body.decode()
    finally:
        logger.close()
    return {
        sample.name for family in text_string_to_metric_families(page) for sample in family.samples
    }


@functools.cache
def scenarios() -> list[tuple[str, str, bool]]:
    """Return file, alert and whether it fires, for all that promtool is to test of alerts."""
    return [
        (path.name, test["alertname"], bool(test["exp_alerts"]))
        for path in TEST_FILES
        for group in yaml.safe_load(path.read_text())["tests"]
        for test in group.get("alert_rule_test", [])
    ]


def test_prometheus_takes_the_configuration():
    """Nothing in prometheus.yml is misspelt, and the rule files are where it looks for them."""
    run(find_program("promtool"), "check", "config", CONFIGURATION)
    configured = yaml.safe_load(CONFIGURATION.read_text())["rule_files"]
    found = [path for glob in configured for path in CONFIGURATION.parent.glob(glob)]
    assert sorted(found) == RULE_FILES


def test_configuration_leaves_run_and_rank_to_the_metrics():
    """A target label of that name would rename the metrics' own to exported_run."""
    text = CONFIGURATION.read_text()
    (job,) = (
        job for job in yaml.safe_load(text)["scrape_configs"] if job["job_name"] == "dllogger"
    )
    assert job["file_sd_configs"] == [
        {"files": ["/var/run/dllogger/*.json"], "refresh_interval": "15s"}
    ]
    assert not {"relabel_configs", "metric_relabel_configs"} & set(job)


def test_configuration_takes_a_page_that_is_as_long_as_it_may_be():
    """A page beyond sample_limit fails as a whole, so it is far above the package's own limit."""
    (job, *_) = yaml.safe_load(CONFIGURATION.read_text())["scrape_configs"]
    assert job["sample_limit"] >= 2 * dllogger.metrics.store.DEFAULT_MAX_SERIES


@pytest.mark.parametrize("path", RULE_FILES, ids=lambda path: path.name)
def test_prometheus_takes_the_rules(path):
    """Every expression and template can be parsed."""
    run(find_program("promtool"), "check", "rules", path)


@pytest.mark.parametrize("path", RULE_FILES, ids=lambda path: path.name)
def test_victoria_metrics_takes_the_rules(path):
    """The other engine that people have reads the same expressions and templates."""
    run(find_program("vmalert"), "-dryRun", f"-rule={path}")


@pytest.mark.parametrize("path", TEST_FILES, ids=lambda path: path.stem)
def test_rules_say_what_they_should_and_when(path):
    """The scenarios of tests/rules: what fires, with which text, and what stays silent."""
    run(find_program("promtool"), "test", "rules", path)


@pytest.mark.parametrize("path", TEST_FILES, ids=lambda path: path.stem)
def test_scenarios_evaluate_all_groups_in_order(path):
    """Without an order promtool takes any, and a scenario's outcome changes from run to run."""
    scenario = yaml.safe_load(path.read_text())
    files = [(path.parent / name).resolve() for name in scenario["rule_files"]]
    runs = [file for file in RULE_FILES if file != MONITORING]
    assert sorted(files) in ([MONITORING], runs)
    names = [
        group["name"] for file in files for group in yaml.safe_load(file.read_text())["groups"]
    ]
    order = scenario["group_eval_order"]
    assert sorted(order) == sorted(names)
    if files != [MONITORING]:
        assert order[0] == "dllogger_thresholds"
        assert order[-1] == "dllogger_alerts"


@pytest.mark.parametrize("rule", RUN_ALERTS)
def test_alert_says_how_bad_it_is_and_what_to_do(rule):
    """Each alert has a severity, a line, a description and a dashboard for its run."""
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    annotations = rule["annotations"]
    assert set(annotations) == {"summary", "description", "dashboard", "runbook_url"}
    assert "\n" not in annotations["summary"]
    assert "$labels.run" in annotations["summary"]
    assert "$value" in annotations["summary"]
    assert re.fullmatch(
        r"/d/otel-dllogger-(?:overview|ranks)\?var-run=\{\{ \$labels\.run \| urlquery \}\}"
        r"&var-job=\{\{ \$labels\.job \| urlquery \}\}"
        r"(?:&var-rank=\{\{ \$labels\.rank \| urlquery \}\})?",
        annotations["dashboard"],
    )
    assert re.fullmatch("DLLogger[A-Za-z]+", rule["alert"])


@pytest.mark.parametrize("rule", ALERTS)
def test_alert_has_a_scenario_where_it_fires_and_one_where_it_does_not(rule):
    """An alert that was never seen to fire, or never to be silent, is not tested."""
    fires = {fires for _file, alert, fires in scenarios() if alert == rule["alert"]}
    assert fires == {True, False}


def test_scenarios_are_of_alerts_that_there_are():
    """A scenario of a misspelt alert that stays silent would pass for ever."""
    assert {alert for _file, alert, _fires in scenarios()} == {rule["alert"] for rule in alerts()}


def test_names_are_read_out_of_an_expression():
    """Labels, functions, words, durations and text are no names; all else is."""
    expr = """sum by (job, run) (rate(a_total{x="b{c"}[5m] offset 1h) > bool 0.5)
        and on (job) group_left (host) (run:d:max == clamp_min(scalar(e), 2)) unless f offset 5m
        or {__name__=~"dl_.+"}"""
    assert names_in(expr) == {"a_total", "run:d:max", "e", "f"}
    assert name_patterns_in(expr) == {"dl_.+"}


def test_rules_use_what_the_package_exports_or_a_rule_records(exported):
    """A metric that nobody has is a rule that says nothing, for ever and without an error."""
    known = exported | set(records()) | NOT_FROM_THE_PACKAGE
    assert {name for rule in rules() for name in names_in(rule["expr"])} - known == set()


def test_rules_select_by_patterns_that_match_what_the_package_exports(exported):
    """A pattern of names matches something that was logged, and no dllogger_* figure."""
    patterns = {pattern for rule in rules() for pattern in name_patterns_in(rule["expr"])}
    assert patterns
    for pattern in patterns:
        matched = {name for name in exported if re.fullmatch(pattern, name)}
        assert matched, pattern
        assert not {name for name in matched if not name.startswith("dl_")}, pattern


def test_thresholds_are_plain_numbers_in_the_first_group():
    """The place to change one is a list of vector(number), each named after what it counts."""
    groups = yaml.safe_load((ROOT / "prometheus" / "rules" / "alerts.yml").read_text())["groups"]
    thresholds = groups[0]
    assert thresholds["name"] == "dllogger_thresholds"
    for rule in thresholds["rules"]:
        assert re.fullmatch(r"dllogger:threshold:[a-z_]+_[a-z]+", rule["record"])
        assert re.fullmatch(r"vector\(\d+(?:\.\d+)?\)", rule["expr"])


def test_every_threshold_is_used_and_every_used_one_is_there():
    """A threshold that nobody reads deceives who changes it."""
    prefix = "dllogger:threshold:"
    used = {name for rule in rules() for name in names_in(rule["expr"]) if name.startswith(prefix)}
    assert used == {name for name in records() if name.startswith(prefix)}


def test_nothing_is_recorded_for_nobody():
    """What a rule records is read by another rule, an alert or a dashboard."""
    read_by = {name for rule in rules() for name in names_in(rule["expr"])}
    for board in BOARDS.values():
        for _place, expression in expressions_of(board):
            read_by |= promql.read(expression).names
    assert set(records()) - read_by == set()


# States are told apart by a number, step times sorted into classes, and a rate is made by hand.
CODED = {
    "run:dllogger_state:last1h",
    "run:dllogger_capacity:last1h",
    "run:dllogger_ranks:count_values",
    "rank:dllogger_phase_seconds_total:rate5m",
    "dllogger:evaluation:ratio5m",
}


def test_numbers_stand_among_the_thresholds():
    """Elsewhere there are only 0 and 1, the quantiles, and the thousands of parts of seconds."""
    for rule in rules():
        name = rule.get("record", "")
        if name.startswith("dllogger:threshold:") or name in CODED:
            continue
        bare = re.sub(r"\[[^\[\]]*\]", "", without_text(rule["expr"]))
        numbers = set(NUMBER.findall(DURATION.sub("", bare)))
        assert numbers <= {"0", "1", "0.5", "0.05", "0.95", "0.99", "1000", "1000000"}, rule


@pytest.mark.parametrize("rule", MONITORING_ALERTS)
def test_alert_of_the_monitoring_says_what_to_do(rule):
    """It is about no run, so that it has no dashboard, and about a program or a job."""
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    annotations = rule["annotations"]
    assert set(annotations) == {"summary", "description", "runbook_url"}
    assert "\n" not in annotations["summary"]
    assert "$value" in annotations["summary"]
    assert re.fullmatch("DLLogger[A-Za-z]+", rule["alert"])


@pytest.mark.parametrize("rule", RUN_ALERTS)
def test_alert_does_not_mix_jobs_nor_runs(rule):
    """What is aggregated or joined is so by job and run at least, or by the target."""
    for clause in re.findall(r"\b(by|on) \(([^()]*)\)", rule["expr"]):
        labels = {label.strip() for label in clause[1].split(",")}
        assert {"job", "run"} <= labels or labels == {"job", "instance"}, clause


def test_recorded_figures_do_not_mix_jobs_nor_runs():
    """The same for the recording rules; their level says what they are by, or of what target."""
    for name, rule in records().items():
        if name.startswith("dllogger:") or not is_of_a_run(rule):  # of Prometheus itself
            continue
        level = {"run": {"job", "run"}, "rank": {"job", "run", "rank"}}[name.split(":")[0]]
        clauses = re.findall(r"\b(?:by|on) \(([^()]*)\)", rule["expr"])
        # ``on ()`` joins what has no labels.
        parts = [{label.strip() for label in clause.split(",")} for clause in clauses if clause]
        target = {"job", "instance"}
        assert all({"job", "run"} <= labels or labels == target for labels in parts), name
        from_level = any(one.startswith(name.split(":")[0]) for one in names_in(rule["expr"]))
        assert not parts or level <= parts[0] or from_level, name
