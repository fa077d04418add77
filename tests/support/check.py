"""Helpers of the tests of ``otel-dllogger check``: a fixed time, and a check of the output."""

from __future__ import annotations

import time

NOW = 1_700_000_000.25  # stands for the time at which a page is handed over


def at_this_moment(text):
    """Return a page whose times are the current time, since earlier tests may take minutes."""
    now = time.time()
    for shift in (0, -60, -3000, -7200, 7200):
        text = text.replace(f"{NOW + shift}", f"{now + shift}")
    return text


def assert_said(done, code, *sentences):
    """Check the exit code and that each sentence was printed."""
    assert (done.returncode, done.stderr) == (code, "")
    for sentence in sentences:
        assert sentence in done.stdout
