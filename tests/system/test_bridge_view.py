"""``otel-dllogger bridge --view``: the logs that a bridge reads, on a live page as well."""

from __future__ import annotations

import json
import os
import re

import pytest

from tests.support.bridge import BridgeProcess, append, steps, value_of
from tests.support.command import assert_user_error, otel_dllogger
from tests.support.http import ask, wait_until

pytestmark = pytest.mark.newest_only

LOSS = "dl_loss%7Bgranularity%3D%22iteration%22%2Cmetric%3D%22loss%22%7D"


@pytest.fixture
def logs(tmp_path):
    append(tmp_path / "logs" / "r1_rank0.json", steps(0, 20))
    append(tmp_path / "logs" / "r2_rank0.json", steps(0, 5))
    return tmp_path / "logs"


def ask_page(bridge, path):
    link = re.search(r"the same, live: (http://127\.0\.0\.1:(\d+)/)\n", bridge.errors())
    assert link[1] in ask(bridge.port, "/").body.decode()
    return ask(int(link[2]), path)


def test_the_page_shows_what_the_bridge_reads(tmp_path, logs):
    """Values and curves are the same, lines that come later are in both, and both end at once."""
    with BridgeProcess(logs, "--view", "127.0.0.1:0", folder=tmp_path) as bridge:
        bridge.wait_for_value(8 / 20, "dl_loss", "run=r1")
        assert b"<title>" in ask_page(bridge, "/").body
        append(logs / "r1_rank0.json", steps(20, 30))
        page = bridge.wait_for_value(8 / 30, "dl_loss", "run=r1")
        wait_until(lambda: len(places(bridge)) == 30)
        runs = json.loads(ask_page(bridge, "/runs.json").body)
        assert sorted(run["name"] for run in runs) == ["r1", "r2"]
        (run,) = (run for run in runs if run["name"] == "r1")
        assert run["rows"][0]["loss"] == value_of(page, "dl_loss", "run=r1")
        # The bridge's page is what it was.
        assert ask(bridge.port, "/health").status == 200
        assert ask(bridge.port, "/runs.json").status == 404
        assert bridge.stop() < 2.0


def places(bridge):
    (curve,) = json.loads(ask_page(bridge, f"/curves.json?run=r1&metric={LOSS}").body)
    return curve["places"]


def test_ranks_that_expire_leave_the_page(tmp_path, logs):
    """What the bridge forgets, since its logs are gone, the live page forgets."""
    with BridgeProcess(logs, "--view", "127.0.0.1:0", "--expire", "2s", folder=tmp_path) as bridge:
        bridge.wait_for_value(8 / 20, "dl_loss", "run=r1")
        assert len(json.loads(ask_page(bridge, "/runs.json").body)) == 2
        for path in logs.iterdir():
            path.unlink()
        wait_until(lambda: json.loads(ask_page(bridge, "/runs.json").body) == [])


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("0.0.0.0:0", ("--view 0.0.0.0:0", "otel-dllogger view", "--token")),
        ("nowhere", ("--view nowhere", "HOST:PORT")),
    ],
)
def test_a_live_page_for_others_is_refused(tmp_path, logs, address, words):
    """The bridge has no token: the page is for this machine."""
    done = otel_dllogger("bridge", str(logs), "--view", address, cwd=tmp_path)
    assert_user_error(done, *words)


def test_without_the_extra_there_is_one_line(tmp_path, logs):
    """It names what to install; a bridge without a live page does not need it."""
    blocked = tmp_path / "blocked"
    for name in ("uvicorn", "starlette", "numpy", "rich"):
        (blocked / name).mkdir(parents=True)
        text = f"raise ModuleNotFoundError(\"No module named '{name}'\", name={name!r})\n"
        (blocked / name / "__init__.py").write_text(text)
    path = os.pathsep.join([str(blocked), *filter(None, [os.environ.get("PYTHONPATH")])])
    for arguments in (("bridge", str(logs), "--view", "127.0.0.1:0"), ("view", str(logs))):
        done = otel_dllogger(*arguments, cwd=tmp_path, PYTHONPATH=path)
        assert_user_error(done, "pip install 'otel-dllogger[view]'")
