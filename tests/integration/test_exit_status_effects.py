"""What watching for the exit status leaves behind: nothing in children, globals or sys."""

from __future__ import annotations

import gc
import inspect
import pickle
import sys
import weakref

import pytest

from otel_dllogger.runtime.exit_status import ExitStatus
from tests.support.exit_status import BEGIN, in_words, run_all

pytestmark = pytest.mark.newest_only


def test_forked_children_and_what_is_patched_later(tmp_path):
    """A child has an end of its own, and a script may put its own sys.exit on top of ours."""
    forked = (
        "import os, sys\npid = os.fork()\nif not pid:\n    sys.exit(1)\n"
        "os.waitpid(pid, 0)\nprint('parent', flush=True)\n"
    )
    patched = (
        "import sys\nbefore = sys.exit\n"
        "def mine(code):\n    print('mine')\n    before(code)\n"
        "sys.exit = mine\nEXIT_STATUS.watch()\nassert sys.exit is mine\nsys.exit(1)"
    )
    begin = BEGIN + "from otel_dllogger.runtime.exit_status import EXIT_STATUS\n"
    done = run_all(
        tmp_path,
        {
            "forked": [sys.executable, "-c", begin + forked],
            "patched": [sys.executable, "-c", begin + patched],
        },
    )
    assert "failed\nparent\nfinished\n" == done["forked"].stdout
    assert "mine\nfailed\n" == done["patched"].stdout


def test_globals_are_freed_as_without_us(tmp_path):
    """What has a finalizer is finalized at the same moment, and locals at once."""
    source = (
        "class Noisy:\n"
        "    def __init__(self, name):\n        self.name = name\n"
        "    def __del__(self):\n        print('freed', self.name, flush=True)\n"
        "def main():\n    local = Noisy('local')\n    {exits}\n"
        "glob = Noisy('global')\nmain()\n"
    )
    exits = "import sys; sys.exit(1)"
    commands = {}
    for number, text in enumerate(("pass", exits)):
        plain = source.format(exits=text)
        for name, begin in (("plain", ""), ("watched", BEGIN)):
            for way in ("script", "module"):
                file = tmp_path / f"{name}{number}.py"
                file.write_text(begin + plain)
                how = [str(file)] if way == "script" else ["-m", file.stem]
                commands[f"{way} {text} {name}"] = [sys.executable, *how]
    said = {
        name: [line for line in one.stdout.splitlines() if line.startswith("freed")]
        for name, one in run_all(tmp_path, commands).items()
    }
    for name, lines in said.items():
        if name.endswith("plain"):
            assert ["freed local", "freed global"] == lines
            assert lines == said[name.replace("plain", "watched")], name


# With backends; an exit handler made before theirs, so called after them, reads the metric.
BACKENDS = """
import atexit, sys
import otel_dllogger as dllogger
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

def tell():
    for resource in reader.get_metrics_data().resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                if metric.name == "dllogger.run_finished":
                    print("finished" if metric.data.data_points[0].value else "failed", flush=True)

atexit.register(tell)
reader = InMemoryMetricReader()
provider = MeterProvider([reader], shutdown_on_exit=False)
logger = dllogger.Logger([
    dllogger.PrometheusBackend(1, port=0, discovery_dir=sys.argv[1], run="r", rank=0),
    dllogger.OTelBackend(1, meter_provider=provider),
])
logger.log(1, {"loss": 1})
"""


def test_a_page_is_announced_until_a_clean_end(tmp_path):
    """The discovery file of a rank that failed stays, and nothing says that it finished."""
    endings = {
        "end": ("", True),
        "0": ("sys.exit(0)", True),
        "1": ("sys.exit(1)", False),
        "text": ("sys.exit('CUDA out of memory')", False),
        "exception": ("1 / 0", False),
        "with 0": ("with logger: sys.exit(0)", True),
        "with 1": ("with logger: sys.exit(1)", False),
        "with exception": ("with logger: 1 / 0", False),
        "shutdown": ("logger.close(); sys.exit(1)", True),
    }
    done = run_all(
        tmp_path,
        {
            name: [sys.executable, "-c", BACKENDS + source, str(tmp_path / name)]
            for name, (source, _) in endings.items()
        },
    )
    is_clean = {name: clean for name, (_, clean) in endings.items()}
    assert in_words(is_clean) == {name: one.stdout.strip() for name, one in done.items()}
    announced = {name: len(list((tmp_path / name).glob("*.json"))) for name in endings}
    assert {name: 1 - clean for name, clean in is_clean.items()} == announced


@pytest.fixture
def watched(monkeypatch):
    """Watch this very process, and undo it."""
    monkeypatch.setattr(sys, "exit", inspect.unwrap(sys.exit))
    quitter = sys.modules["_sitebuiltins"].Quitter
    monkeypatch.setattr(quitter, "__call__", inspect.unwrap(quitter.__call__))
    status = ExitStatus()
    status.watch()
    return status


def test_the_functions_are_what_they_were(watched):
    """Same name, signature and documentation; same exceptions; picklable; wrapped once."""
    original = sys.exit.__wrapped__
    assert not hasattr(original, "__wrapped__")
    watched.watch()
    assert original is sys.exit.__wrapped__
    assert (original.__name__, original.__doc__) == (sys.exit.__name__, sys.exit.__doc__)
    assert inspect.signature(original) == inspect.signature(sys.exit)
    assert sys.exit is pickle.loads(pickle.dumps(sys.exit))
    for arguments in ((1, 2), (), ("text",), ((1, 2),), (None,)):
        raised = []
        for leave in (original, sys.exit):
            try:
                leave(*arguments)
            except (SystemExit, TypeError) as error:
                raised.append((type(error), error.args, getattr(error, "code", None)))
        assert raised[0] == raised[1]
    with pytest.raises(TypeError, match="keyword"):
        sys.exit(status=1)


def test_nothing_of_the_code_is_kept(watched):
    """An object that sys.exit is given is freed as ever."""

    class Reason:
        pass

    reason = Reason()
    seen = weakref.ref(reason)
    with pytest.raises(SystemExit):
        sys.exit(reason)
    del reason
    gc.collect()
    assert seen() is None
