"""The hub: MMEngine's documented uses, misuse, instances and threads."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from otel_dllogger import ConfigurationError
from otel_dllogger.training import (
    HistoryBuffer,
    MessageHub,
    MisuseError,
)
from tests.support.message_hub import data_of

pytestmark = [pytest.mark.newest_only, pytest.mark.usefixtures("no_hubs")]

THREADS = 8


# The documented uses


def test_a_scalar_keeps_its_history():
    """Values of a name are appended, with their counts."""
    hub = MessageHub("a")
    hub.update_scalar("train/loss", 0.1)
    hub.update_scalar("train/loss", 0.5, count=8)
    assert ([0.1, 0.5], [1, 8]) == data_of(hub, "train/loss")
    assert 0.6 / 9 == pytest.approx(hub.get_scalar("train/loss").mean())
    assert 0.5 == hub.get_scalar("train/loss").current()


def test_several_scalars_at_once():
    """A value among several can be a dict with its count."""
    hub = MessageHub("a")
    hub.update_scalars({"a": 1, "b": {"value": 2.5}, "c": {"value": 1, "count": np.int64(2)}})
    hub.update_scalars({"a": 3})
    assert ([1, 3], [1, 1]) == data_of(hub, "a")
    assert ([2.5], [1]) == data_of(hub, "b")
    assert ([1], [2]) == data_of(hub, "c")
    assert ["a", "b", "c"] == list(hub.log_scalars)
    assert hub.log_scalars["a"] is hub.get_scalar("a")


def test_a_fact_is_the_last_one():
    """A fact takes the place of the one before, and can be taken away."""
    hub = MessageHub("a")
    hub.update_info("iter", 1)
    hub.update_info("iter", 2)
    hub.update_info_dict({"epoch": 5, "meta": {"a": [1]}})
    assert {"iter": 2, "epoch": 5, "meta": {"a": [1]}} == dict(hub.runtime_info)
    assert (2, None, 7) == (hub.get_info("iter"), hub.get_info("x"), hub.get_info("x", 7))
    assert (2, None, 7) == (hub.pop_info("iter"), hub.pop_info("iter"), hub.pop_info("iter", 7))
    assert {"epoch", "meta"} == set(hub.runtime_info)


def test_modules_share_a_hub_by_its_name():
    """What a loop puts into a hub, a module that knows its name finds there."""

    class Receiver:
        def __init__(self, name):
            self.hub = MessageHub.get_instance(name)

        def run(self):
            return (
                self.hub.get_scalar("loss").mean(),
                self.hub.get_info("iter"),
                self.hub.get_info("meta"),
            )

    class ToyRunner:
        def __init__(self, name):
            self.hub = MessageHub.get_instance(name)
            self.receivers = [Receiver(name), Receiver(name)]

        def run(self):
            self.hub.update_info("meta", "meta")
            for number in range(3):
                self.hub.update_scalar("loss", number)
                self.hub.update_info("iter", number)
                yield [receiver.run() for receiver in self.receivers]

    seen = list(ToyRunner("toy").run())
    assert [[(mean, number, "meta")] * 2 for number, mean in enumerate((0.0, 0.5, 1.0))] == seen


def test_a_hub_of_what_there_is():
    """A hub can be made of histories and facts; it takes them as they are."""
    history = HistoryBuffer([1.0], [1])
    hub = MessageHub("a", {"loss": history}, {"task": "t"}, {"loss": True, "task": False})
    assert history is hub.get_scalar("loss")
    assert "t" == hub.get_info("task")
    state = hub.state_dict()
    assert (["loss"], []) == (list(state["log_scalars"]), list(state["runtime_info"]))


# What is wrong


@pytest.mark.parametrize("name", ["log_scalars", "runtime_info", "resumed_keys"])
@pytest.mark.parametrize("value", [1, [], "x"])
def test_a_hub_is_made_of_dicts(name, value):
    """What is no dict raises TypeError, with its name."""
    with pytest.raises(TypeError, match=f"{name} should be a dict or `None`"):
        MessageHub("a", **{name: value})


def test_a_hub_is_made_of_histories():
    """A plain number among the histories raises, and so does a key without a value."""
    with pytest.raises(MisuseError, match=r"log_scalars\['x'\] is not a HistoryBuffer but float"):
        MessageHub("a", {"x": 1.0})
    with pytest.raises(MisuseError, match="resumed_keys has 'x'"):
        MessageHub("a", {"y": HistoryBuffer()}, {"z": 1}, {"y": True, "z": True, "x": True})


@pytest.mark.parametrize("first", [True, False])
def test_a_name_is_resumed_or_not(first):
    """Whether a name is resumed cannot change: neither for a scalar nor for a fact."""
    hub = MessageHub("a")
    hub.update_scalar("loss", 1, resumed=first)
    hub.update_info("iter", 1, resumed=first)
    hub.update_scalars({"loss": 2}, resumed=first)
    hub.update_info_dict({"iter": 2}, resumed=first)
    for call in (
        lambda: hub.update_scalar("loss", 3, resumed=not first),
        lambda: hub.update_scalars({"loss": 3}, resumed=not first),
        lambda: hub.update_info("iter", 3, resumed=not first),
        lambda: hub.update_info_dict({"iter": 3}, resumed=not first),
    ):
        with pytest.raises(MisuseError, match=f"used to be {first}, but got {not first} now"):
            call()
    assert ([1, 2], [1, 1]) == data_of(hub, "loss")
    assert 2 == hub.get_info("iter")


@pytest.mark.parametrize("dtype", list("?bhilqBHILQefd"))
@pytest.mark.parametrize("shape", [None, (), (1,), (1, 1)])
def test_one_number_of_numpy_is_a_number(dtype, shape):
    """Scalars and arrays of one element count as Python's number, whatever their type."""
    value = np.dtype(dtype).type(1) if shape is None else np.ones(shape, dtype)
    hub = MessageHub("a")
    for _ in range(2):
        hub.update_scalar("x", value)
    expected = type(np.ones(1, dtype)[0].item())
    assert [expected] * 2 == list(map(type, data_of(hub, "x")[0]))
    assert ([1, 1], [1, 1]) == data_of(hub, "x")


@pytest.mark.parametrize(
    ("first", "dtype"),
    [(1, np.int64), (1.0, np.float64), (True, np.bool_), (np.float32(1), np.float64)],
)
def test_a_history_is_of_its_first_values_type(first, dtype):
    """A history of ints is one of ints, until a float comes."""
    hub = MessageHub("a")
    hub.update_scalar("x", first)
    assert (dtype, np.int64) == tuple(array.dtype for array in hub.get_scalar("x").data)
    hub.update_scalar("x", 0.5)
    assert np.float64 == hub.get_scalar("x").data[0].dtype


@pytest.mark.parametrize(
    "value",
    [
        None,
        "1",
        np.ones(2),
        np.empty(0),
        np.ones((1, 2)),
        1j,
        np.complex64(1),
        [1],
        {},
        np.str_("1"),
    ],
    ids=repr,
)
def test_what_is_no_single_number_is_refused(value):
    """A value that is no number raises what is a configuration's and an assertion's error."""
    hub = MessageHub("a")
    hub.update_scalar("x", 1)
    with pytest.raises(MisuseError, match=r"'x' got .*, which is not a single number") as caught:
        hub.update_scalar("x", value)
    assert isinstance(caught.value, AssertionError)
    assert isinstance(caught.value, ConfigurationError)
    assert ([1], [1]) == data_of(hub, "x")


@pytest.mark.parametrize("value", [np.timedelta64(5, "s"), np.datetime64(5, "s")], ids=repr)
def test_a_time_is_no_number(value):
    """A numpy time is refused, and the history can still be asked."""
    hub = MessageHub("a")
    hub.update_scalar("x", 1)
    with pytest.raises((MisuseError, TypeError)):
        hub.update_scalar("x", value)
    assert ([1], [1]) == data_of(hub, "x")


@pytest.mark.parametrize("count", [1.0, "1", None, np.int64(1), np.ones(1)], ids=repr)
def test_a_count_is_an_int(count):
    """A count of another type raises, and is named."""
    hub = MessageHub("a")
    with pytest.raises(MisuseError, match=r"count=.* of 'x' is not an int"):
        hub.update_scalar("x", 1, count)
    assert "x" not in hub.log_scalars


@pytest.mark.parametrize("value", [[("a", 1)], None, "a", 1])
def test_several_values_are_a_dict(value):
    """What is no dict raises for scalars as for facts."""
    hub = MessageHub("a")
    with pytest.raises(MisuseError, match=r"log_dict=.* is not a dict"):
        hub.update_scalars(value)
    with pytest.raises(MisuseError, match=r"info_dict=.* is not a dict"):
        hub.update_info_dict(value)


def test_a_dict_of_a_scalar_has_a_value():
    """A count without a value raises."""
    with pytest.raises(MisuseError, match=r"'a' has \{'count': 1\}, without a value"):
        MessageHub("a").update_scalars({"a": {"count": 1}})


def test_a_scalar_that_is_not_there():
    """The error says which hub it is and what it has."""
    hub = MessageHub("here")
    with pytest.raises(KeyError, match="'x' is not a scalar of the hub 'here': it has none"):
        hub.get_scalar("x")
    hub.update_scalars({"a": 1, "b": 1})
    with pytest.raises(KeyError, match="it has a, b"):
        hub.get_scalar("x")


# Instances


def test_instances_by_name():
    """A name has one hub; the last one made is the current one."""
    assert not MessageHub.check_instance_created("a")
    first = MessageHub.get_instance("a", runtime_info={"x": 1})
    second = MessageHub.get_instance("b")
    assert MessageHub.check_instance_created("a")
    assert first is MessageHub.get_instance("a")
    assert second is MessageHub.get_current_instance()
    assert ("a", 1) == (first.instance_name, first.get_info("x"))
    assert first is not MessageHub("a")


def test_the_first_current_hub_has_mmengines_name():
    """Without a hub, the current one is made."""
    hub = MessageHub.get_current_instance()
    assert "mmengine" == hub.instance_name
    assert hub is MessageHub.get_current_instance() is MessageHub.get_instance("mmengine")


def test_arguments_for_a_hub_that_is_there_are_warned_of():
    """What cannot be applied is said, at the caller's line."""
    hub = MessageHub.get_instance("a")
    with pytest.warns(UserWarning, match=r"MessageHub 'a' already exists.*runtime_info") as told:
        assert hub is MessageHub.get_instance("a", runtime_info={"x": 1})
    assert [__file__] == [warning.filename for warning in told]
    assert hub.get_info("x") is None


@pytest.mark.parametrize("name", ["", None, 1, ["a"]])
def test_a_name_is_a_text(name):
    """A hub needs a name."""
    for make in (MessageHub, MessageHub.get_instance):
        with pytest.raises(MisuseError, match=r"name=.* is not a name"):
            make(name)


def test_a_class_of_ones_own_has_its_own_instances():
    """The hubs of a subclass are not those of MessageHub."""

    class Own(MessageHub):
        pass

    own = Own.get_instance("a")
    assert type(own) is Own
    assert not MessageHub.check_instance_created("a")
    assert own is Own.get_current_instance()
    assert own is not MessageHub.get_current_instance()


# Threads


def test_many_threads_make_the_same_new_names():
    """A history that several threads want at once is made once, and no value is lost."""
    hub = MessageHub("a")
    begin = threading.Barrier(THREADS)

    def work():
        begin.wait()
        for number in range(300):
            hub.update_scalar(f"train/{number}", 1.0)
            hub.update_info(f"info/{number}", number)
            MessageHub.get_instance(f"hub{number % 7}").update_scalar("x", 1)

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert {"log_scalars", "runtime_info", "resumed_keys"} == set(hub.state_dict())
    for thread in threads:
        thread.join()
    assert {THREADS} == {len(history.data[0]) for history in hub.log_scalars.values()}
    assert 300 == len(hub.log_scalars) == len(hub.runtime_info)
    lengths = [len(MessageHub.get_instance(f"hub{n}").get_scalar("x").data[0]) for n in range(7)]
    assert THREADS * 300 == sum(lengths)
