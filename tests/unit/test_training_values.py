"""Values, facts and classes of a user's own that fail: each costs itself, and is counted."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest

import otel_dllogger
from otel_dllogger import Logger
from otel_dllogger.training import (
    HistoryBuffer,
    LogProcessor,
    LoopState,
    MessageHub,
    MisuseError,
    MMLogger,
    log_results,
    results,
    track,
)
from tests.support.track import Keeper

pytestmark = pytest.mark.newest_only


@pytest.fixture(autouse=True)
def nothing_global(own_statistics):
    """Begin and end without hubs, loggers by name and a global Logger."""
    yield
    otel_dllogger.shutdown()
    MessageHub._instances.clear()
    MMLogger._instances.clear()


class Broken:
    """A value of which everything raises."""

    def _fail(self, *_args):
        raise RuntimeError("broken")

    __float__ = __int__ = __str__ = __repr__ = __format__ = item = numel = tolist = _fail
    __class__ = property(_fail)
    shape = ndim = size = device = dtype = property(_fail)


class Unhashable(list):
    """A number that is none."""

    __hash__ = None


@pytest.mark.parametrize(
    ("value", "is_number", "lost"),
    [
        (Broken(), False, {"statistic_failed": 1, "format_failed": 1}),
        (Unhashable([1]), False, {}),
        (np.zeros((2, 3)), False, {}),
        (np.ones((1, 1)), True, {}),
        (np.array(["a"]), False, {}),
        (np.array([1j]), False, {}),
        (np.timedelta64(5, "s"), False, {}),
        ("0.5", False, {}),
        (None, False, {}),
        (10**400, True, {}),
        (-(2**70), True, {}),
        (float("nan"), True, {}),
        (float("-inf"), True, {}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_any_result_costs_nothing_else(value, is_number, lost, counted):
    """Whatever is given as a result, the others are logged, and nothing is raised."""
    hub, keeper = MessageHub("a"), Keeper()
    line = log_results({"odd": value, "accuracy": 0.5}, hub=hub, logger=Logger([keeper]))
    assert "accuracy: 0.5000" in line
    assert 0.5 == keeper.logged[0][1]["val/accuracy"]
    assert "val/odd" in keeper.logged[0][1]
    assert is_number == ("val/odd" in hub.log_scalars)
    assert lost == counted()


def test_a_result_stays_what_it_was_logged_as():
    """An array that is changed in place later is in the hub and its checkpoint as it was."""
    hub, array = MessageHub("a"), np.array([1.0, 2.0])
    one, counted_one = np.array([1.0]), np.array(1)
    hub.update_scalar("val/one", one)
    log_results({"confusion": array}, hub=hub, logger=Logger([]))
    array[:] = one[:] = 9.0
    counted_one += 1
    assert [1.0, 2.0] == hub.get_info("val/confusion").tolist()
    assert [1.0, 2.0] == hub.state_dict()["runtime_info"]["val/confusion"].tolist()
    assert 1.0 == hub.get_scalar("val/one").current()


class Own(int):
    """An int of the user's own that is no longer what it was when it is asked again."""

    def __int__(self):
        raise RuntimeError("asked")

    __index__ = __float__ = __int__


class OwnFloat(float):
    """A float of the same kind."""

    def __float__(self):
        raise RuntimeError("asked")


def test_a_number_of_a_users_own_class_is_its_number():
    """Its methods are not asked: neither when it comes, nor when a mean is made."""
    buffer = HistoryBuffer()
    for value in (Own(3), OwnFloat(1.5), True):
        buffer.update(value, Own(2))
    assert [3, 1.5, 1] == buffer.data[0].tolist()
    assert [2, 2, 2] == buffer.data[1].tolist()


def test_a_refused_value_leaves_no_name_behind():
    """A name has a place in the state once it has a value."""
    hub = MessageHub("a")
    for key, value in (("train/loss", "text"), ("train/loss", np.zeros(2)), (3, 1.0)):
        with pytest.raises(MisuseError):
            hub.update_scalar(key, value)
    assert {} == hub.state_dict()["resumed_keys"]
    MessageHub("b", **hub.state_dict())


@pytest.mark.parametrize("key", ["epoch", "iter", "max_epochs", "max_iters"])
def test_a_fact_that_is_not_a_number_is_refused_as_a_loop_is_made(key):
    """A loop that cannot say where it is does not begin."""
    hub = MessageHub("a")
    hub.update_info(key, "three")
    with pytest.raises(MisuseError, match=f"the hub's info '{key}' is 'three', not a whole number"):
        track([1], hub=hub, mode="val")


class Refusing(MessageHub):
    """A hub of the user's own that does not take times."""

    def update_scalar(self, key, value, count=1, resumed=True):
        if key.endswith("time"):
            raise RuntimeError("no times")
        super().update_scalar(key, value, count, resumed)


class RefusingLogger(Logger):
    """A Logger of the user's own that fails."""

    def log(self, step, data, verbosity=1):
        raise RuntimeError("no log")


class Loader(list):
    """A loader that does not know its length."""

    def __len__(self):
        raise RuntimeError("no length")


def test_a_loop_goes_on_whatever_fails_around_it(counted):
    """A hub, a Logger and a loader that raise cost what they cost, and are counted."""
    hub = Refusing("a")
    loop = track(Loader([1, 2]), hub=hub, logger=RefusingLogger([]), log_every=1)
    for batch in loop:
        hub.update_scalar("train/loss", batch)
        hub.log_scalars[3] = HistoryBuffer([1], [1])  # a name that is none
    assert 2 == hub.get_info("iter")
    # Of each batch two times, an ETA and a record; and the length.
    assert {"statistic_failed": 2 * 3 + 1, "backend_failed": 2} == counted()


def test_a_name_may_be_given_as_not_resumed_in_the_middle_of_a_loop(counted):
    """Times that the user's own code put in first are taken as that says."""
    hub = MessageHub("a")
    for _ in track([1, 2], hub=hub, logger=Logger([])):
        hub.update_scalar("train/time", 1.0, resumed=False) if not hub.get_info("iter") else None
    assert 3 == len(hub.get_scalar("train/time").data[0])
    assert {} == counted()


def test_an_accelerator_that_fails_costs_the_memory_alone(monkeypatch, counted):
    """A record is logged without the memory that cannot be asked for."""
    torch = types.ModuleType("torch")
    torch.cuda = types.SimpleNamespace(is_available=lambda: True)
    torch.cuda.max_memory_allocated = lambda device: 1 / 0
    monkeypatch.setitem(sys.modules, "torch", torch)
    hub, keeper = MessageHub("a"), Keeper()
    hub.update_scalar("train/loss", 1.0)
    assert hub.log_to(Logger([keeper]), LoopState(hub)).endswith("loss: 1.0000")
    assert {"statistic_failed": 1} == counted()


class Failing(LogProcessor):
    """A processor of the user's own that needs the number that fails."""

    def get_log_after_iter(self, runner, batch_idx, mode):
        tag, line = super().get_log_after_iter(runner, batch_idx, mode)
        return {**tag, "twice": tag["own"] * 2}, line


@pytest.mark.parametrize(("kind", "lost"), [(LogProcessor, 2), (Failing, 3)])
@pytest.mark.parametrize("log_with_hierarchy", [False, True])
def test_each_number_that_is_lost_is_counted_once(kind, lost, log_with_hierarchy, counted):
    """Whether a line and numbers of other names are made, or all of it a second time."""

    @HistoryBuffer.register_statistics
    def fails(self):
        return 1 / 0

    cfg = [
        {"data_src": "loss", "log_name": name, "method_name": "fails"} for name in ("own", "more")
    ]
    hub, keeper = MessageHub("a"), Keeper()
    hub.update_scalar("train/loss", 1.0)
    processor = kind(custom_cfg=cfg, log_with_hierarchy=log_with_hierarchy)
    hub.log_to(Logger([keeper]), LoopState(hub), processor)
    assert {"train/loss": 1.0} == keeper.logged[0][1]
    assert {"statistic_failed": lost} == counted()


def test_names_that_a_loop_makes_up_are_not_remembered_without_end():
    """Of names that are not logged, so many are warned of."""
    hub = MessageHub("a")
    for number in range(2 * results.MAX_SAID):
        hub.update_scalar(f"loss {number}", 1.0)
    hub.log_to(Logger([]), LoopState(hub))
    from otel_dllogger.training import records  # noqa: PLC0415

    assert len(records._homeless) <= results.MAX_SAID
