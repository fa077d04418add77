"""Real ranks, a real Prometheus: what was logged is what a query answers."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tests.support.http import ask
from tests.support.prometheus import check_metrics, wait_for
from tests.support.rank import Rank, samples_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.prometheus import Prometheus

RANKS = 4
NAN = float("nan")
OPENMETRICS = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., list[Rank]]]:
    """Start ranks at once, and kill after the test what is left of them."""
    ranks: list[Rank] = []

    def start(count: int = 1, **options: Any) -> list[Rank]:
        started = [
            Rank(tmp_path, rank=number, world_size=count, **options) for number in range(count)
        ]
        ranks.extend(started)
        for rank in started:
            rank.wait_started()
        return started

    yield start
    for rank in ranks:
        rank.process.kill()
        with contextlib.suppress(OSError):
            rank.process.stdin.close()
        rank.process.stdout.close()
        rank.process.wait()


def train(ranks: list[Rank], steps: range) -> None:
    """Log steps on all ranks; loss is rank + 1/step, throughput 100 + rank."""
    for step in steps:
        for rank in ranks:
            rank.call(
                "log", [0, step], {"train.loss": rank.rank + 1 / step, "ips": 100 + rank.rank}
            )


def test_prometheus_answers_for_every_rank_of_a_run(
    prometheus: Prometheus, start: Callable[..., list[Rank]]
) -> None:
    """Loss, throughput and step rate of four ranks are queries, until the ranks close."""
    ranks = start(RANKS)
    for rank in ranks:
        rank.call("metadata", "train.loss", {"unit": None, "GOAL": "MINIMIZE", "STAGE": "TRAIN"})
        rank.call("metadata", "ips", {"unit": "images/s", "GOAL": "MAXIMIZE", "STAGE": "TRAIN"})
    train(ranks, range(1, 5))
    assert RANKS == len(list(prometheus.discovery.glob("*.json")))

    loss = 'dl_loss{run="e2e",stage="train",goal="minimize",granularity="iteration"}'
    expected = {str(rank): rank + 0.25 for rank in range(RANKS)}
    assert expected == prometheus.wait_by_rank(loss, lambda values: values == expected)
    contract = {"run", "rank", "metric", "stage", "goal", "granularity", "kind"}
    of_prometheus = {"__name__", "instance", "job"}
    assert contract | of_prometheus == prometheus.query(loss)[0][0].keys()
    throughput = {str(rank): 100.0 + rank for rank in range(RANKS)}
    assert throughput == prometheus.by_rank('dl_ips_per_second{run="e2e"}')
    world = prometheus.by_rank('dllogger_rank_info{world_size="4"}')
    assert dict.fromkeys(throughput, 1.0) == world

    def step_rates() -> dict[str, float]:
        nonlocal step
        step += 1
        train(ranks, range(step, step + 1))
        return prometheus.by_rank('rate(dllogger_steps_total{run="e2e"}[10s])')

    step = 4
    rates = wait_for(step_rates, lambda rates: len(rates) == RANKS and min(rates.values()) > 0)
    assert throughput.keys() == rates.keys()

    for rank in ranks:
        checked = check_metrics(rank.page())
        assert (0, "") == (checked.returncode, checked.stderr)
        rank.call("shutdown")
    assert [] == list(prometheus.discovery.iterdir())
    assert [] == wait_for(lambda: prometheus.query("up"), lambda up: not up)
    assert [0] * RANKS == [rank.end() for rank in ranks]


def test_a_diverged_loss_is_never_shown_as_its_last_good_value(
    prometheus: Prometheus, start: Callable[..., list[Rank]]
) -> None:
    """A NaN takes the series away at the next scrape, counts, and a finite value is back."""
    (rank,) = start()
    rank.call("metadata", "loss", {"GOAL": "MINIMIZE", "STAGE": "TRAIN"})
    rank.call("log", [0, 1], {"loss": 0.5, "lr": 0.1})
    prometheus.wait_by_rank("dl_loss", lambda values: values == {"0": 0.5})
    counted = 'dllogger_nonfinite_total{metric="loss",stage="train"}'
    assert {"0": 0.0} == prometheus.by_rank(counted)

    rank.call("log", [0, 2], {"loss": NAN, "lr": 0.1})
    assert {} == rank.series("dl_loss")
    assert {"lr": 0.1} == rank.series("dl_lr")
    assert {"0": 1.0} == prometheus.wait_by_rank(counted, lambda values: values == {"0": 1.0})
    # One scrape brought both: with the count comes the end of the series, not later.
    assert {} == prometheus.by_rank("dl_loss")
    assert {"0": 0.5} == prometheus.by_rank("dllogger_best")

    rank.call("log", [0, 3], {"loss": 0.4})
    assert {"0": 0.4} == prometheus.wait_by_rank("dl_loss", bool)


@pytest.mark.parametrize("options", [{}, {"linger_s": 600}], ids=["default", "linger_s"])
def test_a_rank_ends_once_prometheus_saw_the_end(
    prometheus: Prometheus, start: Callable[..., list[Rank]], options: dict[str, float]
) -> None:
    """The last value and the clean end are scraped before the page goes away."""
    (rank,) = start(**options)
    rank.call("log", [0, 1], {"loss": 0.5})
    twice = "count_over_time(dllogger_run_finished[5m])"
    prometheus.wait_by_rank(twice, lambda values: values.get("0", 0) >= 2)
    assert {"0": 0.0} == prometheus.by_rank("max_over_time(dllogger_run_finished[5m])")
    rank.call("log", [0, 2], {"final_loss": 0.25})
    rank.call("shutdown")
    assert 0 == rank.end()
    finished = "max_over_time(dllogger_run_finished[5m])"
    assert {"0": 1.0} == prometheus.wait_by_rank(finished, lambda values: values == {"0": 1.0})
    assert {"0": 0.25} == prometheus.by_rank("last_over_time(dl_final_loss[5m])")


def test_late_metadata_moves_a_series_once(start: Callable[..., list[Rank]]) -> None:
    """A unit that comes after the first scrape renames the series; a second one does not."""
    (rank,) = start()
    rank.call("log", [0, 1], {"train.compute_time": 0.5})
    assert {"train.compute_time": 0.5} == rank.series("dl_compute_time")

    rank.call("metadata", "train.compute_time", {"unit": "s"})
    assert {"train.compute_time": 0.5} == rank.series("dl_compute_time_seconds")
    assert {} == rank.series("dl_compute_time")

    rank.call("metadata", "train.compute_time", {"unit": "ms"})
    assert {"train.compute_time": 0.5} == rank.series("dl_compute_time_seconds")
    assert {} == rank.series("dl_compute_time_milliseconds")
    rank.end()  # with the warnings written, which a thread of its own does
    move = 'moves from dl_compute_time{unit="s"} to dl_compute_time_seconds'
    assert 1 == rank.stderr().count(move)
    assert 1 == rank.stderr().count("stays dl_compute_time_seconds")


def test_the_limit_of_series_holds_and_what_is_beyond_is_counted(
    start: Callable[..., list[Rank]],
) -> None:
    """A script that logs 12,000 names gets a page of at most 10,000 series."""
    (rank,) = start()
    for first in range(0, 12_000, 1_000):
        rank.call("log", [0, first], {f"name_{n}": n for n in range(first, first + 1_000)})
    # A scrape does not wait long for new series: on a busy machine the next one has the rest.
    samples = wait_for(lambda: samples_of(rank.page()), lambda found: len(found) > 9_950)
    logged = [sample for sample in samples if sample.name.startswith("dl_")]
    assert len(samples) <= 10_000
    left_out = rank.figure("dllogger_dropped_total", reason="series_limit")
    assert 12_000 == len(logged) + left_out
    rank.end()
    assert 1 == rank.stderr().count("more than 10000 series")


def test_metrics_whose_names_merge_keep_every_series(start: Callable[..., list[Rank]]) -> None:
    """Names that differ by case or punctuation alone are one name and a series each."""
    (rank,) = start()
    rank.call("metadata", "mAP", {"GOAL": "MAXIMIZE", "STAGE": "VAL"})
    merging = {"mAP": 0.1, "map": 0.2, "a.b": 0.3, "a_b": 0.4, "A b": 0.5}
    rank.call("log", [0, 1], merging)
    # Beyond the SDK's own limit of 2,000 attribute sets per instrument.
    separators = itertools.islice(itertools.product(".-/: @+", repeat=5), 3_000)
    many = {"a{}b{}c{}d{}e{}f".format(*gaps): number for number, gaps in enumerate(separators)}
    rank.call("log", [0, 2], many)

    assert {"mAP": 0.1, "map": 0.2} == rank.series("dl_map")
    assert {"a.b": 0.3, "a_b": 0.4, "A b": 0.5} == rank.series("dl_a_b")
    assert many == rank.series("dl_a_b_c_d_e_f")
    best = [one for one in samples_of(rank.page()) if one.name == "dllogger_best"]
    assert ["mAP"] == [one.labels["metric"] for one in best]
    stages = {
        one.labels.get("stage", "") for one in samples_of(rank.page()) if one.name == "dl_map"
    }
    assert {"val", ""} == stages
    checked = check_metrics(rank.page())  # a name that ends in "_b" is not to its taste
    assert checked.returncode in (0, 3), checked


def test_the_page_comes_in_the_format_that_is_asked_for(start: Callable[..., list[Rank]]) -> None:
    """Prometheus' Accept header gets OpenMetrics, others the text format: the same series."""
    (rank,) = start()
    rank.call("metadata", "speed", {"unit": "imgs/s"})
    rank.call("log", [0, 1], {"loss": 0.5, "speed": 12, 'weird é\n"name\\': 1})
    text, openmetrics = ask(rank.port), ask(rank.port, Accept=OPENMETRICS)
    assert text.headers["content-type"].startswith("text/plain")
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")
    assert openmetrics.body.endswith(b"# EOF\n")

    def series(families: Any) -> set[Any]:
        return {
            (sample.name, *sorted(sample.labels.items()))
            for family in families
            for sample in family.samples
        }

    assert series(parse_text(text.body.decode())) == series(
        parse_openmetrics(openmetrics.body.decode())
    )


def test_a_killed_rank_leaves_a_page_that_is_down_until_the_next_rank_comes(
    prometheus: Prometheus, start: Callable[..., list[Rank]]
) -> None:
    """After SIGKILL the target stays, as down; a restarted rank takes its place in the run."""
    (rank,) = start()
    rank.call("log", [0, 1], {"loss": 0.5})
    prometheus.wait_by_rank("dl_loss", bool)
    rank.process.kill()
    rank.process.wait()
    wait_for(lambda: prometheus.query("up"), lambda up: [value for _, value in up] == [0.0])
    (rank,) = start()
    rank.call("log", [0, 2], {"loss": 0.25})
    expected = {"0": 0.25}
    assert expected == prometheus.wait_by_rank("dl_loss", lambda values: values == expected)
    wait_for(lambda: prometheus.query("up"), lambda up: [value for _, value in up] == [1.0])
