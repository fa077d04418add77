"""DLLogger's lines of text, on every kind of standard output that training meets."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
import types
from datetime import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_dllogger import (
    ConfigurationError,
    Logger,
    StdOutBackend,
    default_metric_format,
    default_prefix_format,
    default_step_format,
)
from otel_dllogger.backends.stdout import MAX_ERRORS_IN_A_ROW
from tests.support.ids import repr_without_address

pytestmark = pytest.mark.newest_only

DEADLINE_S = 30
AT = datetime(2024, 1, 2, 3, 4, 5, 678)  # noqa: DTZ001 - naive by contract

# Logs as many lines as it is told, and says on stderr what was dropped.
LOGGING = """
import logging, sys
logging.getLogger("otel_dllogger").disabled = True
from otel_dllogger import Logger, StdOutBackend
from otel_dllogger.diagnostics import DIAGNOSTICS
logger = Logger([StdOutBackend(1, prefix_format=lambda timestamp: "")])
for step in range(int(sys.argv[1])):
    logger.log(step, {"loss": 1.0})
logger.close()
print({reason: count for reason, count in DIAGNOSTICS.dropped.items() if count}, file=sys.stderr)
"""


def backend(**hooks):
    """Make a backend whose lines begin with nothing, unless hooks say otherwise."""
    return StdOutBackend(1, **{"prefix_format": lambda _timestamp: "", **hooks})


def run(code, *arguments, cwd, stdout=subprocess.PIPE, shell="", **environ):
    """Run a script with a standard output of its own; return stdout, stderr, exit code."""
    wrapper = ["sh", "-c", f'exec "$@" {shell}', "sh"] if shell else []
    result = subprocess.run(
        [*wrapper, sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONUNBUFFERED": "", **environ},  # as most run it
        cwd=cwd,
        stdout=stdout,
        stderr=subprocess.PIPE,
        timeout=DEADLINE_S,
        check=False,
    )
    return result.stdout, result.stderr.decode(), result.returncode


# The text


def test_a_line_is_dlloggers_line(capsys):
    """Prefix, step and metrics stand where DLLogger puts them, blanks included."""
    printing = StdOutBackend(1)
    printing.metadata(AT, 0.1, "loss", {"unit": "nat", "format": ":.3f"})
    printing.metadata(AT, 0.1, "lr", {"unit": None})
    printing.metadata(AT, 0.1, "top1", {})
    printing.log(AT, 0.5, (0, 1), {"loss": 0.5, "lr": 1e-05, "top1": None, "ips": np.float32(2)})
    printing.log(AT, 0.5, (), {})
    assert capsys.readouterr().out == (
        "DLL 2024-01-02 03:04:05.000678 - (0, 1) "
        "loss : 0.500 nat lr : 1e-05 None top1 : None  ips : 2.0 \n"
        "DLL 2024-01-02 03:04:05.000678 - () \n"
    )


@pytest.mark.parametrize(
    ("metadata", "value", "expected"),
    [
        ({}, 0.5, "m : 0.5 "),
        ({"unit": "s"}, 0.5, "m : 0.5 s"),
        ({"unit": ""}, 0.5, "m : 0.5 "),
        ({"unit": None}, 0.5, "m : 0.5 None"),
        ({"unit": "s", "format": ":.3f"}, 0.5, "m : 0.500 s"),
        ({"format": "0:.5f"}, 0.5, "m : 0.50000 "),
        ({"format": ":>3.2e"}, 0.5, "m : 5.00e-01 "),
        ({"format": ":5f"}, 0.5, "m : 0.500000 "),
        ({"format": ""}, "text", "m : text "),
        ({"format": ":.3f"}, None, "m : None "),
        ({"format": ":.3f"}, np.float32(0.5), "m : 0.500 "),
        ({}, [1, 2], "m : [1, 2] "),
        ({}, {"a": 1}, "m : {'a': 1} "),
        ({}, float("nan"), "m : nan "),
        ({}, True, "m : True "),
        ({"name": None, "GOAL": "MINIMIZE", "unit": "%"}, "7", "m : 7 %"),
    ],
)
def test_default_metric_format(metadata, value, expected):
    """The text of a metric is DLLogger's, for every kind of metadata that scripts give."""
    assert default_metric_format("m", metadata, value) == expected


def test_default_step_and_prefix_format():
    """Steps are shown by str, times as DLLogger's newer releases show them."""
    assert [default_step_format(step) for step in ((0, 1), "PARAMETER", (), 3)] == [
        "(0, 1)",
        "PARAMETER",
        "()",
        "3",
    ]
    assert default_prefix_format(AT) == "DLL 2024-01-02 03:04:05.000678 - "
    assert default_prefix_format(AT.replace(microsecond=0)) == "DLL 2024-01-02 03:04:05 - "


@pytest.mark.parametrize("damaged", [".3f", "%.3f", ":.5f+00:00", ":.2q", "{", "}", "!", None, 3])
def test_a_damaged_format_shows_the_plain_value(capsys, counted, damaged):
    """The line is there with the value's repr, and each line counts once."""
    logger = Logger([backend()])
    logger.metadata("loss", {"format": damaged, "unit": "nat"})
    for step in range(3):
        logger.log(step, {"loss": 0.5, "lr": 0.1})
    assert capsys.readouterr().out == "".join(f"{s} loss : 0.5 nat lr : 0.1 \n" for s in range(3))
    assert counted() == {"format_failed": 3}


def test_a_format_that_does_not_fit_the_value(capsys, counted):
    """Text under a number's format is shown as its repr, numbers go on as they were."""
    logger = Logger([backend()])
    logger.metadata("loss", {"format": ":.1f"})
    logger.log(0, {"loss": "n/a"})
    logger.log(1, {"loss": 0.5})
    assert capsys.readouterr().out == "0 loss : 'n/a' \n1 loss : 0.5 \n"
    assert counted() == {"format_failed": 1}


def raising(*_arguments):
    """Raise, as a hook that a script got wrong."""
    raise RuntimeError("hook")


@pytest.mark.parametrize(
    ("hook", "expected"),
    [
        ("step_format", "(0, 1) loss : 0.5 "),
        ("metric_format", "(0, 1) loss : 0.5 "),
        ("prefix_format", "DLL 2024-01-02 03:04:05.000678 - (0, 1) loss : 0.5 "),
    ],
)
def test_a_hook_that_raises(capsys, counted, hook, expected):
    """What a hook cannot format is shown plainly, and counted."""
    backend(**{hook: raising}).log(AT, 0.5, (0, 1), {"loss": 0.5})
    assert capsys.readouterr().out == f"{expected}\n"
    assert counted() == {"format_failed": 1}


def test_a_prefix_format_without_a_signature(capsys):
    """A built-in type does not say what it takes: it is given the timestamp."""
    backend(prefix_format=str).log(AT, 0.5, 0, {})
    assert capsys.readouterr().out == "2024-01-02 03:04:05.0006780 \n"


def test_hooks_that_return_no_text(capsys):
    """A hook's result is shown by str, whatever it is."""
    hooks = {"step_format": lambda _: 7, "metric_format": lambda *_arguments: None}
    backend(**hooks, prefix_format=lambda _: 8).log(AT, 0.5, (0, 1), {"loss": 0.5})
    assert capsys.readouterr().out == "87 None\n"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("text", "0 text\n"),
        (None, "0 None\n"),
        ([1, 2], "0 [1, 2]\n"),
        (types.MappingProxyType({"a": 1}), "0 a : 1 \n"),
        ({1: 2, None: 3, (4, 5): 6}, "0 1 : 2  None : 3  (4, 5) : 6 \n"),
        ({"two\nlines": "a\nb"}, "0 two\nlines : a\nb \n"),
    ],
    ids=repr_without_address,
)
def test_data_of_any_kind(capsys, counted, data, expected):
    """Data that is no dict is shown by str, names of any kind by theirs."""
    Logger([backend()]).log(0, data)
    assert (capsys.readouterr().out, counted()) == (expected, {})


class Unshowable:
    """An object that cannot even be shown."""

    def __str__(self):
        raise RuntimeError("no text")

    __repr__ = __format__ = __str__


def test_values_that_cannot_be_shown(capsys, counted):
    """A value whose repr raises is described instead, and so is such a step."""
    logger = Logger([backend()])
    logger.log(0, {"loss": Unshowable(), "lr": 0.1})
    logger.log(Unshowable(), {"lr": 0.1})
    logger.log(1, Unshowable())
    shown = "<Unshowable that cannot be shown>"
    expected = [f"0 loss : {shown}  lr : 0.1 ", f"{shown} lr : 0.1 ", f"1 {shown}"]
    assert capsys.readouterr().out.splitlines() == expected
    assert counted() == {"format_failed": 2}


@pytest.mark.parametrize(
    "metadata", [None, 3, "text", argument := object()], ids=repr_without_address
)
def test_metadata_that_is_no_dict(capsys, counted, metadata):
    """It is counted, and the metric is printed without any."""
    logger = Logger([backend()])
    logger.metadata("loss", metadata)
    logger.metadata(["unhashable"], {})
    logger.log(0, {"loss": 0.5})
    assert capsys.readouterr().out == "0 loss : 0.5 \n"
    assert counted() == {"format_failed": 2}


@given(st.text(), st.text(), st.text())
def test_no_format_ever_raises(template, unit, value):
    """Whatever stands in a format and a unit, there is a line with the name."""
    stream = io.StringIO()
    printing = backend()
    printing.metadata(AT, 0.0, "loss", {"format": template, "unit": unit})
    with contextlib.redirect_stdout(stream):
        printing.log(AT, 0.0, 0, {"loss": value})
    assert stream.getvalue().startswith("0 loss : ")
    assert stream.getvalue().endswith(f" {unit}\n")


# Where it is printed


@pytest.mark.parametrize("stream", [io.StringIO(), io.TextIOWrapper(io.BytesIO(), "utf-8")])
def test_a_stream_that_stands_in_gets_one_write_a_line(stream):
    """A notebook, a StringIO and a test's capture get the text, as from print."""
    with contextlib.redirect_stdout(stream):
        print("before")
        Logger([backend()]).log(0, {"verlust_ü": 0.5})
        print("after")
    stream.seek(0)
    assert stream.read() == "before\n0 verlust_ü : 0.5 \nafter\n"


def test_one_write_a_line():
    """A line and its newline are one write: other threads cannot come in between."""
    writes = []

    class Writes:
        def write(self, text):
            writes.append(text)

    with contextlib.redirect_stdout(Writes()):
        Logger([backend()]).log(0, {"a": 1, "b": 2})
    assert writes == ["0 a : 1  b : 2 \n"]


def test_a_stream_of_bytes_in_memory_that_knows_ascii_only(counted):
    """Text beyond the stream's encoding is written with backslashes."""
    stream = io.TextIOWrapper(io.BytesIO(), "ascii")
    with contextlib.redirect_stdout(stream):
        Logger([backend()]).log("→", {"ü": "\ud800"})
    stream.seek(0)
    assert stream.read() == "\\u2192 \\xfc : \\ud800 \n"
    assert counted() == {}


def test_ascii_only_stdout(tmp_path):
    """With an ASCII standard output, other letters are escaped, and the line is there."""
    code = """
from otel_dllogger import Logger, StdOutBackend
logger = Logger([StdOutBackend(1, prefix_format=lambda timestamp: "→ ")])
logger.metadata("verlust_ü", {"unit": "°C"})
logger.log((0, 1), {"verlust_ü": 1.0, "lone": "\\ud800"})
"""
    out = run(code, cwd=tmp_path, PYTHONIOENCODING="ascii")
    expected = b"\\u2192 (0, 1) verlust_\\xfc : 1.0 \\xb0C lone : \\ud800 \n"
    assert out == (expected, "", 0)


def test_lines_keep_their_order_with_the_scripts_own_prints(tmp_path):
    """Through a pipe, whose text Python buffers, a line comes after what was printed before."""
    code = """
import sys
from otel_dllogger import Logger, StdOutBackend
logger = Logger([StdOutBackend(1, prefix_format=lambda timestamp: "")])
print("one", end=" ")
logger.log(0, {"loss": 1.0})
print("two")
logger.log(1, {"loss": 1.0})
sys.stdout.write("three")
"""
    expected = b"one 0 loss : 1.0 \ntwo\n1 loss : 1.0 \nthree"
    assert run(code, cwd=tmp_path) == (expected, "", 0)


def test_a_line_is_out_before_log_returns(tmp_path):
    """os._exit right after log loses nothing."""
    code = LOGGING.replace("logger.close()", "import os; os._exit(3)")
    expected = b"0 loss : 1.0 \n1 loss : 1.0 \n"
    assert run(code, "2", cwd=tmp_path) == (expected, "", 3)


def test_stdout_closed_by_the_shell(tmp_path):
    """Started with >&-, a script trains on, and its lines are counted."""
    out = run(LOGGING, "25", cwd=tmp_path, shell=">&-")
    assert out == (b"", "{'stdout': 25}\n", 0)


def test_stdout_closed_by_the_script(tmp_path):
    """After sys.stdout.close() a script trains on, and its lines are counted."""
    code = f"import sys; sys.stdout.close(){LOGGING}"
    assert run(code, "25", cwd=tmp_path) == (b"", "{'stdout': 25}\n", 0)


@pytest.mark.parametrize(
    ("statement", "returncode"),
    # Python itself exits with 120 where it cannot flush what sys.stdout became.
    [("sys.stdout = None", 0), ("del sys.stdout", 0), ("sys.stdout.detach()", 120)],
)
def test_stdout_taken_away_by_the_script(tmp_path, statement, returncode):
    """Without a usable sys.stdout a script trains on, and its lines are counted."""
    out, err, status = run(f"import sys; {statement}{LOGGING}", "3", cwd=tmp_path)
    lost = re.search(r"\{'\w+': (\d+)\}", err)
    assert (out, lost[1], status) == (b"", "3", returncode)


def test_a_full_device(tmp_path):
    """On /dev/full a script trains on and exits with 0, and its lines are counted."""
    with open("/dev/full", "wb") as full:  # noqa: PTH123 - a device
        out = run(LOGGING, "25", cwd=tmp_path, stdout=full)
    assert out == (None, "{'stdout': 25}\n", 0)


def test_a_reader_that_is_gone(tmp_path):
    """With a broken pipe, as after "| head", a script trains on and exits with 0."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        out = run(LOGGING, "25", cwd=tmp_path, stdout=write_end)
    finally:
        os.close(write_end)
    assert out == (None, "{'stdout': 25}\n", 0)


class Failing(io.StringIO):
    """An output that fails while it is told to, and counts what it was asked."""

    def __init__(self):
        super().__init__()
        self.asked = 0
        self.error = OSError(28, "No space left on device")

    def write(self, text):
        self.asked += 1
        if self.error:
            raise self.error
        return super().write(text)


def test_the_output_is_given_up_after_ten_errors_in_a_row(counted):
    """A dead output costs ten attempts and no more; every line is counted."""
    stream = Failing()
    logger = Logger([backend()])
    with contextlib.redirect_stdout(stream):
        for step in range(25):
            logger.log(step, {})
        stream.error = None
        logger.log(25, {})
    assert (stream.asked, stream.getvalue()) == (MAX_ERRORS_IN_A_ROW, "")
    assert MAX_ERRORS_IN_A_ROW == 10
    assert counted() == {"stdout": 26}


def test_an_output_that_comes_back_in_time(counted):
    """Nine errors are forgiven: the next line is printed, and counting begins anew."""
    stream = Failing()
    logger = Logger([backend()])
    with contextlib.redirect_stdout(stream):
        for _round in range(3):
            stream.error = OSError(5, "Input/output error")
            for step in range(9):
                logger.log(step, {})
            stream.error = None
            logger.log("back", {})
    assert stream.getvalue() == "back \n" * 3
    assert counted() == {"stdout": 27}


def test_an_output_that_raises_anything_else(counted):
    """A stand-in for sys.stdout with a fault of its own fails nothing but its line."""
    stream = Failing()
    stream.error = RuntimeError("a fault of the stand-in")
    with contextlib.redirect_stdout(stream):
        Logger([backend()]).log(0, {})
    assert sum(counted().values()) == 1


def test_two_processes_on_one_pipe_never_glue_their_lines(tmp_path):
    """Lines of up to 4,096 bytes come out whole, however many ranks share the terminal."""
    code = """
import sys
from otel_dllogger import Logger, StdOutBackend
rank = sys.argv[1]
logger = Logger([StdOutBackend(1, lambda step: step, lambda metric, metadata, value: value,
                               lambda timestamp: rank)])
sys.stdin.read(1)  # until both are there
for step in range(300):
    text = f"{step} "
    logger.log(f"{step:03}", {"text": rank * (4096 - len(rank) - 5)})
"""
    read_end, write_end = os.pipe()
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", code, rank],
            cwd=tmp_path,
            stdin=subprocess.PIPE,
            stdout=write_end,
        )
        for rank in "ab"
    ]
    os.close(write_end)
    for process in ranks:
        process.stdin.write(b".")
        process.stdin.close()
    with open(read_end, "rb") as pipe:  # noqa: PTH123 - a descriptor
        lines = pipe.read().decode().splitlines(keepends=True)
    assert [process.wait(DEADLINE_S) for process in ranks] == [0, 0]
    assert {len(line) for line in lines} == {4096}
    for rank in "ab":
        own = [line for line in lines if line[0] == rank]
        assert own == [f"{rank}{step:03} {rank * 4090}\n" for step in range(300)]


def test_a_line_of_ones_own(capsys):
    """line_format makes the whole line; of None, or where it raises, the usual one is printed."""

    def line_format(timestamp, step, data):
        if step == 2:
            return None
        if step == 4:
            return 4.5
        return f"{timestamp:%Y} {step} {data['loss']:.1f}"

    logger = Logger([backend(line_format=line_format)])
    logger.log(1, {"loss": 0.25})
    logger.log(2, {"loss": 0.5})
    logger.log(3, {"other": 1.0})
    logger.log(4, {})
    logger.info("text")
    year = f"{datetime.now():%Y}"  # noqa: DTZ005 - naive by contract
    lines = capsys.readouterr().out.splitlines()
    assert [f"{year} 1 0.2", "2 loss : 0.5 ", "3 other : 1.0 ", "4.5", "text"] == lines


def test_a_line_of_ones_own_that_raises_is_counted(capsys, counted):
    """What a line_format cannot do is a fault of the format, and no line is lost."""
    with pytest.raises(
        ConfigurationError, match="line_format='mmengine' is not a function; pass one"
    ):
        backend(line_format="mmengine")
    Logger([backend(line_format=lambda *_arguments: 1 / 0)]).log(1, {"loss": 0.5})
    assert "1 loss : 0.5 \n" == capsys.readouterr().out
    assert {"format_failed": 1} == counted()
