"""Stacks on standard error, where no file takes those of a hang."""

from __future__ import annotations

import threading

import pytest

from otel_dllogger.hangs.stderr_stacks import format_stacks, write_to_stderr


def test_stacks_of_other_threads_name_their_lines():
    """The innermost first, as ``faulthandler`` writes them; the thread that asks is left out."""
    waiting, may_end = threading.Event(), threading.Event()

    def wait_for_the_end():
        waiting.set()
        may_end.wait()

    thread = threading.Thread(target=wait_for_the_end)
    thread.start()
    waiting.wait()
    stacks = format_stacks()
    may_end.set()
    thread.join()
    (own,) = (one for one in stacks.split("Thread 0x") if "wait_for_the_end" in one)
    lines = own.splitlines()
    assert lines[0].endswith(" (most recent call first):")
    inner, outer = (
        next(number for number, line in enumerate(lines) if line.endswith(f" in {name}"))
        for name in ("wait_for_the_end", "run")
    )
    assert inner < outer
    assert __file__ in lines[inner]
    assert "test_stacks_of_other_threads" not in stacks


def test_text_is_written_whole(capfd):
    """Also what the encoding of the terminal lacks."""
    write_to_stderr("a line \u00e9\ud800")
    assert capfd.readouterr().err == "a line \u00e9\\ud800\n"


@pytest.mark.parametrize("stderr", [None, object()])
def test_no_standard_error_is_no_fault(monkeypatch, stderr):
    """As in a notebook, or a process without a console."""
    monkeypatch.setattr("sys.stderr", stderr)
    write_to_stderr("a line")
