"""``otel-dllogger check`` of a log: what is well, what is wrong, and in which words."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys

import pytest

from otel_dllogger.cli.check.log_report import describe_log
from otel_dllogger.logs import reader as log_reader
from tests.support.check import assert_said
from tests.support.command import assert_user_error, otel_dllogger
from tests.support.paths import TESTS

pytestmark = pytest.mark.newest_only


def log_line(kind, fields, *, prefix="DLLL", second=0):
    """Give one line of a log."""
    times = f'"timestamp": "{1700000000 + second}.5", "elapsedtime": "{second}.5"'
    return f'{prefix} {{{times}, "type": "{kind}", {fields}}}\n'


def log_of(*values):
    """Give a log of one metric, an iteration each."""
    metadata = '"unit": null, "GOAL": "MINIMIZE", "STAGE": "TRAIN", "format": ":.3f"'
    lines = [
        log_line("LOG", '"step": "PARAMETER", "data": {"lr": 0.1}'),
        log_line("METADATA", f'"metric": "train.loss", "metadata": {{{metadata}}}'),
    ]
    for number, value in enumerate(values):
        fields = f'"step": [0, {number}], "data": {{"train.loss": {value}}}'
        lines.append(log_line("LOG", fields, second=number))
    return "".join(lines)


def test_a_good_log_is_described(check):
    """Counts, steps, times and metrics of a log are said."""
    summary = log_line("LOG", '"step": [], "data": {"train.loss": 0.5, "top": 7}', second=90)
    done = check(log_of(4.0, 2.0, 1.0) + summary, "resnet50.json")
    assert_said(
        done,
        0,
        "Log resnet50.json: DLLogger JSON lines\n",
        "  for bridge and backfill: run 'resnet50', rank 0 (assumed, since the path says none)\n",
        "  6 lines: 5 records, 1 METADATA\n",
        "over 1 min 30 s\n",
        "3 iteration steps, 1 run step; epoch 0, iterations 0 to 2\n",
        "1 line of hyper-parameters",
        "train.loss  4       0.5   train  minimize  iteration, run  dl_loss\n",
        "top         1       7                      run             dl_top\n",
        "All is well.",
    )
    assert "records of" not in done.stdout  # there is one rank, and it was said


def test_a_log_of_tcap_is_described(check, tmp_path):
    """Data that are the repr of a dict of strings are read, and never evaluated."""
    data = "{'train.loss': '4.5', 'shape': '[3, 3]', 'rank': '3'}"
    evil = "__import__('os').system('touch hacked')"
    log = log_line("LOG", f'"step": [0, 1], "data": "{data}"', prefix="TCAPPDLL")
    log += (
        'INFO {"local_rank": 0, "datetime": "2024-08-29 06:21:57.3", "type": "INFO", "data": 1}\n'
    )
    good = check(log)
    assert_said(
        good, 0, "TCAP DLLogger JSON lines", "1 record, 1 INFO", "train.loss  1       4.5  "
    )
    assert_said(good, 0, "records of rank 3\n", "not exported: not a number\n", "All is well.")
    bad = check(log + log_line("LOG", f'"step": 1, "data": "{evil}"', prefix="TCAPPDLL"))
    assert_said(bad, 1, "1 unreadable_data: the data are not a dict", "      line 3: TCAPPDLL {")
    assert not (tmp_path / "hacked").exists()


GOOD = log_of(1.0)


@pytest.mark.parametrize(
    ("log", "code", "sentences"),
    [
        (log_of(1.0, "NaN", "-Infinity"), 0, ["NaN or Inf 2 times, first at step (0, 1)"]),
        (GOOD + GOOD.splitlines()[0][:40], 1, ["1 torn: ", "line 4, the last: the run was killed"]),
        (
            GOOD + 'DLLL {"type": "LOG", "st\n' + GOOD,
            1,
            ['1 torn: a record is cut off\n      line 4: DLLL {"type": "LOG", "st\n'],
        ),
        (GOOD.rstrip("\n"), 0, ["no newline at the end"]),
        (GOOD.rstrip("\n") + GOOD, 0, ["1 line with more than one", "4 records, 2 METADATA"]),
        (
            GOOD[:-9] + GOOD,
            1,
            ["1 torn: ", "      line 3: DLLL {", "1 line with more than one record"],
        ),
        (
            GOOD + log_line("LOG", '"step": 1'),
            1,
            ["1 missing_fields: ", "      line 4: a LOG line without data\n"],
        ),
        (
            GOOD + log_line("PHASE", '"name": "checkpoint", "seconds": -1'),
            1,
            [
                "1 unreadable_data: ",
                "or the seconds of a phase are not a duration\n",
                "      line 4: a phase of -1 seconds\n",
            ],
        ),
        (
            GOOD + log_line("PICTURE", '"step": 1'),
            1,
            ["1 unknown_type: ", "line 4: unknown type 'PICTURE'\n"],
        ),
        (GOOD + "DLLL {} tail\n", 1, ["line 4: "]),
        (
            GOOD + "DLLL " + '{"a": ' * 100_000 + "\n",
            1,
            ["1 nested_too_deep: a record with more than 100"],
        ),
        (
            GOOD + "Epoch 1 begins\n",
            0,
            ["2 records, 1 METADATA, 1 from other programs\n", "All is"],
        ),
        (
            GOOD.replace(":.3f", ":.5f+00:00"),
            0,
            ["the format ':.5f+00:00' of 'train.loss' is invalid"],
        ),
        (GOOD.replace(":.3f", "%.3f"), 0, ["the format '%.3f' of"]),
        (GOOD.replace(":.3f", ":9999999999f"), 0, ["the format ':9999999999f' of"]),
        (GOOD.replace("MINIMIZE", "MIMIMIZE"), 0, ["'MIMIMIZE' of 'train.loss' is read as MINI"]),
        (GOOD.replace("MINIMIZE", "BETTER"), 0, ["'BETTER' of 'train.loss' is unknown"]),
        (
            GOOD.replace('"GOAL": "MINIMIZE"', '"goal": "minimise"'),
            0,
            ["the GOAL 'minimise' of 'train.loss' is read as MINIMIZE"],
        ),
        (GOOD.replace("TRAIN", "TRIAN"), 0, ["the STAGE 'TRIAN' of 'train.loss' is unknown"]),
        (GOOD.replace("STAGE", "Stage"), 0, ["'Stage' in the metadata of 'train.loss' is not rea"]),
        (
            log_of(1) + log_line("METADATA", '"metric": "a", "metadata": 3'),
            0,
            ["is not a dict but 3"],
        ),
        (log_of(1, 2, 3) + log_of(4, 5), 0, ["elapsed times jump back 1 time: "]),
        (GOOD * 3, 0, ["all 3 iteration steps are the same: "]),
        ("", 1, ["log.json is empty"]),
        ("hello\nworld\n", 1, ["no line is a record of DLLogger, MMEngine or another tool"]),
        ('{"loss": 1}\n', 1, ["JSON, but without the prefix DLLL"]),
        (b"\x1f\x8b\x08\x00", 1, ["unpack it first"]),
        (
            b"\x7fELF\0\0",
            1,
            ["1 nul_bytes: NUL bytes", "it is a binary file", "2 things are wrong"],
        ),
        ("\0" * 70_000 + "\n" + GOOD, 1, ["line 1: <70000 NULs>\n", "2 records, 1 METADATA, 1 da"]),
        (
            GOOD + "DLLL " + "x" * 2**20 + "\n",
            1,
            ["1 line_too_long: a line of more than 1,048,576"],
        ),
        (GOOD.replace('"timestamp": "1700000000.5", ', ""), 1, ["3 no_time: ", "3 damaged\n"]),
        (log_of(1).replace("train", "n" * 1000), 0, ["1 value with names of more than 1,000 char"]),
        (GOOD[:-1] + " Epoch 1 ends\n\n", 0, ["METADATA, 1 on lines of records, 1 blank\n"]),
        (
            "DLL 2025-06-19 01:37:38.9 - (0, 1) loss : 0.5 \n",
            0,
            ["DLLogger text", "1 record\n", "dl_loss\n", "All is"],
        ),
        (
            "TCAPPDLL 2025-05-15 14:20:10.9 - 0 loss : 1 TCAPPDLL 2025-05-15 14:20:10.9 - \n",
            1,
            ["1 torn: ", "1 line with more than one record"],
        ),
    ],
    ids=lambda value: value[0][:24] if isinstance(value, list) else "",
)
def test_what_is_wrong_with_a_log_is_said(check, log, code, sentences):
    """Damage, odd metadata and odd values of a log are told in words, by line."""
    assert_said(check(log), code, *sentences)


def test_text_cannot_move_the_terminals_cursor(check):
    """Control characters of a metric's name are not printed."""
    done = check(GOOD + log_line("LOG", '"step": 2, "data": {"a\\u001b[2J": 1}'))
    assert "\x1b" not in done.stdout
    assert "a?[2J" in done.stdout


@pytest.mark.slow
def test_a_large_log_takes_little_memory(tmp_path):
    """Memory does not grow with the lines nor with the names of a log."""
    path = tmp_path / "log.json"
    with path.open("w") as stream:
        for step in range(40):
            data = ", ".join(f'"name_{step}_{n}_{"x" * 100}": 1' for n in range(4000))
            stream.write(log_line("LOG", f'"step": {step}, "data": {{{data}}}'))
    assert path.stat().st_size > 15_000_000
    code = (
        "import resource, sys\n"
        "from otel_dllogger.__main__ import main\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "sys.argv = ['otel-dllogger', 'check', sys.argv[1]]\n"
        "code = main()\n"
        "after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(code, after - before < 30_000)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=True
    )
    assert "more than 2,000 names: 158,000 values of further names" in done.stdout
    assert done.stdout.endswith("0 True\n")


def test_a_pipe_is_read_once(tmp_path):
    """A log may come from another command."""
    (tmp_path / "log.json").write_text(GOOD)
    command = f"{sys.executable} -m otel_dllogger check <(cat log.json)"
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert_said(done, 0, "  3 lines: 2 records, 1 METADATA\n")
    assert "run" not in done.stdout.partition("metric")[0]


@pytest.mark.parametrize(
    ("writer", "sentence"),
    [
        ("true", "is empty: nothing was logged"),
        ("sleep 2", "is empty: nothing was logged"),
        ("(sleep 1.5; cat log.json)", "  3 lines: 2 records, 1 METADATA\n"),
    ],
)
def test_a_pipe_is_waited_for_as_long_as_somebody_may_write(tmp_path, writer, sentence):
    """Whether the writer is slow, says nothing, or has left before."""
    (tmp_path / "log.json").write_text(GOOD)
    command = f"mkfifo pipe; {writer} > pipe & {sys.executable} -m otel_dllogger check pipe"
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert sentence in done.stdout


def test_what_would_never_end_is_one_line(tmp_path, monkeypatch):
    """A pipe without a writer, a device, a socket; and a link to nothing."""
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    (tmp_path / "link").symlink_to("gone")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        for name, words in {
            "pipe": "pipe is a pipe that nobody writes to; start",
            "/dev/zero": "/dev/zero is a device, which has no end and no records; pass",
            "socket": "socket is a socket, which has no",
            "link": "'link' is a link to what does not exist; pass",
        }.items():
            assert_user_error(otel_dllogger("check", name, cwd=tmp_path), words)


def test_the_first_lines_of_each_reason_are_shown_and_the_rest_is_counted(check):
    """A line is named by number; so many lines of one reason do not hide another reason."""
    torn = 'DLLL {"type": "LOG", "st\n'
    log = GOOD + torn * 2 + log_line("LOG", '"step": 1') + torn * 1200 + torn.rstrip()
    shown = "".join(f"      line {number}: {torn}" for number in (4, 5, 7, 8, 9))
    assert_said(
        check(log),
        1,
        "2 records, 1 METADATA, 1,204 damaged\n",
        f"  - 1,203 torn: a record is cut off\n{shown}"
        "      and 1,198 more, the last on line 1,207\n",
        "  - 1 missing_fields: a record lacks a field that its type must have\n"
        "      line 6: a LOG line without data\n",
        "2 things are wrong.",
    )


def test_no_line_is_read_twice(tmp_path, monkeypatch):
    """What a damaged line leaves out is known from its one reading."""
    read = []
    parse = log_reader.parse_line
    monkeypatch.setattr(
        log_reader, "parse_line", lambda line, context: (read.append(line), parse(line, context))[1]
    )
    path = tmp_path / "log.json"
    path.write_text(GOOD + log_line("A", '"step": 1') + "noise\nDLLL {\n")
    lines = path.read_bytes().splitlines(keepends=True)
    report = describe_log(path, lines)
    assert lines == read
    assert 2 == len(report.wrong)
    assert "unknown type 'A'" in report.wrong[0]


def test_several_faults_of_one_line_are_one_entry(check):
    """The counts are those of backfill, which counts each fault."""
    bad = "".join(log_line(kind, '"step": 1').rstrip() for kind in ("A", "B", "LOG", "A"))
    assert_said(
        check(GOOD + bad + "\n"),
        1,
        "3 unknown_type: ",
        "\n      line 4, 3 times: unknown type 'A', unknown type 'B'\n",
        "\n      line 4: a LOG line without data\n",
        "2 records, 1 METADATA, 4 damaged\n",
    )


def test_a_damaged_line_is_shown_by_its_ends(check):
    """Records break off at an end; what moves a cursor is not printed."""
    done = check(GOOD + 'DLLL {"a": "\x1b[2J' + "x" * 200 + "the end\n")
    assert 'line 4: DLLL {"a": "?[2Jxx' in done.stdout
    assert "xx ... xx" in done.stdout
    assert "xxthe end\n" in done.stdout


DATA = TESTS / "data"
DAMAGED = (
    GOOD
    + "Epoch 1 begins\n\n"
    + log_line("LOG", '"step": 1')
    + log_line("PICTURE", '"step": 1') * 7
    + "DLLL {} tail\n"
    + GOOD[:-9]
    + GOOD.rstrip("\n")
    + GOOD
    + 'DLLL {"type": "LOG", "step": 1, "data": {}}\n'
    + "DLLL " + "x" * 2**20 + "\n"
    + "DLL 2025-06-19 01:37:38.9 - (0, 1) loss : 0.5  top\n"
    + "\0" * 90 + "\n"
    + GOOD[:99]
)  # fmt: skip


@pytest.mark.parametrize(
    "log",
    [DAMAGED, *sorted(path for path in DATA.rglob("*.*") if path.suffix != ".md")],
    ids=lambda log: getattr(log, "name", "damaged"),
)
def test_counts_and_names_are_those_of_backfill(tmp_path, log):
    """What backfill says it could not read is what check shows, reason by reason."""
    if isinstance(log, str):
        (tmp_path / "log.json").write_text(log)
        log = tmp_path / "log.json"
    backfill = otel_dllogger("backfill", log, "--to", "openmetrics", tmp_path / "out.txt")
    check = otel_dllogger("check", log)
    lost = re.findall(r"lines that gave no record: (.*); otel-dllogger check", backfill.stderr)
    said = lost[0].split(", ") if lost else []
    shown = re.findall(r"^  - ([\d,]+ [a-z0-9_]+): ", check.stdout, re.MULTILINE)
    assert sorted(said) == sorted(shown)
    page = (tmp_path / "out.txt").read_text()
    exported = set(re.findall(r"^# TYPE (dl_\S+)", page, re.MULTILINE))
    assert exported == set(re.findall(r"  (dl_\S+)$", check.stdout, re.MULTILINE))
    assert exported
    assert (said != []) == (log.name == "log.json")


@pytest.mark.slow
def test_a_log_of_mmengine_is_described(tmp_path):
    """Its stages are told apart; rows without times have worked out ones, and a copy is one."""
    shutil.copytree(DATA / "mmengine_epoch", tmp_path / "tiny")
    assert_said(
        otel_dllogger("check", "tiny/train.log", cwd=tmp_path),
        0,
        "Log tiny/train.log: MMEngine text log\n"
        "  for bridge and backfill: run 'tiny', rank 0 (assumed, since the path says none)\n",
        "  149 lines: 15 records, 129 from other programs, 5 blank\n",
        "over 0.0 s\n",
        "  loss               6       2.0101        train  minimize  iteration          dl_loss\n",
        "  time               6       0.0003  s     train            iteration          dl_time_s",
        "  time               9       0.0001  s     val              epoch, validation  dl_time_s",
        "All is well.",
    )
    scalars = otel_dllogger("check", "tiny/vis_data/scalars.json", cwd=tmp_path)
    assert_said(scalars, 0, "the same training is in another file", "All is well.")
    assert_said(scalars, 0, "over 0.0 s, worked out from the durations of iterations")
    (tmp_path / "tiny" / "train.log").unlink()
    alone = otel_dllogger("check", "tiny/vis_data/scalars.json", cwd=tmp_path)
    assert "another file" not in alone.stdout


def test_text_among_the_values_of_mmengine_is_a_row_of_its_own(check):
    """It has the name that was logged, and is not exported."""
    head = "2025/08/16 12:00:00 - mmengine - INFO - Epoch(train) [1][10/20]"
    done = check(f"{head}  loss: 0.5  note: abc\n")
    assert_said(done, 0, "\n  note    1       'abc'                   iteration   not exported")


@pytest.mark.parametrize(
    ("log", "code", "sentence"),
    [
        (
            'INFO {"datetime": "2024-08-29 06:21:57.3", "type": "INFO", "data": 1}\n',
            1,
            "no record holds a metric, only text, such as INFO lines: there is nothing to plot\n",
        ),
        (
            "\0" * 99,
            1,
            "1 nul_bytes: NUL bytes, as a power failure leaves them behind\n      line",
        ),
        (
            b"\x7fELF\0\0\n\0\n",
            1,
            "leaves them behind\n  - no line is a record: it is a binary file",
        ),
        ('DLLL {"type": "LOG"\n', 1, "1 thing is wrong."),
    ],
    ids=["info", "nul", "binary", "torn"],
)
def test_a_file_without_a_record_is_said_to_be_what_it_is(check, log, code, sentence):
    """What is wrong is said once, and nobody is shown a binary's bytes."""
    assert_said(check(log), code, sentence)


@pytest.mark.slow
def test_ranks_and_restarts_are_said(check):
    """Several formats are counted; a process that began after the last record is a restart."""
    again = GOOD.replace("1700000000.5", "1700000100.5")
    text = "TCAPPDLL 2023-11-14 23:13:20.9 - rank: {} 0 loss : 1 \n"
    assert_said(
        check(GOOD + again + text.format(0) + text.format(1) + text.format(2), "a_r5.json"),
        0,
        "Log a_r5.json: DLLogger JSON lines (6); TCAP DLLogger text, as its StdOutBackend prints ",
        "it (3)\n",
        "run 'a', rank 5 (by the file name)\n",
        "records of ranks 0, 1, 2, 5\n",
        "restarted 1 time: rank 5\n",
    )
    assert_said(check(GOOD + again), 0, "  restarted 1 time\n")
    assert_said(check("".join(map(text.format, range(3))), "b.log"), 0, "records of ranks 0 to 2\n")


def test_a_restart_is_no_jump(check):
    """Elapsed times that begin again in a new process are as they should be."""
    again = log_of(1.0, 2.0, 3.0).replace("170000000", "170000010")
    done = check(log_of(1.0, 2.0, 3.0) + again)
    assert_said(done, 0, "  restarted 1 time\n")
    assert "jump back" not in done.stdout


def test_metadata_that_comes_late_counts(check):
    """A metric is shown as what is known of it at the end exports it, its unit too."""
    late = log_line("METADATA", '"metric": "train.loss", "metadata": {"unit": "ms", "GOAL": 7}')
    assert_said(
        check(GOOD + late),
        0,
        "train.loss  1       1     ms    train  iteration   dl_loss_milliseconds\n",
        "the GOAL '7' of 'train.loss' is unknown",
    )


def test_a_file_that_may_not_be_read_is_one_line(tmp_path):
    """What the system says is passed on, with the next step."""
    (tmp_path / "log.json").symlink_to("/proc/self/mem")
    assert_user_error(otel_dllogger("check", "log.json", cwd=tmp_path), "cannot be read")


GUESSED = {
    "tokens_per_sec": "kind: throughput in tokens/s by name: 'tokens_per_sec'",
    "iter_time_ms": "kind: duration in ms by name: 'iter_time_ms'",
    "step_time": "kind: duration in s by name and the convention of frameworks: 'step_time'",
    "train.loss": "kind: loss by name: 'train.loss'",
}


def test_what_names_were_taken_to_mean_is_said(check, tmp_path):
    """Kind and unit, within 80 columns; a metric whose metadata says it is not in the list."""
    data = json.dumps({**dict.fromkeys(GUESSED, 1.5), "memory": 2, f"loss_{'x' * 60}": 1})
    log = log_line("LOG", f'"step": [0, 1], "data": {data}')
    done = check(log)
    assert_said(done, 0, *GUESSED.values(), "All is well.")
    assert "memory" not in done.stdout.partition("kind: ")[2]
    narrow = otel_dllogger("check", "log.json", cwd=tmp_path, COLUMNS="80").stdout
    assert max(map(len, narrow.partition("kind: ")[2].splitlines())) <= 80
    for name, words in GUESSED.items():
        metadata = {"unit": "tokens/s", "GOAL": "MAXIMIZE"}
        line = f'"metric": "{name}", "metadata": {json.dumps(metadata)}'
        assert words not in check(log_line("METADATA", line) + log).stdout


@pytest.mark.parametrize(
    ("scope", "words"),
    [("NODE", "'NODE' of 'ips' is unknown: it is not exported; write RANK"), ("global", "")],
)
def test_an_unknown_scope_is_a_warning(check, scope, words):
    """As an unknown GOAL is."""
    metadata = f'"metric": "ips", "metadata": {{"unit": "imgs/s", "SCOPE": "{scope}"}}'
    done = check(log_line("METADATA", metadata) + log_line("LOG", '"step": 1, "data": {"ips": 5}'))
    assert_said(done, 0, words or "All is well.")
    assert ("the SCOPE" in done.stdout) == bool(words)
