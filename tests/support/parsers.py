"""Samples of other people's logs, lines like theirs, and the expected results of the parsers."""

from __future__ import annotations

import json
from datetime import datetime, timezone

from otel_dllogger.logs.parsers.context import MAX_LINE_BYTES, FileContext
from otel_dllogger.logs.parsers.detect import parse_line
from otel_dllogger.logs.parsers.formats import (
    DLLOGGER_JSON,
    DLLOGGER_TEXT,
    MMENGINE_SCALARS,
    MMENGINE_TEXT,
    TCAP_JSON,
    TCAP_TEXT,
)
from tests.support.paths import TESTS

DATA = TESTS / "data"
SCALARS = "vis_data/scalars.json"
"""The name of a file whose rows without a prefix are MMEngine's."""


def utc_us(*args):
    """Return a UTC time in microseconds."""
    return round(datetime(*args, tzinfo=timezone.utc).timestamp() * 1e6)


def read(lines, **options):
    """Read lines with a new context; return the entries and the context."""
    context = FileContext(**{"zone": "UTC", "name": SCALARS, **options})
    lines = lines if isinstance(lines, list) else [lines]
    raw = [line if isinstance(line, bytes) else line.encode() for line in lines]
    return [entry for line in raw for entry in parse_line(line, context)], context


def read_one(line, **options):
    """Read a line that holds one record and nothing else."""
    (record,), context = read(line, **options)
    assert {} == context.skipped
    return record


def read_sample(name, **options):
    path = DATA / name
    options = {"size_bytes": path.stat().st_size, **options}
    return read(path.read_bytes().splitlines(keepends=True), **options)


def log_line(data='{"loss": 0.5}', step="[0, 1]", prefix="DLLL"):
    """Return a LOG line of the second 1,700,000,000."""
    times = '"timestamp": "1700000000.25", "elapsedtime": "1.5"'
    return f'{prefix} {{{times}, "type": "LOG", "step": {step}, "data": {data}}}'


def tcap_line(data):
    return log_line(json.dumps(data), prefix="TCAPPDLL")


START_US = utc_us(2026, 11, 20, 21, 47, 20)
END_US = utc_us(2026, 11, 20, 21, 47, 28)

# Counted by eye and awk, not by this parser: records, metadata, infos, and other lines.
# The metadata of a text log are the units that it shows, once per metric.
SAMPLES = {
    "nvidia_resnet_log.json": (DLLOGGER_JSON, 39, 13, 0, {}),
    "nvidia_stdout_log.txt": (DLLOGGER_TEXT, 49, 3, 0, {}),
    "tcap_log.json": (TCAP_JSON, 4, 5, 2, {}),
    "tcap_console.log": (TCAP_TEXT, 6, 1, 0, {"not_a_record": 6, "blank": 2}),
    "mmengine_epoch/train.log": (MMENGINE_TEXT, 15, 0, 0, {"not_a_record": 129, "blank": 5}),
    "mmengine_iter/train.log": (MMENGINE_TEXT, 15, 0, 0, {"not_a_record": 126, "blank": 5}),
    "mmengine_epoch/vis_data/scalars.json": (MMENGINE_SCALARS, 9, 0, 0, {}),
    "mmengine_iter/vis_data/scalars.json": (MMENGINE_SCALARS, 9, 0, 0, {}),
}


MMENGINE_HEAD = "2023/11/14 22:13:20 - mmengine - INFO - "


TEXT = "TCAPPDLL 2025-05-15 14:20:10.93 - Epoch: 0 Iteration: 7  rank : 2  loss : 0.5 s"
MMENGINE = f"{MMENGINE_HEAD}Iter(train) [10/60]  loss: 0.5"


# Bad lines, and the reason under which they are counted.
BAD = [
    (b"", "blank"),
    (b" \t\r\n", "blank"),
    (b"Traceback (most recent call last):", "not_a_record"),
    (b'{"loss": 1}', "not_a_record"),
    (b'{"step": "1"}', "not_a_record"),
    (b'{"type": "LOG", "step": 1, "data": {}}', "not_a_record"),
    (b'INFO {"a": 1}', "not_a_record"),
    (b'INFO {"data": 1}', "unknown_type"),
    (b"DLL 2023-11-14 22:13:20.25 - (0, 1) 1.5 time : 2", "unclear_name"),
    (b'DLLL {"type": "LOG", "st', "torn"),
    (b"DLLL {", "torn"),
    (b"DLLL ", "torn"),
    (b"TCAPPDLL 2025-06-19 01:3", "torn"),
    (b"DLL 2025-06-19 01:37:38.9", "torn"),
    (b"DLL 2025-06-19 01:37:38.9 - ", "torn"),
    (b'{"lr": 0.01, "data_ti', "torn"),
    (b"2026/11/20 21:47:21 - mmengine - INFO - Epoch(train) [2][10", "torn"),
    (b'DLLL {"a": tru, "b": 1}', "malformed"),
    (b'DLLL {"type": "PICTURE"}', "unknown_type"),
    (b'DLLL {"type": "LOG", "step": 1}', "missing_fields"),
    (b'DLLL {"type": "METADATA", "metric": "a"}', "missing_fields"),
    (b'DLLL {"type": "INFO"}', "missing_fields"),
    (b'DLLL {"type": "LOG", "step": 1, "data": {}}', "no_time"),
    (log_line().replace("1700000000.25", "NaN").encode(), "no_time"),
    (log_line().replace("1700000000.25", "1e300").encode(), "no_time"),
    (b"DLL 2025-02-30 01:37:38 - (0, 1) a : 1 ", "no_time"),
    (b"DLL 0001-01-01 00:00:00 - (0, 1) a : 1 ", "no_time"),
    (log_line().replace('"1700000000.25"', '"x", "datetime": "today"').encode(), "no_time"),
    (b"02/30 21:47:21 - mmengine - INFO - Iter(train) [2/10]  loss: 1", "no_time"),
    (tcap_line("{'a': tensor(1)}").encode(), "unreadable_data"),
    (tcap_line("{'a': 1_0}").encode(), "unreadable_data"),
    (tcap_line("{'a': \u0663}").encode(), "unreadable_data"),
    (tcap_line("{'a': '\\U00110000'}").encode(), "unreadable_data"),
    (tcap_line("{[]: 1}").encode(), "unreadable_data"),
    (tcap_line("{'a': ]}").encode(), "unreadable_data"),
    (tcap_line("{'a': (1]}").encode(), "unreadable_data"),
    (tcap_line("{'a': None} b").encode(), "unreadable_data"),
    (tcap_line("{'a': 1, None}").encode(), "unreadable_data"),
    (tcap_line("{'a': {1, 2: None}}").encode(), "unreadable_data"),
    (tcap_line("{'a': 1: None}").encode(), "unreadable_data"),
    (tcap_line("{'a': [1: None]}").encode(), "unreadable_data"),
    (tcap_line("{'a': (,)}").encode(), "unreadable_data"),
    (tcap_line("{'a': 'b' 'c', 1: None}").encode(), "unreadable_data"),
    # This overflows the stack of Python 3.10's own parser.
    (tcap_line("()" * 300_000).encode(), "unreadable_data"),
    (tcap_line("1" + "-1" * 300_000).encode(), "unreadable_data"),
    (log_line('{"a": "\0"}').encode(), "nul_bytes"),
    (b"\0" * 512, "nul_bytes"),
    (TEXT.encode() + b"\0", "nul_bytes"),
    (log_line('{"a": "?"}').encode().replace(b"?", b"\xff"), "invalid_utf8"),
    (TEXT.encode().replace(b"loss", b"lo\xe9s"), "invalid_utf8"),
    (b"DLLL " + b'{"a":' * 100_000, "nested_too_deep"),
    (log_line("[" * 100_000 + "]" * 100_000).encode(), "nested_too_deep"),
    (log_line('{"a": ' + "[" * 101 + "]" * 101 + "}").encode(), "nested_too_deep"),
    (b'{"step": ' * 100_000, "nested_too_deep"),
    (tcap_line("(" * 100_000).encode(), "nested_too_deep"),
    (tcap_line("{'a': " + "(" * 150 + "1," + ",)" * 150 + "}").encode(), "nested_too_deep"),
    (tcap_line("{'a': " * 500 + "1" + "}" * 500).encode(), "nested_too_deep"),
    (log_line(f'{{"a": {"1" * 5_000}}}').encode(), "number_too_long"),
    (tcap_line("{'a': " + "1" * 5_000 + "}").encode(), "number_too_long"),
    (log_line('{"a": "' + "x" * MAX_LINE_BYTES + '"}').encode(), "line_too_long"),
    (b"DLLL {" * 1000, "nested_too_deep"),
    (b"DLLL {[" * 20, "torn"),
]


def rows(*steps):
    return [json.dumps({"loss": 0.5, "iter": step, "step": step}) + "\n" for step in steps]
