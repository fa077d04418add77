"""Put samples into blocks of a Prometheus server, made by its own ``promtool``.

Source: https://prometheus.io/docs/prometheus/latest/storage/, "Backfilling from OpenMetrics
format". The order of steps makes it safe to be killed at any time: blocks are made in a folder
of their own; the promise to move them is committed together with what is in them; they are
moved; the promise is deleted. What an earlier backfill had promised is done first.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import re
import shutil
import sqlite3
import subprocess
import time
from bisect import bisect_right
from collections import Counter, deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from otel_dllogger.backfill import alone
from otel_dllogger.backfill.installed import Installed
from otel_dllogger.backfill.openmetrics import write_to
from otel_dllogger.backfill.sorting import Chunk, SampleSorter, finite_only
from otel_dllogger.errors import BackfillError, count_of, in_words
from otel_dllogger.runtime.files import read_regular

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

RECENT_MS = 3 * 60 * 60 * 1000
"""Prometheus may still be writing this much of the past: a block there could overlap its own."""

FOLDER = "otel-dllogger-backfill"
"""Our own folder in the data folder; Prometheus ignores it.

It has no leading dot, so that emptying the data folder with ``*`` removes it as well.
"""

_PART_MS = 2 * 60 * 60 * 1000  # Prometheus' shortest block
_SORTER_BYTES = 16 << 20
_MOST_BLOCKS = 120
_PARTS_OF_A_BLOCK = (1, 3, 9)  # 2, 6 and 18 hours: what Prometheus itself compacts blocks to
_FEW_SAMPLES = 10_000  # starting promtool takes as long as reading this many
_MOST_WORKERS = 4
_MARKS = ("wal", "chunks_head", "queries.active", "lock", FOLDER)
_BLOCK = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")  # a ULID
_REMOVALS = 50


@dataclasses.dataclass(frozen=True, slots=True)
class Backfilled:
    """What a backfill did.

    Attributes:
        installed: Samples that are new in the data folder.
        present: Samples that an earlier backfill had put there.
        recent: Samples that were left out because they are from the last three hours.
        blocks: How many blocks are new.
        notice: What the user must know about samples that were left out, in one line; or empty.
    """

    installed: int
    present: int
    recent: int
    blocks: int
    notice: str = ""


def _no_progress(_stage: str, _done: float) -> None:
    pass


def backfill_prometheus(
    chunks: Iterable[Chunk],
    data_folder: str | os.PathLike[str],
    *,
    progress: Callable[[str, float], object] = _no_progress,
    samples: int | None = None,
    clock: Callable[[], float] = time.time,
) -> Backfilled:
    """Put samples into a Prometheus data folder, except those that an earlier backfill put there.

    The server may be running. Samples that are not finite are left out.

    Args:
        chunks: Samples by family, series and time, as ``SampleSorter.sorted`` gives them.
        data_folder: The folder that ``--storage.tsdb.path`` names; an empty one is fine.
        progress: Called with ``samples``, ``blocks`` or ``install``, and how much of it is
            done, from 0 to 1.
        samples: How many samples will come, if known; only for ``progress``.
        clock: Returns the time, seconds since the Unix epoch.

    Returns:
        What was done.

    Raises:
        BackfillError: If it cannot be done; the data folder is as it was, or the next backfill
            completes what was begun.
    """
    try:
        folder = DataFolder(data_folder)
        promtool = _find_promtool()
        ours = folder.path / FOLDER
        ours.mkdir(exist_ok=True)
        # The owner of the data folder must not lead us, who may be root, anywhere else.
        with alone(ours, doing=f"writing to {folder.path}", follow=False):
            return _Backfill(folder, ours, promtool, progress, int(clock() * 1000)).run(
                chunks, samples
            )
    except OSError as error:
        name = error.filename or data_folder
        raise BackfillError(
            f"{os.fsdecode(name)} cannot be used ({in_words(error)}): check its disk space "
            "and permissions, and run the same command again"
        ) from error
    except sqlite3.Error as error:
        path = Path(data_folder, FOLDER)
        raise BackfillError(
            f"{path} is damaged ({error}): remove that folder and run the same command again; "
            "samples that are already there are then stored twice, which does not change what "
            "queries return"
        ) from error


def _find_promtool() -> str:
    promtool = shutil.which("promtool")
    if promtool is None:
        raise BackfillError(
            "promtool is not on PATH: it makes the blocks, and comes with Prometheus; run apt-get "
            "install prometheus, or download it from https://prometheus.io/download/ and add it to "
            "PATH"
        )
    return promtool


class _Backfill:
    """One backfill, alone in the data folder."""

    def __init__(
        self,
        folder: DataFolder,
        ours: Path,
        promtool: str,
        progress: Callable[[str, float], object],
        now_ms: int,
    ) -> None:
        self._folder = folder
        self._ours = ours
        self._staging = ours / "staging"
        self._blocks = self._staging / "blocks"
        self._promtool = promtool
        self._progress = progress
        self._limit_ms = now_ms - RECENT_MS
        self._newest_ms = -(1 << 62)
        self._present = 0
        self._recent = 0

    def run(self, chunks: Iterable[Chunk], samples: int | None) -> Backfilled:
        installed = Installed(self._ours / "installed.sqlite")
        promised = True  # until more is known, what is staged must stay
        try:
            self._folder.give_to_owner(self._ours)
            self._complete_earlier(installed)
            promised = False
            self._blocks.mkdir(parents=True)
            installed.begin(self._folder.blocks().values())
            with SampleSorter(memory_bytes=_SORTER_BYTES) as sorter:
                self._select(chunks, installed, sorter, samples)
                new = sorter.samples
                names = self._make_blocks(sorter) if new else []
            self._check_whole(names, new)
            self._folder.give_to_owner(self._staging)
            promised = True
            installed.commit(names)
            self._move(installed, names)
            promised = False
        finally:
            installed.close()
            if not promised:
                remove_tree(self._staging)
        if self._recent and not new and not self._present:
            raise BackfillError(self._notice())
        return Backfilled(new, self._present, self._recent, len(names), self._notice())

    def _complete_earlier(self, installed: Installed) -> None:
        """Move what a killed backfill had promised to move, and remove the rest of it."""
        promised = installed.moving()
        if promised:
            self._move(installed, promised)
        remove_tree(self._staging)

    def _select(
        self,
        chunks: Iterable[Chunk],
        installed: Installed,
        sorter: SampleSorter,
        samples: int | None,
    ) -> None:
        """Pass to the sorter the samples that are neither recent nor there already."""
        seen = 0
        for chunk in finite_only(chunks):
            seen += len(chunk.values)
            old = self._old(chunk)
            if old is None:
                continue
            new = installed.missing(old)
            self._present += len(old.values) - (0 if new is None else len(new.values))
            if new is not None:
                installed.add(new)
                sorter.extend(sorter.series_id(new.series), new.times_ms, new.values)
            if samples:
                self._progress("samples", min(seen / samples, 1.0))
        self._progress("samples", 1.0)

    def _old(self, chunk: Chunk) -> Chunk | None:
        """Leave out samples from the last three hours, or from the future."""
        times_ms, values = chunk.times_ms, chunk.values
        count = bisect_right(times_ms, self._limit_ms)
        if count == len(times_ms):
            return chunk
        self._recent += len(times_ms) - count
        self._newest_ms = max(self._newest_ms, times_ms[-1])
        return Chunk(chunk.series, times_ms[:count], values[:count]) if count else None

    def _notice(self) -> str:
        if not self._recent:
            return ""
        after_s = math.ceil((self._newest_ms + RECENT_MS) / 1000)
        after = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(after_s))
        return (
            f"{count_of(self._recent, 'sample')} from the last 3 hours left out, since Prometheus "
            "itself may still be writing to that time range: run the same command again after "
            f"{after}"
        )

    def _make_blocks(self, sorter: SampleSorter) -> list[str]:
        """Make the blocks with ``promtool``, several at a time; return their names.

        It reads its whole input once for every block that it makes from it; so at a time it gets
        no more than the samples of one block.
        """
        samples: Counter[int] = Counter()
        for first_ms, count in sorter.samples_by_slot().items():
            samples[first_ms // _PART_MS] += count
        factor = _block_parts(samples)
        runs = list(_runs(samples, factor))
        run_of = {part: number for number, run in enumerate(runs) for part in run}
        workers = min(_MOST_WORKERS, os.cpu_count() or 1)
        running: deque[Future[None]] = deque()
        started = 0

        def wait_until(most: int) -> None:
            while len(running) > most:
                running.popleft().result()
                self._progress("blocks", (started - len(running)) / len(runs))

        self._progress("blocks", 0.0)
        with ThreadPoolExecutor(workers) as pool:
            try:
                for number, chunks in sorter.sorted_by(lambda ms: run_of[ms // _PART_MS]):
                    source = f"{number}.om"
                    with (self._staging / source).open("wb") as file:
                        write_to(chunks, file)
                    running.append(pool.submit(self._run_promtool, source, factor))
                    started += 1
                    wait_until(workers)
                wait_until(0)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return sorted(path.name for path in self._blocks.iterdir() if is_block(path))

    def _run_promtool(self, source: str, factor: int) -> None:
        arguments = [
            *(self._promtool, "tsdb", "create-blocks-from", "--quiet"),
            *(f"--max-block-duration={2 * factor}h", "openmetrics", source, "blocks"),
        ]
        # All paths are relative: if we are killed and it is not, it finds no folder any more
        # once the next backfill has removed ours.
        done = subprocess.run(  # noqa: S603 - no shell, and no argument from a user
            arguments,
            cwd=self._staging,
            env={**os.environ, "TMPDIR": "."},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        if done.returncode:
            lines = (done.stderr + done.stdout).decode(errors="replace").split("\n")
            said = next((line.strip() for line in lines if line.strip()), "it printed nothing")
            raise BackfillError(
                f"promtool failed (exit code {done.returncode}): {said}; nothing was installed"
            )
        (self._staging / source).unlink()

    def _check_whole(self, names: list[str], samples: int) -> None:
        """Check that every sample is in a block, before anything is promised."""
        metas: list[Any] = [read_meta(self._blocks / name) for name in names]
        found = sum(meta["stats"].get("numSamples", 0) for meta in metas if meta is not None)
        if found != samples:
            raise BackfillError(
                f"promtool put {found:,} of {count_of(samples, 'sample')} into blocks; nothing was "
                "installed: use the promtool of Prometheus 2.42 or newer"
            )

    def _move(self, installed: Installed, names: list[str]) -> None:
        for done, name in enumerate(names):
            self._progress("install", done / len(names))
            # One that is not there was moved before the kill; Prometheus may have compacted it.
            with contextlib.suppress(FileNotFoundError):
                (self._blocks / name).rename(self._folder.path / name)
        self._folder.sync()
        installed.moved()
        self._progress("install", 1.0)


def _block_parts(parts: Iterable[int]) -> int:
    """Return how many parts of two hours make a block.

    The longest is what a server with the default retention compacts its own blocks to. Longer
    ones would be kept too long or deleted too early, since only whole blocks are kept or deleted.
    """
    for factor in _PARTS_OF_A_BLOCK:
        if len({part // factor for part in parts}) <= _MOST_BLOCKS:
            return factor
    return _PARTS_OF_A_BLOCK[-1]


def _runs(samples: dict[int, int], factor: int) -> Iterator[list[int]]:
    """Yield the parts of each run of ``promtool``: those of one block, or of a few small ones."""
    blocks: dict[int, list[int]] = {}
    for part in sorted(samples):
        blocks.setdefault(part // factor, []).append(part)
    run: list[int] = []
    count = 0
    for block in blocks.values():
        size = sum(samples[part] for part in block)
        if run and count + size > _FEW_SAMPLES:
            yield run
            run, count = [], 0
        run, count = [*run, *block], count + size
    if run:
        yield run


class DataFolder:
    """A Prometheus data folder, which may be empty.

    Args:
        path: The folder that ``--storage.tsdb.path`` names.

    Raises:
        BackfillError: If it is not one, or belongs to another user.
        OSError: If it cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path = Path(path)
        if not path.is_dir():
            raise BackfillError(
                f"{path} is not a folder: give the data folder of Prometheus, the value of its "
                "flag --storage.tsdb.path; for a new Prometheus, make an empty one with mkdir"
            )
        if any(path.iterdir()) and not _is_data_folder(path):
            nearby = path / "data"
            hint = (
                f"did you mean {nearby}?"
                if _is_data_folder(nearby)
                else ("give the value of its flag --storage.tsdb.path, or an empty folder")
            )
            raise BackfillError(f"{path} is not a data folder of Prometheus: {hint}")
        status = path.stat()
        self._owner = status.st_uid, status.st_gid
        if os.geteuid() not in (0, status.st_uid):
            raise BackfillError(
                f"{path} belongs to {_user_name(status.st_uid)}, and Prometheus can only use "
                "blocks that its own user has written: run this as that user (sudo -u "
                f"{_user_name(status.st_uid)})"
            )

    def blocks(self) -> dict[str, tuple[int, int]]:
        """Return the first millisecond and the end of each block, by the block's name."""
        times_ms = {}
        for path in self.path.iterdir():
            if is_block(path) and (meta := read_meta(path)) is not None:
                times_ms[path.name] = meta["minTime"], meta["maxTime"]
        return times_ms

    def give_to_owner(self, path: Path) -> None:
        """Give a file, or a folder and its contents, the same owner as the data folder."""
        if os.geteuid() != 0:
            return
        os.lchown(path, *self._owner)
        for folder, folders, files in os.walk(path):
            for name in (*folders, *files):
                os.lchown(os.path.join(folder, name), *self._owner)  # noqa: PTH118 - of os.walk

    def sync(self) -> None:
        """Sync the folder, so that the names of what was moved here are on disk."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def is_block(path: Path) -> bool:
    """Return whether a path is named like a block."""
    return _BLOCK.fullmatch(path.name) is not None


def read_meta(block: Path) -> dict[str, Any] | None:
    """Return a block's own metadata; None for a block that is not whole, or is gone."""
    try:
        meta: dict[str, Any] = orjson.loads(read_regular(str(block / "meta.json")))
        is_whole = type(meta["minTime"]) is int and type(meta["maxTime"]) is int
        return meta if is_whole else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def remove_tree(path: Path) -> None:
    """Remove a folder, in which a process that was left behind may still be writing.

    Raises:
        OSError: If it cannot be removed.
    """
    for _ in range(_REMOVALS):
        shutil.rmtree(path, ignore_errors=True)
        if not path.exists():
            return
        time.sleep(0.02)
    shutil.rmtree(path)


def _is_data_folder(path: Path) -> bool:
    return any((path / mark).exists() for mark in _MARKS) or (
        path.is_dir() and any(is_block(block) and read_meta(block) for block in path.iterdir())
    )


def _user_name(uid: int) -> str:
    import pwd  # noqa: PLC0415 - for an error only

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"'#{uid}'"
