"""``otel-dllogger backfill``: logs of any age, in a database as if it had been there."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from otel_dllogger import JSONStreamBackend, Logger, StdOutBackend
from otel_dllogger.backends.otlp import OTLPBackend
from otel_dllogger.diagnostics import DIAGNOSTICS
from tests.support.bridge import BridgeProcess, Page
from tests.support.collector import HTTPCollector
from tests.support.command import assert_user_error, environment, otel_dllogger
from tests.support.parsers import DATA
from tests.support.prometheus import Prometheus, wait_for
from tests.support.victoriametrics import VictoriaMetrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.newest_only

START_S = 1_760_000_000
FOREVER = ("--storage.tsdb.retention.time=100y",)


def write_log(path: Path, steps: range, *, loss=lambda step: 8 / (1 + step), step_s=2.0) -> None:
    """Write or append to a log as DLLogger does, of a time long past."""
    with path.open("a") as file:
        for step in steps:
            elapsed_s = step * step_s + 0.25
            time_s = START_S + elapsed_s
            entry = {"timestamp": f"{time_s:.6f}", "elapsedtime": f"{elapsed_s:.6f}"}
            entry |= {"datetime": "x", "type": "LOG", "step": [0, step]}
            file.write("DLLL " + json.dumps({**entry, "data": {"train.loss": loss(step)}}) + "\n")


def backfill(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    return otel_dllogger("backfill", *map(str, arguments), **variables)


def samples_of(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Return the samples of each name of an OpenMetrics file."""
    found: dict[str, list[tuple[float, float]]] = {}
    for family in text_string_to_metric_families(path.read_text()):
        for sample in family.samples:
            assert sample.timestamp is not None
            found.setdefault(sample.name, []).append((float(sample.timestamp), sample.value))
    return found


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "logs" / "run_rank0.json"
    path.parent.mkdir()
    write_log(path, range(100))
    return path


def test_a_file_of_openmetrics_holds_every_step_at_its_time(log: Path, tmp_path: Path) -> None:
    """And figures every quarter of a minute, as scrapes would have found them, and at the end."""
    done = backfill(log.parent, "--to", "openmetrics", tmp_path / "out")
    assert (0, "") == (done.returncode, done.stderr)
    found = samples_of(tmp_path / "out")
    assert [(START_S + 2 * n + 0.25, 8 / (1 + n)) for n in range(100)] == found["dl_loss"]
    steps = found["dllogger_steps_total"]
    assert steps[-1] == (START_S + 198.25, 100)
    for time_s, value in steps[:-1]:
        assert time_s % 15 == 0
        assert value == (time_s - START_S - 0.25) // 2 + 1
    assert 13 <= len(steps) <= 15
    assert f"{sum(map(len, found.values()))} samples written" in done.stdout
    assert "100 lines of 1 file, 1 rank" in done.stdout


def test_a_second_run_writes_the_same_bytes(log: Path, tmp_path: Path) -> None:
    """Whatever the order in which files are named, and wherever it is run."""
    write_log(log.with_name("run_rank1.json"), range(50))
    files = [log, log.with_name("run_rank1.json")]
    backfill(*files, "--to", "openmetrics", tmp_path / "one")
    backfill(*reversed(files), "--to", "openmetrics", tmp_path / "two", TZ="Asia/Tokyo")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert 'world_size="1"' not in (tmp_path / "one").read_text()


def test_since_and_until_cut_what_is_written_not_what_is_read(log: Path, tmp_path: Path) -> None:
    """Counters count from the log's beginning."""
    since, until = "2025-10-09T08:54:20Z", "2025-10-09T08:55:00+00:00"
    arguments = ("--since", since, "--until", until)
    done = backfill(log, "--to", "openmetrics", tmp_path / "out", *arguments)
    assert 0 == done.returncode
    found = samples_of(tmp_path / "out")
    times_s = [time_s for time_s, _ in found["dl_loss"]]
    assert (START_S + 60.25, START_S + 98.25) == (times_s[0], times_s[-1])
    assert 31 <= found["dllogger_steps_total"][0][1] <= 40
    ago = backfill(log, "--to", "openmetrics", tmp_path / "ago", "--since", "1h30m")
    assert (1, "", True) == (ago.returncode, ago.stdout, "nothing was written" in ago.stderr)


def test_a_restarted_job_is_one_run_with_steps_that_only_grow(tmp_path: Path) -> None:
    """The second process resumes from a checkpoint, in another file of the same rank."""
    for number, steps in enumerate((range(60), range(40, 100))):
        logger_start_s = START_S + number * 1000
        path = tmp_path / f"attempt{number}" / "run_rank0.json"
        path.parent.mkdir()
        with path.open("w") as file:
            for place, step in enumerate(steps):
                entry = {
                    "timestamp": str(logger_start_s + 1 + place),
                    "elapsedtime": str(1.0 + place),
                }
                entry |= {"type": "LOG", "step": [0, step], "data": {"loss": 1.0}}
                file.write("DLLL " + json.dumps(entry) + "\n")
    # Named in the wrong order: the times decide.
    backfill(tmp_path / "attempt1", tmp_path / "attempt0", "--to", "openmetrics", tmp_path / "out")
    text = (tmp_path / "out").read_text()
    steps_total = [value for _, value in samples_of(tmp_path / "out")["dllogger_steps_total"]]
    assert sorted(steps_total) == steps_total
    assert 120 == steps_total[-1]
    assert {'attempt="1"', 'attempt="2"'} == {
        word for word in ('attempt="1"', 'attempt="2"', 'attempt="3"') if word in text
    }


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "prometheus" / "data"
    path.mkdir(parents=True)
    return path


def losses(data: Path, steps: int) -> dict[float, float]:
    """Return what a real Prometheus answers from a data folder."""
    configuration = data.parent / "prometheus.yml"
    configuration.write_text("")
    with Prometheus(
        data.parent, discovery=data, configuration=configuration, flags=FOREVER
    ) as prometheus:
        end_s = START_S + 2 * steps + 60
        (series,) = prometheus.get("query", query="dl_loss[2h]", time=str(end_s))["result"]
        return {time_s: float(value) for time_s, value in series["values"]}


def test_prometheus_answers_with_every_step_and_a_second_run_adds_nothing(
    log: Path, data: Path
) -> None:
    """Neither does it as a block; a log that has grown adds what is new."""
    first = backfill(log, "--to", "prometheus", data)
    assert 0 == first.returncode, first.stderr
    expected = {START_S + 2 * n + 0.25: 8 / (1 + n) for n in range(150)}
    assert dict(list(expected.items())[:100]) == losses(data, 100)
    before = sorted(path.name for path in data.iterdir())
    second = backfill(log, "--to", "prometheus", data)
    assert second.stdout.startswith("0 samples installed in 0 blocks")
    assert before == sorted(path.name for path in data.iterdir())
    write_log(log, range(100, 150))
    third = backfill(log, "--to", "prometheus", data)
    assert 0 == third.returncode
    assert expected == losses(data, 150)


def test_prometheus_does_not_get_the_last_three_hours(data: Path, tmp_path: Path) -> None:
    """That is an error where there is nothing else, with the time from which it works."""
    with Logger([JSONStreamBackend(1, tmp_path / "log.json")]) as logger:
        logger.log((0, 1), {"loss": 1.0})
    done = backfill(tmp_path / "log.json", "--to", "prometheus", data)
    assert_user_error(done, "last 3 hours", "run the same command again after")


@pytest.fixture(scope="module")
def victoria_metrics(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VictoriaMetrics]:
    folder = tmp_path_factory.mktemp("backfill") / "victoria"
    with VictoriaMetrics(folder, "-dedup.minScrapeInterval=1ms") as server:
        yield server


def test_victoria_metrics_gets_every_step_once(
    log: Path, victoria_metrics: VictoriaMetrics
) -> None:
    """A second run finds everything there."""
    arguments = (log, "--to", "victoriametrics", victoria_metrics.url, "--run", "imported")
    first, second = backfill(*arguments), backfill(*arguments)
    (series,) = victoria_metrics.export('dl_loss{run="imported"}')
    assert [1000 * START_S + 2000 * n + 250 for n in range(100)] == series["timestamps"]
    assert (0, 0) == (first.returncode, second.returncode)
    assert second.stdout.startswith("0 samples imported")


def test_otlp_gets_every_step_once_and_goes_on_where_it_was(
    log: Path, victoria_metrics: VictoriaMetrics, tmp_path: Path
) -> None:
    """How far it came is kept for the collector; another one gets all of it."""
    arguments = (log, "--to", "otlp", victoria_metrics.otlp, "--run", "sent")
    state = {"XDG_STATE_HOME": str(tmp_path / "state")}
    first, second = backfill(*arguments, **state), backfill(*arguments, **state)
    assert (0, "") == (first.returncode, first.stderr)
    assert second.stdout.startswith("0 points sent")
    write_log(log, range(100, 120))
    third = backfill(*arguments, **state)
    assert "20 new lines" in third.stdout
    (series,) = victoria_metrics.export('dl_loss{run="sent"}')
    assert [1000 * START_S + 2000 * n + 250 for n in range(120)] == series["timestamps"]
    again = backfill(*arguments, "--checkpoint", tmp_path / "other")
    assert "120 new lines" in again.stdout


def test_an_outage_is_repaired_from_the_log_without_duplicates(
    victoria_metrics: VictoriaMetrics, tmp_path: Path
) -> None:
    """What the queue had no room for comes from the file; what was sent is there once."""
    path = tmp_path / "log.json"
    server = victoria_metrics
    outage_s = time.time()
    down = OTLPBackend(
        1, endpoint="http://127.0.0.1:9/v1/metrics", run="outage", rank=0, interval_s=0.05
    )
    with Logger([JSONStreamBackend(1, path), down]) as logger:
        log_steps(logger, range(300))
    assert 300 == DIAGNOSTICS.dropped["otlp_exit"]
    up = OTLPBackend(1, endpoint=server.otlp, run="outage", rank=0, interval_s=0.05)
    with Logger([JSONStreamBackend(1, path, append=True), up]) as logger:
        log_steps(logger, range(300, 400))
    steps = 'dl_loss{run="outage",granularity="iteration"}'
    (before,) = server.export(steps)
    assert [float(step) for step in range(300, 400)] == before["values"]
    done = backfill(
        *(path, "--to", "otlp", server.otlp, "--run", "outage", "--no-conventions"),
        *("--since", f"{time.time() - outage_s + 60:.0f}s", "--checkpoint", tmp_path / "state"),
    )
    assert 0 == done.returncode, done.stderr
    (after,) = server.export(steps)
    assert [float(step) for step in range(400)] == after["values"]


def log_steps(logger: Logger, steps: range) -> None:
    for step in steps:
        logger.log((0, step), {"loss": float(step)})
        time.sleep(0.002)  # a step: of two in one millisecond the receiver keeps one


def test_samples_of_a_folder_of_anybodys_logs(tmp_path: Path) -> None:
    """All formats; what MMEngine wrote twice counts once."""
    shutil.copytree(DATA, tmp_path / "logs", ignore=shutil.ignore_patterns("formats"))
    done = backfill(tmp_path / "logs", "--to", "openmetrics", tmp_path / "out")
    assert 0 == done.returncode
    assert "of 6 files" in done.stdout  # of eight
    text = (tmp_path / "out").read_text()
    for run in ("mmengine_epoch", "mmengine_iter", "nvidia_resnet_log", "nvidia_stdout_log"):
        assert f'run="{run}"' in text


def test_damage_is_told(log: Path, tmp_path: Path) -> None:
    """By reason, in one line."""
    with log.open("ab") as file:
        file.write(b'DLLL {"timestamp": "1", "elaps\nDLLL {"type": "LOG", "step": 1}\nnoise\n')
    done = backfill(log, "--to", "openmetrics", tmp_path / "out")
    assert 0 == done.returncode
    words = "otel-dllogger: lines that gave no record: 1 missing_fields, 1 torn; "
    assert any(line.startswith(words) for line in done.stderr.splitlines())


def test_a_bar_is_shown_on_a_terminal_alone(log: Path, tmp_path: Path) -> None:
    """In a pipe there is nothing but the result."""
    command = f"{sys.executable} -m otel_dllogger backfill {log} --to openmetrics {tmp_path}/out"
    shown = subprocess.run(
        ["script", "-qec", command, "/dev/null"],
        env=environment(TERM="xterm"),
        capture_output=True,
        check=True,
        timeout=60,
    ).stdout
    assert b"reading logs" in shown
    quiet = backfill(log, "--to", "openmetrics", tmp_path / "out", "-q")
    assert ("", "", 0) == (quiet.stdout, quiet.stderr, quiet.returncode)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{log}", "--to", "elsewhere", "x"], ["elsewhere", "openmetrics"]),
        (["{log}"], ["--to"]),
        (["nowhere", "--to", "openmetrics", "x"], ["there is no log at nowhere"]),
        (["{log}", "*.none", "--to", "openmetrics", "x"], ["there is no log at *.none"]),
        (["{log}", "--to", "openmetrics", "nowhere/x"], ["nowhere/x"]),
        (["{log}", "--to", "prometheus", "nowhere"], ["nowhere", "--storage.tsdb.path"]),
        (["{log}", "--to", "otlp", "nowhere"], ["nowhere"]),
        (["{log}", "--to", "openmetrics", "x", "--since", "then"], ["then", "2h"]),
        (["{log}", "--to", "openmetrics", "x", "--timezone", "Mars"], ["Mars"]),
        (["{log}", "--to", "openmetrics", "x", "--pattern", "{job}.json"], ["{job}"]),
        (["{log}", "--to", "otlp", "http://h:1", "--checkpoint", "{log}/x"], ["--checkpoint"]),
        (["{log}", "--to", "openmetrics", "x", "--unchecked"], ["--unchecked", "victoriametrics"]),
        (["{log}", "--to", "openmetrics", "x", "--since", "1h", "--until", "2h"], ["--since"]),
        (["{log}", "--to", "prometheus", "http://h:9090"], ["http://h:9090", "data folder"]),
    ],
)
def test_what_a_user_gets_wrong_is_one_line(
    arguments: list[str], words: list[str], log: Path, tmp_path: Path
) -> None:
    """It names the value, the rule and the next step."""
    given = [argument.replace("{log}", str(log)) for argument in arguments]
    assert_user_error(otel_dllogger("backfill", *given, cwd=tmp_path), *words)


def test_what_a_collector_refuses_is_sent_by_the_next_run(log: Path, tmp_path: Path) -> None:
    """A wrong path or token is mended, and the same command run again: nothing is lost."""
    target = ("--to", "otlp")
    state = ("--checkpoint", tmp_path / "state")
    with HTTPCollector() as collector:
        collector.answer = lambda _points: (401, {}, b"")
        refused = backfill(log, *target, collector.url, *state)
        assert_user_error(refused, "refuses the metrics", "401", "run the same command again")
        collector.answer = lambda _points: (200, {}, b"")
        done = backfill(log, *target, collector.url, *state)
    assert 0 == done.returncode
    assert "100 new lines" in done.stdout


def test_since_so_long_ago_is_the_same_wish_each_time(log: Path, tmp_path: Path) -> None:
    """A second run of the very same command sends nothing again, though two hours ago moved."""
    with HTTPCollector() as collector:
        for sent in (True, False):
            done = backfill(
                *(log, "--to", "otlp", collector.url, "--since", "9000d"),
                XDG_STATE_HOME=str(tmp_path / "state"),
            )
            assert sent != done.stdout.startswith("0 points sent")


def test_figures_at_the_end_do_not_go_back(tmp_path: Path) -> None:
    """Two processes write one file, one of them behind: a counter that drops is a reset."""
    write_log(tmp_path / "a.json", range(20, 60))
    write_log(tmp_path / "b.json", range(40))
    lines = zip(
        *(path.read_text().splitlines() for path in sorted(tmp_path.iterdir())), strict=True
    )
    both = tmp_path / "both" / "log.json"
    both.parent.mkdir()
    both.write_text("".join(f"{line}\n" for pair in lines for line in pair))
    backfill(both, "--to", "openmetrics", tmp_path / "out")
    values = [value for _, value in sorted(samples_of(tmp_path / "out")["dllogger_records_total"])]
    steps = samples_of(tmp_path / "out")["dllogger_steps_total"]
    assert values
    assert steps == sorted(steps)
    assert sorted(value for _, value in steps) == [value for _, value in steps]


def test_the_consoles_capture_beside_the_json_lines_counts_once(tmp_path: Path) -> None:
    """A script has both backends as a rule, and its output goes to a file as well."""
    run = tmp_path / "logs" / "resnet"
    run.mkdir(parents=True)
    with (run / "train.log").open("w") as console, contextlib.redirect_stdout(console):
        backends = [JSONStreamBackend(1, run / "log.json"), StdOutBackend(1)]
        with Logger(backends) as logger:
            for step in range(50):
                logger.log((0, step), {"loss": 1.0})
    assert 50 == (run / "train.log").read_text().count("DLL ")
    backfill(tmp_path / "logs", "--to", "openmetrics", tmp_path / "out")
    with follow(tmp_path / "logs") as page:
        expected = {"type=log": 50}
        of_bridge = {name[-1]: value for name, value in page().items() if "type=log" in name[-1]}
    found = samples_of(tmp_path / "out")
    assert expected == of_bridge
    assert 50 == found["dllogger_steps_total"][-1][1]
    alone = backfill(run / "train.log", "--to", "openmetrics", tmp_path / "alone")
    assert "50 lines of 1 file," in alone.stdout


@contextlib.contextmanager
def follow(folder: Path) -> Iterator[Callable[[], Page]]:
    with BridgeProcess(folder, folder=folder.parent) as bridge:
        wait_for(bridge.page, lambda page: any("type=log" in name for name in page))
        yield bridge.page


def test_a_log_is_never_written_over(log: Path) -> None:
    """As where the target is forgotten, and a shell gives the first of the logs for it."""
    before = log.read_bytes()
    other = log.with_name("run_rank1.json")
    shutil.copy(log, other)
    done = backfill("--to", "openmetrics", log, other)
    assert_user_error(done, str(log), "is a log")
    assert before == log.read_bytes()


@pytest.mark.parametrize("kind", ["csv", "openmetrics"])
def test_a_file_of_somebody_else_is_never_written_over(
    log: Path, tmp_path: Path, kind: str
) -> None:
    """A file of an earlier backfill is replaced, and so is an empty one."""
    script, earlier = tmp_path / "train.py", tmp_path / "earlier"
    script.write_text("import torch\n")
    done = backfill(log, "--to", kind, script)
    assert_user_error(
        done, f"--to {kind} {script}", "was not written by a backfill", "name another file"
    )
    assert "import torch\n" == script.read_text()
    earlier.touch()
    for _ in range(2):
        assert 0 == backfill(log, "--to", kind, earlier).returncode
        assert earlier.stat().st_size


@pytest.mark.parametrize(
    ("paths", "targets"),
    [
        (".", ["banner.log", "link", "hard", "new.log"]),
        ("banner.log", ["banner.log", "link", "hard"]),
        ("*.log", ["banner.log", "link", "hard", "new.log"]),
        ("link", ["banner.log", "link", "hard"]),
    ],
)
def test_a_log_that_is_read_is_never_the_target(
    tmp_path: Path, paths: str, targets: list[str]
) -> None:
    """Whatever it begins with, and under whatever name; nor is what would be read next time."""
    log = tmp_path / "banner.log"
    write_log(log, range(2))
    before = "=== training ===\n" * 3 + log.read_text()
    log.write_text(before)
    (tmp_path / "link").symlink_to(log)
    (tmp_path / "hard").hardlink_to(log)
    for name in targets:
        done = backfill(tmp_path / paths, "--to", "openmetrics", tmp_path / name)
        assert_user_error(done, str(tmp_path / name), "among the logs")
    assert log.read_text() == before
    assert not (tmp_path / "new.log").exists()


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    """Nothing is said of the samples that were not asked for any more."""
    for rank in range(3):
        write_log(tmp_path / f"run_rank{rank}.json", range(5000))
    done = backfill(tmp_path, "--to", "openmetrics", "/dev/full", "-q")
    assert_user_error(done, "/dev/full", "make room")


def test_logs_that_pass_for_one_rank_are_told_of(tmp_path: Path) -> None:
    """Four ranks whose names do not say so become one: that is no secret."""
    for rank in range(4):
        write_log(tmp_path / f"log_{rank}.json", range(10), step_s=2 + rank / 100)
    done = backfill(tmp_path, "--run", "x", "--to", "openmetrics", tmp_path / "out")
    assert 0 == done.returncode
    assert "log_1.json and 2 more: same run and rank" in done.stderr
    named = ("--run", "x", "--pattern", "log_{rank}.json")
    done = backfill(tmp_path, *named, "--to", "openmetrics", tmp_path / "out")
    assert ("", True) == (done.stderr, "4 ranks" in done.stdout)


def test_times_that_are_worked_out_are_told_of(tmp_path: Path) -> None:
    """They are a guess."""
    scalars = tmp_path / "scalars.json"
    shutil.copy(DATA / "mmengine_iter" / "vis_data" / "scalars.json", scalars)
    done = backfill(scalars, "--to", "openmetrics", tmp_path / "out")
    assert (0, True) == (done.returncode, "9 records without a time" in done.stderr)


def test_a_collector_that_is_not_there_is_told_of(log: Path, tmp_path: Path) -> None:
    """And what is not sent is not remembered as sent."""
    program = (
        "import sys; from otel_dllogger.cli import backfill; backfill._PATIENCE_S = 1.0; "
        "from otel_dllogger.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    target = ("--to", "otlp", "http://127.0.0.1:9/v1/metrics", "--checkpoint", tmp_path / "state")
    done = subprocess.run(
        [sys.executable, "-c", program, "backfill", log, *target],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert 2 == done.returncode
    assert "start the collector and run the same command again" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
