"""The text of exceptions: one line, whatever they say, and none of their secrets."""

from __future__ import annotations

import copy
import pickle

import pytest

from otel_dllogger.cli.terminal import in_options
from otel_dllogger.errors import (
    MAX_CHARACTERS,
    ConfigurationError,
    EndpointError,
    in_words,
    one_line,
)
from otel_dllogger.training import MisuseError

pytestmark = pytest.mark.newest_only


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("two\n  lines\r\n", "two lines"),
        (ValueError("a\tb"), "a b"),
        (b"caf\xc3\xa9 \xff\n", "caf\N{LATIN SMALL LETTER E WITH ACUTE} \N{REPLACEMENT CHARACTER}"),
        ("\x1b[2J red \udc80", "[2J red"),
        (None, "None"),
        ("x" * 2 * MAX_CHARACTERS, "x" * MAX_CHARACTERS),
    ],
)
def test_a_text_is_one_line(what, line):
    """Of texts, of bytes that a server sent, and of exceptions."""
    assert one_line(what) == line


def test_a_secret_is_cut_after_it_is_known():
    """Half a secret has no form to be known by."""
    text = "x" * 290 + " https://user:password@host/"
    assert text[:310].endswith("user:passwo")
    assert "user" not in one_line(text, most=310, redacted=True)
    assert one_line("api_key=abcdefghijk", redacted=True) == "api_key=[redacted]"


def test_an_exception_that_cannot_be_shown():
    """Its text raises: that is all that can be said."""

    class Hidden(Exception):  # noqa: N818 - an error like any other
        def __str__(self):
            raise RuntimeError("no text")

    assert one_line(Hidden()) == in_words(Hidden()) == "(its message cannot be shown)"


def test_the_bottom_of_an_error_is_told():
    """What a library wraps is what a user wants to know."""
    error = RuntimeError("Max retries exceeded with url")
    error.__cause__ = OSError("in between")
    error.__cause__.__context__ = ConnectionRefusedError(111, "Connection refused")
    assert in_words(error) == "Connection refused"
    assert in_words(error, named=True) == "RuntimeError: Connection refused"
    assert in_words(KeyError()) == "KeyError"
    assert in_words(ValueError("two\nlines")) == "two lines"


@pytest.mark.parametrize("kind", [ConfigurationError, EndpointError, MisuseError])
def test_errors_have_fields(kind):
    """The problem and the step apart, for whoever has another step; also of a copy."""
    error = kind("port 80 is taken", step="pass port=0", argument="port", example="0")
    for one in (error, copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert str(one) == "port 80 is taken; pass port=0"
        assert vars(one) == {
            "problem": "port 80 is taken",
            "step": "pass port=0",
            "argument": "port",
            "example": "0",
        }
    assert str(kind("it says all: pass 1")) == "it says all: pass 1"
    assert isinstance(EndpointError(""), OSError)
    assert isinstance(ConfigurationError(""), ValueError)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (EndpointError("it is taken", step="pass port=0", argument="port"), "it is taken; give :0"),
        (EndpointError("it is taken", step="ulimit -u"), "it is taken; ulimit -u"),
        (ConfigurationError("it is odd", step="pass run='a'", argument="run"), None),
        (ConfigurationError("x=1; is not y", argument="x", example="{0}"), "x=1; is not y; as {0}"),
        (ConfigurationError("it says {all}: pass 1"), "it says {all}: pass 1"),
    ],
)
def test_the_command_line_has_steps_of_its_own(error, line):
    """For what is an option there; of all else it says what the error does."""
    steps = {"port": "give :0", "x": "as {example}"}
    assert in_options(error, steps) == (str(error) if line is None else line)
