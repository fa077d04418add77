"""``otel-dllogger check`` of a metrics page: what is well, what is wrong, and in which words."""

from __future__ import annotations

import contextlib
import http.server
import socket
import subprocess
import threading

import pytest

from otel_dllogger.metrics import health
from tests.support.check import NOW, assert_said, at_this_moment
from tests.support.command import COMMAND, assert_user_error, environment, otel_dllogger

pytestmark = pytest.mark.newest_only

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
        "attempt 2, epoch 3, iteration 40, 101 steps of 0.2 s, training, last record",
        "101 log calls",
        "0     dl_loss  0.25   train  iteration    minimize  train.loss\n",
        "All is well.",
    )


@pytest.mark.parametrize("state", ["finished", "terminated"])
def test_a_rank_that_ended_is_not_silent(state):
    """It is said how it ended, and that it logs no more is nothing to check."""
    page = GOOD_PAGE.replace(
        '_finished{run="r1",rank="0"} 0.0',
        f'_finished{{run="r1",rank="0"}} {float(state == "finished")}\n'
        "# TYPE dllogger_run_terminated gauge\n"
        f'dllogger_run_terminated{{run="r1",rank="0"}} {float(state == "terminated")}',
    ).replace(f"{NOW}", "1700000000")
    with serving(page) as port:
        done = otel_dllogger("check", f":{port}")
    assert_said(done, 0, f"{state}, last record", "All is well.")


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


def test_a_rank_whose_process_is_not_known_has_none(check):
    """A bridge's ranks come from logs, which do not tell the process: its label is empty."""
    page = GOOD_PAGE.replace('pid="7"', 'pid=""')
    assert_said(check(page, "page.txt"), 0, "rank 0 of 2 on node1\n", "All is well.")


def test_runs_of_one_page_are_told_apart(check):
    """A bridge's page has several runs: series and warnings say of which they are."""
    other = GOOD_PAGE.replace('run="r1"', 'run="r2"').replace('train"} 0.0', 'train"} 2.0')
    series = [line for line in other.splitlines(keepends=True) if not line.startswith("#")]
    page = "".join(
        line + (series.pop(0) if not line.startswith("#") else "")
        for line in GOOD_PAGE.splitlines(keepends=True)
    )
    assert_said(
        check(page, "page.txt"),
        0,
        "  run  rank  series ",
        "  r1   0     dl_loss  0.25   train",
        "  r2   0     dl_loss  0.25   train",
        "  - run 'r2', rank 0: 'train.loss' was NaN or Inf 2 times;",
        "Nothing is wrong, 1 warning.",
    )


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
            ["rank 0 dropped 5 (disk_full): lines that could not", "1 thing is wrong."],
        ),
        ('reason="torn_line"} 0.0', 'reason="torn_line"} 1.0', 0, ["rank 0 dropped 1 (torn_line)"]),
        (f"{NOW}", f"{NOW - 60}", 0, ["rank 0 is quiet: it has logged nothing for more than ten"]),
        (
            f"{NOW}",
            f"{NOW - 7200}",
            0,
            [f"rank 0 is stalled: it {health.STATES[health.STALLED]} (2 h 0 min); check"],
        ),
        (f"{NOW}", f"{NOW + 7200}", 0, ["in the future; compare the clocks"]),
        ("# TYPE dl_loss gauge\n", "dllogger_epoch{run='r1'} x\n", 1, ["line 23 is not a metric"]),
        ("rank_info{", "rank_info {{", 1, ["is not a metric"]),
    ],
    ids=["nan", "drops", "harmless", "quiet", "stalled", "future", "unparsable", "braces"],
)
def test_what_is_wrong_with_a_page_is_said(check, old, new, code, sentences):
    """NaN, drops, silence and damage of a page are told in words."""
    assert old in GOOD_PAGE
    assert_said(check(GOOD_PAGE.replace(old, new), "page.txt"), code, *sentences)


@pytest.mark.parametrize(("phase", "state"), [("checkpoint", "training"), ("train", "stalled")])
def test_a_phase_explains_that_a_rank_is_silent(check, phase, state):
    """A rank that saves for ten minutes does not hang; one that trains does."""
    page = GOOD_PAGE.replace(f"{NOW}", f"{NOW - 3000}")
    page += f'dllogger_phase{{run="r1",rank="0",phase="{phase}"}} 1\n'
    assert f"{state}, last record 50 min" in check(page, "page.txt").stdout


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf", "1e300", "-1e300", "1e17", "0"])
def test_values_that_cannot_be_are_described(check, value):
    """Whatever serves a page: it is described, without a traceback."""
    page = "".join(
        line if line.startswith("#") or "_info" in line else f"{line.rpartition(' ')[0]} {value}\n"
        for line in GOOD_PAGE.splitlines(keepends=True)
    )
    page += f'dllogger_run_start_timestamp_seconds{{run="r1",rank="0"}} {value}\n'
    done = check(page, "page.txt")
    assert "Run r1\n" in done.stdout
    assert not done.stderr
    name = "dllogger_last_log_timestamp_seconds"
    last = f'# TYPE {name} gauge\n{name}{{run="n",rank="0"}} {value}\n'
    words = [] if value == "0" else [f"logged last at {float(value):g} s since 1970, which is not"]
    assert_said(check(last, "page.txt"), 0, "Run n\n", "last record", *words)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('dllogger_rank_info{run="n",rank="0",attempt="x"} 1', "  rank 0\n    attempt x, "),
        ('dllogger_rank_info{run="n",rank="0",pid="7"} 1', "  rank 0, process 7\n"),
        ('dl_loss{run="n",rank="\u00b2"} 1', "  rank \u00b2\n"),
        (f'dl_loss{{run="n",rank="{"9" * 5000}"}} 1', "9" * 5000),
        ('dl_loss{run="n",rank=""} 1', "Run n\n"),
        ('dl_loss{rank="-1"} 1', "  rank -1\n"),
    ],
    ids=["no host", "no host but a process", "superscript", "5000 digits", "empty", "negative"],
)
def test_labels_that_cannot_be_are_described(check, line, words):
    """A page may come from something else than this package."""
    name = line.partition("{")[0]
    assert_said(check(f"# TYPE {name} gauge\n{line}\n", "page.txt"), 0, words)


def test_a_value_that_is_nan_now_is_told_from_one_that_was(check):
    """A metric whose series has left the page is NaN at this moment."""
    page = GOOD_PAGE.replace('stage="train"} 0.0', 'stage="train"} 1.0').partition("# TYPE dl_")[0]
    assert_said(check(page, "page.txt"), 0, "NaN or Inf 1 time, and still is")


def test_a_silent_rank_that_is_finished_is_well(check):
    """A rank that has ended need not log any more."""
    page = GOOD_PAGE.replace(f"{NOW}", f"{NOW - 7200}").replace(
        'run_finished{run="r1",rank="0"} 0.0', 'run_finished{run="r1",rank="0"} 1.0'
    )
    assert_said(check(page, "page.txt"), 0, "finished, last record 2 h 0 min ago", "All is well.")


def test_a_series_that_is_there_twice_is_wrong(check):
    """Prometheus refuses one of two equal series, so the page is not well."""
    twice = GOOD_PAGE + GOOD_PAGE.splitlines(keepends=True)[-1]
    assert_said(check(twice, "page.txt"), 1, 'dl_loss{goal="minimize"', "is on the page 2 times")


def test_a_page_of_something_else_is_said_to_be_that():
    """Another exporter's page is one, but not of ours."""
    with serving("# TYPE node_load1 gauge\nnode_load1 0.5\n") as port:
        assert_said(
            otel_dllogger("check", f"{port}"), 1, "no series with a name that begins", "node_load1"
        )


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


@pytest.mark.slow
def test_what_cannot_be_read_is_one_line(tmp_path):
    """No file, no address, nobody there: one line, with the next step."""
    with socket.socket() as bound:  # bound, but it does not listen
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        for target, words in {
            "nope.json": ("no file 'nope.json'", "pass a log"),
            ".": ("there is no log at .",),
            f"127.0.0.1:{port}": ("nothing listens there", "is the run still going"),
            "http://[::1": ("http://[::1/metrics is not an address",),
            "nobody.invalid:80": ("cannot be reached",),
            "http://": ("no file",),
        }.items():
            assert_user_error(otel_dllogger("check", target, cwd=tmp_path), *words)


@pytest.mark.parametrize("command", ["check", "watch", "view"])
def test_addresses_that_are_not_supported_are_refused(command):
    """With a user, or a port that none is: it is said before anything is asked."""
    for target, words in {
        "http://me:hunter2@127.0.0.1:1/": (
            "http://[redacted]@127.0.0.1:1/metrics has a user or a password, which are not supp",
            "; leave them out",
        ),
        "http://me:hunter2/@127.0.0.1:1/": ("has a user or a password",),
        "http://x:99999/": ("http://x:99999/metrics: '99999' is not a port; pass one from 1 to",),
        "http://x:0/": ("'0' is not a port",),
        "http://x:y/": ("'y' is not a port",),
    }.items():
        done = otel_dllogger(command, target)
        assert_user_error(done, *words)
        assert "hunter2" not in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("report", "{}"),
        ("backfill", "{}", "--to", "csv", "x.csv"),
        ("backfill", "x.json", "--to", "prometheus", "{}"),
        ("run", "{}"),
        ("run", "-m", "{}"),
        ("check", "{}"),
        ("watch", "{}"),
        ("bridge", "x.json", "--listen", "{}"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("address", ["http://me:hunter2@127.0.0.1:1/metrics", "me:hunter2@h.org:1"])
def test_an_error_has_no_password_of_an_address(command, address, tmp_path):
    """An address that is taken for a path is said without its user and password."""
    done = otel_dllogger(*(one.format(address) for one in command), cwd=tmp_path)
    assert done.returncode == 2
    assert "[redacted]@" in done.stderr
    assert "hunter2" not in done.stderr


def test_the_bridge_waits_for_no_password(tmp_path):
    """What is not there yet is said without a user and a password."""
    command = [*COMMAND, "bridge", "http://me:hunter2@h/metrics", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True
    ) as process:
        line = process.stderr.readline()
        process.kill()
    assert line == "otel-dllogger: http://[redacted]@h/metrics is not there yet; waiting for it\n"
