"""The hub in checkpoints, copies, pickles and forked children."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict

import numpy as np
import pytest

from otel_dllogger import Logger
from otel_dllogger.training import (
    MessageHub,
    MisuseError,
    log_results,
)
from tests.support.command import assert_forked_child_answers
from tests.support.message_hub import data_of

pytestmark = [pytest.mark.newest_only, pytest.mark.usefixtures("no_hubs")]


def train(hub, numbers):
    """Fill a hub as a training does."""
    for number in numbers:
        hub.update_scalar("train/loss", 1 / (number + 1), count=number % 3 + 1)
        hub.update_scalar("train/lr", 0.1 * number)
        hub.update_scalar("train/hits", number)
        hub.update_scalar("train/temporary", 1.0, resumed=False)
        hub.update_info("iter", number)
        hub.update_info("secret", number, resumed=False)


@pytest.mark.parametrize("cut", [1, 700, 1024, 3000])
def test_a_resumed_training_goes_on_exactly(cut):
    """Through a pickle in the middle, every window is that of a training without a break."""
    whole, before, after = MessageHub("a"), MessageHub("b"), MessageHub("c")
    train(whole, range(4000))
    train(before, range(cut))
    state = before.state_dict()
    train(before, range(cut, cut + 50))
    after.load_state_dict(pickle.loads(pickle.dumps(state)))
    train(after, range(cut, 4000))
    for key in ("train/loss", "train/lr", "train/hits"):
        expected, actual = whole.get_scalar(key), after.get_scalar(key)
        for window in (None, 1, 10, 1024, 1025, 3500):
            for method in ("mean", "min", "max"):
                assert expected.statistics(method, window) == actual.statistics(method, window)
        assert expected.current() == actual.current()
        for one, two in zip(expected.data, actual.data, strict=True):
            np.testing.assert_array_equal(one, two, strict=True)
    assert 4000 == len(whole.get_scalar("train/temporary").data[0])
    assert 4000 - cut == len(after.get_scalar("train/temporary").data[0])
    assert whole.runtime_info == after.runtime_info


def test_what_is_not_resumed_is_left_out():
    """The state has the names that are resumed, and which those are."""
    hub = MessageHub("a")
    train(hub, range(2))
    state = hub.state_dict()
    assert ["train/loss", "train/lr", "train/hits"] == list(state["log_scalars"])
    assert OrderedDict(iter=1) == state["runtime_info"]
    assert ["train/temporary", "secret"] == [
        name for name, resumed in state["resumed_keys"].items() if not resumed
    ]


def test_a_state_is_a_copy():
    """A hub, its state and a hub that loaded it do not feel each other's changes."""
    hub, other = MessageHub("a"), MessageHub("b")
    hub.update_scalar("x", 1.0)
    hub.update_info("list", [1])
    state = hub.state_dict()
    other.load_state_dict(state)
    hub.update_scalar("x", 2.0)
    hub.get_info("list").append(2)
    hub.update_info("new", 1)
    state["runtime_info"]["list"].append(3)
    state["log_scalars"]["x"].update(3.0)
    assert ([1], [1]) == data_of(other, "x")
    assert [1] == other.get_info("list")
    assert "new" not in state["resumed_keys"]
    assert [1, 3] == state["log_scalars"]["x"].data[0].tolist()


def test_loading_keeps_other_names():
    """Names that the state has not stay; whether one is resumed comes from the state."""
    hub, other = MessageHub("a"), MessageHub("b")
    hub.update_scalar("x", 1.0)
    other.update_scalar("x", 9.0, resumed=False)
    other.update_scalar("y", 5.0)
    other.load_state_dict(hub.state_dict())
    assert ([1], [1]) == data_of(other, "x")
    assert ([5], [1]) == data_of(other, "y")
    other.update_scalar("x", 2.0)
    with pytest.raises(MisuseError):
        other.update_scalar("x", 2.0, resumed=False)


def test_a_hub_can_be_loaded_whole():
    """From another hub everything comes, what is not resumed as well, and nothing stays."""
    hub, other = MessageHub("a"), MessageHub("b")
    train(hub, range(3))
    other.update_scalar("y", 5.0)
    other.load_state_dict(hub)
    assert list(hub.log_scalars) == list(other.log_scalars)
    assert hub.runtime_info == other.runtime_info
    other.update_scalar("train/temporary", 7.0, resumed=False)
    assert ([1, 1, 1], [1, 1, 1, 7]) == (
        hub.get_scalar("train/temporary").data[0].tolist(),
        other.get_scalar("train/temporary").data[0].tolist(),
    )
    other.load_state_dict(other)
    assert ([1, 1, 1, 7], [1, 1, 1, 1]) == data_of(other, "train/temporary")


class Uncopyable:
    """Raise when a copy is made of it."""

    def __deepcopy__(self, memo):
        raise TypeError("no copy")


def test_what_cannot_be_copied_is_kept_with_a_warning(caplog, counted):
    """A fact without a copy is in the state as itself."""
    hub, other = MessageHub("a"), MessageHub("b")
    fact = Uncopyable()
    hub.update_info("fact", fact)
    hub.update_info("iter", 3)
    state = hub.state_dict()
    assert fact is state["runtime_info"]["fact"]
    other.load_state_dict(state)
    assert fact is other.get_info("fact")
    assert 3 == other.get_info("iter")
    assert "'fact' cannot be copied: a reference to it is kept: TypeError: no copy" in caplog.text
    assert {"backend_failed": 2} == counted()


class TheirHistory:
    """Look as MMEngine's HistoryBuffer does, as far as it counts."""

    def __init__(self, values, counts, max_length=1_000_000):
        self.max_length = max_length
        self._log_history, self._count_history = np.array(values), np.array(counts)

    @property
    def data(self):
        return self._log_history, self._count_history


def test_mmengines_own_histories_are_taken_over():
    """A state of MMEngine's hub is resumed, and goes on as MMEngine's would."""
    hub = MessageHub("a")
    theirs = TheirHistory([1.0, 2.0], [1, 2], max_length=3)
    hub.load_state_dict(
        {"log_scalars": {"x": theirs}, "runtime_info": {"iter": 2}, "resumed_keys": {"x": True}}
    )
    for number in (3.0, 4.0):
        hub.update_scalar("x", number)
    assert 3 == hub.get_scalar("x").max_length
    assert ([2, 3, 4], [2, 1, 1]) == data_of(hub, "x")
    assert [1, 2] == theirs.data[0].tolist()
    assert 2 == hub.get_info("iter")


def test_what_mmengine_has_logged_is_not_logged_again():
    """The first validation after it is of its own values."""
    state = MessageHub("a").state_dict()
    state["log_scalars"]["val/loss"] = TheirHistory([100.0], [1], max_length=10)
    hub = MessageHub("b")
    hub.load_state_dict(state)
    hub.update_scalar("val/loss", 1.0)
    line = log_results({"acc": 0.5}, hub=hub, logger=Logger([]))
    assert line.endswith("loss: 1.0000  acc: 0.5000")


def test_a_whole_checkpoint_is_no_state():
    """MMEngine's has the state of the hub among others."""
    with pytest.raises(MisuseError, match=r"whole checkpoint: pass its \['message_hub'\]"):
        MessageHub("a").load_state_dict({"message_hub": MessageHub("b").state_dict()})


@pytest.mark.parametrize("value", [1.0, None, "x", [1], TheirHistory])
def test_what_is_no_history_is_not_resumed(value, caplog):
    """An old checkpoint's plain number is left out with a warning, and so is its key."""
    hub = MessageHub("a")
    hub.load_state_dict(
        {"log_scalars": {"x": value}, "runtime_info": {}, "resumed_keys": {"x": False, "y": True}}
    )
    assert {} == hub.log_scalars
    assert "'x' is not a HistoryBuffer: it is not resumed" in caplog.text
    hub.update_scalar("x", 1.0)


@pytest.mark.parametrize("part", ["log_scalars", "runtime_info", "resumed_keys"])
def test_a_state_is_whole(part):
    """A state without one of its parts raises, and names it."""
    state = MessageHub("a").state_dict()
    del state[part]
    with pytest.raises(MisuseError, match=f"has no '{part}'"):
        MessageHub("b").load_state_dict(state)


@pytest.mark.parametrize("value", [None, 1, object()], ids=["None", "1", "object"])
def test_what_is_no_state_is_refused(value):
    """What cannot be a state raises the same error."""
    with pytest.raises(MisuseError):
        MessageHub("b").load_state_dict(value)


def test_a_hub_can_be_copied_and_pickled():
    """A hub in a checkpoint is whole."""
    hub = MessageHub("a")
    train(hub, range(3))
    for other in (copy.deepcopy(hub), pickle.loads(pickle.dumps(hub))):
        assert "a" == other.instance_name
        assert data_of(hub, "train/loss") == data_of(other, "train/loss")
        assert hub.runtime_info == other.runtime_info


def test_mmengines_own_hub_is_taken_over():
    """Old checkpoints hold the hub itself, of which everything is taken."""

    class History:
        data, max_length = (np.array([0.5]), np.array([1])), 7

    class Hub:
        def __init__(self):
            self._log_scalars = {"train/loss": History()}
            self._runtime_info = {"iter": 3}
            self._resumed_keys = {"train/loss": True, "iter": False}

    hub = MessageHub("taken")
    hub.update_info("gone", 1)
    hub.load_state_dict(Hub())
    assert ([0.5], [1]) == data_of(hub, "train/loss")
    assert {"iter": 3} == hub.runtime_info
    assert ["train/loss"] == list(hub.state_dict()["log_scalars"])


def test_a_forked_child_gets_its_hubs():
    """Also where another thread of its parent was making one at that moment."""
    assert_forked_child_answers("""
from otel_dllogger.training import MessageHub

class Slow(MessageHub):
    def __init__(self, name):
        super().__init__(name)
        if name == "slow":
            hold()

def beside():
    Slow.get_instance("slow")

def answers():
    return Slow.get_instance("child").instance_name == "child"
""")
