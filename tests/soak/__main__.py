"""Attack real ranks at random for a while, and check that nothing was lost: ``make soak``."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.soak.clients import HostileClients
from tests.soak.collectors import Collectors
from tests.soak.flatness import MORE_DESCRIPTORS, MORE_MIB, MORE_THREADS
from tests.soak.fleet import TICK_S, Slot
from tests.soak.ledger import Ended, Ledger, Sums
from tests.soak.report import Findings, verdict
from tests.soak.scraper import Scraper, find_targets

RANKS = (["steady"], ["mortal"], ["brief", "full", "fifo"])
"""The kinds of the lives of each rank, by turn."""


def main() -> int:
    """Run the soak and return its exit status."""
    options = _parse_options()
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    print(f"soak: {options.minutes:g} minutes, --seed {options.seed}, in {folder}", flush=True)
    findings = Findings()
    dice = random.Random(options.seed)
    (folder / "discovery").mkdir()
    collectors = Collectors(random.Random(dice.random()))
    settings = {
        "run": str(folder),
        "seed": options.seed,
        "discovery": str(folder / "discovery"),
        "without": options.without,
    }
    slots = [
        Slot(
            rank,
            kinds,
            settings=settings,
            collectors=collectors.urls,
            find=findings,
            dice=random.Random(dice.random()),
        )
        for rank, kinds in enumerate(RANKS)
    ]

    def targets() -> Any:
        return find_targets(folder / "discovery")

    def is_live(pid: int) -> bool:
        return any(slot.is_live(pid) for slot in slots)

    scraper = Scraper(targets, is_live, findings, random.Random(dice.random()))
    clients = HostileClients(targets, random.Random(dice.random()))
    try:
        _tend(slots, options.minutes * 60)
    finally:
        for slot in slots:
            slot.kill()
    clients.close()
    scraper.close()
    collectors.close()
    sums = _settle(slots, findings)
    print(_figures(slots, sums, scraper, clients, collectors))
    print(verdict(findings), flush=True)
    if findings and not options.clean:
        print(f"the files are in {folder}")
    else:
        shutil.rmtree(folder)
    return 1 if findings else 0


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long to attack")
    parser.add_argument(
        "--seed",
        type=int,
        default=random.SystemRandom().randrange(1 << 32),
        help="what the attacks are drawn from; any other each time",
    )
    parser.add_argument(
        "--without",
        type=lambda text: text.split(","),
        default=[],
        help="attacks and values to leave out, as in deep,fork",
    )
    parser.add_argument("--clean", action="store_true", help="leave no files, whatever happens")
    return parser.parse_args()


def _tend(slots: list[Slot], duration_s: float) -> None:
    """Look after the ranks until the time is up and the last of them is gone."""
    end_s = time.monotonic() + duration_s
    while any(slot.life is not None for slot in slots):
        if time.monotonic() > end_s:
            for slot in slots:
                slot.close()
        for slot in slots:
            slot.tend()
        time.sleep(TICK_S)
    for slot in slots:
        slot.join()


def _settle(slots: list[Slot], findings: Findings) -> Sums:
    """Do the sums of all ranks."""
    total = Sums()
    for slot in slots:
        lives: dict[Path, list[Ended]] = {}
        for folder, ended in slot.ended:
            lives.setdefault(folder, []).append(ended)
        for folder, ended_here in lives.items():
            total.add(Ledger(folder, ended_here, findings).settle())
        for sizes in slot.all_sizes:
            for text in sizes.discrepancies():
                findings(text)
    return total


def _figures(
    slots: list[Slot], sums: Sums, scraper: Scraper, clients: HostileClients, collectors: Collectors
) -> str:
    """Return the figures of the report."""
    counted = {name: sum(slot.counted[name] for slot in slots) for name in slots[0].counted}
    processes = sum(len(slot.ended) for slot in slots)
    kills = sum(slot.kills for slot in slots)
    others = ", ".join(f"{name} {count:,}" for name, count in counted.items())
    lines = [
        f"lines logged {sums.logged:,}, written {sums.written:,}, counted {sums.counted:,}",
        f"besides: torn {sums.torn:,}, interrupted {sums.interrupted:,}",
        f"of forked children {sums.of_children:,}, not to be checked {sums.unchecked:,}",
        f"processes {processes}, kills {kills}, {others}",
        f"scrapes {scraper.scrapes:,}, pages parsed {scraper.pages:,}",
        f"pages that promtool checked {scraper.by_promtool:,}",
        f"hostile connections {clients.count:,}",
        f"OTLP: points taken {collectors.points:,}, requests refused {collectors.refusals:,}",
    ]
    for slot in slots:
        for sizes in slot.all_sizes:
            if parts := sizes.compare():
                first, last = parts
                lines.append(
                    f"{sizes.of}: descriptors {first.descriptors} to {last.descriptors} "
                    f"(+{MORE_DESCRIPTORS}), threads {first.threads} to {last.threads} "
                    f"(+{MORE_THREADS}), {first.mib:.0f} to {last.mib:.0f} MiB (+{MORE_MIB})"
                )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
