"""``otel-dllogger check``: pages and logs, good and bad, and what is said of them."""

from __future__ import annotations

import contextlib
import http.server
import re
import shutil
import socket
import subprocess
import sys
import threading
import time

import pytest

from otel_dllogger.cli.check.log_report import describe_log
from otel_dllogger.logs import reader as log_reader
from tests.support.command import COMMAND, assert_user_error, environment, otel_dllogger
from tests.support.paths import TESTS

NOW = 1_700_000_000.25  # stands for the time at which a page is handed over

GOOD_PAGE = f"""\
# HELP dllogger_rank_info Where a rank runs
# TYPE dllogger_rank_info gauge
dllogger_rank_info{{run="r1",rank="0",host="node1",world_size="2",attempt="2",pid="7"}} 1.0
# TYPE dllogger_epoch gauge
dllogger_epoch{{run="r1",rank="0"}} 3.0
# TYPE dllogger_iteration gauge
dllogger_iteration{{run="r1",rank="0"}} 40.0
# TYPE dllogger_steps_total counter
dllogger_steps_total{{run="r1",rank="0"}} 101.0
# TYPE dllogger_step_seconds_total counter
dllogger_step_seconds_total{{run="r1",rank="0"}} 20.0
# TYPE dllogger_records_total counter
dllogger_records_total{{run="r1",rank="0",type="log"}} 101.0
# TYPE dllogger_last_log_timestamp_seconds gauge
dllogger_last_log_timestamp_seconds{{run="r1",rank="0"}} {NOW}
# TYPE dllogger_run_finished gauge
dllogger_run_finished{{run="r1",rank="0"}} 0.0
# TYPE dllogger_nonfinite_total counter
dllogger_nonfinite_total{{run="r1",rank="0",metric="train.loss",stage="train"}} 0.0
# TYPE dllogger_dropped_total counter
dllogger_dropped_total{{run="r1",rank="0",reason="disk_full"}} 0.0
dllogger_dropped_total{{run="r1",rank="0",reason="torn_line"}} 0.0
# TYPE dl_loss gauge
dl_loss{{run="r1",rank="0",metric="train.loss",stage="train",goal="minimize",granularity="iteration"}} 0.25
"""  # noqa: E501 - one line per series


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


def at_this_moment(text):
    """Return a page whose times are those of now: tests before may have taken minutes."""
    now = time.time()
    for shift in (0, -7200, 7200):
        text = text.replace(f"{NOW + shift}", f"{now + shift}")
    return text


@pytest.fixture
def check(tmp_path):
    """Write a file and have it checked."""

    def check(content, name="log.json"):
        path = tmp_path / name
        path.write_bytes(
            content if isinstance(content, bytes) else at_this_moment(content).encode()
        )
        return otel_dllogger("check", name, cwd=tmp_path)

    return check


def assert_said(done, code, *sentences):
    """Check the exit code and that each sentence was printed."""
    assert (done.returncode, done.stderr) == (code, "")
    for sentence in sentences:
        assert sentence in done.stdout


@contextlib.contextmanager
def serving(body, content_type="text/plain; version=0.0.4", status=200):
    """Serve one page on a real port, at /metrics."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status if self.path == "/metrics" else 404)
            self.send_header("Content-Type", content_type)
            self.end_headers()
            self.wfile.write(at_this_moment(body).encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("form", ["http://127.0.0.1:{}/metrics", "localhost:{}/", ":{}", "{}"])
def test_a_good_page_is_described(form):
    """Run, rank, place, times and values of a page are said, however it is addressed."""
    with serving(GOOD_PAGE) as port:
        done = otel_dllogger("check", form.format(port), http_proxy="http://127.0.0.1:9")
    assert_said(
        done,
        0,
        f":{port}/metrics\n",
        "text/plain; version=0.0.4",
        "Run r1\n",
        "rank 0 of 2 on node1, process 7\n",
        "attempt 2, epoch 3, iteration 40, 101 steps of 0.2 s, running, last record",
        "101 log calls",
        "0     dl_loss  train  iteration    minimize  train.loss  0.25\n",
        "All is well.",
    )


def test_a_page_of_the_package_itself_is_well(tmp_path):
    """What PrometheusBackend serves has nothing wrong in it."""
    (tmp_path / "train.py").write_text(
        "import dllogger, sys\n"
        "dllogger.init([])\n"
        "dllogger.log((0, 1), {'train.loss': 0.5, 'val_items/s': 3})\n"
        "print('ready', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [*COMMAND, "run", "--port", "0", "train.py"],
        cwd=tmp_path,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "ready\n"
        done = otel_dllogger("check", process.stderr.readline().split()[-1])
        process.stdin.close()
    assert_said(done, 0, "dl_loss", "dl_items_per_second", "All is well.")


def test_a_saved_page_is_known_from_its_text(check):
    """A page in a file is described as well."""
    assert_said(check(GOOD_PAGE, "page.txt"), 0, "Saved metrics page page.txt", "All is well.")


@pytest.mark.parametrize(
    ("old", "new", "code", "sentences"),
    [
        (
            'stage="train"} 0.0',
            'stage="train"} 2.0',
            0,
            ["rank 0: 'train.loss' was NaN or Inf 2 times; ", "Nothing is wrong, 1 warning."],
        ),
        (
            'reason="disk_full"} 0.0',
            'reason="disk_full"} 5.0',
            1,
            ["rank 0 dropped 5 (disk_full): lines that a full", "1 thing is wrong."],
        ),
        ('reason="torn_line"} 0.0', 'reason="torn_line"} 1.0', 0, ["rank 0 dropped 1 (torn_line)"]),
        (f"{NOW}", f"{NOW - 7200}", 0, ["rank 0 has logged nothing for 2 h 0 min"]),
        (f"{NOW}", f"{NOW + 7200}", 0, ["in the future; compare the clocks"]),
        ("# TYPE dl_loss gauge\n", "dllogger_epoch{run='r1'} x\n", 1, ["line 23 is not a metric"]),
        ("rank_info{", "rank_info {{", 1, ["is not a metric"]),
    ],
    ids=["nan", "drops", "harmless", "stale", "future", "unparsable", "braces"],
)
def test_what_is_wrong_with_a_page_is_said(check, old, new, code, sentences):
    """NaN, drops, silence and damage of a page are told in words."""
    assert old in GOOD_PAGE
    assert_said(check(GOOD_PAGE.replace(old, new), "page.txt"), code, *sentences)


def test_a_value_that_is_nan_now_is_told_from_one_that_was(check):
    """A metric whose series has left the page is NaN at this moment."""
    page = GOOD_PAGE.replace('stage="train"} 0.0', 'stage="train"} 1.0').partition("# TYPE dl_")[0]
    assert_said(check(page, "page.txt"), 0, "NaN or Inf 1 time, and is so now")


def test_a_silent_rank_that_is_finished_is_well(check):
    """A rank that has ended need not log any more."""
    page = GOOD_PAGE.replace(f"{NOW}", f"{NOW - 7200}").replace(
        'run_finished{run="r1",rank="0"} 0.0', 'run_finished{run="r1",rank="0"} 1.0'
    )
    assert_said(check(page, "page.txt"), 0, "finished, last record 2 h 0 min ago", "All is well.")


def test_a_series_that_is_there_twice_is_wrong(check):
    """Prometheus refuses one of two equal series, so the page is not well."""
    twice = GOOD_PAGE + GOOD_PAGE.splitlines(keepends=True)[-1]
    assert_said(check(twice, "page.txt"), 1, 'dl_loss{goal="minimize"', "is there 2 times")


def test_a_page_of_something_else_is_said_to_be_that():
    """Another exporter's page is one, but not of ours."""
    with serving("# TYPE node_load1 gauge\nnode_load1 0.5\n") as port:
        assert_said(otel_dllogger("check", f"{port}"), 1, "no series of this package", "node_load1")


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (("<html>Grafana</html>", "text/html"), "it is 'text/html' and not a metrics page"),
        (("oh", "text/plain", 500), "answers with HTTP status 500"),
        (("hello there you {\n", "text/plain"), "line 1 is not a metric: 'hello there you {'"),
    ],
    ids=["html", "error", "text"],
)
def test_what_is_no_page_is_wrong(answer, sentence):
    """An address that answers with something else is told so."""
    with serving(*answer) as port:
        assert_said(otel_dllogger("check", f"http://127.0.0.1:{port}"), 1, sentence)


def test_what_cannot_be_read_is_one_line(tmp_path):
    """No file, no address, nobody there: one line, with the next step."""
    with socket.socket() as bound:  # bound, but it does not listen
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        for target, words in {
            "nope.json": ("no file 'nope.json'", "pass a log"),
            ".": ("is a folder",),
            f"127.0.0.1:{port}": ("nothing listens there", "is the run still going"),
            "http://[::1": ("cannot be reached",),
            f"http://me:hunter2@127.0.0.1:{port}": ("http://[redacted]@127.0.0.1", "cannot be"),
            "nobody.invalid:80": ("cannot be reached",),
            "http://": ("no file",),
            "http://127.0.0.1:99999": ("cannot be reached",),
        }.items():
            assert_user_error(otel_dllogger("check", target, cwd=tmp_path), *words)


def test_a_good_log_is_described(check):
    """Counts, steps, times and metrics of a log are said."""
    summary = log_line("LOG", '"step": [], "data": {"train.loss": 0.5, "top": 7}', second=90)
    done = check(log_of(4.0, 2.0, 1.0) + summary, "resnet50.json")
    assert_said(
        done,
        0,
        "Log resnet50.json: DLLogger JSON lines\n",
        "  to bridge and backfill: run 'resnet50', rank 0\n",
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
    assert_said(good, 0, "records of rank 3\n", "not exported: no number\n", "All is well.")
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
            ['1 torn: a record breaks off\n      line 4: DLLL {"type": "LOG", "st\n'],
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
            GOOD + log_line("PICTURE", '"step": 1'),
            1,
            ["1 unknown_type: ", "line 4: unknown type 'PICTURE'\n"],
        ),
        (GOOD + "DLLL {} tail\n", 1, ["line 4: "]),
        (
            GOOD + "DLLL " + '{"a": ' * 100_000 + "\n",
            1,
            ["1 nested_too_deep: a record of more than 100"],
        ),
        (GOOD + "Epoch 1 begins\n", 0, ["2 records, 1 METADATA, 1 of other programs\n", "All is"]),
        (GOOD.replace(":.3f", ":.5f+00:00"), 0, ["the format ':.5f+00:00' of 'train.loss' is da"]),
        (GOOD.replace(":.3f", "%.3f"), 0, ["the format '%.3f' of"]),
        (GOOD.replace(":.3f", ":9999999999f"), 0, ["the format ':9999999999f' of"]),
        (GOOD.replace("MINIMIZE", "MIMIMIZE"), 0, ["'MIMIMIZE' of 'train.loss' is read as MINI"]),
        (GOOD.replace("MINIMIZE", "BETTER"), 0, ["'BETTER' of 'train.loss' is unknown"]),
        (
            log_of(1) + log_line("METADATA", '"metric": "a", "metadata": 3'),
            0,
            ["is not a dict but 3"],
        ),
        (log_of(1, 2, 3) + log_of(4, 5), 0, ["elapsed times jump back 1 time: "]),
        (GOOD * 3, 0, ["all 3 iteration steps are the same one"]),
        ("", 1, ["log.json is empty"]),
        ("hello\nworld\n", 1, ["no line is a record of DLLogger, TCAP DLLogger or MMEngine"]),
        ('{"loss": 1}\n', 1, ["JSON, but without the prefix DLLL"]),
        (b"\x1f\x8b\x08\x00", 1, ["unpack it first"]),
        (b"\x7fELF\0\0", 1, ["1 nul_bytes: NULs", "it is a binary file", "2 things are wrong"]),
        ("\0" * 70_000 + "\n" + GOOD, 1, ["line 1: <70000 NULs>\n", "2 records, 1 METADATA, 1 da"]),
        (
            GOOD + "DLLL " + "x" * 2**20 + "\n",
            1,
            ["1 line_too_long: a line of more than 1,048,576"],
        ),
        (GOOD.replace('"timestamp": "1700000000.5", ', ""), 1, ["3 no_time: ", "3 damaged\n"]),
        (log_of(1).replace("train", "n" * 1000), 0, ["1 value of names of more than 1,000 char"]),
        (GOOD[:-1] + " Epoch 1 ends\n\n", 0, ["METADATA, 1 beside records, 1 blank\n"]),
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
    assert "more than 2,000 names: 158,000 values of others" in done.stdout
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


def test_the_first_lines_of_each_reason_are_shown_and_the_rest_is_counted(check):
    """A line is named by number; so many lines of one reason do not hide another reason."""
    torn = 'DLLL {"type": "LOG", "st\n'
    log = GOOD + torn * 2 + log_line("LOG", '"step": 1') + torn * 1200 + torn.rstrip()
    shown = "".join(f"      line {number}: {torn}" for number in (4, 5, 7, 8, 9))
    assert_said(
        check(log),
        1,
        "2 records, 1 METADATA, 1,204 damaged\n",
        f"  - 1,203 torn: a record breaks off\n{shown}"
        "      and 1,198 more, the last in line 1,207\n",
        "  - 1 missing_fields: a record lacks what its type must have\n"
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
    lost = re.findall(r"lines that gave no record: (.*); otel-dllogger check", backfill.stdout)
    said = lost[0].split(", ") if lost else []
    shown = re.findall(r"^  - ([\d,]+ [a-z0-9_]+): ", check.stdout, re.MULTILINE)
    assert sorted(said) == sorted(shown)
    page = (tmp_path / "out.txt").read_text()
    exported = set(re.findall(r"^# TYPE (dl_\S+)", page, re.MULTILINE))
    assert exported == set(re.findall(r"  (dl_\S+)$", check.stdout, re.MULTILINE))
    assert exported
    assert (said != []) == (log.name == "log.json")


def test_a_log_of_mmengine_is_described(tmp_path):
    """Its stages are told apart; rows without times have worked out ones, and a copy is one."""
    shutil.copytree(DATA / "mmengine_epoch", tmp_path / "tiny")
    assert_said(
        otel_dllogger("check", "tiny/train.log", cwd=tmp_path),
        0,
        "Log tiny/train.log: MMEngine text log\n  to bridge and backfill: run 'tiny', rank 0\n",
        "  149 lines: 15 records, 129 of other programs, 5 blank\n",
        "over 0.0 s\n",
        "  loss               6       2.0101        train  minimize  iteration          dl_loss\n",
        "  time               6       0.0003  s     train            iteration          dl_time_s",
        "  time               9       0.0001  s     val              epoch, validation  dl_time_s",
        "All is well.",
    )
    scalars = otel_dllogger("check", "tiny/vis_data/scalars.json", cwd=tmp_path)
    assert_said(scalars, 0, "MMEngine wrote the same to another file", "All is well.")
    assert_said(scalars, 0, "over 0.0 s, worked out from the rows' places in the file")
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
            0,
            "INFO lines",
        ),
        (
            "\0" * 99,
            1,
            "1 nul_bytes: NULs, as a machine leaves behind that lost its power\n      line",
        ),
        (b"\x7fELF\0\0\n\0\n", 1, "lost its power\n  - no line is a record: it is a binary file"),
        ('DLLL {"type": "LOG"\n', 1, "1 thing is wrong."),
    ],
    ids=["info", "nul", "binary", "torn"],
)
def test_a_file_without_a_record_is_said_to_be_what_it_is(check, log, code, sentence):
    """What is wrong is said once, and nobody is shown a binary's bytes."""
    assert_said(check(log), code, sentence)


def test_ranks_and_restarts_are_said(check):
    """Several formats are counted; a process that began after the last record is a restart."""
    again = GOOD.replace("1700000000.5", "1700000100.5")
    text = "TCAPPDLL 2023-11-14 23:13:20.9 - rank: {} 0 loss : 1 \n"
    assert_said(
        check(GOOD + again + text.format(0) + text.format(1) + text.format(2), "a_r5.json"),
        0,
        "Log a_r5.json: DLLogger JSON lines (6); TCAP DLLogger text, as its StdOutBackend prints ",
        "it (3)\n",
        "run 'a', rank 5\n",
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
