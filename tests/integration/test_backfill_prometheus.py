"""Blocks in a Prometheus data folder: what a real server answers from them, whatever happened."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import pickle
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from otel_dllogger.backfill.prometheus import FOLDER, RECENT_MS, Backfilled, backfill_prometheus
from otel_dllogger.backfill.sorting import SeriesName
from otel_dllogger.errors import BackfillError
from tests.support.command import environment
from tests.support.paths import ROOT
from tests.support.prometheus import Prometheus, find_program, wait_for
from tests.support.samples import as_chunks, count

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.samples import Samples

pytestmark = pytest.mark.newest_only

HOUR_MS = 3_600_000
START_MS = 1_760_000_000_000
NOW_S = START_MS / 1000 + 1e8
FOREVER = ("--storage.tsdb.retention.time=100y",)


def series(rank: int, family: str = "dl_loss") -> SeriesName:
    kind = "counter" if family.endswith("_total") else "gauge"
    labels = (("metric", 'tr"ain\\.loss'), ("rank", str(rank)), ("run", "a"))
    return SeriesName(family, labels, kind, f"Help of {family}")


def training(steps: range, *, ranks: int = 3, step_ms: int = 97_123) -> Samples:
    """Return a run of some steps: a loss and a counter of each rank."""
    samples: Samples = {}
    for rank in range(ranks):
        times_ms = [START_MS + step * step_ms + rank * 7 for step in steps]
        samples[series(rank)] = {t: 8 / (1 + t % 100_003) + rank for t in times_ms}
        samples[series(rank, "dllogger_steps_total")] = {
            t: float(step) for t, step in zip(times_ms, steps, strict=True)
        }
    return samples


def merge(*all_samples: Samples) -> Samples:
    merged: Samples = {}
    for samples in all_samples:
        for name, column in samples.items():
            merged.setdefault(name, {}).update(column)
    return merged


def backfill(run: Samples, data: Path, **options) -> Backfilled:
    return backfill_prometheus(as_chunks(run), data, clock=lambda: NOW_S, **options)


@pytest.fixture
def data(tmp_path):
    """The data folder of a Prometheus that ``serve`` starts, empty."""
    folder = tmp_path / "prometheus" / "data"
    folder.mkdir(parents=True)
    return folder


@contextlib.contextmanager
def serve(data: Path, *flags: str) -> Iterator[Prometheus]:
    """Run a Prometheus that scrapes nothing on a data folder."""
    configuration = data.parent / "prometheus.yml"
    configuration.write_text("global:\n  scrape_interval: 1m\n")
    with Prometheus(
        data.parent, discovery=data.parent, configuration=configuration, flags=flags or FOREVER
    ) as server:
        yield server


def stored(server: Prometheus) -> Samples:
    """Return every sample that a server answers, with each time at most once."""
    answer = server.get("query", query='{run="a"}[80y]', time=str(NOW_S + 1e8), timeout_s=60)
    found: Samples = {}
    for one in answer["result"]:
        labels = one["metric"]
        family = labels.pop("__name__")
        column = {round(time_s * 1000): float(value) for time_s, value in one["values"]}
        assert len(column) == len(one["values"])
        found[SeriesName(family, tuple(sorted(labels.items())))] = column
    return found


def blocks(data: Path) -> set[str]:
    return {path.name for path in data.iterdir() if len(path.name) == 26}


def samples_in_blocks(data: Path) -> int:
    """Return how many samples the blocks have, one that is in two of them counted twice."""
    metas = [json.loads((data / name / "meta.json").read_bytes()) for name in blocks(data)]
    return sum(meta["stats"].get("numSamples", 0) for meta in metas)


def assert_tidy(data: Path) -> None:
    """Check that nothing is left but the blocks and the record."""
    assert ["installed.sqlite"] == [path.name for path in (data / FOLDER).iterdir()]
    assert not [path for path in data.rglob("*") if "tmp" in path.name]


def test_a_server_answers_every_sample(data):
    """All times and values of days; a second run adds nothing; a grown log what is new."""
    first = training(range(2000))
    done = backfill(first, data)
    made = blocks(data)
    assert Backfilled(count(first), 0, 0, len(made)) == done
    assert 20 < len(made) < 40
    assert_tidy(data)
    with serve(data) as server:
        assert first == stored(server)

    assert Backfilled(0, count(first), 0, 0) == backfill(first, data)
    assert made == blocks(data)
    assert count(first) == samples_in_blocks(data)

    grown = merge(first, training(range(2000, 2100), ranks=4))
    added = backfill(grown, data)
    assert (count(grown) - count(first), count(first)) == (added.installed, added.present)
    assert count(grown) == samples_in_blocks(data)
    with serve(data) as server:
        assert grown == stored(server)
    assert Backfilled(0, count(grown), 0, 0) == backfill(grown, data)
    assert_tidy(data)


def test_what_is_earlier_or_between_comes_later(data):
    """Other logs of the same series: before, between and within what is there."""
    late = training(range(1000, 1500))
    backfill(late, data)
    every_other = {
        name: {t: v for i, (t, v) in enumerate(column.items()) if i % 2}
        for name, column in training(range(1600, 1900)).items()
    }
    backfill(every_other, data)
    whole = training(range(2000))
    added = backfill(whole, data)
    there = count(late) + count(every_other)
    assert (count(whole) - there, there) == (added.installed, added.present)
    assert count(whole) == samples_in_blocks(data)
    with serve(data) as server:
        assert whole == stored(server)


def test_a_sample_that_is_there_stays(data):
    """Another value for a time that is there is not stored a second time."""
    samples = {series(0): {START_MS: 1.0, START_MS + 5: 2.0}}
    backfill(samples, data)
    changed = {series(0): {START_MS: 9.0, START_MS + 5: 2.0, START_MS + 9: 3.0}}
    added = backfill(changed, data)
    assert (1, 2) == (added.installed, added.present)
    with serve(data) as server:
        assert {series(0): {START_MS: 1.0, START_MS + 5: 2.0, START_MS + 9: 3.0}} == stored(server)


def test_what_is_not_finite_is_left_out(data):
    """promtool makes an ordinary NaN of it, which is no gap."""
    assert 1 == backfill({series(0): {START_MS: math.nan, START_MS + 1: 1.0}}, data).installed
    assert Backfilled(0, 0, 0, 0) == backfill({series(0): {START_MS: math.nan}}, data)
    with serve(data) as server:
        assert {series(0): {START_MS + 1: 1.0}} == stored(server)


def test_blocks_that_are_gone_count_as_missing(data):
    """Prometheus' retention, or somebody, deleted blocks: their samples are installed anew."""
    samples = training(range(500))
    backfill(samples, data)
    gone = sorted(blocks(data))[:3]
    lost = 0
    for name in gone:
        lost += json.loads((data / name / "meta.json").read_bytes())["stats"]["numSamples"]
        shutil.rmtree(data / name)
    again = backfill(samples, data)
    assert (lost, count(samples) - lost) == (again.installed, again.present)
    assert count(samples) == samples_in_blocks(data)
    assert Backfilled(0, count(samples), 0, 0) == backfill(samples, data)


def test_the_last_three_hours_are_left_out(data):
    """They are counted, and the line says when to come again; then they are installed."""
    limit_ms = int(NOW_S * 1000) - RECENT_MS
    samples = {series(0): {limit_ms - 1: 1.0, limit_ms: 2.0, limit_ms + 1: 3.0}}
    samples[series(1)] = {limit_ms + 1000: 4.0}
    done = backfill(samples, data)
    assert (2, 0, 2, 1) == (done.installed, done.present, done.recent, done.blocks)
    assert (
        "2 samples from the last 3 hours left out, since Prometheus itself may still be writing "
        "to that time range: run the same command again after 2028-12-09 18:40:01 UTC"
    ) == done.notice
    later = backfill_prometheus(as_chunks(samples), data, clock=lambda: NOW_S + 1)
    assert (2, 2, 0, "") == (later.installed, later.present, later.recent, later.notice)
    with serve(data) as server:
        assert samples == stored(server)


def test_nothing_but_the_last_three_hours_is_an_error(data):
    """There is nothing to do, and the line says when there will be."""
    samples = {series(0): {int(NOW_S * 1000): 1.0}}
    with pytest.raises(BackfillError, match=r"^1 sample from the last 3 hours .* after 2028-12-09"):
        backfill(samples, data)
    assert set() == blocks(data)
    assert_tidy(data)


def test_a_long_run_has_few_long_blocks(data):
    """Months do not make thousands of blocks, and small ones share a start of promtool."""
    samples = training(range(400), ranks=1, step_ms=12 * HOUR_MS)
    done = backfill(samples, data)
    assert 200 <= done.blocks <= 300
    assert count(samples) == samples_in_blocks(data)
    with serve(data) as server:
        assert samples == stored(server)


def test_a_server_that_runs_is_not_disturbed(data):
    """Blocks come while it runs, next to what it scrapes; it starts again with all of them."""
    samples = training(range(300))
    with serve(data) as server:
        assert count(samples) == backfill(samples, data).installed
        assert {} == stored(server)  # it looks for blocks once a minute
    with serve(data) as server:
        assert samples == stored(server)


def test_a_staging_folder_is_ignored_by_a_server(data):
    """What a killed backfill leaves does not keep a server from its start, nor is it read."""
    samples = training(range(300))
    kill_at(samples, data, "install", 3)
    staged = {path.name for path in (data / FOLDER / "staging" / "blocks").iterdir()}
    assert staged
    with serve(data) as server:
        found = stored(server)
        assert 0 < count(found) < count(samples)
    assert staged == {path.name for path in (data / FOLDER / "staging" / "blocks").iterdir()}


_KILLED = """
import os, pickle, signal, sys
import tests.integration.test_backfill_prometheus as t
samples, data, stage, number = pickle.load(sys.stdin.buffer)
seen = 0
def progress(now, done):
    global seen
    if now == stage:
        seen += 1
        if seen > number:
            os.kill(os.getpid(), signal.SIGKILL)
if stage in ("commit", "moved"):
    from otel_dllogger.backfill.installed import Installed
    act = getattr(Installed, stage)
    def killed(self, *arguments):
        if number:
            act(self, *arguments)
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(Installed, stage, killed)
t.backfill(samples, data, progress=progress, samples=t.count(samples))
"""


def kill_at(samples: Samples, data: Path, stage: str, number: int, **variables: str) -> None:
    """Run a backfill that is killed when it has come so far."""
    done = subprocess.run(
        [sys.executable, "-c", _KILLED],
        input=pickle.dumps((samples, data, stage, number)),
        cwd=ROOT,
        env=environment(**variables)
        | {"COVERAGE_PROCESS_START": "", "COVERAGE_PROCESS_CONFIG": ""},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert -signal.SIGKILL == done.returncode, done.stderr.decode()


@pytest.mark.parametrize(
    ("stage", "number"),
    [
        *(("samples", number) for number in (0, 5)),
        *(("blocks", number) for number in (0, 1)),
        *(("commit", number) for number in (0, 1)),
        *(("install", number) for number in (0, 1, 4)),
        *(("moved", number) for number in (0, 1)),
    ],
)
def test_killed_at_any_point_it_is_completed_by_the_next(data, stage, number):
    """First in an empty folder, then on top of what is there: nothing is lost, twice or left."""
    samples = training(range(600), ranks=2)
    # A rank more: its blocks are of times for which there are blocks already.
    for grown in (samples, training(range(1200), ranks=3)):
        kill_at(grown, data, stage, number)
        done = backfill(grown, data)
        assert count(grown) == done.installed + done.present
        assert count(grown) == samples_in_blocks(data)
        assert_tidy(data)
        assert Backfilled(0, count(grown), 0, 0) == backfill(grown, data)
    with serve(data) as server:
        assert grown == stored(server)


def test_a_move_that_fails_is_completed_by_the_next(data, monkeypatch):
    """Blocks that were promised stay where they are until they can be moved."""
    backfill(training(range(600), ranks=1), data)
    samples = training(range(600), ranks=2)
    rename, moved = Path.rename, []

    def fail(path: Path, target: Path) -> Path:
        if moved:
            raise OSError(errno.EIO, "Input/output error", str(path))
        moved.append(path)
        return rename(path, target)

    with monkeypatch.context() as broken:
        broken.setattr(Path, "rename", fail)
        with pytest.raises(
            BackfillError, match=r"cannot be used \(Input/output error\): check its"
        ):
            backfill(samples, data)
    assert Backfilled(0, count(samples), 0, 0) == backfill(samples, data)
    assert count(samples) == samples_in_blocks(data)
    assert_tidy(data)


def test_a_promtool_that_outlives_us_leaves_nothing(data, tmp_path):
    """It goes on when we are killed, and writes into a folder that is no more."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "promtool").write_text(
        f"#!/bin/sh\nkill -9 $PPID\nuntil [ -e {tmp_path}/go ]; do sleep 0.01; done\n"
        f'{find_program("promtool")} "$@"; echo $? > {tmp_path}/ended\n'
    )
    (programs / "promtool").chmod(0o755)
    samples = training(range(300))
    kill_at(samples, data, "never", 0, PATH=f"{programs}:{os.environ['PATH']}")
    assert count(samples) == backfill(samples, data).installed
    (tmp_path / "go").touch()
    wait_for((tmp_path / "ended").exists, bool)
    assert count(samples) == samples_in_blocks(data)
    assert_tidy(data)


def test_one_at_a_time(data):
    """A second one says so, and does not wait."""
    refused: list[str] = []

    def begin_another(_stage: str, _done: float) -> None:
        with pytest.raises(BackfillError) as raised:
            backfill(training(range(3)), data)
        refused.append(str(raised.value))

    assert 18 == backfill(training(range(3)), data, progress=begin_another).installed
    message = f"another backfill is writing to {data}: run this again when it has ended"
    assert {message} == set(refused)
    assert 18 == backfill(training(range(3)), data).present


def test_what_is_no_data_folder_is_refused(tmp_path):
    """Nothing is put anywhere else."""
    with pytest.raises(BackfillError, match=r"gone is not a folder: give the data folder"):
        backfill(training(range(3)), tmp_path / "gone")
    (tmp_path / "prometheus.yml").touch()
    with pytest.raises(BackfillError, match=r"not a data folder of Prometheus: give the value"):
        backfill(training(range(3)), tmp_path)
    (tmp_path / "data" / "wal").mkdir(parents=True)
    with pytest.raises(BackfillError, match=r"Prometheus: did you mean .*/data\?$"):
        backfill(training(range(3)), tmp_path)
    assert ["data", "prometheus.yml"] == sorted(path.name for path in tmp_path.iterdir())
    backfill(training(range(3)), tmp_path / "data")


def test_without_promtool_it_says_what_to_install(data, monkeypatch, tmp_path):
    """It is part of Prometheus."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BackfillError, match=r"^promtool is not on PATH: .*apt-get install prom"):
        backfill(training(range(3)), data)
    assert [] == list(data.iterdir())


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            "echo it is broken >&2; exit 3",
            r"promtool failed \(exit code 3\): it is broken; nothing",
        ),
        ("exit 0", r"promtool put 0 of 18 samples into blocks; nothing was installed"),
    ],
)
def test_a_promtool_that_fails_installs_nothing(data, monkeypatch, tmp_path, script, message):
    """Its own words are in the line, and the next run does it."""
    (tmp_path / "promtool").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "promtool").chmod(0o755)
    samples = training(range(3))
    with monkeypatch.context() as broken:
        broken.setenv("PATH", str(tmp_path), prepend=":")
        with pytest.raises(BackfillError, match=message):
            backfill(samples, data)
    assert_tidy(data)
    assert set() == blocks(data)
    assert count(samples) == backfill(samples, data).installed


def test_a_damaged_record_is_one_line(data):
    """It says what to remove."""
    backfill(training(range(3)), data)
    (data / FOLDER / "installed.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(BackfillError, match=rf"{FOLDER} is damaged .*: remove that folder and"):
        backfill(training(range(3)), data)
    shutil.rmtree(data / FOLDER)
    assert 18 == backfill(training(range(3)), data).installed


@pytest.mark.parametrize("version", [1, 3])
def test_a_record_of_another_version_is_not_touched(data, version):
    """Of an earlier version of the package or a later one, which knows what it means."""
    backfill(training(range(3)), data)
    record = data / FOLDER / "installed.sqlite"
    with contextlib.closing(sqlite3.connect(record)) as database:
        database.execute(f"PRAGMA user_version = {version}")
    content = record.read_bytes()
    with pytest.raises(BackfillError, match=rf"is damaged \(its version is {version}, not 2\)"):
        backfill(training(range(3)), data)
    assert content == record.read_bytes()


def test_a_link_leads_nowhere(data, tmp_path):
    """Whoever owns the data folder cannot have root write elsewhere."""
    (tmp_path / "elsewhere").mkdir()
    (data / FOLDER).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BackfillError, match=rf"^{data / FOLDER} cannot be used \("):
        backfill(training(range(3)), data)
    assert [] == list((tmp_path / "elsewhere").iterdir())


def test_series_of_different_times_are_told_apart(data):
    """Each is compared with its own times."""
    samples = {
        series(rank): {START_MS + rank + i * 1000: 1.0 for i in range(40)} for rank in range(90)
    }
    backfill(samples, data)
    samples[series(7)][START_MS] = 2.0
    again = backfill(samples, data)
    assert (1, count(samples) - 1) == (again.installed, again.present)


def test_a_block_that_is_not_whole_holds_nothing(data):
    """As if it were not there: what was in it is installed anew."""
    samples = training(range(3))
    backfill(samples, data)
    for name in blocks(data):
        (data / name / "meta.json").write_text("{")
    (data / "wal").mkdir()
    assert 18 == backfill(samples, data).installed


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_root_gives_blocks_to_the_owner_of_the_folder(data):
    """So that the server, which is not root, can read, compact and delete them."""
    os.chown(data, 65534, 65533)
    backfill(training(range(30)), data)
    owners = {(path.lstat().st_uid, path.lstat().st_gid) for path in data.rglob("*")}
    assert {(65534, 65533)} == owners


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_than_the_owner_is_refused(data, monkeypatch):
    """Blocks that the server cannot delete would stay for ever."""
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(BackfillError, match=r"belongs to root, .*\(sudo -u root\)$"):
        backfill(training(range(3)), data)


def test_progress_goes_from_nothing_to_all(data):
    """Each stage ends with 1, and none goes back."""
    seen: dict[str, list[float]] = {}
    samples = training(range(300))
    backfill(
        samples,
        data,
        progress=lambda stage, done: seen.setdefault(stage, []).append(done),
        samples=count(samples),
    )
    assert ["samples", "blocks", "install"] == list(seen)
    for done in seen.values():
        assert 1.0 == done[-1]
        assert sorted(done) == done
