"""TensorBoard's event files that grow while a bridge follows them."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_dllogger.logs.parsers.tfrecord import is_frame
from otel_dllogger.logs.tail.file_state import NUL_VISITS
from otel_dllogger.logs.tail.split_frames import read_frames
from otel_dllogger.logs.tail.tailer import Tailer
from otel_dllogger.otlp.patience import Stopped
from tests.support.bridge import append, open_bridge, parse_page, read_page, value_of
from tests.support.collector import HTTPCollector
from tests.support.event_files import NAME, T0, VERSION, event, frame, long_frame, scalars, value
from tests.support.otlp_forwarder import open_forwarder, received_us
from tests.support.tailer import append as append_raw
from tests.support.tailer import counted, lines_of

pytestmark = pytest.mark.newest_only


@pytest.fixture
def log(tmp_path):
    """An event file of a run; the checkpoint is elsewhere."""
    path = tmp_path / "runs" / "resnet50" / NAME
    append(path, VERSION)
    return path


def visit(bridge):
    """Look once, save, and return the page."""
    bridge.poll()
    bridge._ingest.commit()
    return parse_page(bridge._render("")[1].decode())


def records(page):
    return value_of(page, "dllogger_records_total", "rank=0", "type=log")


def test_events_are_read_on_the_next_visit(log):
    """Several flushes, each of several events, and values with their labels."""
    with open_bridge(log.parents[1]) as bridge:
        visit(bridge)
        for number in range(3, 30, 3):  # the writer was made three seconds before
            append(log, scalars(number, number + 3))
            assert records(visit(bridge)) == number
        append(log, event(30, value("val/acc", 0.5)))
        page = visit(bridge)
    labels = ("run=resnet50", "rank=0")
    assert value_of(page, "dl_loss_train", *labels) == pytest.approx(8 / 30)
    assert value_of(page, "dl_acc", *labels, "stage=val", "granularity=validation") == 0.5
    times = value_of(page, "dllogger_last_log_timestamp_seconds", *labels)
    assert times == T0 + 30
    assert value_of(page, "dllogger_run_start_timestamp_seconds", "run=resnet50") == T0


def test_half_an_event_waits_for_its_rest(logs, follow):
    """A look after each byte gives each frame once, as it was written, at its position."""
    text = VERSION + scalars(0, 3)
    tailer = follow(logs)
    found, ends = [], []
    for at in range(len(text)):
        append_raw(logs / NAME, text[at : at + 1])
        for batch in tailer.poll():
            if hasattr(batch, "lines"):
                found += batch.lines
                assert batch.file.position == batch.end == [*batch.positions()][-1]
                ends.append(batch.end.offset)
    assert b"".join(found) == text
    size = (len(text) - len(VERSION)) // 3
    assert ends == [len(VERSION) + size * number for number in range(4)]
    assert counted(tailer) == {}


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_restart_loses_nothing_and_counts_nothing_twice(log, tmp_path, is_killed):
    """With half an event in the file, and after a kill with events that were not saved."""
    checkpoint = tmp_path / "checkpoint"
    half = scalars(6, 7)
    append(log, scalars(0, 6) + half[:20])
    with open_bridge(log.parents[1], checkpoint=checkpoint) as bridge:
        assert records(visit(bridge)) == 6
        append(log, half[20:] + scalars(7, 9))
        if is_killed:
            bridge.poll()
    with open_bridge(log.parents[1], checkpoint=checkpoint) as bridge:
        assert records(read_page(bridge)) == 9
        append(log, scalars(9, 10))
        page = visit(bridge)
    assert records(page) == 10
    assert value_of(page, "dl_loss_train", "run=resnet50") == pytest.approx(0.8)
    assert {value for key, value in page.items() if "bridge_unusual" in key[0]} == {0}


def test_a_process_that_starts_again_writes_another_file(log):
    """Both belong to the run; so does the file of the second version."""
    append(log, scalars(0, 5))
    with open_bridge(log.parents[1]) as bridge:
        assert records(visit(bridge)) == 5
        append(log.with_name(f"{NAME[:-1]}1.v2"), VERSION + scalars(5, 8))
        append(log.with_name(f"{NAME[:-1]}2"), VERSION + scalars(8, 10))
        page = read_page(bridge)
    assert records(page) == 10
    assert value_of(page, "dl_loss_train", "run=resnet50", "rank=0") == pytest.approx(0.8)
    assert value_of(page, "dllogger_bridge_unusual_total", "reason=repeated") == 0


def test_damage_is_counted_once_it_is_certain(log):
    """A network file system may still fill it; what follows waits as long."""
    bad = bytearray(scalars(1, 2))
    bad[9] ^= 1
    append(log, scalars(0, 1) + bytes(bad) + scalars(2, 4))
    with open_bridge(log.parents[1]) as bridge:
        pages = [visit(bridge) for _ in range(NUL_VISITS + 2)]
    assert [records(page) for page in pages] == [1] * NUL_VISITS + [3, 3]
    for name in ("dllogger_bridge_skipped_total", "dllogger_dropped_total"):
        assert value_of(pages[-1], name, "reason=malformed") == 1


@pytest.mark.parametrize("hidden", [slice(0, 12), slice(-4, None), slice(None)])
def test_nuls_that_are_filled_later_cost_nothing(logs, follow, hidden):
    """A network file system may show the new size before the new bytes."""
    last = bytearray(scalars(1, 2))
    last[hidden] = bytes(len(last[hidden]))
    whole = VERSION + scalars(0, 2)
    append_raw(logs / NAME, VERSION + scalars(0, 1) + last + scalars(2, 3))
    tailer = follow(logs)
    assert b"".join(lines_of(tailer, NUL_VISITS)[NAME]) == VERSION + scalars(0, 1)
    with (logs / NAME).open("r+b") as file:
        file.write(whole)
    assert b"".join(lines_of(tailer, 2)[NAME]) == scalars(1, 3)


@pytest.mark.parametrize("length", [2_000, 3_000_000])
def test_an_event_that_is_too_long_is_passed_over(logs, follow, length):
    """It may be as long as it likes, and come in parts; it is neither held nor counted."""
    long = long_frame(length)
    append_raw(logs / NAME, VERSION + long[: length // 2])
    tailer = follow(logs, max_line_bytes=1024, file_bytes=1024)
    assert lines_of(tailer, 3) == {NAME: [VERSION]}
    append_raw(logs / NAME, long[length // 2 :] + long + scalars(0, 2))
    assert b"".join(lines_of(tailer, 4)[NAME]) == scalars(0, 2)
    assert counted(tailer) == {}
    assert tailer.files[0].fingerprint.offset == (logs / NAME).stat().st_size


def test_a_file_without_end_of_damage_is_not_read_for_ever(logs, follow):
    """What follows damage is found in whatever parts it is read."""
    append_raw(logs / NAME, VERSION + b"\xff" * 5_000 + scalars(0, 2))
    tailer = follow(logs, file_bytes=1024)
    lines = lines_of(tailer, 10 * NUL_VISITS)[NAME]
    assert b"".join(lines) == (logs / NAME).read_bytes()
    assert b"".join(lines[-2:]) == scalars(0, 2)


def test_damage_ends_where_the_next_event_begins(logs, follow):
    """Even if only half of its header is there at first."""
    append_raw(logs / NAME, VERSION + b"damage, not an event" + scalars(0, 1)[:6])
    tailer = follow(logs)
    assert lines_of(tailer, 3 * NUL_VISITS) == {NAME: [VERSION]}
    append_raw(logs / NAME, scalars(0, 1)[6:])
    expected = {NAME: [b"damage, not an event", scalars(0, 1)]}
    assert lines_of(tailer, NUL_VISITS + 1) == expected


def test_a_collector_that_is_gone_for_a_while_gets_each_event_once(log, tmp_path):
    """What it has acknowledged is noted by the offsets of frames, which no newline separates."""
    append(log, scalars(0, 300))
    checkpoint = tmp_path / "checkpoint"
    with HTTPCollector() as collector:
        answers = iter((200, 503))
        collector.answer = lambda _points: (next(answers, 200), {}, b"")
        forwarder = open_forwarder(log, collector.url, checkpoint)
        with pytest.raises(Stopped):
            forwarder.run_to_end()
        forwarder.close()
        assert len(received_us(collector, "dl.loss_train")) > 50
        forwarder = open_forwarder(log, collector.url, checkpoint)
        forwarder.run_to_end()
        forwarder.close()
    expected = [round((T0 + step) * 1e6) for step in range(300)]
    assert received_us(collector, "dl.loss_train") == expected


@pytest.mark.slow
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=2_000),
            st.builds(frame, st.binary(max_size=1_500)),
            st.builds(long_frame, st.integers(1_000, 4_000)),
        ),
        max_size=6,
    ),
    st.integers(1, 3_000),
)
@settings(max_examples=60, deadline=None)
def test_any_bytes_are_cut_as_if_they_came_at_once(tmp_path_factory, parts, first):
    """In two parts, read in pieces: the frames that are returned are those of the whole file."""
    path = tmp_path_factory.mktemp("logs") / NAME
    data = VERSION + b"".join(parts) + scalars(0, 1)
    path.write_bytes(data[:first])
    found = []
    with Tailer([path], max_line_bytes=1024, file_bytes=1024) as tailer:
        for _ in range(2):
            for _ in range(12 * NUL_VISITS):
                found += lines_of(tailer).get(NAME, [])
            append_raw(path, data[first:])
            first = len(data)
    expected = [*read_frames(io.BytesIO(data), max_frame_bytes=1024)]
    assert [one for one in found if is_frame(one)] == [one for one in expected if is_frame(one)]
