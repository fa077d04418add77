"""Settings: environment variables that may be unset, empty or wrong."""

from __future__ import annotations

import pytest

from otel_dllogger import settings
from otel_dllogger.faults import FAULTS

VARIABLE = "OTEL_DLLOGGER_LINGER_SECONDS"


@pytest.fixture
def said(monkeypatch, caplog):
    """Return the warnings so far, with none held back."""
    monkeypatch.setattr(FAULTS, "_warned_at", {})
    return lambda: caplog.messages


def test_the_names_are_those_of_the_contract():
    """They stand in the README's table and in OpenTelemetry's specification."""
    names = [
        settings.HOST,
        settings.PORT,
        settings.DISCOVERY_DIR,
        settings.LINGER,
        settings.MAX_SERIES,
    ]
    assert names == [
        "OTEL_EXPORTER_PROMETHEUS_HOST",
        "OTEL_EXPORTER_PROMETHEUS_PORT",
        "OTEL_DLLOGGER_DISCOVERY_DIR",
        "OTEL_DLLOGGER_LINGER_SECONDS",
        "OTEL_DLLOGGER_MAX_SERIES",
    ]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [(None, "default"), ("", "default"), ("  ", "default"), (" a b ", "a b"), ("x", "x")],
)
def test_text(monkeypatch, raw, expected):
    """An empty variable counts as unset, and blanks around a value do not."""
    if raw is not None:
        monkeypatch.setenv(VARIABLE, raw)
    assert settings.text(VARIABLE, "default") == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (None, 5.0),
        ("", 5.0),
        (" ", 5.0),
        ("0", 0.0),
        ("10", 10.0),
        (" 2.5 ", 2.5),
        ("1e1", 10.0),
        ("-0", 0.0),
    ],
)
def test_numbers_that_are_right(monkeypatch, said, raw, expected):
    """A number within the limits is taken, the limits included, and nothing is said."""
    if raw is not None:
        monkeypatch.setenv(VARIABLE, raw)
    assert settings.number(VARIABLE, 5.0, least=0, most=10) == expected
    assert said() == []


@pytest.mark.parametrize(
    "raw", ["x", "-1", "10.1", "nan", "inf", "-inf", "1,5", "5s", "0x5", "1e999"]
)
def test_numbers_that_are_wrong(monkeypatch, said, raw):
    """A wrong one is warned of with the rule and the next step, and the default holds."""
    monkeypatch.setenv(VARIABLE, raw)
    found = [settings.number(VARIABLE, 5.0, least=0, most=10) for _twice in range(2)]
    assert found == [5.0, 5.0]
    assert said() == [
        f"{VARIABLE}={raw!r} is not a number from 0 to 10: using 5; correct it or unset it"
    ]


def test_the_environment_is_read_when_it_is_needed(monkeypatch):
    """A script may set a variable after the import."""
    found = []
    for raw in ("1", "2"):
        monkeypatch.setenv(VARIABLE, raw)
        found.append(settings.number(VARIABLE, 5.0, least=0, most=10))
    assert found == [1.0, 2.0]
