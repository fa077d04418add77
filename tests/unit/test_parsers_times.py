"""Times of lines: zones, missing years, hours that come twice, and files without times."""

from __future__ import annotations

import dataclasses
import json
import time
from datetime import datetime, timezone
from zoneinfo import ZoneInfo

import pytest

from otel_dllogger.errors import ConfigurationError
from otel_dllogger.logs.parsers.context import FileContext
from otel_dllogger.logs.parsers.detect import parse_line
from tests.support.parsers import SCALARS, log_line, read, read_one, rows, utc_us

pytestmark = pytest.mark.newest_only


@pytest.mark.parametrize(
    ("zone", "local", "utc"),
    [
        ("Europe/Berlin", "2024-07-01 12:00:00", (2024, 7, 1, 10)),
        ("Europe/Berlin", "2024-01-01 12:00:00", (2024, 1, 1, 11)),
        ("+05:30", "2024-01-01 12:00:00", (2024, 1, 1, 6, 30)),
        ("-0800", "2024-01-01 12:00:00", (2024, 1, 1, 20)),
        ("Z", "2024-01-01 12:00:00", (2024, 1, 1, 12)),
        # Clocks go forward at 02:00, and 02:30 is by the clock that was not set: 03:30.
        ("Europe/Berlin", "2024-03-31 02:30:00", (2024, 3, 31, 1, 30)),
        # Clocks go back at 03:00: the first pass.
        ("Europe/Berlin", "2024-10-27 02:30:00", (2024, 10, 27, 0, 30)),
    ],
)
def test_times_are_those_of_the_zone_given(zone, local, utc):
    """A text line's time is read in the zone, summer time and all."""
    assert utc_us(*utc) == read_one(f"DLL {local} - (0, 1) a : 1 ", zone=zone).time_us


def test_an_hour_that_comes_twice_is_told_by_the_line_before():
    """Logs go forward: what would go back by more than a minute is the second pass."""
    clocks = ["02:58:00", "02:59:59", "02:59:30", "02:00:01", "02:00:00", "02:30:00", "02:59:59"]
    lines = [f"DLL 2024-10-27 {clock} - (0, 1) a : 1 " for clock in clocks]
    times = [entry.time_us for entry in read(lines, zone="Europe/Berlin")[0]]
    expected = [(0, 58), (0, 59, 59), (0, 59, 30), (1, 0, 1), (1, 0), (1, 30), (1, 59, 59)]
    assert [utc_us(2024, 10, 27, *clock) for clock in expected] == times
    # JSON lines, which say when they were, tell it as well.
    log = log_line().replace("1700000000.25", "1729992600.0")  # 01:30 UTC
    info = 'INFO {"datetime": "2024-10-27 02:30:01", "type": "INFO", "data": 1}'
    assert utc_us(2024, 10, 27, 1, 30, 1) == (read([log, info], zone="Europe/Berlin")[0][1].time_us)
    # Another run's lines, a day earlier than those before, are of the first pass.
    lines = [
        "DLL 2024-11-28 00:00:00 - (0, 1) a : 1 ",
        "DLL 2024-10-27 02:30:00 - (0, 1) a : 1 ",
    ]
    assert utc_us(2024, 10, 27, 0, 30) == read(lines, zone="Europe/Berlin")[0][1].time_us


def test_times_are_the_machines_where_no_zone_is_given(monkeypatch):
    """The machine's zone is the default."""
    line = "DLL 2024-07-01 12:00:00 - (0, 1) a : 1 "
    try:
        for zone in ("America/New_York", "Asia/Tokyo"):
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            expected = datetime(2024, 7, 1, 12, tzinfo=ZoneInfo(zone)).timestamp() * 1e6
            assert expected == read_one(line, zone=None).time_us
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("zone", ["Mars/Base", "", "../etc/passwd", "+25:00", "Europe"])
def test_a_zone_that_is_none_is_refused(zone):
    """The message says what to pass."""
    with pytest.raises(ConfigurationError, match="pass a name from the IANA database"):
        FileContext(zone=zone)


@pytest.mark.parametrize(
    ("date", "changed", "year"),
    [
        ("08/21 02:58:41", (2023, 9, 1), 2023),
        ("08/21 02:58:41", (2023, 8, 21, 2, 58, 42), 2023),
        ("08/21 02:58:41", (2023, 8, 20), 2022),
        ("12/31 23:59:59", (2024, 1, 1, 0, 0, 1), 2023),
        ("01/01 00:00:00", (2024, 1, 1, 0, 0, 1), 2024),
        ("02/29 12:00:00", (2023, 8, 20), 2020),
        ("02/29 12:00:00", (1903, 8, 20), None),  # before the epoch
        ("02/29 12:00:00", (2103, 8, 20), 2096),  # 2100 is no leap year
    ],
)
def test_a_missing_year_is_the_latest_that_is_not_in_the_future(date, changed, year):
    """The year is the file's last change's, or one before."""
    line = f"{date} - mmengine - INFO - Iter(train) [10/60]  loss: 0.5"
    entries, context = read(line, modified_us=utc_us(*changed))
    found = [datetime.fromtimestamp(e.time_us / 1e6, timezone.utc) for e in entries]
    assert ([] if year is None else [year]) == [when.year for when in found]
    assert all(f"{when:%m/%d %H:%M:%S}" == date for when in found)
    assert bool(context.skipped) is (year is None)


def test_a_file_servers_slow_clock_does_not_cost_a_year():
    """A line up to five minutes after the file's change is of the change itself."""
    changed_us = utc_us(2023, 8, 21, 2, 55)
    line = "08/21 02:58:41 - mmengine - INFO - Iter(train) [10/60]  loss: 0.5"
    assert changed_us == read_one(line, modified_us=changed_us).time_us
    new_year_us = utc_us(2023, 12, 31, 23, 59)
    assert new_year_us == (
        read_one(line.replace("08/21 02:58", "01/01 00:00"), modified_us=new_year_us).time_us
    )
    line = line.replace("02:58", "03:58")
    assert utc_us(2022, 8, 21, 3, 58, 41) == read_one(line, modified_us=changed_us).time_us


def test_a_missing_year_is_this_one_where_no_change_is_known():
    """Without a reference it is the present."""
    line = time.strftime("%m/%d %H:%M:%S - mmengine - INFO - Iter(val) [1/1]  a: 1", time.gmtime())
    assert abs(read_one(line).time_us / 1e6 - time.time()) < 60


def timed_rows(*pairs):
    """Return rows of training: their iteration, and the seconds of one."""
    return [
        json.dumps({"lr": 0.1, "loss": 0.5, "time": time_s, "iter": iteration, "step": iteration})
        for iteration, time_s in pairs
    ]


def elapsed_s(lines, **options):
    """Return the seconds from the start to each row, of a file that was copied years later."""
    entries, _ = read(lines, run_start_us=10**15, modified_us=2 * 10**15, **options)
    assert all(entry.interpolated for entry in entries)
    assert [entry.time_us - 10**15 for entry in entries] == [e.elapsed_us for e in entries]
    return [(entry.time_us - 10**15) / 1e6 for entry in entries]


def test_rows_of_scalars_take_the_time_of_their_iterations():
    """From the start on; the change of the file says nothing but that they are not later."""
    lines = timed_rows((10, 0.5), (20, 1.0), (40, 0.25))
    assert [5, 15, 20] == elapsed_s(lines)
    validation = json.dumps({"acc": 0.5, "time": 9.0, "step": 1})
    assert [5, 5.001, 15.001] == elapsed_s([lines[0], validation, lines[1]])


def test_a_second_start_in_one_file_goes_on_in_time():
    """Its iterations begin anew, its rows follow the others."""
    lines = timed_rows((10, 0.5), (20, 0.5), (10, 0.5), (20, 0.5))
    assert [5, 10, 15, 20] == elapsed_s(lines)


@pytest.mark.parametrize("time_s", [-1, 1e300, None, "x", [1]])
def test_a_duration_that_cannot_be_keeps_rows_apart(time_s):
    """By a millisecond, which databases tell apart."""
    assert [0.001, 0.002] == elapsed_s(timed_rows((10, time_s), (20, time_s)))


def test_rows_without_a_start_end_at_the_change():
    """In their order, none at the time of another."""
    lines = rows(10, 20, 30)
    size = sum(map(len, lines))
    entries, _ = read(lines, modified_us=10**15, size_bytes=size)
    times = [entry.time_us for entry in entries]
    assert 10**15 == times[-1]
    assert times == sorted({time_us // 1000 * 1000 for time_us in times})


def test_rows_that_are_appended_lie_before_the_change_that_brought_them():
    """After the last row that was read, in a restarted reader too."""
    lines = [f"{line}\n" for line in timed_rows((10, 0.5), (20, 0.5), (30, 0.5), (40, 0.5))]
    size = len(lines[0])
    context = FileContext(
        name=SCALARS, run_start_us=10**15, modified_us=10**15 + 10**7, size_bytes=2 * size
    )
    times = [parse_line(line.encode(), context)[0].time_us for line in lines[:2]]
    context = FileContext(**json.loads(json.dumps(dataclasses.asdict(context))))
    context.observe(size_bytes=4 * size, modified_us=10**15 + 10**8)
    times += [parse_line(line.encode(), context)[0].time_us for line in lines[2:]]
    assert [5, 10, 55, 100] == [(time_us - 10**15) / 1e6 for time_us in times]


def test_the_state_of_a_file_may_be_told_before_the_first_row():
    """A tailer notes it before every read."""
    lines = rows(10, 20)
    context = FileContext(name=SCALARS, run_start_us=10**15)
    context.observe(size_bytes=len(lines[0]), modified_us=10**15 + 600)
    assert 10**15 + 600 == parse_line(lines[0].encode(), context)[0].time_us
    context.observe(size_bytes=2 * len(lines[0]), modified_us=10**15 + 700)
    assert 10**15 + 700 == parse_line(lines[1].encode(), context)[0].time_us


def test_a_start_after_the_change_is_not_believed():
    """Clocks differ: the rows end at the change then; without one, now."""
    entries, _ = read(rows(1), modified_us=10**15, run_start_us=2 * 10**15)
    assert [10**15] == [entry.time_us for entry in entries]
    before_us = time.time_ns() // 1000
    assert before_us <= read_one(rows(1)).time_us <= time.time_ns() // 1000


@pytest.mark.parametrize(
    ("experiment", "year"),
    [("toy_20230821_000000", 2023), ("toy_20221231_235959", 2023), ("toy", 2026), ("", 2026)],
)
def test_the_year_of_a_console_line_is_that_of_its_experiment(experiment, year):
    """The name ends in the start; without one, the change of the file bounds the year."""
    head = "08/21 02:58:{} - mmengine - INFO - "
    lines = [head.format(40) + f"Exp name: {experiment}", head.format(41) + "Iter(val) [1/1]  a: 1"]
    entries, _ = read(lines, modified_us=utc_us(2026, 11, 1))
    assert utc_us(year, 8, 21, 2, 58, 41) == entries[0].time_us


def test_the_start_in_a_files_name_says_the_year_too():
    """A year is not guessed from a copy's time of change."""
    line = "08/21 02:58:41 - mmengine - INFO - Iter(val) [1/1]  a: 1"
    options = {"modified_us": utc_us(2026, 11, 1), "run_start_us": utc_us(2021, 8, 21, 2, 0)}
    assert utc_us(2021, 8, 21, 2, 58, 41) == read_one(line, **options).time_us


def test_a_validation_of_a_run_by_iterations_is_at_its_iteration():
    """Its ``step`` is 0 or the iteration, as ``log_metric_by_epoch`` has it."""
    for step in (0, 20):
        entries, _ = read([*rows(20), json.dumps({"acc": 0.5, "step": step})])
        assert (0, 20, None) == entries[1].step
        assert ("val", {"acc": 0.5}) == (entries[1].stage, entries[1].data)
    assert (7,) == read_one('{"acc": 0.5, "step": 7}').step


def test_glued_and_damaged_rows_of_scalars():
    """Rows on one line are separated, what follows them is counted."""
    row = rows(1)[0].strip()
    entries, context = read([row + row, row + '{"a"', row + " oh", row + "\0", row + "{}"])
    assert [1] * 6 == [entry.step for entry in entries]
    assert {"torn": 1, "noise": 1, "nul_bytes": 1, "not_a_record": 1} == context.skipped


def test_a_diverged_row_of_scalars_is_read():
    """NaN is a bare token there as well."""
    assert "nan" == str(read_one('{"loss": NaN, "iter": 1, "step": 1}').data["loss"])
