"""The reasons for which something is lost or odd: one table of each, known wherever they show."""

from __future__ import annotations

import ast
import contextlib
import importlib
import re
from typing import TYPE_CHECKING

from otel_dllogger.cli.check.page_report import DROPS, describe_page
from otel_dllogger.diagnostics import REASONS
from otel_dllogger.logs.parsers import skipped
from otel_dllogger.logs.ranks import DROPPED_REASONS
from otel_dllogger.logs.tail import oddities
from otel_dllogger.otlp import losses
from tests.support.bridge import append, open_bridge, read_page, steps
from tests.unit.test_imports import MODULES, ROOT

if TYPE_CHECKING:
    from pathlib import Path

TABLES = {
    "FAULTS": {*REASONS, *losses.REASONS},
    "oddities": set(oddities.REASONS),
    "context": set(skipped.REASONS),
}
OWNERS = {
    "FAULTS": "FAULTS",
    "self._oddities": "oddities",
    "oddities": "oddities",
    "self._tailer": "oddities",
    "context": "context",
}
PLACES = {"note": 1}
METHODS = {
    "FAULTS": {"drop", "drop_quietly", "caught"},
    "oddities": {"count", "note"},
    "context": {"skip"},
}


def counted_in(path: Path, module: str) -> list[tuple[str, str, str]]:
    """Return table, expression and value of each reason that a file counts by name."""
    names = {}
    with contextlib.suppress(ImportError):  # of a framework that is not there
        names = vars(importlib.import_module(f"otel_dllogger.{module}".rstrip(".")))
    found = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
            continue
        table = OWNERS.get(ast.unparse(node.func.value))
        if table is None or node.func.attr not in METHODS[table]:
            continue
        for one in ast.walk(node.args[PLACES.get(node.func.attr, 0)]):
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
        if module not in ("__main__", "faults")
        for one in counted_in(path, module)
    ]
    assert TABLES.keys() == {table for table, *_ in found}
    assert len(found) > 40
    assert [] == [one for one in found if one[2] not in TABLES[one[0]]]


def test_check_knows_every_reason(tmp_path: Path) -> None:
    """Of a training process, of OTLP, of damaged logs, and of a bridge: each in words."""
    assert {*REASONS, *losses.REASONS, *DROPPED_REASONS} == DROPS.keys()
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
    assert len(DROPPED_REASONS) + len(oddities.REASONS) + len(REASONS) == len(series)
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
    assert len(DROPS) + len(oddities.REASONS) + len(REASONS) == len(said)
    assert [] == [line for line in said if "unknown to" in line]
    unknown = some.replace('reason="torn"', 'reason="of_next_year"')
    assert "of_next_year): unknown to this version" in str(
        describe_page("page", unknown, content_type, read_at_s=0.0).wrong
    )


def test_every_reason_is_documented() -> None:
    """Where a user looks for it: of training in the README, of logs in their own document."""
    readme = (ROOT / "README.md").read_text()
    logs = (ROOT / "docs" / "logs.md").read_text()
    assert [] == [reason for reason in TABLES["FAULTS"] if f"`{reason}`" not in readme]
    both = TABLES["oddities"] | TABLES["context"]
    assert [] == sorted(reason for reason in both if f"`{reason}`" not in logs)
