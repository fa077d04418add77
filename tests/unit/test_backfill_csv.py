"""Rows as comma-separated values: byte for byte, and as a parser reads them."""

from __future__ import annotations

import csv
import math
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest

from otel_dllogger.backfill.csv_rows import write_csv
from otel_dllogger.errors import BackfillError, ConfigurationError
from otel_dllogger.logs import LogRow

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.newest_only

TIME = datetime(2023, 11, 14, 22, 13, 20, 250_000, tzinfo=timezone.utc)
ROW = LogRow(TIME, "resnet", 3, "train", "iteration", 1, 7, "train.loss", "nat", 0.1)
HEADER = "time,run,rank,stage,granularity,epoch,iteration,metric,unit,value\r\n"


def test_it_is_this_text(tmp_path: Path) -> None:
    """Whole numbers without a fraction, what is not known empty, times with microseconds."""
    path = tmp_path / "runs.csv"
    odd = 'a "quoted", name\nof 2 lines'
    rows = [
        ROW,
        ROW._replace(epoch=None, iteration=None, stage="", unit="", value=1e22),
        ROW._replace(time=TIME.replace(microsecond=0), iteration=0.5, metric=odd, value=-3.0),
    ]
    assert 3 == write_csv(rows, path)
    assert path.read_bytes().decode() == (
        f"{HEADER}"
        "2023-11-14T22:13:20.250000+00:00,resnet,3,train,iteration,1,7,train.loss,nat,0.1\r\n"
        "2023-11-14T22:13:20.250000+00:00,resnet,3,,iteration,,,train.loss,,1e+22\r\n"
        "2023-11-14T22:13:20.000000+00:00,resnet,3,train,iteration,1,0.5,"
        '"a ""quoted"", name\nof 2 lines",nat,-3.0\r\n'
    )
    with path.open(newline="") as file:
        assert odd == list(csv.DictReader(file))[2]["metric"]


def test_each_row_has_its_own_time(tmp_path: Path) -> None:
    """Rows of one record share an object; those of another have another text."""
    path = tmp_path / "runs.csv"
    times = [TIME, TIME, TIME + timedelta(microseconds=1)]
    write_csv([ROW._replace(time=time) for time in times], path)
    with path.open(newline="") as file:
        found = [datetime.fromisoformat(row["time"]) for row in csv.DictReader(file)]
    assert times == found


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (math.nan, "nan"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (2 / 3, repr(2 / 3)),
        (-0.0, "-0.0"),
    ],
)
def test_every_value_is_exact(tmp_path: Path, value: float, text: str) -> None:
    """And spelt as pandas.read_csv reads it."""
    path = tmp_path / "runs.csv"
    write_csv([ROW._replace(value=value)], path)
    assert text == path.read_bytes().decode().splitlines()[-1].rpartition(",")[2]


def test_nothing_is_a_header(tmp_path: Path) -> None:
    """The file can be read as any other."""
    path = tmp_path / "runs.csv"
    assert 0 == write_csv([], path)
    assert HEADER == path.read_bytes().decode()


def test_it_is_whole_or_not_there(tmp_path: Path) -> None:
    """What stood there stays until the new file is whole; nothing else stays."""
    path = tmp_path / "runs.csv"
    path.write_text("old")

    def failing() -> Iterator[LogRow]:
        yield ROW
        raise ConfigurationError("the disk is full")

    with pytest.raises(ConfigurationError, match="the disk is full"):
        write_csv(failing(), path)
    assert ("old", [path]) == (path.read_text(), list(tmp_path.iterdir()))
    with pytest.raises(BackfillError, match=r"gone/x cannot be written \(.*\): name another file"):
        write_csv([ROW], tmp_path / "gone" / "x")
    with pytest.raises(BackfillError, match=r"^/dev/full cannot be written \(No space left"):
        write_csv([ROW] * 10_000, "/dev/full")
