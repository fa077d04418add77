"""The reasons for which something is lost or odd: one table of each, known wherever they show."""

from __future__ import annotations

import ast
import contextlib
import importlib
import re
from typing import TYPE_CHECKING

import pytest
import yaml

from otel_dllogger.cli.check.page_report import DROPS, describe_page
from otel_dllogger.diagnostics import DAMAGE, FILE, HARMLESS, LINE, OTLP, PROCESS, REASONS
from otel_dllogger.logs.parsers.context import MAX_DIGITS, MAX_LINE_BYTES, MAX_NESTING
from otel_dllogger.logs.ranks import DROPPED_REASONS
from tests.support.bridge import append, open_bridge, read_page, steps
from tests.support.modules import MODULES
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.newest_only

TABLES = {
    "DIAGNOSTICS": {*REASONS[PROCESS], *REASONS[OTLP]},
    "anomalies": REASONS[FILE].keys(),
    "context": REASONS[LINE].keys(),
}
OWNERS = {
    "DIAGNOSTICS": "DIAGNOSTICS",
    "self._anomalies": "anomalies",
    "anomalies": "anomalies",
    "self._tailer": "anomalies",
    "context": "context",
    "SkippedError": "context",
}
PLACES = {"note": 1}
METHODS = {
    "DIAGNOSTICS": {"count", "caught"},
    "anomalies": {"count", "note"},
    "context": {"skip", "SkippedError"},
}


def counted_in(path: Path, module: str) -> list[tuple[str, str, str]]:
    """Return table, expression and value of each reason that a file counts by name."""
    names = {}
    with contextlib.suppress(ImportError):  # of a framework that is not there
        names = vars(importlib.import_module(f"otel_dllogger.{module}".rstrip(".")))
    found = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if not (isinstance(node, ast.Call) and node.args):
            continue
        owner, _, method = ast.unparse(node.func).rpartition(".")
        table = OWNERS.get(owner or method)
        if table is None or method not in METHODS[table]:
            continue
        for one in ast.walk(node.args[PLACES.get(method, 0)]):
            if isinstance(one, ast.Constant) and isinstance(one.value, str):
                found.append((table, ast.unparse(node), one.value))
            elif isinstance(one, (ast.Name, ast.Attribute)):
                owner, _, name = ast.unparse(one).rpartition(".")
                value = getattr(names.get(owner), name, None) if owner else names.get(name)
                if isinstance(value, str):
                    found.append((table, ast.unparse(node), value))
    return found


def test_what_is_counted_is_in_a_table() -> None:
    """A reason that no table has would be a KeyError, in the middle of some other failure."""
    found = [
        (*one, module)
        for module, path in MODULES.items()
        if module != "__main__"
        for one in counted_in(path, module)
    ]
    assert TABLES.keys() == {table for table, *_ in found}
    assert len(found) > 40
    assert [] == [one for one in found if one[2] not in TABLES[one[0]]]


def test_check_knows_every_reason(tmp_path: Path) -> None:
    """Of a training process, of OTLP, of damaged logs, and of a bridge: each in words."""
    in_faults = REASONS[PROCESS].keys()  # of a bridge
    assert {*in_faults, *REASONS[OTLP], *DROPPED_REASONS} == DROPS.keys() - HARMLESS
    append(tmp_path / "run_rank0.json", steps(0, 3))
    with open_bridge(tmp_path) as bridge:
        read_page(bridge)
        content_type, page = bridge._render("")
    text = page.decode()
    names = (
        "dllogger_dropped_total",
        "dllogger_bridge_unusual_total",
        "dllogger_bridge_faults_total",
    )
    series = [line for line in text.splitlines() if line.startswith(names)]
    assert len(DROPPED_REASONS) + len(REASONS[FILE]) + len(in_faults) == len(series)
    report = describe_page("page", text, content_type, read_at_s=0.0)
    assert [] == report.wrong
    more = text.replace(
        "# TYPE dllogger_dropped_total counter\n",
        "# TYPE dllogger_dropped_total counter\n"
        + "".join(
            f'dllogger_dropped_total{{run="r",rank="0",reason="{reason}"}} 0.0\n'
            for reason in DROPS.keys() - {*DROPPED_REASONS}
        ),
    )
    some = re.sub(rf"^((?:{'|'.join(names)}){{.*}}) 0.0$", r"\1 7.0", more, flags=re.MULTILINE)
    report = describe_page("page", some, content_type, read_at_s=0.0)
    said = [line for line in (*report.wrong, *report.warnings) if " 7 (" in line]
    assert len(DROPS) + len(REASONS[FILE]) + len(in_faults) == len(said)
    assert [] == [line for line in said if "unknown to" in line]
    unknown = some.replace('reason="torn"', 'reason="of_next_year"')
    assert "of_next_year): unknown to this version" in str(
        describe_page("page", unknown, content_type, read_at_s=0.0).wrong
    )


def test_what_is_harmless_is_a_warning(tmp_path: Path) -> None:
    """What is lost is wrong; a line that was mended, or shown in another form, is neither."""
    page = "# TYPE dllogger_dropped_total counter\n" + "".join(
        f'dllogger_dropped_total{{run="r",rank="0",reason="{reason}"}} 7.0\n' for reason in DROPS
    )
    report = describe_page("page", page, "text/plain", read_at_s=0.0)
    said = {
        reason: line.partition(": ")[2]
        for line in report.warnings
        for reason in re.findall(r" 7 \((\w+)\)", line)
    }
    harmless = {name for name, reason in DROPS.items() if reason.is_harmless}
    assert {"format_failed", "torn_line", *HARMLESS} == harmless == said.keys()
    assert len(DROPS) == len(said) + len([one for one in report.wrong if " 7 (" in one])


def test_words_name_the_limits_that_hold() -> None:
    """The table stands below the parsers and cannot ask them."""
    for name, limit in (
        ("line_too_long", MAX_LINE_BYTES),
        ("nested_too_deep", MAX_NESTING),
        ("number_too_long", MAX_DIGITS),
    ):
        assert f" {limit:,} " in REASONS[LINE][name].words


def names_in(text: str) -> list[str]:
    return re.findall(r"`(\w+)`", text)


def test_every_reason_is_documented() -> None:
    """Where a user looks for it: of training with the failures, of logs with the bridge."""
    failures = (ROOT / "docs" / "reference" / "failures.md").read_text()
    assert [] == sorted(TABLES["DIAGNOSTICS"] - {*names_in(failures)})
    logs = (ROOT / "docs" / "how-to" / "logs.md").read_text()
    table = logs.partition("| of | reasons |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (.+?) \| (.*) \|$", table, re.MULTILINE)
    of_lines = {name: names_in(names) for name, names in rows if name.startswith("lines")}
    of_files = [name for of, names in rows if of not in of_lines for name in names_in(names)]
    assert [[*HARMLESS], [*DAMAGE]] == [
        sorted(names, key=[*HARMLESS, *DAMAGE].index) for names in of_lines.values()
    ]
    assert sorted(REASONS[FILE]) == sorted(of_files)


def test_the_alert_of_losses_names_every_reason() -> None:
    """Whoever is on call finds the reason in its description; nothing harmless calls anybody."""
    groups = yaml.safe_load((ROOT / "prometheus" / "rules" / "alerts.yml").read_text())["groups"]
    (rule,) = (
        rule
        for group in groups
        for rule in group["rules"]
        if rule.get("alert") == "DLLoggerRecordsDropped"
    )
    reasons = {**REASONS[PROCESS], **REASONS[OTLP]}
    harmless = {name for name, reason in reasons.items() if reason.is_harmless}
    assert [] == [name for name in DROPPED_REASONS if name in HARMLESS]  # of a bridge
    selectors = re.findall(r"dllogger_dropped_total(.*?)\[", rule["expr"])
    assert {f'{{reason!~"{"|".join(sorted(harmless))}"}}'} == {*selectors}
    named = {*re.findall(r"\b(\w+)(?=, |: )", rule["annotations"]["description"])}
    assert [] == sorted(reasons.keys() - harmless - named)
    assert [] == sorted(
        name for name in named if "_" in name and name not in reasons.keys() - harmless
    )
