"""Hangs that ranks report: what check, the report, and the live views say of them."""

from __future__ import annotations

import json

import pytest

from otel_dllogger.backends.json_stream import JSONStreamBackend
from otel_dllogger.record import Event, Record
from otel_dllogger.view.assessment import RECENT_S, assess
from otel_dllogger.view.facts import note
from otel_dllogger.view.hangs import Hang, describe_hangs
from otel_dllogger.view.model import Model
from tests.support.check import assert_said
from tests.support.command import otel_dllogger

pytestmark = pytest.mark.newest_only

START_S = 1_700_000_000
WORDS = (
    "Ranks 0-3 of run bert seemed to hang (nothing logged for 1m 2s; open phases: none on rank 2 / "
    "communication on ranks 0-1, 3): the stacks are in log_rank0.json.stacks, "
    "log_rank1.json.stacks, log_rank2.json.stacks, log_rank3.json.stacks, in /home/me"
)
PAGE = """\
# TYPE dllogger_hang_dumps_total counter
dllogger_hang_dumps_total{run="bert",rank="0"} 0.0
dllogger_hang_dumps_total{run="bert",rank="1"} 2.0
"""


def hang_of(rank, time_s=START_S + 70.0):
    phases = () if rank == 2 else ("communication",)
    return Hang(time_s, f"/home/me/log_rank{rank}.json.stacks", 62.0 - rank, phases)


@pytest.fixture
def logs(tmp_path):
    """The logs of four ranks that hung at the same step."""
    folder = tmp_path / "runs" / "bert"
    folder.mkdir(parents=True)
    for rank in range(4):
        hang = hang_of(rank)
        data = {"file": hang.file, "seconds": hang.seconds, "open_phases": list(hang.phases)}
        backend = JSONStreamBackend(1, folder / f"log_rank{rank}.json")
        for step in range(8):
            backend.write_record(
                Record((START_S + step) * 10**6 + rank, step * 10**6, (0, step), {"loss": 0.5})
            )
        backend.write_event(Event(round(hang.time_s * 1e6), 70 * 10**6, "hang", data, (0, 7)))
        backend.close()
    return tmp_path / "runs"


def test_check_says_which_ranks_hung_and_where_their_stacks_are(logs):
    """In one warning for all logs, and for one alone."""
    done = otel_dllogger("check", "runs", cwd=logs.parent, COLUMNS="1000")
    assert_said(done, 0, WORDS, "Nothing is wrong, 1 warning.")
    done = otel_dllogger("check", "runs/bert/log_rank2.json", cwd=logs.parent, COLUMNS="1000")
    assert_said(
        done,
        0,
        "Rank 2 of run bert seemed to hang (nothing logged for 1m 0s; open phases: none on rank "
        "2): the stacks are in /home/me/log_rank2.json.stacks",
    )


def test_the_report_says_it_and_does_not_pass_one_file_for_all(logs):
    """Among the findings, and in the table of events."""
    done = otel_dllogger("report", "--format", "json", "-o", "-", "runs", cwd=logs.parent)
    (run,) = json.loads(done.stdout)["runs"]
    (finding,) = (each for each in run["findings"] if "hang" in each["words"])
    assert finding == {"alert": "", "severity": "warning", "words": WORDS, "rank": None}
    (event,) = run["events"]
    assert event["ranks"] == [0, 1, 2, 3]
    assert event["data"] == (
        "rank 0: file: /home/me/log_rank0.json.stacks, seconds: 62.0, "
        'open_phases: ["communication"]; other ranks have other data'
    )


def test_a_page_that_counts_hangs_has_a_warning(tmp_path):
    """A page does not say where the file is."""
    (tmp_path / "page").write_text(PAGE)
    done = otel_dllogger("check", "page", cwd=tmp_path, COLUMNS="1000")
    assert_said(
        done,
        0,
        "  - rank 1 seemed to hang 2 times: its stacks are in the file beside its log, .stacks",
    )
    assert "rank 0 seemed" not in done.stdout


def findings_of(model, now_s):
    found = assess(model.runs["bert"], now_s).findings
    return [finding.words for finding in found if "hang" in finding.words]


def test_a_live_view_says_it_until_the_rank_has_gone_on_for_a_while():
    """By the page alone: as long as the rank is silent, and some minutes after that."""
    model = Model()
    rank = model.rank("bert", 1)
    rank.start(START_S, 1)
    name, labels = "dllogger_last_event_timestamp_seconds", {"event": "hang"}
    rank.last_log_s = START_S + 10.0
    note(rank, name, {"event": "checkpoint_saved"}, START_S + 20.0)
    assert not findings_of(model, START_S + 80.0)
    note(rank, name, labels, START_S + 70.0)
    words = "Rank 1 of run bert seemed to hang: the stacks are in a file beside each log, .stacks"
    assert findings_of(model, START_S + 80.0) == [words]
    assert findings_of(model, START_S + 2 * RECENT_S) == [words]
    rank.last_log_s = START_S + 75.0
    assert findings_of(model, START_S + 80.0) == [words]
    assert not findings_of(model, START_S + 2 * RECENT_S)


def test_what_a_log_says_of_a_hang_is_kept_beside_the_series():
    """The series of the same event has its time only; a later one is another hang."""
    rank = Model().rank("bert", 1)
    rank.hang = hang_of(1)
    name, labels = "dllogger_last_event_timestamp_seconds", {"event": "hang"}
    note(rank, name, labels, rank.hang.time_s + 1e-7)
    assert rank.hang == hang_of(1)
    note(rank, name, labels, rank.hang.time_s + 90)
    assert rank.hang == Hang(hang_of(1).time_s + 90)


def test_of_many_ranks_a_few_are_named():
    """The line stays short, whatever ranks there are."""
    hangs = {rank: hang_of(rank) for rank in range(0, 1000, 2)}
    words = describe_hangs("bert", hangs)
    assert words.startswith("Ranks 0, 2, 4, 6 and 496 more of run bert seemed to hang")
    assert "log_rank6.json.stacks and 496 more, in /home/me" in words
    assert len(words) < 500


@pytest.mark.parametrize(
    "data", [None, "text", [1], {"file": 5, "seconds": "x", "open_phases": 3}, {"seconds": 10**400}]
)
def test_data_of_any_kind_are_survived(data):
    """An event of the user's may have the same name."""
    assert Hang.of(Event(5_000_000, 0, "hang", data)) == Hang(5.0)
