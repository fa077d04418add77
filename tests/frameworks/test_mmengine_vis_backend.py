"""MMEngine's Runner with the visualisation backend and the hook, scraped by a real Prometheus."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, VISBACKENDS
from mmengine.runner import Runner
from mmengine.visualization import Visualizer

from otel_dllogger import ConfigurationError
from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.integrations.mmengine import DLLoggerHook, DLLoggerVisBackend
from tests.support.command import environment
from tests.support.mmengine_toy import toy_config
from tests.support.prometheus import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.prometheus import Prometheus

ROOT = Path(__file__).parent.parent.parent
WAIT_S = 120
RANKS = 2
BATCHES = 25
SECONDS = {"time", "data_time"}

Rows = list[dict[str, Any]]
Train = "Callable[..., subprocess.Popen[str]]"


@pytest.fixture
def train(prometheus: Prometheus, tmp_path: Path) -> Iterator[Train]:
    """Start trainings that Prometheus finds; each page waits for a scrape of its end."""
    processes: list[subprocess.Popen[str]] = []

    def start(way: str, visualizer: str = "both", *, ranks: int = 1) -> subprocess.Popen[str]:
        launcher = [sys.executable]
        if ranks > 1:
            torchrun = "torch.distributed.run"
            launcher += ["-m", torchrun, "--standalone", f"--nproc-per-node={ranks}"]
        module = ["-m", "tests.support.mmengine_toy", str(tmp_path / "work"), way, visualizer]
        process = subprocess.Popen(
            [*launcher, *module],
            cwd=ROOT,
            env=environment(
                OTEL_DLLOGGER_DISCOVERY_DIR=str(prometheus.discovery),
                OTEL_DLLOGGER_LINGER_SECONDS="100",
                OMP_NUM_THREADS="1",
            ),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def end(process: subprocess.Popen[str]) -> None:
    _, stderr = process.communicate(timeout=WAIT_S)
    assert 0 == process.returncode, stderr[-2000:]


def vis_data(tmp_path: Path) -> Path:
    (folder,) = (tmp_path / "work").glob("*/vis_data")
    return folder


def rows_of_mmengine(tmp_path: Path) -> Rows:
    """Return the rows of MMEngine's own file."""
    lines = (vis_data(tmp_path) / "scalars.json").read_text().splitlines()
    return [json.loads(line) for line in lines]


def records(tmp_path: Path, rank: int = 0) -> list[tuple[Any, dict[str, Any]]]:
    """Return step and data of our own LOG lines."""
    lines = (vis_data(tmp_path) / f"toy_rank{rank}.json").read_text().splitlines()
    entries = [json.loads(line.removeprefix("DLLL ")) for line in lines]
    return [(entry["step"], entry["data"]) for entry in entries if entry["type"] == "LOG"]


def without_mode(data: dict[str, Any]) -> dict[str, Any]:
    return {name.partition("/")[2]: value for name, value in data.items()}


def prometheus_name(metric: str) -> str:
    mode, _, name = metric.partition("/")
    del mode
    base = "dl_" + name.lower().replace("/", "_")
    return f"{base}_seconds" if name in SECONDS else base


@pytest.mark.parametrize("way", ["epoch", "iter"])
def test_prometheus_has_what_mmengine_has(
    train: Train, prometheus: Prometheus, tmp_path: Path, way: str
) -> None:
    """The last value of every scalar on the page is the last one in scalars.json."""
    end(train(way))
    rows = rows_of_mmengine(tmp_path)
    expected: dict[tuple[str, str], float] = {}
    for row in rows:
        mode = "train" if "iter" in row else "val"
        for name, value in row.items():
            if name not in ("epoch", "iter", "step"):
                expected[f"{mode}/{name}", mode] = value
    assert {"train", "val"} == {mode for _, mode in expected}
    assert len(expected) > 9
    for (metric, mode), value in expected.items():
        query = f'last_over_time({prometheus_name(metric)}{{metric="{metric}"}}[10m])'
        ((labels, scraped),) = prometheus.query(query)
        assert ("toy", "0", mode) == (labels["run"], labels["rank"], labels["stage"])
        assert value == scraped, metric

    # Training and test have a page each, one after the other, here on two ports.
    finished = prometheus.query("last_over_time(dllogger_run_finished[10m])")
    assert [("0", 1.0)] * 2 == [(labels["rank"], value) for labels, value in finished]
    rate = 'last_over_time(dllogger_parameter{name="optim_wrapper.optimizer.lr"}[10m])'
    assert [("0", 0.01)] * 2 == [(one["rank"], value) for one, value in prometheus.query(rate)]
    assert ["0"] == list(prometheus.by_rank("last_over_time(dl_eta_seconds[10m])"))
    ((_, count),) = prometheus.query('last_over_time(dl_toy_count{stage="test"}[10m])')
    assert count == BATCHES


@pytest.mark.parametrize("way", ["epoch", "iter"])
def test_json_lines_have_mmengines_rows(train: Train, tmp_path: Path, way: str) -> None:
    """Each row of scalars.json is a record, with all digits, at its step; then comes the test."""
    end(train(way))
    rows = rows_of_mmengine(tmp_path)
    of_training, *logged, of_test, (test_step, results) = records(tmp_path)
    for parameters, config in (of_training, of_test):  # which have a page each
        assert "PARAMETER" == parameters
        assert {"type": "SGD", "lr": 0.01} == config["optim_wrapper"]["optimizer"]
    assert len(rows) == len(logged)
    last_iteration = None
    for row, (step, data) in zip(rows, logged, strict=True):
        values = {k: v for k, v in row.items() if k not in ("epoch", "iter", "step")}
        ours = without_mode(data)
        ours.pop("eta", None)
        assert values == ours
        if "iter" in row:
            last_iteration = row["iter"]
            expected = [row["epoch"], row["iter"]] if way == "epoch" else row["iter"]
        else:
            expected = [row["step"]] if way == "epoch" else [0, last_iteration, None]
        assert expected == step
    assert [] == test_step
    assert {"test/toy/bias", "test/toy/count", "test/toy/shape"} <= results.keys()


def test_every_rank_is_exported(train: Train, prometheus: Prometheus, tmp_path: Path) -> None:
    """With the hook each rank's own scalars are on its page and in its file."""
    end(train("epoch", ranks=RANKS))
    losses = prometheus.by_rank('last_over_time(dl_loss{metric="train/loss"}[10m])')
    assert {"0", "1"} == losses.keys()
    for rank in range(RANKS):
        trained = [data for _, data in records(tmp_path, rank) if "train/loss" in data]
        assert 2 == len(trained)  # of 13 iterations an epoch, the tenth
        assert losses[str(rank)] == trained[-1]["train/loss"]
        assert [] == records(tmp_path, rank)[-1][0]
    assert losses["0"] != losses["1"]  # each has its own half of the data


def test_the_hook_alone_is_enough(train: Train, prometheus: Prometheus, tmp_path: Path) -> None:
    """A visualizer without the backend gets one, on all ranks, with the configuration."""
    end(train("epoch", "hook-only", ranks=RANKS))
    losses = prometheus.by_rank('last_over_time(dl_loss{metric="train/loss"}[10m])')
    assert {"0", "1"} == losses.keys()
    assert "PARAMETER" == records(tmp_path, 0)[0][0]
    assert [1, 10] == records(tmp_path, 1)[0][0]


def test_a_configuration_file_names_the_classes(tmp_path: Path) -> None:
    """They are found by custom_imports, and by their full names without."""
    file = tmp_path / "config.py"
    file.write_text('custom_imports = dict(imports=["otel_dllogger.integrations.mmengine"])\n')
    Config.fromfile(file)
    assert DLLoggerVisBackend is VISBACKENDS.get("DLLoggerVisBackend")
    assert DLLoggerHook is HOOKS.get("DLLoggerHook")
    full = "otel_dllogger.integrations.mmengine.DLLoggerVisBackend"
    assert DLLoggerVisBackend is VISBACKENDS.get(full)


def test_scalars_of_ones_own(tmp_path: Path) -> None:
    """What a script gives the visualizer itself keeps its names and steps."""
    backend = DLLoggerVisBackend(str(tmp_path), prometheus=False, run="own/run")
    visualizer = Visualizer(vis_backends=[backend], save_dir=str(tmp_path))
    visualizer.add_scalar("val/mAP", 0.5, step=7)
    visualizer.add_scalars({"train/a": 1, "b": 2.5}, step=8)
    visualizer.close()
    visualizer.close()
    visualizer.add_scalar("later", 1.0, step=9)
    lines = (tmp_path / "own_run_rank0.json").read_text().splitlines()
    entries = [json.loads(line.removeprefix("DLLL ")) for line in lines]
    assert [
        (7, {"val/mAP": 0.5}),
        (8, {"train/a": 1, "b": 2.5}),
        (9, {"later": 1.0}),
    ] == [(entry["step"], entry["data"]) for entry in entries]
    elapsed_s = [float(entry["elapsedtime"]) for entry in entries]
    assert sorted(elapsed_s) == elapsed_s  # one Logger's: no second start of the run
    visualizer.close()


def test_a_page_is_served_until_the_end(tmp_path: Path) -> None:
    """The port is free after close, and what comes later opens a page again."""
    backend = DLLoggerVisBackend(str(tmp_path), prometheus={"port": 0}, json=None)
    backend.add_scalars({"iter": 3, "epoch": 1, "time": 0.5}, step=3, file_path="x.json")
    (page,) = backend.experiment.backends
    assert page.url is not None
    import urllib.request  # noqa: PLC0415

    text = urllib.request.urlopen(page.url, timeout=20).read().decode()
    assert 'dl_time_seconds{granularity="iteration",kind="duration",metric="train/time"' in text
    backend.close()
    wait_for(lambda: page.endpoint.port in _listening(), lambda listens: not listens)
    backend.add_results({"acc": 1.0})
    (page,) = backend.experiment.backends
    text = urllib.request.urlopen(page.url, timeout=20).read().decode()
    assert "dl_acc{" in text
    backend.close()
    assert [] == list(tmp_path.iterdir())


def _listening() -> set[int]:
    """Return the ports that this machine listens on."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    fields = [line.split() for line in lines]
    return {int(field[1].partition(":")[2], 16) for field in fields if field[3] == "0A"}


@pytest.mark.parametrize(
    "options",
    [
        {"prometheus": 9464},
        {"otlp": "http://localhost:4318"},
        {"json": True},
        {"run": 5},
        {"save_dir": 5},
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    """An argument of another kind is named before the training begins."""
    (name,) = options
    with pytest.raises(ConfigurationError, match=f"^{name}="):
        DLLoggerVisBackend(**{"save_dir": str(tmp_path), **options})


def test_a_hook_says_what_it_takes() -> None:
    """A misspelt argument is named where it is given, with those that there are."""
    with pytest.raises(
        ConfigurationError, match="DLLoggerHook has no argument 'promethues': pass one of"
    ):
        DLLoggerHook(promethues=True)


def test_a_hook_with_arguments_beside_a_backend_is_refused(tmp_path: Path) -> None:
    """Nobody could say which of the two counts."""
    backend = {"type": "DLLoggerVisBackend", "prometheus": False}
    config = toy_config(
        tmp_path,
        by_epoch=True,
        visualizer={"type": "Visualizer", "vis_backends": [backend], "name": "both"},
        custom_hooks=[{"type": "DLLoggerHook", "run": "mine"}],
        experiment_name="both",
    )
    with pytest.raises(ConfigurationError, match="DLLoggerHook was given run, but the visualizer"):
        Runner.from_cfg(config).train()


class Watch(Hook):
    """Note at the third iteration whether the page is there, and put in what others put in."""

    priority = "NORMAL"

    def __init__(self) -> None:
        self.urls: list[str | None] = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if batch_idx == 3:
            (backend,) = runner.visualizer._vis_backends.values()
            self.urls += [page.url for page in backend._logger.backends if hasattr(page, "url")]

    def after_test_epoch(self, runner, metrics=None):
        runner.message_hub.update_scalar("test/extra", 1.0)


def run(tmp_path: Path, name: str, *, by_epoch: bool = True, **options: Any) -> Runner:
    """Make a Runner with the hook alone, which has these arguments."""
    hook = {"type": "DLLoggerHook", "run": "toy", **options.pop("hook", {})}
    config = toy_config(tmp_path / "work", by_epoch=by_epoch, **options)
    config.visualizer = {"type": "Visualizer", "vis_backends": [], "name": name}
    config.custom_hooks = [hook]
    config.experiment_name = name
    return Runner.from_cfg(config)


def test_a_rank_is_there_before_its_first_record(tmp_path: Path) -> None:
    """A page that opens with the run shows a rank that hangs before it logs."""
    runner = run(tmp_path, "early", hook={"prometheus": {"port": 0}})
    watch = Watch()
    runner.register_hook(watch)
    runner.train()
    assert [True, True] == [url is not None for url in watch.urls]


def test_what_other_hooks_find_in_a_test_is_logged(tmp_path: Path) -> None:
    """The results are those of the hub once all hooks are through."""
    runner = run(tmp_path, "extra", hook={"prometheus": False})
    runner.register_hook(Watch())
    runner.test()
    assert 1.0 == records(tmp_path)[-1][1]["test/extra"]


@pytest.mark.parametrize(("by_epoch", "expected"), [(True, [1]), (False, [0, 20, None])])
def test_a_validation_stands_where_the_training_is(
    tmp_path: Path, by_epoch: bool, expected: list[Any]
) -> None:
    """Whatever MMEngine calls its step, and whichever way its lines are counted."""
    runner = run(
        tmp_path,
        f"steps-{by_epoch}",
        by_epoch=by_epoch,
        hook={"prometheus": False},
        default_hooks={"logger": {"type": "LoggerHook", "log_metric_by_epoch": False}},
        log_processor={"by_epoch": True},
    )
    runner.train()
    steps = [step for step, data in records(tmp_path) if "val/toy/count" in data]
    assert expected == steps[0]


def test_a_metric_that_is_called_as_an_iteration_is_a_metric(tmp_path: Path) -> None:
    """Also where it happens to be what MMEngine calls the step of the validation."""
    runner = run(tmp_path, "iter-metric", hook={"prometheus": False})

    class Metric(Hook):
        priority = "HIGH"

        def after_val_epoch(self, runner, metrics=None):
            runner.message_hub.update_scalar("val/iter", runner.epoch)

    runner.register_hook(Metric())
    runner.train()
    found = [data["val/iter"] for _, data in records(tmp_path) if "val/iter" in data]
    assert [1, 2] == found[:2]


def test_the_second_loop_of_a_runner_has_the_same_names(tmp_path: Path) -> None:
    """Units and parameters are on the page that a later loop opens."""
    import urllib.request  # noqa: PLC0415

    runner = run(tmp_path, "second", hook={"prometheus": {"port": 0}})
    pages, opened = [], []

    class Read(Hook):
        priority = "LOWEST"

        def before_val(self, runner):
            (backend,) = runner.visualizer._vis_backends.values()
            opened.append(backend._env_initialized)

        def after_val_epoch(self, runner, metrics=None):
            (backend,) = runner.visualizer._vis_backends.values()
            page = backend.experiment.backends[-1]
            pages.append(urllib.request.urlopen(page.url, timeout=20).read().decode())

    runner.register_hook(Read())
    runner.val()
    runner.val()
    assert 2 == len(pages)
    assert [True, True] == opened  # before there is anything on it
    for page in pages:
        assert "dl_time_seconds{" in page
        assert 'dllogger_parameter{name="optim_wrapper.optimizer.lr"' in page


def test_a_hook_serves_one_runner_after_another(tmp_path: Path) -> None:
    """Each has files of its own."""
    hook = DLLoggerHook(run="toy", prometheus=False)
    for name in ("one", "other"):
        config = toy_config(tmp_path / name / "work", by_epoch=True)
        config.visualizer = {"type": "Visualizer", "vis_backends": [], "name": name}
        config.custom_hooks, config.experiment_name = [], name
        runner = Runner.from_cfg(config)
        runner.register_hook(hook)
        runner.train()
        found = [data for _, data in records(tmp_path / name)]
        assert any("train/loss" in data for data in found)


def test_runners_may_share_a_visualizer(tmp_path: Path) -> None:
    """As those of one name do: the hook of the second finds the backend of the first's."""
    for name in ("first", "second"):
        config = toy_config(tmp_path / name / "work", by_epoch=True)
        config.visualizer = {"type": "Visualizer", "vis_backends": [], "name": "shared"}
        config.custom_hooks = [{"type": "DLLoggerHook", "run": "toy", "prometheus": False}]
        config.experiment_name = name
        Runner.from_cfg(config).train()
    lines = [data for _, data in records(tmp_path / "first")]
    losses = ["train/loss" in data for data in lines]
    assert 2 * losses.index(True) < losses.count(True)


@pytest.mark.parametrize("by", ["hook", "backend"])
@pytest.mark.parametrize("visualizer", ["shared", None], ids=["one visualizer", "two"])
def test_two_runners_are_two_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str, visualizer: str | None
) -> None:
    """Each is named after its experiment, though both belong to one job."""
    monkeypatch.setenv("SLURM_JOB_ID", "4242")
    monkeypatch.delenv("OTEL_DLLOGGER_RUN", raising=False)
    options = {"prometheus": False, "save_dir": str(tmp_path)}
    runs = []
    for name in (f"{by}1{visualizer}", f"{by}2{visualizer}"):
        config = toy_config(tmp_path / name / "work", by_epoch=True)
        backends = [{"type": "DLLoggerVisBackend", **options}] if by == "backend" else []
        config.visualizer = {
            "type": "Visualizer",
            "vis_backends": backends,
            "name": name if visualizer is None else by + visualizer,
        }
        config.custom_hooks = [{"type": "DLLoggerHook", **(options if by == "hook" else {})}]
        config.experiment_name = name
        runner = Runner.from_cfg(config)
        runs.append(runner.experiment_name)
        runner.train()
    assert {f"{name}_rank0.json" for name in runs} == {
        path.name for path in tmp_path.glob("*_rank0.json")
    }
    for name in runs:
        text = (tmp_path / f"{name}_rank0.json").read_text()
        assert (1, True) == (text.count('"optim_wrapper"'), "train/loss" in text)


def test_the_run_that_the_environment_names_is_every_runners(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person who names it means it."""
    monkeypatch.setenv("OTEL_DLLOGGER_RUN", "mine")
    run(tmp_path, "named", hook={"run": None, "prometheus": False}).train()
    assert (vis_data(tmp_path) / "mine_rank0.json").is_file()


def test_a_file_that_cannot_be_opened_does_not_end_the_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Training goes on without the file, which is counted."""
    (tmp_path / "taken").write_text("")
    runner = run(tmp_path, "taken", hook={"prometheus": False, "save_dir": str(tmp_path / "taken")})
    before = DIAGNOSTICS.dropped["disk_full"]
    runner.train()
    assert before + 1 == DIAGNOSTICS.dropped["disk_full"]
    (said,) = [r.getMessage() for r in caplog.records if "no JSON lines" in r.getMessage()]
    assert f"are written to '{tmp_path / 'taken'}" in said


def test_the_folder_of_the_file_is_made(tmp_path: Path) -> None:
    """A name may have folders in it."""
    backend = DLLoggerVisBackend(str(tmp_path), prometheus=False, json="a/b/{rank}.json")
    backend.add_scalar("train/x", 1.0)
    backend.close()
    assert (tmp_path / "a" / "b" / "0.json").is_file()
    with pytest.raises(ConfigurationError, match="'prt'; pass some of host, port, "):
        DLLoggerVisBackend(str(tmp_path), prometheus={"prt": 1}).add_scalar("x", 1.0)
    backend = DLLoggerVisBackend(str(tmp_path / "none"), prometheus=False, json=False)
    backend.add_scalar("train/x", 1.0)
    backend.close()
    assert not (tmp_path / "none").exists()


def test_names_and_values_that_are_none_do_not_reach_the_training(tmp_path: Path) -> None:
    """What the visualizer is given in the place of scalars costs itself alone."""
    backend = DLLoggerVisBackend(str(tmp_path), prometheus=False)
    backend.add_scalars({3: 1.0, "loss": 2.0}, step=1, file_path="x.json")  # type: ignore[dict-item]
    backend.add_scalars([1.0], step=1, file_path="x.json")  # type: ignore[arg-type]
    backend.add_scalars({"loss": 3.0}, step=1, file_path="x.json")
    backend.close()
    logged = [data for _, data in records_of(tmp_path)]
    assert [{"val/3": 1.0, "val/loss": 2.0}, {"val/loss": 3.0}] == logged
    assert 1 == DIAGNOSTICS.dropped["backend_failed"]


def records_of(folder: Path) -> list[tuple[Any, dict[str, Any]]]:
    """Return the step and the values of the records in a folder's file."""
    (path,) = folder.glob("*_rank0.json")
    entries = [json.loads(line.removeprefix("DLLL ")) for line in path.read_text().splitlines()]
    return [(entry["step"], entry["data"]) for entry in entries if entry["type"] == "LOG"]
