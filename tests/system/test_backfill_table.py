"""``otel-dllogger backfill --to csv``, and what any target says of nothing to write."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from otel_dllogger.logs import LogRow, read
from tests.support.collector import HTTPCollector
from tests.support.command import COMMAND, assert_user_error, environment, otel_dllogger
from tests.support.parsers import DATA

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.newest_only

START_S = 1_700_000_000
NOTHING = "otel-dllogger: nothing was written: no value was found; otel-dllogger check FILE shows "
OUTSIDE = "is outside of the time range of --since and --until\n"


def write_log(path: Path, steps: range, *, loss: float = 0.5) -> None:
    """Append lines of DLLogger, one per second."""
    with path.open("a") as file:
        for step in steps:
            fields = {"timestamp": f"{START_S + step + 0.25:.6f}", "elapsedtime": f"{step}.25"}
            fields |= {"type": "LOG", "step": [0, step], "data": {"train.loss": loss + step}}
            file.write(f"DLLL {json.dumps(fields)}\n")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "logs" / "run_rank0.json"
    path.parent.mkdir()
    write_log(path, range(10))
    return path


def backfill(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    return otel_dllogger("backfill", *map(str, arguments), **variables)


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def as_text(row: LogRow) -> dict[str, str]:
    """Return a row of ``otel_dllogger.logs.read`` as the file has it."""
    fields = {name: "" if value is None else str(value) for name, value in row._asdict().items()}
    return {**fields, "time": row.time.isoformat(timespec="microseconds")}


def test_a_file_holds_what_a_notebook_reads(tmp_path: Path) -> None:
    """Of logs of all formats, as long as both are in the order of time."""
    shutil.copytree(DATA, tmp_path / "logs", ignore=shutil.ignore_patterns("formats"))
    done = backfill(tmp_path / "logs", "--to", "csv", tmp_path / "out.csv")
    found = rows_of((tmp_path / "out.csv").read_bytes().decode())
    assert [as_text(row) for row in read(tmp_path / "logs")] == found
    assert (0, 2) == (done.returncode, done.stderr.count("\n"))  # what check warns of as well
    assert "tcap_log.json: all 4 iteration steps are the same" in done.stderr
    assert "tcap_console.log: 1 line with more than one record" in done.stderr
    assert done.stdout.startswith(f"{len(found)} rows written to {tmp_path / 'out.csv'}; ")
    assert "of 6 files" in done.stdout  # of eight
    assert sorted(row["time"] for row in found) == [row["time"] for row in found]
    runs = {"mmengine_epoch", "mmengine_iter", "nvidia_resnet_log", "nvidia_stdout_log"}
    assert runs <= {row["run"] for row in found}
    again = backfill(tmp_path / "logs", "--to", "csv", tmp_path / "again.csv", TZ="UTC")
    assert 0 == again.returncode
    assert len(found) == len(rows_of((tmp_path / "again.csv").read_bytes().decode()))


def test_standard_output_has_nothing_but_the_table(log: Path, tmp_path: Path) -> None:
    """Messages are elsewhere, and a file of that name is left alone."""
    (tmp_path / "-").write_text("mine")
    done = otel_dllogger("backfill", str(log), "--to", "csv", "-", cwd=tmp_path)
    assert "mine" == (tmp_path / "-").read_text()
    assert 0 == done.returncode
    assert [str(0.5 + step) for step in range(10)] == [r["value"] for r in rows_of(done.stdout)]
    assert done.stderr == "10 rows written to standard output; 10 lines of 1 file, 1 rank\n"
    samples = backfill(log, "--to", "openmetrics", "-")
    assert samples.stdout.endswith("# EOF\n")
    assert "samples written to standard output" in samples.stderr


def test_a_reader_that_has_seen_enough_is_no_error_in_words(log: Path) -> None:
    """As head(1), of a table that fills more than a pipe."""
    write_log(log, range(10, 20_000))
    command = [*COMMAND, "backfill", log, "--to", "csv", "-", "-q"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, env=environment()) as writer:
        assert writer.stdout.readline().startswith(b"time,run,rank,")
        writer.stdout.close()
        assert b"" == writer.stderr.read()
    assert 1 == writer.returncode


def test_a_time_range_holds_for_rows(log: Path, tmp_path: Path) -> None:
    """From ``--since`` to before ``--until``."""
    since, until = "2023-11-14T22:13:22.25Z", "2023-11-14T22:13:25.25Z"
    done = backfill(log, "--to", "csv", "-", "--since", since, "--until", until)
    assert ["2", "3", "4"] == [row["iteration"] for row in rows_of(done.stdout)]


def test_a_copy_adds_no_row_and_is_told_of(log: Path, tmp_path: Path) -> None:
    """It is the same rank's."""
    shutil.copy(log, tmp_path / "logs" / "run_rank0.json.1")
    done = backfill(log, f"{log}.1", "--to", "csv", tmp_path / "out.csv")
    assert "10 rows written" in done.stdout
    assert "; 10 records left out, being there twice; 20 lines of 2 files" in done.stdout


def test_a_log_is_not_written_over(log: Path) -> None:
    """As where the target is forgotten."""
    before = log.read_bytes()
    assert_user_error(backfill(log, "--to", "csv", log), "--to csv", str(log), "is a log")
    assert before == log.read_bytes()


@pytest.mark.parametrize("kind", ["csv", "openmetrics"])
def test_a_file_of_nothing_is_an_error_that_says_why(kind: str, log: Path, tmp_path: Path) -> None:
    """With a time range that leaves something out, and with one that is not to blame."""
    notes = tmp_path / "notes.txt"
    notes.write_text("nothing\n")
    target = ("-q", "--to", kind, tmp_path / "out")
    for more in ((), ("--until", "2000-01-01"), ("--since", "2000-01-01")):
        done = backfill(notes, *target, *more)
        assert (1, "", 1) == (done.returncode, done.stdout, done.stderr.count("\n"))
        assert done.stderr.startswith(NOTHING)
    done = backfill(log, *target, "--until", "2000-01-01")
    assert (1, 1) == (done.returncode, done.stderr.count("\n"))
    assert done.stderr.endswith(OUTSIDE)
    if kind == "csv":
        assert "(10 values)" in done.stderr


def test_values_that_no_page_shows_are_told_of(log: Path, tmp_path: Path) -> None:
    """A time range that holds nothing but NaN; a table takes them."""
    log.unlink()
    write_log(log, range(1), loss=float("nan"))
    within = ("--since", "2023-11-14T22:13:20.25Z", "--until", "2023-11-14T22:13:20.251Z")
    assert "nan" == rows_of(backfill(log, "--to", "csv", "-", *within).stdout)[0]["value"]
    with log.open("a") as file:  # so that the internal metrics are of a later time
        fields = {"timestamp": f"{START_S + 9}", "elapsedtime": "9", "type": "LOG", "step": "x"}
        file.write(f"DLLL {json.dumps({**fields, 'data': {'a': 1}})}\n")
    log.write_text(log.read_text().replace("[0, 0]", '"y"'))  # which has no epoch either
    done = backfill(log, "--to", "openmetrics", tmp_path / "out", *within)
    assert (1, True) == (done.returncode, "every value in that time range is NaN" in done.stderr)


def test_nothing_for_a_database_is_an_error_too(tmp_path: Path) -> None:
    """As for a file."""
    notes, data = tmp_path / "notes.txt", tmp_path / "data"
    notes.write_text("nothing\n")
    data.mkdir()
    done = backfill(notes, "--to", "prometheus", data)
    assert (1, True) == (done.returncode, NOTHING in done.stderr)


def test_a_collector_that_gets_nothing_is_told_of_each_time(log: Path, tmp_path: Path) -> None:
    """Not so if an earlier run has sent all there is, even where only noise has come since."""
    notes = tmp_path / "notes.txt"
    notes.write_text("nothing\n")
    with HTTPCollector() as collector:
        target = ("--to", "otlp", collector.url, "--checkpoint", tmp_path / "state")
        for _ in range(2):
            done = backfill(notes, *target)
            assert (1, True) == (done.returncode, NOTHING in done.stderr)
            late = backfill(log, *target, "--since", "2024-01-01")
            assert (1, True) == (late.returncode, late.stderr.endswith(OUTSIDE))
        assert 0 == backfill(log, notes, *target).returncode
        with log.open("a") as file:
            file.write("noise\n")
        done = backfill(log, notes, *target)
        assert (0, 1) == (done.returncode, done.stderr.count("\n"))  # of the notes alone
        assert "notes.txt: no line is a record" in done.stderr
        assert done.stdout.startswith("0 points sent")
