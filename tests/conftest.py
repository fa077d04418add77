"""What every test starts from: an environment without launchers, and no faults yet."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from otel_dllogger.diagnostics import DIAGNOSTICS, PROCESS, REASONS
from otel_dllogger.identity import RANK_VARIABLES

# Before the first import of a helper: its asserts say what was compared, as those of tests do.
pytest.register_assert_rewrite("tests.support")

from tests.support.prometheus import Prometheus  # noqa: E402
from tests.support.spoken import SpokenLog  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# A shell starts what it runs in the background with SIGINT ignored, nohup with SIGHUP, and
# children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

_LAUNCHERS = (
    "OTEL_",
    "SLURM_",
    "TORCHELASTIC_",
    "PBS_",
    "LSB_",
    "PMI_",
    "OMPI_",
    "MV2_",
    "PADDLE_",
)
_RANKS = {
    name
    for variables in RANK_VARIABLES
    for name in (variables.rank, variables.world_size, variables.local_rank)
}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove what a launcher, a scheduler or the user's shell may have set."""
    for name in list(os.environ):
        if name in _RANKS or name.startswith(_LAUNCHERS):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # no GPU, whatever this machine has


@pytest.fixture(autouse=True, scope="session")
def own_runtime_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep ranks that tests start out of the folder in which the user's own ranks announce."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        yield


@pytest.fixture(autouse=True)
def no_faults() -> None:
    """Begin with no fault counted and no warning spent: the counters belong to the process."""
    DIAGNOSTICS.drain()
    DIAGNOSTICS.dropped.clear()  # an OTLPBackend adds reasons of its own
    DIAGNOSTICS.dropped.update(dict.fromkeys(REASONS[PROCESS], 0))
    DIAGNOSTICS._warned_at.clear()


@pytest.fixture
def caplog(caplog: pytest.LogCaptureFixture) -> SpokenLog:
    """Wait for the package's warnings before what was logged is looked at."""
    return SpokenLog(caplog, DIAGNOSTICS)


@pytest.fixture
def counted() -> Callable[[], dict[str, int]]:
    """Return what was dropped in this test, by reason."""
    return lambda: {reason: count for reason, count in DIAGNOSTICS.dropped.items() if count}


@pytest.fixture
def own_statistics() -> Iterator[None]:
    """Take away the statistics of histories that a test registers."""
    from otel_dllogger.training import HistoryBuffer  # noqa: PLC0415 - it needs numpy

    before = dict(HistoryBuffer._statistics_methods)
    yield
    HistoryBuffer._statistics_methods.clear()
    HistoryBuffer._statistics_methods.update(before)


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Prometheus]:
    """Run a Prometheus that scrapes what the folder ``discovery`` of the test announces."""
    discovery = tmp_path / "discovery"
    discovery.mkdir()
    with Prometheus(tmp_path / "prometheus", discovery=discovery) as server:
        yield server
