"""Durations on the command line."""

from __future__ import annotations

import click
import pytest

from otel_dllogger.cli.parameter_types import Duration

pytestmark = pytest.mark.newest_only


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("15m", 900),
        ("1h30m", 5_400),
        ("1h30m10s500ms", 5_410.5),
        ("7d", 604_800),
        ("2w", 1_209_600),
        (" 1.5H ", 5_400),
        ("1ms", 0.001),
        (2, 2.0),
    ],
)
def test_a_duration_is_seconds(text, seconds):
    """As Prometheus writes them, in any case, with fractions; a default may be a number."""
    assert pytest.approx(seconds) == Duration().convert(text, None, None)


@pytest.mark.parametrize(
    "text", ["", "m", "15 m", "-5m", "1y", "5m3", "٣m", "1e3s", "inf", "1..5s"]
)
def test_anything_else_is_refused(text):
    """The message has examples."""
    with pytest.raises(click.BadParameter, match="is not a duration; write it as 90s, 15m"):
        Duration().convert(text, None, None)


@pytest.mark.parametrize("text", ["1", "0.5"])
def test_a_number_alone_is_refused(text):
    """It could be seconds or minutes: the message says how to write each."""
    with pytest.raises(click.BadParameter, match=f"duration; write it as {text}s or {text}m$"):
        Duration().convert(text, None, None)


def test_a_duration_may_be_too_short():
    """The least that makes sense is in the message."""
    assert 1.0 == Duration(least_s=1).convert("1000ms", None, None)
    with pytest.raises(click.BadParameter, match="'999ms' is too short; pass 1s or more"):
        Duration(least_s=1).convert("999ms", None, None)
