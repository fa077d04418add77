"""The same training in several files of its framework: it counts once."""

from __future__ import annotations

import json
import os

import pytest

from otel_dllogger import logs
from otel_dllogger.logs.parsers import events
from otel_dllogger.logs.source import Source
from otel_dllogger.logs.whole_logs import find_logs
from tests.support.bridge import append, log_line, open_bridge, read_page, value_of
from tests.support.check import assert_said
from tests.support.command import otel_dllogger
from tests.support.event_files import NAME, VERSION, scalars
from tests.support.paths import TESTS

pytestmark = pytest.mark.newest_only

DATA = TESTS / "data"
FORMATS = DATA / "formats"
TIME = "20250101_000000"
EVENTS = VERSION + scalars(0, 3)
TEXT = (FORMATS / "detectron2.log").read_bytes()
METRICS = (FORMATS / "detectron2" / "metrics.json").read_bytes()
LIGHTNING = (FORMATS / "lightning" / "metrics.csv").read_bytes()
STATE = (FORMATS / "transformers" / "trainer_state.json").read_bytes()
SCALARS = (DATA / "mmengine_epoch" / "vis_data" / "scalars.json").read_bytes()

# The logs of each framework, the one to read first.
FAMILIES = {
    "Detectron2": {f"out/{NAME}": EVENTS, "out/log.txt": TEXT, "out/metrics.json": METRICS},
    "OpenMMLab": {
        f"work/{TIME}.log": (FORMATS / "openmmlab.log").read_bytes(),
        f"work/{TIME}.log.json": (FORMATS / "openmmlab.log.json").read_bytes(),
        f"work/tf_logs/{NAME}": EVENTS,
    },
    "MMEngine": {
        f"{TIME}/{TIME}.log": (DATA / "mmengine_epoch" / "train.log").read_bytes(),
        f"{TIME}/vis_data/scalars.json": SCALARS,
        f"{TIME}/vis_data/{TIME}.json": SCALARS,
        f"{TIME}/vis_data/{NAME}": EVENTS,
    },
    "Lightning": {f"version_0/{NAME}": EVENTS, "version_0/metrics.csv": LIGHTNING},
    "Ultralytics": {
        f"exp/{NAME}": EVENTS,
        "exp/results.csv": (FORMATS / "ultralytics" / "results.csv").read_bytes(),
    },
    "Transformers": {
        f"bert/runs/Nov28_12-00-00_host/{NAME}": EVENTS,
        "bert/trainer_state.json": STATE,
        "bert/trainer_log.jsonl": (FORMATS / "llamafactory/trainer_log.jsonl").read_bytes(),
    },
    "Transformers' checkpoints": {
        f"bert/logs/{NAME}": EVENTS,
        "bert/checkpoint-20/trainer_state.json": STATE,
    },
}


@pytest.fixture(params=FAMILIES)
def family(request):
    """Give the logs of a framework, the one to read first."""
    return FAMILIES[request.param]


def write(folder, files):
    for name, content in files.items():
        append(folder / name, content)


def found(folder):
    found = find_logs(Source([str(folder)]))
    return [log.path.removeprefix(f"{folder}/") for log in found]


def table(*paths):
    """Return the values that ``read`` finds, without where they are from."""
    return [(row.time, row.metric, repr(row.value)) for row in logs.read(*map(str, paths))]


@pytest.mark.filterwarnings("ignore:.* without a time", "ignore:.*times are made up")
def test_the_first_that_is_there_is_read(tmp_path, family):
    """One after the other appears, from the last to the first; a file that is named is read."""
    for name, content in reversed(family.items()):
        append(tmp_path / name, content)
        assert found(tmp_path) == [name]
        assert table(tmp_path) == table(tmp_path / name)
    for name in family:
        assert [log.path for log in find_logs(Source([str(tmp_path / name)]))] == [
            str(tmp_path / name)
        ]


def test_all_tools_read_the_same(tmp_path, family):
    """``check``, ``backfill`` and ``bridge``, with the first log alone and with all of them."""
    first = next(iter(family))
    write(tmp_path / "one" / "job", {first: family[first]})
    write(tmp_path / "all" / "job", family)
    tables, pages = [], []
    for name in ("one", "all"):
        done = otel_dllogger("check", "job", cwd=tmp_path / name)
        said = [line for line in done.stdout.splitlines() if "Left out" in line]
        assert len(said) == (name == "all"), done.stdout
        done = otel_dllogger("backfill", "job", "--to", "csv", "-", cwd=tmp_path / name)
        assert done.returncode == 0
        tables.append(done.stdout.splitlines())
        with open_bridge(tmp_path / name / "job") as bridge:
            page = read_page(bridge)
        pages.append({key for key in page if key[0].startswith("dl_")})
    assert tables[0] == tables[1]
    assert pages[0] == pages[1] != set()


def test_without_the_extra_the_next_one_is_read(tmp_path, family, monkeypatch):
    """Events cannot be read then, which is said, as before."""
    monkeypatch.setattr(events, "_load_messages", lambda: None)
    write(tmp_path, family)
    own = [name for name in family if NAME not in name]
    assert own[0] in found(tmp_path)
    assert not {*own[1:]} & {*found(tmp_path)}


DLLOGGER = log_line([0, 1], {"loss": 1.5}, time_us=1_700_000_000_000_000)
OTHERS = [
    (f"exp/{NAME}", "exp/metrics.json", DLLOGGER),
    (f"exp/{NAME}", "exp/metrics.json", json.dumps({"accuracy": 0.9}).encode() + b"\n"),
    (f"exp/{NAME}", "exp/log.txt", DLLOGGER),
    (f"exp/{NAME}", "exp/metrics.csv", b"step,loss\n1,0.5\n".replace(b"step", b"number")),
    (f"exp/{NAME}", "exp/trainer_state.json", STATE),
    (f"bert/runs/a/b/{NAME}", "bert/trainer_state.json", STATE),
    (f"{TIME}/vis_data/scalars.json", f"{TIME}/train.log", DLLOGGER),
    (
        f"work/{TIME}.log.json",
        "work/20250202_000000.log",
        FAMILIES["OpenMMLab"][f"work/{TIME}.log"],
    ),
    (f"{TIME}/vis_data/scalars.json", f"{TIME}/vis_data/toy_rank1.json", SCALARS),
]


@pytest.mark.parametrize(("one", "other", "content"), OTHERS)
def test_files_that_are_only_named_alike_are_read(tmp_path, one, other, content):
    """What they hold, or where they are, is of another tool or training."""
    contents = {name: text for files in FAMILIES.values() for name, text in files.items()}
    write(tmp_path, {one: contents.get(one, EVENTS), other: content})
    names = found(tmp_path)
    assert one in names
    assert other in names or other.endswith("metrics.csv")  # which holds no record at all


def test_a_log_without_steps_is_no_reason(tmp_path):
    """An event file that only has its first event is not read instead."""
    write(
        tmp_path, {f"out/{NAME}": VERSION, "out/log.txt": b"hello\n", "out/metrics.json": METRICS}
    )
    assert "out/metrics.json" in found(tmp_path)


def test_a_log_that_is_not_followed_is_no_reason(tmp_path):
    """A glob may leave it out."""
    write(tmp_path, FAMILIES["Detectron2"])
    logs_of_glob = find_logs(Source([str(tmp_path / "out" / "*.json")]))
    assert [log.path for log in logs_of_glob] == [str(tmp_path / "out" / "metrics.json")]


@pytest.mark.timeout(10)
def test_a_pipe_named_as_a_log_is_no_reason(tmp_path):
    """It would be waited for."""
    write(tmp_path, {"out/metrics.json": METRICS})
    os.mkfifo(tmp_path / "out" / "log.txt")
    assert found(tmp_path) == ["out/metrics.json"]


def test_a_folder_named_as_a_log_is_no_reason(tmp_path):
    """Only a file is; and a rotated file is what it was."""
    (tmp_path / TIME / "train.log").mkdir(parents=True)
    scalars_file = f"{TIME}/vis_data/scalars.json"
    write(tmp_path, {scalars_file: SCALARS})
    assert found(tmp_path) == [scalars_file]
    text = FAMILIES["MMEngine"][f"{TIME}/{TIME}.log"]
    write(tmp_path, {f"{TIME}/{TIME}.log": text, f"{scalars_file}.1": SCALARS})
    named = [str(tmp_path), str(tmp_path / TIME / "vis_data" / "*")]
    assert [log.path for log in find_logs(Source(named))] == [str(tmp_path / TIME / f"{TIME}.log")]


def test_check_says_which_log_it_leaves_out_and_what_a_named_one_is(tmp_path):
    """It is in the order in which logs are preferred."""
    write(tmp_path, FAMILIES["Detectron2"])
    done = otel_dllogger("check", "out", cwd=tmp_path)
    assert_said(
        done, 0, "Left out, since another log holds the same: out/log.txt, out/metrics.json"
    )
    done = otel_dllogger("check", "out/metrics.json", cwd=tmp_path)
    assert "the same training is in another file" in done.stdout


@pytest.mark.parametrize("is_reversed", [False, True])
@pytest.mark.parametrize("is_restarted", [False, True])
def test_what_a_bridge_read_first_is_read_on(tmp_path, family, is_reversed, is_restarted):
    """In either order, with others that come later, also after a restart with a checkpoint."""
    names = list(family)
    names = names[::-1] if is_reversed else names
    folder, checkpoint = tmp_path / "logs", tmp_path / "checkpoint"
    append(folder / names[0], family[names[0]])
    with open_bridge(folder, checkpoint=checkpoint) as bridge:
        before = read_page(bridge)
        for name in names[1:]:
            append(folder / name, family[name])
        pages = [read_page(bridge)]
    if is_restarted:
        with open_bridge(folder, checkpoint=checkpoint) as bridge:
            pages.append(read_page(bridge))
            append(folder / names[1], family[names[1]])
            pages.append(read_page(bridge))
    counts = [value_of(page, "dllogger_records_total", "type=log") for page in (before, *pages)]
    assert counts == counts[:1] * len(counts)


def test_the_log_that_was_read_first_grows(tmp_path):
    """Lightning writes its table later than its first events; a restart changes nothing."""
    folder, checkpoint = tmp_path / "version_0", tmp_path / "checkpoint"
    append(folder / NAME, EVENTS)
    for steps in (6, 9):
        with open_bridge(folder, checkpoint=checkpoint) as bridge:
            read_page(bridge)
            append(folder / "metrics.csv", LIGHTNING)
            append(folder / NAME, scalars(steps - 3, steps))
            page = read_page(bridge)
        assert value_of(page, "dllogger_records_total", "rank=0", "type=log") == steps
