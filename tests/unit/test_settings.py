"""Settings: environment variables that may be unset, empty or wrong."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

import otel_dllogger as dllogger
from otel_dllogger import settings
from otel_dllogger.diagnostics import DIAGNOSTICS
from tests.support.command import otel_dllogger
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.newest_only

VARIABLE = "OTEL_DLLOGGER_LINGER_SECONDS"


@pytest.fixture
def said(monkeypatch, caplog):
    """Return the warnings so far, with none held back."""
    monkeypatch.setattr(DIAGNOSTICS, "_warned_at", {})
    return lambda: caplog.messages


def test_the_names_are_those_of_the_contract():
    """They stand in the reference's table and in OpenTelemetry's specification."""
    names = [
        settings.HOST,
        settings.PORT,
        settings.DISCOVERY_DIR,
        settings.LINGER,
        settings.MAX_SERIES,
        settings.RUN,
    ]
    assert names == [
        "OTEL_EXPORTER_PROMETHEUS_HOST",
        "OTEL_EXPORTER_PROMETHEUS_PORT",
        "OTEL_DLLOGGER_DISCOVERY_DIR",
        "OTEL_DLLOGGER_LINGER_SECONDS",
        "OTEL_DLLOGGER_MAX_SERIES",
        "OTEL_DLLOGGER_RUN",
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


def names_in(*folders: str) -> set[str]:
    """Return the variables of the package's own that files mention."""
    files = [path for folder in folders for path in ROOT.glob(folder) if path.is_file()]
    found = re.findall(r"(?<![A-Z_])OTEL_DLLOGGER_[A-Z_]*[A-Z]", "".join(map(read, files)))
    return set(found)


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def test_every_variable_is_in_the_one_table_and_in_the_reference():
    """What the code or a document mentions is known, and what is known is documented."""
    mentioned = names_in(
        "otel_dllogger/**/*.py",
        "*.md",
        "docs/**/*.md",
        "deploy/**/*",
        "*.yml",
        "prometheus/**/*.yml",
    )
    assert set(settings.VARIABLES) == mentioned
    page = read(ROOT / "docs" / "reference" / "settings.md")
    rows = re.findall(r"^\| `(OTEL_DLLOGGER_[A-Z_]+)` \|", page, re.MULTILINE)
    assert sorted(settings.VARIABLES) == sorted(rows)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("PORT", "set OTEL_EXPORTER_PROMETHEUS_PORT instead"),
        ("HOST", "set OTEL_EXPORTER_PROMETHEUS_HOST instead"),
        ("ENDPOINT", "set OTEL_EXPORTER_OTLP_ENDPOINT instead"),
        ("LINGER", "set OTEL_DLLOGGER_LINGER_SECONDS instead"),
        ("LINGER_SECOND", "set OTEL_DLLOGGER_LINGER_SECONDS instead"),
        ("DISCOVERY", "set OTEL_DLLOGGER_DISCOVERY_DIR instead"),
        ("MAXSERIES", "set OTEL_DLLOGGER_MAX_SERIES instead"),
        ("RUNS", "set OTEL_DLLOGGER_RUN instead"),
        ("PORTS", "set OTEL_EXPORTER_PROMETHEUS_PORT instead"),
        ("XQZJ", "see docs/reference/settings.md"),
    ],
)
def test_an_unknown_variable_names_the_nearest_known_one(monkeypatch, name, meant):
    """A natural guess, a misspelling, or something else."""
    monkeypatch.setattr(settings, "_told", set())
    monkeypatch.setenv(f"OTEL_DLLOGGER_{name}", "secret")
    (line,) = settings.unknown_variables()
    assert f"OTEL_DLLOGGER_{name} is set, but is not a known setting: {meant}, or unset it" == line
    assert [] == settings.unknown_variables()


@pytest.mark.parametrize(
    ("name", "raw", "on"),
    [
        ("OTEL_DLLOGGER_RAISE", "yes", "1"),
        ("OTEL_DLLOGGER_RAISE", "True", "1"),
        ("OTEL_DLLOGGER_RAISE", " 1", "1"),
        ("OTEL_SDK_DISABLED", "1", "true"),
        ("OTEL_SDK_DISABLED", "ON", "true"),
    ],
)
def test_a_switch_that_turns_nothing_on_is_warned_of_once(monkeypatch, said, name, raw, on):
    """OpenTelemetry takes "true" alone; whoever meant it shall know."""
    monkeypatch.setattr(settings, "_told", set())
    monkeypatch.setenv(name, raw)
    for _twice in range(2):
        settings.warn_of_unknown()
    assert said() == [f"{name}={raw!r} has no effect: set it to {on}, or unset it"]


def test_a_switch_that_is_on_or_off_is_not_warned_of(monkeypatch):
    """In the values that are known, and in those that mean a no."""
    monkeypatch.setattr(settings, "_told", set())
    for switch, sdk in (("1", "true"), ("0", "False"), ("", " TRUE "), ("no", "off")):
        monkeypatch.setenv("OTEL_DLLOGGER_RAISE", switch)
        monkeypatch.setenv("OTEL_SDK_DISABLED", sdk)
        assert [] == settings.misread_switches()


@pytest.mark.parametrize("raw", ["abc", "0", "2.5", "1e10"])
def test_a_limit_of_series_that_is_wrong_is_said_in_full(monkeypatch, said, raw):
    """As a whole number, with all its zeros."""
    monkeypatch.setenv(settings.MAX_SERIES, raw)
    assert 10_000 == settings.max_series(None, 10_000)
    assert said() == [
        (
            f"{settings.MAX_SERIES}={raw!r} is not a whole number from 1 to 1000000000: using "
            "10000; correct it or unset it"
        )
    ]


def test_known_variables_are_not_warned_of(monkeypatch):
    """Nor those of others."""
    monkeypatch.setattr(settings, "_told", set())
    for name in (*settings.VARIABLES, "OTEL_SOMETHING", "_OTEL_DLLOGGER_PAGE"):
        monkeypatch.setenv(name, "1")
    assert [] == settings.unknown_variables()


BACKENDS = {
    "OTelBackend": lambda _folder: dllogger.OTelBackend(0),
    "PrometheusBackend": lambda _folder: dllogger.PrometheusBackend(0, port=0),
    "OTLPBackend": lambda _folder: dllogger.OTLPBackend(0),
    "JSONStreamBackend": lambda folder: dllogger.JSONStreamBackend(0, folder / "log.json"),
    "StdOutBackend": lambda _folder: dllogger.StdOutBackend(0),
}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_backend_warns_of_unknown_variables_once(monkeypatch, said, tmp_path, backend):
    """Two of one kind say it once."""
    monkeypatch.setattr(settings, "_told", set())
    monkeypatch.setenv("OTEL_DLLOGGER_PORT", "9000")
    if backend == "OTLPBackend":
        pytest.importorskip("opentelemetry.proto", reason="pip install 'otel-dllogger[otlp]'")
        monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    for _twice in range(2):
        BACKENDS[backend](tmp_path).close()
    assert 1 == sum("OTEL_DLLOGGER_PORT is set, but" in line for line in said())


def test_a_command_warns_of_unknown_variables_in_a_line(tmp_path):
    """Whatever it does, and it does it all the same."""
    (tmp_path / "train.py").write_text("print('trained')")
    for arguments in (["run", "-q", "--port", "0", "train.py"], ["check", "train.py"]):
        done = otel_dllogger(*arguments, cwd=tmp_path, OTEL_DLLOGGER_HOST="0.0.0.0")
        expected = "otel-dllogger: OTEL_DLLOGGER_HOST is set, but is not a known setting: "
        assert expected == done.stderr[: len(expected)]
        assert 1 == done.stderr.count("OTEL_DLLOGGER_HOST")


def test_an_import_reads_no_variable(monkeypatch):
    """Only who makes a backend or gives a command is told."""
    monkeypatch.setattr(settings, "_told", set())
    monkeypatch.setenv("OTEL_DLLOGGER_PORT", "9000")
    dllogger.Logger([]).close()
    assert set() == settings._told


@pytest.mark.parametrize("made", ["OTelBackend", "PrometheusBackend", "OTLPBackend"])
def test_the_limit_of_series_is_one_for_all(monkeypatch, made):
    """The variable holds where no argument is given, the argument wins, nonsense is refused."""
    if made == "OTLPBackend":
        pytest.importorskip("opentelemetry.proto", reason="pip install 'otel-dllogger[otlp]'")
    monkeypatch.setenv(settings.MAX_SERIES, "100")
    seen = []

    def store(**options: object) -> object:
        seen.append(options["max_series"])
        raise InterruptedError

    make = getattr(dllogger, made)
    monkeypatch.setattr(f"{make.__module__}.SeriesStore", store, raising=False)
    monkeypatch.setattr("otel_dllogger.backends.otel.SeriesStore", store)
    for options in ({}, {"max_series": 50}, {"max_series": None}):
        with pytest.raises(InterruptedError):
            make(0, **options)
    assert [100, 50, 100] == seen
    for wrong in (-5, 0, "many", 2.5, True, 10**10, float("nan")):
        with pytest.raises(dllogger.ConfigurationError, match=r"^max_series=.* leave it out for"):
            make(0, max_series=wrong)
