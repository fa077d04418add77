"""Dashboards, rules and documents name metrics that exist, in expressions that Prometheus takes."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.support.bridge import BridgeProcess
from tests.support.dashboards import BOARDS, expressions_of, texts_of
from tests.support.nvml import FOUR, build_library, describe
from tests.support.paths import ROOT
from tests.support.prometheus import OF_THEMSELVES, find_program, wait_for
from tests.support.promql import read
from tests.support.rank import Rank

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.newest_only

RULES = sorted((ROOT / "prometheus" / "rules").glob("*.yml"))
TEXTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

# What Prometheus and its rules make themselves.
OF_EXPORTERS = {  # node_exporter 1.x, dcgm-exporter 3 and 4
    *("node_cpu_seconds_total", "node_memory_MemAvailable_bytes", "node_memory_MemTotal_bytes"),
    "node_uname_info",
    *("DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_POWER_USAGE"),
    *("DCGM_FI_DEV_SM_CLOCK", "DCGM_FI_DEV_XID_ERRORS"),
}
OF_PROMETHEUS = {"up", "ALERTS", "ALERTS_FOR_STATE"}.union(*OF_THEMSELVES.values())

_NAME_IN_TEXT = re.compile(
    r"(?<![\w:$./-])(?:dl|dllogger)_\w*(?!\w|-\d)|(?<![\w:$./-])[a-z]+:dl\w*:?[\w:]*"
)
_LOGGED = re.compile(r"dl(_[a-z0-9]+)+")
# A stage is a label, and a gauge is no total.
_NOT_LOGGED = re.compile(r"dl_(train|val|valid|validation|eval|test)_|.*_total")
_CODE = re.compile(r"^ *```(\w*)\n(.*?)^ *```|(`+)(.+?)\3", re.DOTALL | re.MULTILINE)


# --- Names of metrics, wherever they stand ---------------------------------------------------


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Return every name on the page of a rank that had everything happen to it."""
    folder = tmp_path_factory.mktemp("rank")
    with pytest.MonkeyPatch.context() as monkeypatch:
        gpu = describe(build_library(folder), folder / "gpus", FOUR[:1])
        for name, value in {**gpu, "CUDA_VISIBLE_DEVICES": "0"}.items():
            monkeypatch.setenv(name, value)
        rank = Rank(folder, text_parameters=True, step_histogram=True)
    try:
        rank.wait_started()
        rank.call("metadata", "loss", {"GOAL": "MINIMIZE", "STAGE": "TRAIN"})
        rank.call("log", "PARAMETER", {"lr": 0.1, "optimizer": "sgd"})
        rank.call("log", [0, 1], {"loss": 0.5})
        rank.call("log", [0, 2], {"loss": float("nan")})
        rank.call("phase", "checkpoint")
        rank.call("event", "checkpoint_saved")
        page = wait_for(lambda: rank.page().decode(), lambda text: "dllogger_gpu_info" in text)
    finally:
        rank.process.kill()
        rank.process.communicate()
    return sample_names(page)


def sample_names(page: str) -> set[str]:
    families = list(text_string_to_metric_families(page))
    histograms = {family.name for family in families if family.type == "histogram"}
    return {sample.name for family in families for sample in family.samples} | histograms


@pytest.fixture(scope="module")
def of_the_bridge(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Return the names on the page of a bridge that follows nothing."""
    folder = tmp_path_factory.mktemp("bridge")
    with BridgeProcess(folder, folder=folder) as bridge:
        return {name for name, *_labels in bridge.page()}


def groups_of(path: Path) -> list[dict[str, Any]]:
    return yaml.safe_load(path.read_text())["groups"]


def rules_of(path: Path) -> list[dict[str, Any]]:
    return [rule for group in groups_of(path) for rule in group["rules"]]


def recorded() -> set[str]:
    return {rule["record"] for path in RULES for rule in rules_of(path) if "record" in rule}


def expressions() -> Iterator[tuple[str, str]]:
    """Yield every expression there is in dashboards, rules and text, and where it is from."""
    for name, board in BOARDS.items():
        for place, text in expressions_of(board):
            yield f"{name}: {place}", text
    for path in RULES:
        for rule in rules_of(path):
            yield f"{path.name}: {rule.get('record') or rule['alert']}", rule["expr"]
    for path in TEXTS:
        for language, code in code_of(path.read_text()):
            if language == "promql":
                yield from ((f"{path.name}: {text}", text) for text in split_promql(code))


def code_of(markdown: str) -> list[tuple[str, str]]:
    """Return blocks of code with their language, and spans of code without."""
    return [(found[1] or "", found[2] or found[4]) for found in _CODE.finditer(markdown)]


def split_promql(code: str) -> list[str]:
    """Part a block into expressions: one a line, and lines that go on are indented or close."""
    lines = [line for line in code.splitlines() if not re.fullmatch(r"\s*(#.*)?", line)]
    result: list[str] = []
    for line in lines:
        is_open = bool(result) and sum(map(result[-1].count, "({[")) > sum(
            map(result[-1].count, ")}]")
        )
        goes_on = re.match(r"\s|[)}\]*/+<>=-]|(?:and|or|unless|by|on)\b", line)
        if result and (is_open or goes_on):
            result[-1] += f"\n{line}"
        else:
            result.append(line)
    return result


def wrong_name(name: str, exported: set[str], recorded: set[str]) -> bool:
    """Return whether nothing is exported, recorded or logged under this name."""
    if name in exported | recorded | OF_PROMETHEUS | OF_EXPORTERS:
        return False
    return not _LOGGED.fullmatch(name) or bool(_NOT_LOGGED.match(name))


def wrong_names_in_text(text: str, exported: set[str], recorded: set[str]) -> list[str]:
    """Return the names in a text that nothing has; one that ends in ``_`` stands for many."""
    names = sorted(set(_NAME_IN_TEXT.findall(text)))
    whole = [name for name in names if not name.endswith(("_", ":"))]
    return [name for name in whole if wrong_name(name, exported, recorded)]


def test_there_are_rules() -> None:
    """The rules that come with the package are where the other tests look for them."""
    assert recorded()
    assert any("alert" in rule for path in RULES for rule in rules_of(path))


def test_every_expression_is_about_metrics_that_exist(exported: set[str]) -> None:
    """Dashboards, rules and text ask for what a rank exports, a rule records or a user logs."""
    rules = recorded()
    wrong = {
        place: names
        for place, text in expressions()
        if (names := {one for one in read(text).names if wrong_name(one, exported, rules)})
    }
    assert {} == wrong


def test_no_expression_selects_by_labels_alone() -> None:
    """A counter and recorded series have the label `kind` as well: they would be mixed in."""
    nameless = {
        place
        for place, text in expressions()
        for selector in read(text).selectors
        if not selector.name and "__name__" not in {one.label for one in selector.matchers}
    }
    assert set() == nameless


def test_every_metric_of_the_package_is_in_the_reference(exported: set[str]) -> None:
    """The table of the reference has no gap, and the page of the test's rank has everything."""
    page = (ROOT / "docs" / "reference" / "metrics.md").read_text()
    named = set(re.findall(r"\bdllogger_\w+", "\n".join(code for _, code in code_of(page))))
    assert {name for name in exported if name.startswith("dllogger_")} == named


def test_every_name_in_a_text_is_of_a_metric_that_exists(
    exported: set[str], of_the_bridge: set[str]
) -> None:
    """No code in the text, comment of a rule or description of a panel names what is not there."""
    texts = {path.name: "\n".join(code for _, code in code_of(path.read_text())) for path in TEXTS}
    texts |= {path.name: path.read_text() for path in RULES}
    texts |= {name: "\n".join(texts_of(board)) for name, board in BOARDS.items()}
    named = recorded() | {group["name"] for path in RULES for group in groups_of(path)}
    found = {
        name: wrong
        for name, text in texts.items()
        if (wrong := wrong_names_in_text(text, exported | of_the_bridge, named))
    }
    assert {} == found


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("dl_loss dl_ips_per_second dl_90_latency_milliseconds dl_<name> dl_.+ dl_", []),
        ("dllogger_epoch run:dl:max dllogger_", []),
        ("otel_dllogger grafana/otel_dllogger_x.json $dl_x", []),
        ("dllogger_train-20261128-171447_0_node1.json", []),
        ("dl_train_loss", ["dl_train_loss"]),
        ("dl_Loss dl_a__b", ["dl_Loss", "dl_a__b"]),
        ("dl_steps_total", ["dl_steps_total"]),
        ("dllogger_epochs", ["dllogger_epochs"]),
        ("run:dl:mean", ["run:dl:mean"]),
    ],
)
def test_wrong_names_are_found_in_texts(text: str, wrong: list[str]) -> None:
    """A misspelt name is told from one of a user's metrics, and from what is no metric."""
    assert wrong == wrong_names_in_text(text, {"dllogger_epoch"}, {"run:dl:max"})


def test_code_is_found_in_markdown() -> None:
    """Blocks, spans and expressions over several lines are found."""
    text = "`a` and ``b`c``\n```promql\nx\n# no\nsum(\n  y\n)\n  / z\n```\n    ```yaml\nk: v\n```\n"
    code = code_of(text)
    assert ["", "", "promql", "yaml"] == [language for language, _ in code]
    assert ["a", "b`c"] == [found for _, found in code[:2]]
    assert ["x", "sum(\n  y\n)\n  / z"] == split_promql(code[2][1])


# --- That Prometheus takes it ----------------------------------------------------------------


def without_variables(expression: str) -> str:
    """Put something harmless where Grafana puts values: a time in brackets, else a number."""
    variable = r"(?:\$\w+|\$\{[^}]+\}|\[\[\w+(?::\w+)?\]\])"
    timed = re.sub(rf"\[\s*{variable}\s*(:?)\s*\]", r"[1m\1]", expression)
    timed = re.sub(rf"(offset\s+){variable}", r"\g<1>1m", timed)
    return re.sub(variable, "1", timed)


def refused(asked: list[str], folder: Path) -> str:
    """Return what promtool has against expressions, "" where it takes them all."""
    rules = [
        {"record": f"expression:{number}", "expr": without_variables(text)}
        for number, text in enumerate(asked)
    ]
    file = folder / "expressions.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}, width=1000))
    command = [find_program("promtool"), "check", "rules", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr if done.returncode else ""


def test_prometheus_takes_every_expression(tmp_path: Path) -> None:
    """No expression in dashboards, rules and text has an error of syntax or type."""
    assert "" == refused([text for _, text in expressions()], tmp_path)


@pytest.mark.parametrize("text", ["rate(x_total)", "sum(x", "x{a=b}", "[$__range]", "topk(x)"])
def test_prometheus_refuses_what_is_wrong(tmp_path: Path, text: str) -> None:
    """An error of syntax or type is found among expressions that are right."""
    assert "expression:1" in refused(["up", text, 'x{a=~"$a"}[$__range:] > $k'][:2], tmp_path)
