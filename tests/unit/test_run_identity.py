"""Whose lines a file holds: a table of paths, and nothing that raises."""

from __future__ import annotations

import os
import re
import sys
from datetime import datetime, timezone

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from otel_dllogger.errors import ConfigurationError
from otel_dllogger.identity import clean_run, detect_topology
from otel_dllogger.logs.run_identity import RunIdentities, RunIdentity
from otel_dllogger.logs.run_start import find_start_us
from otel_dllogger.logs.twins import find_twins
from tests.support.parsers import DATA
from tests.support.paths import ROOT

pytestmark = pytest.mark.newest_only

EXAMPLES = settings(deadline=None, derandomize="CI" in os.environ, max_examples=250)

TIME = "20250816_120000"

# What the path says: the run, the rank, and the host where there is one. The root is /w.
PATHS = {
    # the rank by the file's name
    "/w/a/myrun_rank3.json": ("myrun", 3),
    "/w/a/rank3_myrun.json": ("myrun", 3),
    "/w/a/my_rank_3_run.json": ("my_run", 3),
    "/w/a/myrun-rank-3.jsonl": ("myrun", 3),
    "/w/a/myrun.RANK12.log": ("myrun", 12),
    "/w/a/myrun.r3.json": ("myrun", 3),
    "/w/a/train.r3": ("a", 3),
    "/w/a/R3.json": ("a", 3),
    "/w/a/lora_r16_rank3.json": ("lora_r16", 3),
    "/w/a/rank8_lora_rank3.json": ("rank8_lora", 3),
    "/w/a/myrun_rank007.json": ("myrun", 7),
    "/w/a/myrun_node1_gpu3_rank11.json": ("myrun", 11),
    "/w/a/global_rank8_local_rank0.json": ("a", 8),
    "/w/a/log_local_rank1.json": ("a", 1),
    # what is none
    "/w/a/resnet50.json": ("resnet50", 0),
    "/w/a/lr3e-4.json": ("lr3e-4", 0),
    "/w/a/warmup_r3x.json": ("warmup_r3x", 0),
    "/w/a/ranked3.json": ("ranked3", 0),
    "/w/a/prank3.json": ("prank3", 0),
    "/w/a/dropout_r0.5.json": ("dropout_r0.5", 0),
    "/w/a/3_rank.json": ("3_rank", 0),
    # where the name says the rank, a short folder is a run
    "/w/runs/r3/log_rank1.json": ("r3", 1),
    "/w/a/rank3/log_rank1.json": ("a", 1),
    "/w/a/node3/log_rank1.json": ("a", 1),
    "/w/a/x_rank1234567890.json": ("x_rank1234567890", 0),
    "/w/a/x_rank123456789.json": ("x", 123456789),
    "/w/a/x_rank\u0663.json": ("x_rank\u0663", 0),
    # the rank by a folder, the nearest first, never above the root
    "/w/myrun/rank3/log.json": ("myrun", 3),
    "/w/myrun/r3/logs/dllogger.json": ("myrun", 3),
    "/w/myrun/rank3/r4/log.json": ("myrun", 4),
    "/w/rank3/log_rank4.json": ("w", 4),
    "/w/exp_rank3/log.json": ("exp", 3),
    "/w/lora_rank8/rank3/log.json": ("lora_rank8", 3),
    "/rank9/myrun/log.json": ("myrun", 0),
    "/rank9/log.json": ("log", 9),  # beside all roots: its own folder
    # MMEngine's per-rank names
    f"/w/e/{TIME}/{TIME}_me@node1.cluster_device1_rank9.log": (f"e/{TIME}", 9, "node1"),
    f"/w/e/{TIME}/{TIME}_john_doe@node1_device0_rank0.log": (f"e/{TIME}", 0, "node1"),
    f"/w/e/{TIME}/{TIME}_device1_rank9.log": (f"e/{TIME}", 9),
    "/w/e/my_exp_node1_device1_rank9.log": ("my_exp", 9, "node1"),
    "/w/e/log_me@node1_device1_rank9.log": ("e", 9, "node1"),
    f"/w/e/{TIME}/rank2_{TIME}.log": (f"e/{TIME}", 2),  # before 0.3
    # the run by a folder
    "/w/myrun/log.json": ("myrun", 0),
    "/w/myrun/logs/json/tb/train_log.txt": ("myrun", 0),
    "/w/myrun/node1/rank3/log.json": ("myrun", 3),
    "/w/myrun/vis_data/scalars.json": ("myrun", 0),
    "/w/myrun/experiment_raport.json": ("myrun", 0),
    "/w/myrun/tcap_dllogger.json": ("myrun", 0),
    "/w/myrun/dlllog.json": ("myrun", 0),
    # event files: a time and a host, but no run; the folder of a stage is none either
    "/w/bert/runs/Nov28_12-00-00_gpu7/events.out.tfevents.1758276000.gpu7.example.org.12.0": (
        "bert/Nov28_12-00-00_gpu7",
        0,
        "gpu7",
    ),
    "/runs/Nov28_12-00-00_h/events.out.tfevents.1758276000.h": ("Nov28_12-00-00_h", 0, "h"),
    "/w/lightning_logs/version_0/events.out.tfevents.1758276000.h.12.0": ("version_0", 0, "h"),
    "/w/bert/logs/train/events.out.tfevents.1758276000.h.12.0.v2": ("bert", 0, "h"),
    "/w/bert/logs/validation/events.out.tfevents.1758276000.h.12.0.v2": ("bert", 0, "h"),
    "/w/bert/logs/validation/log.json": ("validation", 0),
    "/w/bert/rank3/tb/events.out.tfevents.1758276000.r5": ("bert", 3, "r5"),
    "/w/bert/events.out.tfevents.1758276000.h.12.0.rank3": ("bert", 3, "h"),
    f"/w/e/{TIME}/vis_data/events.out.tfevents.1758276000.h.12.0": (f"e/{TIME}", 0, "h"),
    # times
    f"/w/resnet50/{TIME}/{TIME}.log": (f"resnet50/{TIME}", 0),
    f"/w/resnet50/{TIME}/vis_data/scalars.json": (f"resnet50/{TIME}", 0),
    f"/w/resnet50/{TIME}/vis_data/{TIME}.json": (f"resnet50/{TIME}", 0),
    f"/w/resnet50/{TIME}/20250817_090000.log": (f"resnet50/{TIME}", 0),
    f"/w/resnet50/20240101_000000/{TIME}/log.json": (f"resnet50/{TIME}", 0),
    f"/w/resnet50/{TIME}.log": (f"resnet50/{TIME}", 0),
    f"/w/resnet50/{TIME}.log.json": (f"resnet50/{TIME}", 0),
    f"/w/resnet50/{TIME}/logs/rank3/log.json": (f"resnet50/{TIME}", 3),
    f"/w/resnet50_{TIME}.json": (f"resnet50_{TIME}", 0),
    f"/{TIME}/log.json": (TIME, 0),
    f"/logs/{TIME}/log.json": (f"logs/{TIME}", 0),
    # rotation and compression
    "/w/myrun/log.json.1": ("myrun", 0),
    "/w/myrun/log.json-20250101": ("myrun", 0),
    "/w/a/myrun_rank3.log.2.gz": ("myrun", 3),
    # torchrun --log-dir, whose folders count above the root as well
    "/w/logs/none_h2x9/attempt_0/3/stdout.log": ("none_h2x9", 3),
    "/w/logs/none_h2x9/attempt_1/3/stderr.log.1": ("none_h2x9", 3),
    "/v/none_h2x9/attempt_0/12/stdout.log": ("none_h2x9", 12),
    "/w/logs/out/attempt_0/3/stdout.log": ("out", 3),
    "/w/exp/attempt_0/a3/stdout.log": ("a3", 0),
    "/w/exp/attempt_0/3/metrics.json": ("3", 0),
    # mpirun --output-filename
    "/w/out/1/rank.0/stdout": ("out", 0),
    "/w/out/1/rank.003/stderr": ("out", 3),
    "/v/a/out/rank.12/stdout": ("out", 12),
    "/w/a/1/rank.3/log.json": ("1", 3),
    # Slurm
    "/w/a/slurm-4242.out": ("4242", 0),
    "/w/a/slurm-4242_7.out": ("4242_7", 0),
    "/w/a/slurm-4242_rank3.out": ("4242", 3),
    "/w/a/slurm-gpu.out": ("slurm-gpu", 0),
    "/w/a/log_4242_3.out": ("log_4242_3", 0),
    # a table beside the checkpoints
    "/w/yolo/train2/results.csv": ("train2", 0),
    "/w/lightning_logs/version_3/metrics.csv": ("version_3", 0),
    "/w/bert/checkpoint-500/trainer_state.json": ("bert", 0),
    "/w/output/train/exp_a/summary.csv": ("exp_a", 0),
    "/w/exp_a/debug.log": ("exp_a", 0),
    "/w/exp_a/nohup.out": ("exp_a", 0),
    # an ending that is none
    "/w/a/resnet50.v2": ("resnet50.v2", 0),
    # nothing but generic words
    "/log.json": ("log", 0),
    "/log_rank3.json": ("log", 3),
    "/rank3.json": ("unknown", 3),
    "/logs/output.json": ("logs", 0),
    "/": ("unknown", 0),
}


@pytest.mark.parametrize("path", PATHS)
def test_a_path_says_whose_the_lines_are(path):
    """The rules of ``RunIdentities``, one by one."""
    run, rank, *host = PATHS[path]
    expected = (run, rank, host[0] if host else None)
    assert expected == RunIdentities(["/w"]).of(path)[:3]


def test_the_samples_of_mmengine_agree():
    """The text log and the scalars of a run are of one run, those of another of another."""
    identities = RunIdentities([str(DATA)])
    for name in ("mmengine_epoch", "mmengine_iter"):
        log, scalars = (identities.of(f"{DATA}/{name}/{end}") for end in ("train.log", SCALARS))
        assert RunIdentity(name, 0, None) == log == scalars


SCALARS = "vis_data/scalars.json"


@pytest.mark.parametrize(
    ("path", "rank_by"),
    [
        ("/w/a/log.json", ""),
        ("/w/a/log_rank0.json", "the file name"),
        ("/w/rank2/log_rank3.json", "the file name"),
        ("/w/a/exp_r3/logs/log.json", "the folder exp_r3"),
        ("/w/out/1/rank.003/stdout", "the folder rank.003"),
        ("/w/none_h2x9/attempt_0/3/stdout.log", "the folder 3 of torchrun, a local rank"),
        ("/w/rank2/gpu3.json", "the pattern"),
        (f"/w/e/{TIME}/{TIME}_device1_rank9.log", "the file name"),
    ],
)
def test_an_identity_says_where_its_rank_comes_from(path, rank_by):
    """A rank 0 that nothing names is told from one that a name says."""
    assert rank_by == RunIdentities(["/w"], patterns=["gpu{rank}.json"]).of(path).rank_by


@pytest.mark.parametrize(
    ("root", "path", "rank"),
    [
        ("/x/rank3", "/x/rank3/log.json", 3),
        ("/x/rank3/log.json", "/x/rank3/log.json", 3),
        ("/x/rank3/a/log.json", "/x/rank3/a/log.json", 0),
        ("/x/rank3/a", "/x/rank3/a/log.json", 0),
        ("/x/rank3/*/log.json", "/x/rank3/a/log.json", 3),
        ("/x/rank?/*/log.json", "/x/rank3/a/log.json", 3),
        ("/x/*/a/log.json", "/x/rank3/a/log.json", 3),
        ("/", "/x/rank3/a/log.json", 3),
        ("/x/rank3/", "/x/rank3/a/log.json", 3),
        ("/x/ra", "/x/rank3/a/log.json", 0),
    ],
)
def test_a_folder_above_the_root_says_no_rank(root, path, rank):
    """The home of a user named r3 is not the third rank's."""
    assert rank == RunIdentities([root]).of(path).rank


def test_the_order_of_roots_does_not_matter():
    """The widest root that holds a file counts."""
    roots = ["/x/rank3/a", "/x"]
    assert 3 == RunIdentities(roots).of("/x/rank3/a/log.json").rank
    assert 3 == RunIdentities(roots[::-1]).of("/x/rank3/a/log.json").rank


def test_relative_roots_and_paths_are_of_the_working_folder(tmp_path, monkeypatch):
    """A folder whose name looks like a glob is a folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rank3[1]").mkdir()
    assert ("x", 3) == RunIdentities(["rank3[1]"]).of("rank3[1]/x/log.json")[:2]
    assert 0 == RunIdentities(["rank4[2]/rank3"]).of(f"{tmp_path.parent}/log.json").rank


@pytest.mark.parametrize("run", ["mine", " mine\n"])
def test_a_run_that_is_given_is_every_files(run):
    """Also where a pattern says another."""
    identities = RunIdentities(["/w"], run=run, patterns=["{run}/{rank}.json"])
    assert ("mine", 3) == identities.of("/w/other/3.json")[:2]
    assert ("mine", 4) == identities.of("/w/other_rank4.json")[:2]


def test_an_empty_run_counts_as_not_given():
    """As in ``detect_topology``."""
    assert "a" == RunIdentities(["/w"], run=" ").of("/w/a.json").run


PATTERNS = {
    ("{run}_rank{rank}.json", "/w/a/b_rank3.json"): ("b", 3),
    ("{run}_rank{rank}.json", "/w/a/b_rank1_rank3.json"): ("b_rank1", 3),
    ("{run}_w{rank}.json", "/w/a/b_w3.json.1"): ("b", 3),
    ("{run}/node-{host}/r{rank}.log", "/w/a/node-n7.x/r3.log"): ("a", 3, "n7.x"),
    ("{run}/node-{host}/r{rank}.log", "/w/a/node-n7/x/r3.log"): ("x", 3),  # by the rules
    ("{run}/*/*-{rank}.log", "/w/a/b/x-y-3.log"): ("a", 3),
    ("*{rank}.log", "/w/a/b12.log"): ("a", 2),
    ("/w/{run}/*", "/w/a/log.json"): ("a", 0),
    ("/w/{run}/*", "/v/w/a/log.json"): ("a", 0),  # by the rules
    ("/w/{run}/*", "/v/w/a/b.json"): ("b", 0),
    ("{run}.json", "/w/tmp/b_rank3.json"): ("b_rank3", 3),
    ("{run}.json", "/b.json"): ("b", 0),
    ("w{rank}.json", "/w/a/w3.json"): ("a", 3),
    ("*_w{rank}.json", "/w/a/b_w3.json"): ("b", 3),
    ("*_w{rank}x.json", "/w/a/b_w3x.json"): ("b", 3),
    ("w{rank}.json", "/w/exp_rank8/w3.json"): ("exp_rank8", 3),
    ("worker{rank}/*.json", "/w/a/worker3/log.json"): ("a", 3),
    ("{host}/{rank}.json", "/w/a/n7/3.json"): ("a", 3, "n7"),
    ("x[1]{run}.json", "/w/x[1]b.json"): ("b", 0),
    ("{run}_{rank}.json", "/w/b_1234567890.json"): ("b_1234567890", 0),
    ("{run}.{rank}", "/w/a/log.json.4"): ("log.json", 4),
    # Slurm's %t, which looks like the task of an array
    ("slurm-{run}_{rank}.out", "/w/slurm-4242_3.out"): ("4242", 3),
    ("slurm-*_{rank}.out", "/w/slurm-4242_3.out"): ("4242", 3),
    ("log_{run}_{rank}.out", "/w/log_4242_3.out"): ("4242", 3),
    ("{run}/1/*/stdout", "/w/a/b/1/rank.3/stdout"): ("b", 3),
}


@pytest.mark.parametrize(("pattern", "path"), PATTERNS)
def test_a_pattern_is_the_end_of_a_path(pattern, path):
    """What it leaves open follows from the rules, without the words that it took."""
    run, rank, *host = PATTERNS[pattern, path]
    expected = (run, rank, host[0] if host else None)
    assert expected == RunIdentities(["/w"], patterns=[pattern]).of(path)[:3]


def test_the_first_pattern_that_matches_holds():
    """Whatever follows."""
    identities = RunIdentities(["/w"], patterns=["{run}/none", "a{rank}.json", "{run}.json"])
    assert ("w", 3) == identities.of("/w/a3.json")[:2]
    assert ("b3", 0) == identities.of("/w/b3.json")[:2]


@pytest.mark.parametrize(
    ("pattern", "rule"),
    [
        ("{runs}.json", "'{runs}' is not a field"),
        ("{}.json", "'{}' is not a field"),
        ("{run.json", "'{' is not a field"),
        ("run}.json", "'}' is not a field"),
        ("{run}/{run}.json", "{run} is in it twice"),
        ("*.json", "it has no field"),
        ("", "it has no field"),
        ("{run}/", "it ends in a folder"),
    ],
)
def test_a_pattern_that_means_nothing_is_refused(pattern, rule):
    """In one line with the value, the rule and the next step."""
    with pytest.raises(ConfigurationError) as raised:
        RunIdentities(["/w"], patterns=[pattern])
    assert (
        f"pattern {pattern!r}: {rule}; name files with {{run}}, {{rank}} or {{host}}, each at "
        "most once, as in '{run}_rank{rank}.json'"
    ) == str(raised.value)


NAMES = st.text(st.sampled_from("ar k3_-./\\\n\ud800\x00é٣{}*[json"), max_size=30) | st.text()
WORDS = st.sampled_from(["log", "rank3", "r4", "node1", TIME, "vis_data", "exp", "a_rank2", ".."])


@EXAMPLES
@given(st.lists(NAMES | WORDS, max_size=6), st.lists(NAMES | WORDS, max_size=2), NAMES)
@example([], [], "")
@example(["\ud800"], ["\0"], "")
def test_every_path_has_an_origin(names, roots, run):
    """Nothing raises, and a run is a clean label that is not empty."""
    path = "/".join(names)
    for patterns in ([], ["{host}r{rank}*", "{rank}/*"]):
        identity = RunIdentities(roots, run=run, patterns=patterns).of(path)
        assert identity.run
        assert clean_run(identity.run) == identity.run
        assert 0 <= identity.rank < 10**9
        assert identity.host is None or clean_run(identity.host) == identity.host != ""
    find_start_us(path)
    list(find_twins(path))


@EXAMPLES
@given(
    st.lists(WORDS.filter(lambda word: word != ".."), max_size=4),
    st.sampled_from(
        ["rank{}", "log_rank{}", "r{}", "x_rank{}_y", "x.r{}", "rank{}/log", f"{TIME}_rank{{}}"]
    ),
    st.integers(0, 10**9 - 1),
)
def test_the_ranks_of_a_folder_agree_on_the_run(folders, name, rank):
    """They differ in nothing but the rank."""
    identities = RunIdentities(["/"])
    path = "/".join(["", *folders, f"{name}.json"])
    own, first = identities.of(path.format(rank)), identities.of(path.format(0))
    assert (first.run, rank, first.host) == own[:3]


LIVE = [
    {},
    {"OTEL_DLLOGGER_RUN": "resnet50-lr0.1"},
    {"OTEL_DLLOGGER_RUN": "lora_r16_rank8"},
    {"SLURM_JOB_ID": "4242"},
    {"SLURM_JOB_ID": "4250", "SLURM_ARRAY_JOB_ID": "4242", "SLURM_ARRAY_TASK_ID": "7"},
    {"PBS_JOBID": "7.server"},
    {"LSB_JOBID": "99", "LSB_JOBINDEX": "3"},
    {
        "WORLD_SIZE": "16",
        "LOCAL_WORLD_SIZE": "8",
        "MASTER_ADDR": "node1.cluster",
        "MASTER_PORT": "29500",
    },
]


@pytest.mark.parametrize("environ", LIVE, ids=lambda environ: " ".join(environ) or "none")
@pytest.mark.parametrize("script", ["train.py", "train_r3.py", "my_rank3_run.py"])
def test_the_name_that_the_reference_recommends_is_read_as_the_live_run(
    environ, script, monkeypatch
):
    """``{run}_rank{rank}.json`` gives the run and the rank that the metrics page has."""
    monkeypatch.setattr(sys, "argv", [script])
    live = detect_topology({"RANK": "3", **environ})
    path = f"/w/logs/{live.run}_rank{live.rank}.json"
    assert (live.run, 3, None, "the file name") == RunIdentities(["/w"]).of(path)[:4]
    page = (ROOT / "docs" / "reference" / "settings.md").read_text()
    assert {"{run}_rank{rank}.json"} == set(re.findall(r'"([^"\n]*\{rank\}[^"\n]*)"', page))


@pytest.mark.parametrize("job", ["4242", "4242_7"])
def test_the_output_of_slurm_is_read_as_the_live_run(job):
    """Slurm's names, and those of a script in the job, are one run."""
    array_id, _, task_id = job.partition("_")
    environ = {"SLURM_JOB_ID": array_id, "SLURM_ARRAY_JOB_ID": array_id}
    live = detect_topology({**environ, "SLURM_ARRAY_TASK_ID": task_id})
    assert live.run == job == RunIdentities(["/w"]).of(f"/w/slurm-{job}.out").run


def test_a_time_in_the_path_is_the_start():
    """In the zone of the machine that wrote it; an impossible time is none."""
    start_us = round(datetime(2025, 8, 16, 12, tzinfo=timezone.utc).timestamp() * 1e6)
    for end in (f"{TIME}/{TIME}.log", f"{TIME}/{SCALARS}", f"{TIME}_device0_rank1.log"):
        assert start_us == find_start_us(f"/w/resnet50/{end}", zone="UTC")
    assert start_us - 2 * 3600 * 10**6 == find_start_us(f"/w/{TIME}.log", zone="+02:00")
    assert find_start_us("/w/resnet50/20259916_120000.log", zone="UTC") is None
    assert find_start_us("/w/resnet50/log.json", zone="UTC") is None
