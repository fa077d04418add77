"""Logs in UTF-16, as PowerShell's ``>`` writes them, that grow while a bridge follows them."""

from __future__ import annotations

import pytest

from otel_dllogger.logs.tail.file_state import NUL_VISITS
from tests.support.bridge import append, open_bridge, parse_page, steps, value_of
from tests.support.tailer import append as append_raw
from tests.support.tailer import counted, lines_of

pytestmark = pytest.mark.newest_only

ENCODINGS = ("utf-16-le", "utf-16-be")


def visit(bridge):
    """Look once, save, and return how many steps were read."""
    bridge.poll()
    bridge._ingest.commit()
    return value_of(parse_page(bridge._render("")[1].decode()), "dllogger_steps_total")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_lines_are_read_on_the_next_visit(tmp_path, encoding):
    """Also by a bridge that continues from a checkpoint, and sees no mark in what is new."""
    log, checkpoint = tmp_path / "job.log", tmp_path / "checkpoint"

    def write(text):
        append(log, text.encode(encoding))

    write("\ufeff" + steps(0, 2).decode())
    with open_bridge(log, checkpoint=checkpoint) as bridge:
        assert visit(bridge) == 2
        for number in range(2, 6):
            write(steps(number, number + 1).decode())
            assert visit(bridge) == number + 1
    write(steps(6, 8).decode())
    with open_bridge(log, checkpoint=checkpoint) as bridge:
        assert visit(bridge) == 8
        write(steps(8, 9).decode())
        assert visit(bridge) == 9


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_mark_that_comes_in_parts_is_seen(logs, follow, encoding):
    """The first look may find the file with half a character."""
    text = "\ufeffone\ntwo\n".encode(encoding)
    tailer = follow(logs)
    for at in range(len(text)):
        append_raw(logs / "a.log", text[at : at + 1])
        lines_of(tailer)
    assert tailer.files[0].fingerprint.offset == text.rindex(b"\n") + 1
    assert counted(tailer) == {}


def test_the_nuls_of_other_files_are_still_waited_for(logs, follow):
    """And a file that was rewritten without a mark is such a file."""
    append_raw(logs / "a.log", "\ufeffone\n".encode("utf-16-le"))
    tailer = follow(logs)
    assert lines_of(tailer) == {"a.log": ["\ufeffone".encode("utf-16-le")]}
    (logs / "a.log").write_bytes(b"\0ne\ntwo and more\n")
    assert lines_of(tailer, NUL_VISITS) == {}
    assert lines_of(tailer, 2) == {"a.log": [b"ne", b"two and more"]}
    assert counted(tailer) == {"rewritten": 1, "nul_filled": 1}
