"""A file's lines as items of ranks' stores: names, metadata, attempts, and going on."""

from __future__ import annotations

import json
import os
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_dllogger.errors import ConfigurationError
from otel_dllogger.logs import reader as module
from otel_dllogger.logs.parsers.context import FileContext
from otel_dllogger.logs.parsers.detect import parse_line
from otel_dllogger.logs.parsers.formats import FileRecord
from otel_dllogger.logs.reader import SEPARATOR, FileReader, ProcessStart, key_of
from otel_dllogger.logs.run_identity import RunIdentity
from otel_dllogger.logs.run_start import find_start_us
from otel_dllogger.metrics.naming import MetricMetadata, parse_metadata
from otel_dllogger.metrics.store import SeriesStore
from otel_dllogger.record import Info, Metadata, Record, SeriesMetadata
from tests.support.in_memory import in_memory_backend
from tests.support.parsers import DATA, SAMPLES, SCALARS, log_line, utc_us

pytestmark = pytest.mark.newest_only

EXAMPLES = settings(deadline=None, derandomize="CI" in os.environ, max_examples=250)

START_US = 1_700_000_000_000_000
SECOND_US = 10**6
RUN_START_US = utc_us(2026, 11, 20, 21, 47, 20)
MODIFIED_US = utc_us(2026, 11, 20, 21, 47, 28)

TRAIN_TEXT = (
    b"2026/11/20 21:47:24 - mmengine - INFO - Epoch(train) [1][10/25]  time: 0.5  loss: 1.5"
)
VAL_TEXT = b"2026/11/20 21:47:25 - mmengine - INFO - Epoch(val) [1][25/25]  acc: 0.1  time: 0.2"


def make_reader(*, rank=0, **options):
    return FileReader(
        RunIdentity("a run", rank, None), **{"zone": "UTC", "name": SCALARS, **options}
    )


def read(lines, **options):
    """Read lines with a reader of their own; give the items and the reader.

    What says that a process started is left out, once it is found to agree with the attempts.
    """
    reader = make_reader(**options)
    reader.observe(size_bytes=10**6, modified_us=MODIFIED_US)
    before = Counter(reader.attempts)
    items = [item for line in lines for item in reader.read(encode(line))]
    for rank, item in items:
        if isinstance(item, ProcessStart):
            before[rank] = before.get(rank, 1) + item.attempts
    assert {rank: before.get(rank, 1) for rank in reader.attempts} == reader.attempts
    return [item for item in items if not isinstance(item[1], ProcessStart)], reader


def encode(line):
    return line if isinstance(line, bytes) else line.encode()


def metadata_line(metadata, metric="loss"):
    entry = {"timestamp": "1700000000.25", "elapsedtime": "1.5", "type": "METADATA"}
    return "DLLL " + json.dumps({**entry, "metric": metric, "metadata": metadata})


def series_metadata(items):
    return [(rank, item) for rank, item in items if isinstance(item, SeriesMetadata)]


def shown(items):
    """Give items in a form that can be compared: records are equal by their parts."""
    return [(rank, type(item), show(item)) for rank, item in items]


def show(item):
    return sorted(vars(item).items(), key=str) if isinstance(item, FileRecord) else item


def sample_lines(name):
    return (DATA / name).read_bytes().splitlines(keepends=True)


def metadata_of(items, rank=0, key="loss"):
    """Give what the store of a rank knows of a series after all items."""
    store = SeriesStore(run="a run", rank=rank, start_us=0)
    for number, item in items:
        if number == rank and not isinstance(item, ProcessStart):
            store.take(item)
    return store.metadata.get(key, MetricMetadata())


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_gives_all_of_its_entries(name):
    """As many as the formats give, each with its rank, the context's counts, and no restart."""
    lines = sample_lines(name)
    context = FileContext(zone="UTC", name=SCALARS, size_bytes=10**6, modified_us=MODIFIED_US)
    entries = [entry for line in lines for entry in parse_line(line, context)]
    items, reader = read(lines)
    given = [item for item in items if not isinstance(item[1], SeriesMetadata)]
    assert len(entries) == len(given)
    for entry, (rank, item) in zip(entries, given, strict=True):
        assert type(entry) is type(item)
        assert rank == (entry.rank if isinstance(entry, FileRecord) else 0)
        assert (entry.time_us, entry.elapsed_us) == (item.time_us, item.elapsed_us)
    assert context.skipped == reader.skipped
    assert context.entries == reader.entries
    ranks = {entry.rank for entry in entries if isinstance(entry, FileRecord)}
    assert dict.fromkeys(ranks, 1) == reader.attempts


@pytest.mark.parametrize("name", SAMPLES)
def test_every_metric_is_named_before_its_first_record(name):
    """Once; and it says what name and file say, all of it."""
    items, _ = read(sample_lines(name))
    named = {}
    said = {}
    for rank, item in items:
        if isinstance(item, SeriesMetadata):
            assert (rank, item.key) not in said
            named[rank, item.key] = item.name
        elif isinstance(item, FileRecord) and item.step != "PARAMETER":
            for key in item.numbers:
                if key != "rank" and "loss" in key:
                    assert (rank, key) in named
                    assert metadata_of(items, rank, key).goal == "minimize"
                said[rank, key] = True


def test_the_console_of_several_ranks():
    """A unit that one rank's line shows holds for all, and comes as metadata but once."""
    items, _ = read(sample_lines("tcap_console.log"))
    (metadata,) = [item for item in items if isinstance(item[1], Metadata)]
    assert 0 == metadata[0]
    ranks = Counter(rank for rank, item in items if isinstance(item, FileRecord))
    assert {0: 4, 3: 1, 1: 1} == ranks
    for rank in ranks:
        found = metadata_of(items, rank, "train.ips")
        assert MetricMetadata("{image}/s", "maximize", unit_text="imgs/s") == found
    assert 1 == sum(item.key == "train.ips" for rank, item in series_metadata(items) if rank == 3)


def test_infos_and_metadata_are_the_files_ranks():
    """They name none."""
    items, _ = read(sample_lines("tcap_log.json"), rank=5)
    assert {5} == {rank for rank, item in items if isinstance(item, (Info, Metadata))}


def test_what_the_package_writes_is_passed_on_as_it_is():
    """The record of the line itself, its data not copied, numbers found once."""
    backend = in_memory_backend()
    backend.write_record(Record(START_US, 5, (0, 1), {"memory": 0.5}))
    items, _ = read(backend.file.lines)
    ((rank, record),) = items
    assert (0, {"memory": 0.5}) == (rank, record.data)
    assert record.numbers_only
    assert record.numbers is record.data


def test_the_rank_in_the_data_decides():
    """And is no metric."""
    items, reader = read([log_line('{"rank": 3, "loss": 1}'), log_line('{"loss": 1}')], rank=2)
    loss = SeriesMetadata("loss", "loss", {"GOAL": "MINIMIZE"})
    assert [(3, loss), (2, loss)] == series_metadata(items)
    assert [3, 3, 2, 2] == [rank for rank, _ in items]
    assert {3: 1, 2: 1} == reader.attempts


def test_only_numbers_are_named():
    """Text, lists and parameters are no metrics; the name comes with the first number."""
    lines = [
        log_line('{"loss": "high", "loss_list": [1], "loss_x": {"loss": 1}}'),
        log_line('{"loss": 1}', step='"PARAMETER"'),
        log_line('"loss"'),
    ]
    assert [] == series_metadata(read(lines)[0])
    items, _ = read([*lines, log_line('{"loss": "1.5"}'), log_line()])
    assert ["loss"] == [item.key for _, item in series_metadata(items)]
    assert isinstance(items[3][1], SeriesMetadata)


@pytest.mark.parametrize("text", [True, False])
def test_mmengines_stages_are_series_of_their_own(text):
    """The same name in a header of train and of val; the rest of the record is the same."""
    lines = [TRAIN_TEXT, VAL_TEXT]
    if not text:
        lines = [b'{"time": 0.5, "loss": 1.5, "iter": 1, "step": 1}', b'{"time": 0.2, "step": 1}']
    items, _ = read(lines, rank=2)
    records = [item for _, item in items if isinstance(item, FileRecord)]
    assert {f"time{SEPARATOR}train": 0.5, f"loss{SEPARATOR}train": 1.5} == records[0].data
    assert 0.2 == records[1].data[key_of("time", "val")]
    times = [item for _, item in series_metadata(items) if item.name == "time"]
    assert [
        SeriesMetadata(key_of("time", stage), "time", {"unit": "s", "STAGE": stage.upper()})
        for stage in ("train", "val")
    ] == times
    context = FileContext(
        rank=2, zone="UTC", name=SCALARS, size_bytes=10**6, modified_us=MODIFIED_US
    )
    for line, record in zip(lines, records, strict=True):
        (original,) = parse_line(line, context)
        for name in (
            "time_us",
            "elapsed_us",
            "step",
            "log_format",
            "rank",
            "stage",
            "interpolated",
        ):
            assert getattr(original, name) == getattr(record, name)


def test_a_rank_of_mmengine_stays_a_rank():
    """Its key is what ranks are found by."""
    items, _ = read([b'{"rank": 3, "step": 1}'])
    ((rank, record),) = items
    assert (3, {"rank": 3}) == (rank, record.data)


def test_without_conventions_only_the_file_says_something():
    """Which of MMEngine's header is the stage."""
    items, _ = read([log_line(), TRAIN_TEXT, metadata_line({"unit": "s"})], conventions=False)
    train = [
        (0, SeriesMetadata(key_of(name, "train"), name, {"STAGE": "TRAIN"})) for name in NAMES[:2]
    ]
    train.append(
        (0, SeriesMetadata(key_of("loss", "train"), "loss", {"unit": "s", "STAGE": "TRAIN"}))
    )
    assert train == series_metadata(items)


NAMES = ["time", "loss"]
RANK_1 = "- rank : 1  "

SAID = [
    {},
    {"unit": "nat"},
    {"unit": None},
    {"unit": 5},
    {"GOAL": "NONE"},
    {"goal": "NONE"},
    {"goal": "MAXIMIZE", "stage": "val"},
    {"GOAL": "MAXIMIZE", "goal": "NONE"},
    {"STAGE": "TEST"},
    {"format": ":.3f"},
]


@pytest.mark.parametrize("metric", ["loss", "ips"])
@pytest.mark.parametrize("said", SAID)
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("rank", [0, 3])
def test_what_the_file_says_holds_over_conventions(metric, said, first, rank):
    """Before the first record or after it, for the file's rank and for another."""
    record = log_line(json.dumps({metric: 0.5, "rank": rank}))
    lines = [metadata_line(said, metric), record, record]
    items, _ = read(lines if first else [record, *lines])
    conventional = {"loss": {"GOAL": "MINIMIZE"}, "ips": {"GOAL": "MAXIMIZE"}}
    upper = {key if key == "unit" else key.upper(): value for key, value in said.items()}
    expected = parse_metadata({**conventional[metric], **upper, **said})
    assert expected == metadata_of(items, rank, metric)
    assert 1 == sum(isinstance(item, Metadata) for _, item in items)


@pytest.mark.slow
@EXAMPLES
@given(st.lists(st.sampled_from(SAID) | st.none(), max_size=6))
def test_all_ranks_know_the_same(lines):
    """Whatever METADATA come between records: what the ranks' stores end with is equal."""
    records = [log_line(json.dumps({"loss": 0.5, "rank": rank})) for rank in (0, 3)]
    mixed = [
        line for said in lines for line in (records if said is None else [metadata_line(said)])
    ]
    items, _ = read([*mixed, *records])
    assert metadata_of(items, 0) == metadata_of(items, 3)
    raw = {}
    for said in lines:
        raw.update(said or {})
    goal = raw.get("GOAL", raw.get("goal", "MINIMIZE"))
    stage = raw.get("STAGE", raw.get("stage"))
    assert parse_metadata({**raw, "GOAL": goal, "STAGE": stage}) == metadata_of(items)


def test_series_metadata_come_again_when_more_is_known_and_only_then():
    """For every other rank that has the metric; for the file's own the line itself is enough."""
    records = [log_line(json.dumps({"loss": 0.5, "rank": rank})) for rank in (0, 3, 4)]
    unit = metadata_line({"unit": "nat"})
    items, reader = read([*records, log_line('{"rank": 5, "memory": 1}')])
    assert [0, 3, 4] == [rank for rank, _ in series_metadata(items)]
    said = SeriesMetadata("loss", "loss", {"GOAL": "MINIMIZE", "unit": "nat"})
    assert [(3, said), (4, said)] == reader.read(unit.encode())[1:]
    assert 1 == len(reader.read(unit.encode()))
    assert 1 == len(reader.read(metadata_line({"unit": "nat", "format": "x"}).encode()))


def test_metadata_reach_mmengines_series_but_for_the_stage():
    """The header knows it better."""
    items, _ = read([TRAIN_TEXT, metadata_line({"unit": "nat", "STAGE": "VAL"})])
    said = SeriesMetadata(key_of("loss", "train"), "loss", {"GOAL": "MINIMIZE", "unit": "nat"})
    said.metadata["STAGE"] = "TRAIN"
    assert (0, said) == items[-1]


def test_metadata_of_any_kind_are_passed_on():
    """Also what is no dict, or no text as a name, or the rank's."""
    record = log_line('{"rank": 3, "1": 1}')
    lines = [metadata_line("s"), metadata_line(None), metadata_line({"unit": "s"}, 1), record]
    items, reader = read([*lines, metadata_line({"unit": "s"}, "rank")])
    assert [Metadata] * 3 + [SeriesMetadata, FileRecord, Metadata] == [
        type(item) for _, item in items
    ]
    assert (3, SeriesMetadata("1", "1", {"unit": "s"})) == items[3]
    assert {"": 0} | reader.entries == {"": 0, "DLLogger JSON lines": 5}


def test_the_first_record_of_a_process_says_when_it_started():
    """By its own clock: the first of a file, and the first after a restart."""
    reader = make_reader()
    seen = []
    for start_us in (START_US, START_US + 10**9):
        for elapsed_us in (1_000_000, 2_000_000):
            time_us = start_us + elapsed_us
            entry = {"timestamp": str(time_us / 1e6), "elapsedtime": str(elapsed_us / 1e6)}
            entry |= {"datetime": "x", "type": "LOG", "step": [0, 1], "data": {"memory": 1}}
            for _rank, item in reader.read(encode("DLLL " + json.dumps(entry))):
                seen.append(item if isinstance(item, ProcessStart) else type(item))
    started = [ProcessStart(START_US, 0), ProcessStart(START_US + 10**9, 1)]
    assert [started[0], FileRecord, FileRecord, started[1], FileRecord, FileRecord] == seen


class Job:
    """A process that logs: lines of the package's own JSON backend."""

    def __init__(self, start_s):
        self.start_s = start_s
        self.backend = in_memory_backend()

    def log(self, elapsed_s, *, set_s=0.0, data=None):
        """Give the line of a record; its clock was set by so much since the start."""
        time_us = START_US + round((self.start_s + elapsed_s + set_s) * SECOND_US)
        data = {"loss": 0.5} if data is None else data
        self.backend.write_record(Record(time_us, round(elapsed_s * SECOND_US), (0, 1), data))
        return self.backend.file.lines.pop()


def attempt_after(lines, rank=0):
    return read(lines)[1].attempts[rank]


def test_a_job_that_starts_again_is_the_next_attempt():
    """Where its clock began at the last record or after; the first lines count, and no others."""
    first, second, third = Job(0), Job(20.0), Job(60.0)
    lines = [first.log(1), first.log(2), first.log(20)]
    assert 1 == attempt_after(lines)
    lines += [second.log(0.5), second.log(1), second.log(30)]
    assert 2 == attempt_after(lines)
    assert 3 == attempt_after([*lines, third.log(100), third.log(200)])


def test_attempts_are_each_ranks_own():
    """One rank's record is no sign of another's end."""
    first, second = Job(0), Job(50)
    lines = [first.log(1, data={"rank": 1}), first.log(10, data={"rank": 2})]
    lines += [second.log(1, data={"rank": 2}), first.log(60, data={"rank": 1})]
    assert {1: 1, 2: 2} == read(lines)[1].attempts


def test_processes_that_write_at_once_are_no_attempts():
    """Whenever they began: a later one counts only until an earlier one is heard of again."""
    first, second, third = Job(0), Job(2), Job(5)
    lines = [first.log(1), second.log(1), first.log(4), third.log(1)]
    for elapsed_s in range(6, 20):
        lines += [job.log(elapsed_s - job.start_s) for job in (first, second, third)]
        assert 1 == attempt_after(lines)
    assert 2 == attempt_after([*lines, Job(20).log(0.1)])


def test_processes_that_begin_together_are_never_attempts():
    """The rule of thumb for ranks that write one file: all begin before the first record."""
    jobs = [Job(start_s) for start_s in (0, 0.3, 1.2)]
    reader = make_reader()
    for elapsed_s in range(2, 30):
        for job in jobs:
            reader.read(job.log(elapsed_s))
            assert {0: 1} == reader.attempts


@pytest.mark.parametrize("set_s", [-5, -0.5, 0.5, 5])
def test_a_clock_that_is_set_is_no_attempt(set_s):
    """In a run that is longer than what it is set by; nor in the second attempt."""
    reader = make_reader()
    for attempt, job in ((1, Job(0)), (2, Job(1000))):
        steps = [job.log(elapsed_s) for elapsed_s in (1, 10, 60)]
        steps += [job.log(elapsed_s, set_s=set_s) for elapsed_s in (60.1, 61, 70, 100)]
        for line in [*steps, job.log(101), job.log(102)]:
            reader.read(line)
            assert {0: attempt} == reader.attempts


def test_elapsed_times_that_are_worked_out_never_count():
    """Of lines that do not say theirs, in whatever order they come."""
    times = (10, 10, 20, 5, 5, 300, 299, 1, 400)
    old = [log_line().replace('"elapsedtime": "1.5", ', "") for _ in times]
    old = [
        line.replace("1700000000.25", f"{1700000000 + s}")
        for line, s in zip(old, times, strict=True)
    ]
    text = [f"DLL 2023-11-14 22:{13 + s // 60}:{s % 60:02} - (0, 1) loss : 1.0 " for s in times]
    null = [line.replace('"type"', '"elapsedtime": null, "type"') for line in old]
    for lines in (old, text, null):
        assert 1 == attempt_after(lines)
    assert 1 == attempt_after([TRAIN_TEXT, VAL_TEXT, TRAIN_TEXT])
    # Another rank's process, which began after this one's last record, is what they count from.
    before = [Job(12).log(1), Job(5).log(5, data={"rank": 1})]
    for line in (old[-1].replace('"loss"', '"rank": 1, "loss"'), text[-1].replace("- ", RANK_1)):
        assert {0: 1, 1: 1} == read([*before, line])[1].attempts
    assert 2 == attempt_after([*old, Job(500).log(1)])  # a newer release went on


def test_damaged_times_are_no_attempts():
    """Elapsed times below 0 or from before 1970, and the same microsecond twice."""
    job = Job(0)
    strange = [log_line().replace('"1.5"', f'"{elapsed}"') for elapsed in ("-5", "1e300", "2e9")]
    assert [] == read(strange)[1].state["ranks"][0][1]["starts_us"]
    _, reader = read([job.log(0), job.log(0)])
    for line in strange:
        reader.read(line.encode())
        assert {0: 1} == reader.attempts
    late = Job(10**6).log(0)
    assert 1 == attempt_after([job.log(10), late, job.log(11)])


def test_attempts_are_remembered_in_bounds():
    """However often a job starts again."""
    jobs = [Job(10 * i) for i in range(100)]
    _, reader = read([job.log(elapsed_s) for job in jobs for elapsed_s in (1, 2)])
    assert {0: 100} == reader.attempts
    assert 16 == len(reader.state["ranks"][0][1]["starts_us"])


MIXED = [
    *(log_line(json.dumps({"loss": 0.5, "rank": rank})) for rank in (0, 3)),
    metadata_line({"goal": "NONE"}),
    Job(0).log(5),
    Job(10).log(1, data={"\ud800": 1, "rank": 3}),
    TRAIN_TEXT,
    b'{"time": 0.2, "step": 1}',
    metadata_line({"unit": "nat"}),
    VAL_TEXT,
    b"noise",
]
FILES = {name: sample_lines(name) for name in SAMPLES} | {"mixed": [encode(line) for line in MIXED]}


@pytest.mark.slow
@EXAMPLES
@given(st.sampled_from(sorted(FILES)), st.data())
def test_a_reader_goes_on_at_any_line(name, data):
    """The same items, counts and state as of an unbroken read."""
    lines = FILES[name]
    cut = data.draw(st.integers(0, len(lines)))
    size = {"size_bytes": sum(map(len, lines)), "modified_us": MODIFIED_US}
    whole, reader = (make_reader(run_start_us=RUN_START_US) for _ in range(2))
    for each in (whole, reader):
        each.observe(**size)
    expected = [item for line in lines for item in whole.read(line)]
    items = [item for line in lines[:cut] for item in reader.read(line)]
    state = json.loads(json.dumps(reader.state, allow_nan=False))
    reader = FileReader(RunIdentity("a run", 0, None), state=state)
    assert state == json.loads(json.dumps(reader.state))
    items += [item for line in lines[cut:] for item in reader.read(line)]
    assert shown(expected) == shown(items)
    assert whole.state == reader.state
    assert (whole.skipped, whole.entries, whole.attempts) == (
        reader.skipped,
        reader.entries,
        reader.attempts,
    )


def test_a_state_is_a_copy():
    """What is read later does not change it."""
    _, reader = read(MIXED[:2])
    state = reader.state
    text = json.dumps(state)
    for line in MIXED:
        reader.read(encode(line))
    assert text == json.dumps(state)


def test_what_is_given_anew_holds_over_the_state():
    """The rank and the zone; an empty state is none."""
    _, reader = read([log_line()])
    again = FileReader(RunIdentity("a run", 4, None), zone="+01:00", state=reader.state)
    assert 4 == again.read(log_line().encode())[-1][0]
    assert ("+01:00", 4) == (again.state["context"]["zone"], again.state["context"]["rank"])
    assert {} == FileReader(RunIdentity("a run", 0, None), state={}).attempts
    with pytest.raises(ConfigurationError, match="no time zone 'Mars'"):
        make_reader(zone="Mars")


def test_the_start_in_the_path_is_where_scalars_begin():
    """Each row follows by the duration of its iterations."""
    path = "/w/20261120_214720/vis_data/scalars.json"
    reader = make_reader(run_start_us=find_start_us(path, zone="UTC"))
    reader.observe(size_bytes=100, modified_us=RUN_START_US + 100 * SECOND_US)
    line = b'{"time": 5, "lr": 0.1, "iter": %d, "step": 1}\n'
    assert [5, 10] == [
        (reader.read(line % i)[-1][1].time_us - RUN_START_US) // SECOND_US for i in (1, 2)
    ]
    assert make_reader().state["context"]["run_start_us"] is None


def test_names_are_remembered_in_bounds(monkeypatch):
    """Beyond them a plain name goes without series metadata, and its METADATA hold as when live."""
    monkeypatch.setattr(module, "MAX_NAMES", 3)
    losses = [log_line(json.dumps({f"loss{i}.loss": 1, "rank": i})) for i in range(5)]
    said = [metadata_line({"unit": "nat"}, f"loss{i}.loss") for i in range(5)]
    long = "loss." + "x" * 10_000
    items, reader = read([log_line(json.dumps({long: 1})), *losses, *said, *losses])
    assert [0, 1, 2] == [rank for rank, _ in series_metadata(items)][:3]
    ranks = dict(reader.state["ranks"])
    assert {0, 1, 2} == set(ranks)
    assert 3 == len(reader.state["metadata"])
    assert 3 == reader._names == FileReader(reader.identity, state=reader.state)._names
    items = reader.read(TRAIN_TEXT)  # keys without names would be of no use: they come each time
    assert 2 == len(series_metadata(items)) == len(series_metadata(reader.read(TRAIN_TEXT)))
    assert 20_000 > len(json.dumps(reader.state))


def test_absurd_ranks_are_not_remembered():
    """They would fill the state."""
    items, reader = read([log_line('{"rank": 1e300, "loss": 1}'), metadata_line({"unit": "s"})])
    assert int(1e300) == items[0][0]
    assert {} == reader.attempts
    assert 0 == reader._names


def test_long_metadata_are_kept_in_part():
    """The line itself is passed on whole."""
    items, reader = read([metadata_line({"unit": "x" * 10_000})])
    assert 10_000 == len(items[0][1].metadata["unit"])
    assert 1_000 == len(reader.state["metadata"]["loss"]["unit"])


@EXAMPLES
@given(st.lists(st.sampled_from(sorted({line for lines in FILES.values() for line in lines}))))
def test_nothing_raises_whatever_is_mixed(lines):
    """Every record is there, every key is named before, and the state is JSON."""
    items, reader = read(lines)
    records = sum(isinstance(item, FileRecord) for _, item in items)
    infos = sum(isinstance(item, (Info, Metadata)) for _, item in items)
    entries = [
        entry for line in lines for entry in parse_line(line, FileContext(zone="UTC", name=SCALARS))
    ]
    assert records == sum(isinstance(entry, FileRecord) for entry in entries)
    assert infos <= len(entries)
    json.dumps(reader.state, allow_nan=False)
    named = set()
    for rank, item in items:
        if isinstance(item, SeriesMetadata):
            named.add((rank, item.key))
        elif isinstance(item, FileRecord) and item.header_stage is not None:
            assert {(rank, key) for key in item.numbers if key != "rank"} <= named
