"""Runs of real ranks to which faults happen, watched by the shipped Prometheus in time lapse."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from grafana.queries.dashboard import Dashboard
from grafana.queries.datasource import DataSource
from tests.support.paths import ROOT, TESTS
from tests.support.prometheus import wait_for
from tests.support.training_run import SCRAPE_INTERVAL_S, Part, RankProcess, TrainingRun

if TYPE_CHECKING:
    from collections.abc import Callable

    from grafana.queries.datasource import Frame

FACTOR = 15.0
INTERVAL_S = SCRAPE_INTERVAL_S / FACTOR
STEP_S = 0.2
PLAY_RANK = TESTS / "scripts" / "play_rank.py"
DASHBOARDS = ROOT / "grafana" / "dashboards"
FLEET, OVERVIEW, RANKS, COMPARE = "fleet", "training-overview", "ranks", "compare-runs"

MAIN, SAME_PORTS, CRASHING, RANK_0, UNITS = "main", "same-ports", "crashing", "rank-0", "units"
RUNS = (MAIN, SAME_PORTS, CRASHING, RANK_0, UNITS)
WORLD_SIZE = 8
NAN_RANK, SLOW_RANK, KILLED_RANK, STOPPED_RANK = 2, 3, 5, 6
LOST_AGAIN_RANK = 1  # of the run that is restarted on its ports, in its second attempt
BEST_AT, BEST_LOSS = 10, 1.0
CHECKPOINT = 25  # where second attempts begin
DATA_S, SLOW_DATA_S = 0.02, 0.12
STOPPED_S = 4.0

# Without metadata: what a metric is has to be found by its name.
VALUES = {
    "data_time": DATA_S,
    "iter_time_ms": 1000 * STEP_S,
    "learning-rate": 1e-3,
    "tps": 5000.0,
    "perplexity": 20.0,
}
OF_ALL_IMAGES, OF_RANK_IMAGES, TOKENS, ITERATIONS = 400.0, 50.0, 1000.0, 5.0
OTHER_UNITS: dict[str, Any] = {
    "values": {
        "all_images": OF_ALL_IMAGES,
        "own_images": OF_RANK_IMAGES,
        "tokens": TOKENS,
        "speed": ITERATIONS,
    },
    "metadata": {
        "all_images": {"unit": "imgs/s", "SCOPE": "GLOBAL"},
        "own_images": {"unit": "imgs/s", "SCOPE": "RANK"},
        "tokens": {"unit": "tokens/s"},
        "speed": {"unit": "it/s"},
    },
}


def part(run: str, rank: int, world_size: int, **options: Any) -> Part:
    """Return the part of a rank that plays this script."""
    options = {"step_s": STEP_S, **options}
    linger_s = None if run == UNITS else 30.0
    return Part(run, rank, world_size, script=PLAY_RANK, options=options, linger_s=linger_s)


def main_part(rank: int, *, attempt: int = 0) -> Part:
    """Return the part of a rank of the run that has most of the faults."""
    options: dict[str, Any] = {"values": VALUES}
    if rank == SLOW_RANK:
        options["values"] = {**VALUES, "data_time": SLOW_DATA_S}
    if attempt:
        return part(MAIN, rank, WORLD_SIZE, first=CHECKPOINT, **options)
    return part(MAIN, rank, WORLD_SIZE, best_at=BEST_AT, **options)


def same_ports_part(rank: int, *, attempt: int = 0) -> Part:
    """Return the part of a rank that is restarted on its port."""
    options = {"first": CHECKPOINT} if attempt else {"best_at": BEST_AT}
    return part(SAME_PORTS, rank, 2, **options)


FIRST_PARTS = [
    *(main_part(rank) for rank in range(WORLD_SIZE)),
    *(same_ports_part(rank) for rank in range(2)),
    part(CRASHING, 0, 1),
    *(part(RANK_0, rank, 3, logs=rank == 0) for rank in range(3)),
    *(part(UNITS, rank, 2, **OTHER_UNITS) for rank in range(2)),
]


@dataclass
class Scenario:
    """What happened to the runs, and when.

    Attributes:
        training: The runs, with their Prometheus.
        at_s: The moments at which something has to be visible, in Unix seconds.
        ports: The ports of the ranks of the run that is restarted on them, by attempt.
    """

    training: TrainingRun
    at_s: dict[str, float] = field(default_factory=dict)
    ports: list[dict[int, int]] = field(default_factory=list)

    def ranks(self, run: str, attempt: int = 0) -> dict[int, RankProcess]:
        """Return the processes of one attempt of a run, by rank."""
        return {
            one.part.rank: one
            for one in self.training.ranks
            if (one.part.run, one.attempt) == (run, attempt)
        }

    def begin(self, run: str, attempt: int = 0) -> None:
        """Let an attempt begin to train, once all of its processes are ready."""
        ranks = self.ranks(run, attempt).values()
        wait_for(lambda: all("ready" in one.events() for one in ranks), bool)
        (self.training.folder / f"begin_{run}_{attempt}").touch()

    def end(self, run: str) -> None:
        """Let a run end cleanly."""
        (self.training.folder / f"end_{run}").touch()

    def kill(self, run: str, attempt: int = 0, *, rank: int | None = None) -> None:
        """Kill a rank, or all ranks that are left."""
        ranks = self.ranks(run, attempt)
        for one in ranks.values() if rank is None else [ranks[rank]]:
            one.process.kill()
            one.process.wait()

    def announced_ports(self, run: str) -> dict[int, int]:
        """Return the ports of the ranks that have announced themselves."""
        found = {}
        for path in self.training.discovery.glob(f"dllogger_{run}_*.json"):
            (group,) = json.loads(path.read_text())
            found[int(path.name.split("_")[2])] = int(group["targets"][0].rpartition(":")[2])
        return found

    def until(self, condition: Callable[[], object], *, within_s: float = 30) -> None:
        """Wait until something is true; if it never is, a test will say what is missing."""
        deadline_s = time.monotonic() + within_s
        wait_for(lambda: condition() or time.monotonic() > deadline_s, bool)

    def until_query(self, expression: str, *, within_s: float = 30) -> None:
        """Wait until a query has an answer."""
        self.until(lambda: self.training.prometheus.query(expression), within_s=within_s)

    def mark(self, moment: str) -> None:
        """Note a moment, after all rules were evaluated with what is known so far."""
        evaluated = f"timestamp(dllogger:threshold:stalled_seconds) > {time.time() + INTERVAL_S}"
        self.until_query(evaluated)
        self.at_s[moment] = time.time()

    def ask(
        self, moment: str, board: str, title: str, run: str, *, kind: str = "", **chosen: list[str]
    ) -> dict[str, list[Frame]]:
        """Return what a panel shows of a run at a moment, by its targets."""
        source = DataSource(
            self.training.prometheus.url,
            start_s=self.training.start_s,
            end_s=self.at_s[moment],
            scrape_interval_s=INTERVAL_S,
        )
        runs = [run] if board in (FLEET, COMPARE) else run
        loaded = Dashboard.load(DASHBOARDS / f"{board}.json", source, run=runs, **chosen)
        (panel,) = [panel for panel in loaded.panels if panel.title == title and kind in panel.kind]
        return {result.query.ref_id: result.frames for result in loaded.run(panel)}

    def figure(self, moment: str, title: str, run: str) -> float | None:
        """Return the large number of a panel of the overview, None if there is none."""
        frames = self.ask(moment, OVERVIEW, title, run, kind="stat")["A"]
        assert len(frames) <= 1, frames
        return frames[0].samples[-1][1] if frames else None

    def alerts(
        self, *, since: str | None = None, until: str = "end", state: str = "firing"
    ) -> set[tuple[str, str | None, str | None]]:
        """Return the alerts between two moments, with run and rank."""
        since_s = self.at_s[since] if since else 0
        return {
            (one.name, one.labels.get("run"), one.labels.get("rank"))
            for one in self.training.alerts(at_s=self.at_s[until])
            if one.state == state and max(one.times_s) > since_s
        }

    def logged(self, run: str, rank: int, attempt: int = 0) -> list[tuple[float, int, float]]:
        """Return time, iteration and loss of each record in a rank's log."""
        path = self.training.folder / f"log_{run}_{rank}_{attempt}.json"
        lines = [json.loads(line.removeprefix("DLLL ")) for line in path.read_text().splitlines()]
        return [
            (float(line["timestamp"]), line["step"][1], line["data"]["loss"])
            for line in lines
            if line["type"] == "LOG" and line["step"] != "PARAMETER"
        ]


def play(scenario: Scenario) -> None:
    """Do to the runs what happens to real ones, one thing after the other."""
    training = scenario.training
    for run in RUNS:
        scenario.begin(run)
    # The processes of later attempts wait for their time, so that a restart takes a moment.
    scenario.until(lambda: len(scenario.announced_ports(SAME_PORTS)) == 2)
    scenario.ports.append(scenario.announced_ports(SAME_PORTS))
    training.start(part(CRASHING, 0, 1), attempt=1)
    training.start(part(CRASHING, 0, 1), attempt=2)
    for rank, port in scenario.ports[0].items():
        training.start(same_ports_part(rank, attempt=1), attempt=1, port=port)

    loss = f'dl_loss{{run="{MAIN}", rank="{NAN_RANK}"}}'
    scenario.until_query(f"count_over_time({loss}[1d]) > 3")
    nan = training.folder / f"nan_{MAIN}_{NAN_RANK}"
    nan.touch()
    # Several scrapes, so that the gap is seen.
    scenario.until_query(f'dllogger_nonfinite_total{{run="{MAIN}"}} > {4 * INTERVAL_S / STEP_S}')
    nan.unlink()
    scenario.until_query(loss)
    scenario.until_query(f'min(dllogger_iteration{{run=~"{MAIN}|{SAME_PORTS}"}}) > {CHECKPOINT}')
    scenario.mark("trains")

    scenario.end(UNITS)
    processes = 'count(count by (pid) (last_over_time(dllogger_rank_info{{run="{}"}}[1d]))) == {}'
    scenario.kill(CRASHING)
    scenario.begin(CRASHING, 1)
    scenario.kill(SAME_PORTS)
    scenario.begin(SAME_PORTS, 1)

    age = f'rank:dllogger_silence_seconds:last1h{{run="{MAIN}", rank="{STOPPED_RANK}"}}'
    stopped = scenario.ranks(MAIN)[STOPPED_RANK].process
    stopped.send_signal(signal.SIGSTOP)
    scenario.until_query(f"{age} > {STOPPED_S}")
    scenario.at_s["stopped"] = time.time()
    stopped.send_signal(signal.SIGCONT)
    scenario.until_query(f"{age} < 2 and {age} > 0")
    scenario.mark("continued")

    scenario.until_query(processes.format(CRASHING, 2))
    scenario.mark("crashed once")
    scenario.kill(CRASHING, 1)
    scenario.begin(CRASHING, 2)

    scenario.kill(MAIN, rank=KILLED_RANK)
    for rank in range(WORLD_SIZE):
        training.start(main_part(rank, attempt=1), attempt=1)
    scenario.until_query(processes.format(CRASHING, 3))
    scenario.until(
        lambda: (
            {"DLLoggerRankVanished", "DLLoggerStraggler"}
            <= {one.name for one in training.alerts() if one.state == "firing"}
        ),
        within_s=60,
    )
    scenario.mark("killed")
    scenario.ports.append(scenario.announced_ports(SAME_PORTS))

    scenario.kill(SAME_PORTS, 1, rank=LOST_AGAIN_RANK)
    scenario.kill(MAIN)
    scenario.begin(MAIN, 1)
    second = f'dllogger_rank_info{{run="{MAIN}", attempt="2"}}'
    steps = f"dllogger_steps_total > 20 and on (instance, run, rank) {second}"
    scenario.until_query(f"count({steps}) == {WORLD_SIZE}")
    scenario.mark("restarted")

    for one in scenario.ranks(MAIN, 1).values():
        one.process.terminate()
    for one in scenario.ranks(MAIN, 1).values():
        one.process.wait(40)
    firing = 'ALERTS{{alertname="{}", run="{}", alertstate="firing"}}'
    scenario.until_query(firing.format("DLLoggerRunTerminated", MAIN))
    scenario.until_query(firing.format("DLLoggerRankVanished", SAME_PORTS))
    # Longer than it takes a vanished run to be pending.
    scenario.until_query(f'absent(dllogger_rank_info{{run="{MAIN}"}})')
    scenario.mark("end")
