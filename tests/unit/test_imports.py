"""Imports go one way, importing does nothing, and the versions promised are those tested."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement

from tests.support.modules import MODULES, PACKAGE
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

# Each level may import those above it. Within a level, only modules of one folder may
# import each other. A folder stands for all of its modules that no earlier level names.
LEVELS = (
    ("runtime",),
    ("diagnostics", "errors", "redaction", "secret_names", "values", "version"),
    ("record", "arguments", "settings", "runtime.exit_status"),
    (
        "identity",
        "json_encoding",
        "metrics.kinds",
        "metrics.naming",
        "metrics.phases",
        "metrics.steps",
        "metrics.step_durations",
        "metrics.rank_state",
        "metrics.store",
        "phase_decorators",
        "phases",
    ),
    ("gpu", "http"),
    ("metrics", "logger"),
    ("hangs",),
    ("testing",),
    ("logs.parsers",),
    ("logs.tail",),
    ("logs",),
    ("otlp",),
    ("bridge",),
    ("backfill",),
    ("view",),
    ("view.report", "view.server", "view.terminal"),
    ("backends",),
    ("",),  # the face, otel_dllogger/__init__.py
    ("training",),
    ("integrations",),
    ("cli.log_source", "cli.parameter_types", "cli.terminal"),
    ("cli.view",),
    ("cli.check", "cli.demo", "cli.run", "cli.stacks", "cli.watch"),
    ("cli",),
    ("__main__",),
)
LOADED_LATE = (
    "opentelemetry",
    "prometheus_client",
    "waitress",
    "click",
    "rich",
    "numpy",
    "pynvml",
    "starlette",
    "uvicorn",
    "multiprocessing",
    "socket",
)


def imports_of(path: Path) -> set[str]:
    """Return the package's modules that a file imports, wherever in it, for types as well."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports by a relative name"
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            found.update(
                name if inside(name) in MODULES else node.module for name in names if node.module
            )
    return {inside(name) for name in found if inside(name) in MODULES}


def inside(name: str) -> str | None:
    """Return a module's name without the package's, None for what is not of the package."""
    top, _, rest = name.partition(".")
    return rest if top == "otel_dllogger" else None


GRAPH = {name: imports_of(path) - {name} for name, path in MODULES.items()}


def level_of(module: str) -> int:
    for number, level in enumerate(LEVELS):
        if module in level:
            return number
    folder = module
    while folder:
        folder = folder.rpartition(".")[0]
        for number, level in enumerate(LEVELS):
            if folder in level:
                return number
    raise AssertionError(f"{module} has no place in LEVELS: say which modules it may import")


def folder_of(module: str) -> str:
    """Return the folder that a module lies in; a folder's own face lies in it."""
    return module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]


def test_every_module_is_read() -> None:
    """The graph is that of the package: its known edges are in it."""
    assert GRAPH["logger"] >= {"record", "diagnostics", "errors"}
    assert "http.endpoint" in GRAPH["backends.prometheus"]
    assert "values" in GRAPH["record"]


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_one_way(module: str) -> None:
    """A module imports what stands above it in LEVELS, or its neighbours in one folder."""
    wrong = {
        imported
        for imported in GRAPH[module]
        if level_of(imported) > level_of(module)
        or (level_of(imported) == level_of(module) and folder_of(imported) != folder_of(module))
    }
    assert set() == wrong


def test_there_are_no_circles() -> None:
    """No module imports itself over others, not even late or for types."""
    remaining = {module: set(imports) for module, imports in GRAPH.items()}
    while free := [module for module, imports in remaining.items() if not imports]:
        for module in free:
            del remaining[module]
        for imports in remaining.values():
            imports.difference_update(free)
    assert {} == remaining


IMPORT = """
import json, os, sys, threading

read, events = [], []

class Environment(dict):
    def get(self, name, default=None):
        read.append(name)
        return super().get(name, default)
    def __getitem__(self, name):
        read.append(name)
        return super().__getitem__(name)
    def __contains__(self, name):
        read.append(name)
        return super().__contains__(name)
    def __iter__(self):
        read.append("OTEL_ and all others")
        return super().__iter__()

def audit(event, arguments):
    if event == "open" and not str(arguments[0]).endswith((".py", ".pyc", ".so")):
        events.append([event, str(arguments[0])])
    elif event.startswith(("socket.", "subprocess.", "os.mkdir", "os.exec", "os.fork")):
        events.append([event, ""])

def start(thread):
    events.append(["thread", thread.name])

sys.path.insert(0, sys.argv[1])
before = dict.fromkeys(sys.modules)
os.environ = Environment(os.environ)
sys.addaudithook(audit)
threading.Thread.start = start
import otel_dllogger
sys_modules = [name for name in sys.modules if name not in before]
print(json.dumps([sys_modules, events, read]))
"""


@pytest.fixture(scope="module")
def imported() -> tuple[list[str], list[list[str]], list[str]]:
    """Import the package in a fresh interpreter that writes down what it does."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")
    }
    done = subprocess.run(
        [sys.executable, "-I", "-B", "-c", IMPORT, PACKAGE.parent],
        env=environment,
        capture_output=True,
        check=True,
        text=True,
    )
    return tuple(json.loads(done.stdout))


def test_importing_loads_nothing_that_is_heavy(imported) -> None:
    """OpenTelemetry, the server, numpy and the rest load when something needs them."""
    modules = imported[0]
    assert "otel_dllogger.backends.prometheus" in modules
    tops = {name.partition(".")[0] for name in modules}
    assert set() == tops.intersection(LOADED_LATE)


def test_importing_does_nothing(imported) -> None:
    """No file is opened, no socket, no thread, and no process is started."""
    assert [] == imported[1]


def test_importing_asks_the_environment_nothing(imported) -> None:
    """Neither a launcher's variables nor OpenTelemetry's are read before they are needed."""
    pattern = re.compile(r"OTEL_|.*RANK|WORLD_SIZE|SLURM|TORCHELASTIC|PMI_|PBS_|LSB_|PADDLE_")
    assert [] == [name for name in imported[2] if pattern.match(name)]


def test_the_oldest_versions_promised_are_those_tested() -> None:
    """``constraints/oldest.txt`` pins every dependency to the floor that pyproject.toml names."""
    text = (ROOT / "constraints" / "oldest.txt").read_text()
    pinned = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            pinned[requirement.name] = str(requirement.specifier).removeprefix("==")
    promised = {}
    for line in importlib.metadata.requires("otel-dllogger") or ():
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": one}) for one in ("otlp", "view")):
            (floor,) = (one.version for one in requirement.specifier if one.operator == ">=")
            promised[requirement.name] = floor
    digits = {name: re.sub(r"(\.0)+$", "", version) for name, version in pinned.items()}
    assert digits == {name: re.sub(r"(\.0)+$", "", floor) for name, floor in promised.items()}
