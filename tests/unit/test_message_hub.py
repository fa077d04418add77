"""The hub: MMEngine's documented uses, an accelerator's values, checkpoints, threads."""

from __future__ import annotations

import copy
import math
import pickle
import threading
from collections import OrderedDict

import numpy as np
import pytest

from otel_dllogger import ConfigurationError, Logger
from otel_dllogger.training import (
    HistoryBuffer,
    LogProcessor,
    LoopState,
    MessageHub,
    MisuseError,
    log_results,
)
from otel_dllogger.training.device import SIZE
from tests.support.command import assert_forked_child_answers

pytestmark = pytest.mark.newest_only

THREADS = 8


@pytest.fixture(autouse=True)
def no_hubs():
    """Begin and end without a hub that other modules could get."""
    MessageHub._instances.clear()
    yield
    MessageHub._instances.clear()


class Device:
    """An accelerator that counts how often the host waited for it."""

    type = "cuda"

    def __init__(self):
        self.waits = 0
        self.during_wait = self.during_copy = lambda: None

    def wait(self):
        self.waits += 1
        self.during_wait()

    def tensor(self, value, dtype="float32"):
        return DeviceTensor(self, [value], dtype)


class DeviceTensor:
    """Do what a tensor of an accelerator does, and wait where that would wait."""

    def __init__(self, device, values, dtype="float32", *, inference=False, shape=()):
        self.device, self.dtype, self.inference, self.shape = device, dtype, inference, shape
        self._values = values

    def numel(self):
        return len(self._values)

    def is_floating_point(self):
        return self.dtype.startswith(("float", "bfloat"))

    def detach(self):
        self.device.during_copy()
        return self

    def reshape(self, shape):
        assert math.prod(shape) == self.numel()
        return DeviceTensor(
            self.device, self._values, self.dtype, inference=self.inference, shape=shape
        )

    def new_empty(self, size):
        values = [None] * size
        return DeviceTensor(
            self.device, values, self.dtype, inference=self.inference, shape=(size,)
        )

    def __getitem__(self, key):
        return DeviceTensor(self.device, self._values[key], self.dtype, inference=self.inference)

    def __setitem__(self, index, other):
        if self.inference:
            raise RuntimeError("Inplace update to inference tensor outside InferenceMode")
        assert (self.device, self.dtype, ()) == (other.device, other.dtype, other.shape)
        self._values[index] = other._values[0]

    def __iadd__(self, number):
        self._values[0] += number
        return self

    def tolist(self):
        self.device.wait()
        assert None not in self._values
        return list(self._values)

    def item(self):
        self.device.wait()
        return self._values[0]

    def __repr__(self):
        return f"tensor({self.item()})" if self.numel() == 1 else "tensor(...)"

    __float__ = __int__ = __bool__ = item


def data_of(hub, key):
    """Return a scalar's values and counts as lists."""
    values, counts = hub.get_scalar(key).data
    return values.tolist(), counts.tolist()


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
    with pytest.raises(MisuseError, match=r"'x' got .*, no single number") as caught:
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
    with pytest.warns(UserWarning, match=r"MessageHub 'a' is there already.*runtime_info") as told:
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


# Values on an accelerator


def test_no_update_waits_for_a_device():
    """Ten thousand values are taken without a wait, and read with one for each block."""
    hub, device = MessageHub("a"), Device()
    numbers = [number / 8 for number in range(10_000)]
    for number in numbers:
        hub.update_scalar("train/loss", device.tensor(number))
    assert 0 == device.waits
    assert sum(numbers) / 10_000 == pytest.approx(hub.get_scalar("train/loss").mean(), rel=1e-12)
    assert -(-10_000 // SIZE) == device.waits
    hub.get_scalar("train/loss").max(5)
    assert -(-10_000 // SIZE) == device.waits
    assert (numbers, [1] * 10_000) == data_of(hub, "train/loss")


def test_asking_after_each_value_waits_once_each():
    """A value is fetched when it is asked for, and never again."""
    hub, device = MessageHub("a"), Device()
    for number in range(SIZE + 5):
        hub.update_scalar("x", device.tensor(number * 0.5))
        assert number * 0.5 == hub.get_scalar("x").current()
        assert number + 1 == device.waits


def test_a_value_is_what_it_was():
    """Training may write to its tensor at once."""
    hub, device = MessageHub("a"), Device()
    tensor = device.tensor(1.0)
    for _ in range(3):
        hub.update_scalar("x", tensor)
        tensor += 1
    assert ([1.0, 2.0, 3.0], [1, 1, 1]) == data_of(hub, "x")
    assert 1 == device.waits


def test_values_of_hosts_and_devices_keep_their_order():
    """Numbers between tensors, of two devices and types, come in the order of the calls."""
    hub, one, other = MessageHub("a"), Device(), Device()
    expected = []
    for number in range(9000):
        value = float(number)
        kind = number % 7
        tensor = (
            one.tensor(value)
            if kind == 1
            else other.tensor(value)
            if kind == 2
            else one.tensor(value, "float16")
            if kind == 3
            else value
        )
        hub.update_scalar("x", tensor, number % 5 + 1)
        expected.append(value)
    assert (0, 0) == (one.waits, other.waits)
    assert (expected, [number % 5 + 1 for number in range(9000)]) == data_of(hub, "x")
    assert 9000 == len(hub.get_scalar("x").data[0])


def test_host_values_before_a_device_value_are_put_away():
    """Numbers go on to be compacted, in their order, when tensors come after thousands."""
    hub, device = MessageHub("a"), Device()
    for number in range(5000):
        hub.update_scalar("x", float(number))
    for number in range(5000, 5010):
        hub.update_scalar("x", device.tensor(float(number)))
    for number in range(5010, 20_000):
        hub.update_scalar("x", float(number))
    assert 0 == device.waits
    assert list(range(20_000)) == data_of(hub, "x")[0]


@pytest.mark.parametrize(
    ("dtype", "value", "expected"),
    [("float32", 0.5, np.float64), ("int64", 3, np.int64), ("bfloat16", 2.0, np.float64)],
)
def test_a_history_is_of_its_tensors_type(dtype, value, expected):
    """The values of a device make a history of ints or of floats."""
    hub, device = MessageHub("a"), Device()
    hub.update_scalars({"x": {"value": device.tensor(value, dtype), "count": 4}})
    assert 0 == device.waits
    assert (expected, np.int64) == tuple(array.dtype for array in hub.get_scalar("x").data)
    assert ([value], [4]) == data_of(hub, "x")


def test_a_block_of_inference_gives_way_to_another():
    """Where a block can no longer be written, the values go into a new one."""
    hub, device = MessageHub("a"), Device()
    history = HistoryBuffer()
    hub.log_scalars["x"] = history
    history.update_on_device(device.tensor(1.0))
    history._block._values.inference = True
    for number in (2.0, 3.0):
        hub.update_scalar("x", device.tensor(number))
    assert ([1, 2, 3], [1, 1, 1]) == data_of(hub, "x")
    assert 2 == device.waits


@pytest.mark.parametrize("values", [[], [1.0, 2.0]])
def test_a_tensor_of_another_size_is_refused(values):
    """A tensor has one element, on a device as well."""
    device = Device()
    with pytest.raises(MisuseError, match="no single number"):
        MessageHub("a").update_scalar("x", DeviceTensor(device, values, shape=(len(values),)))


def test_a_tensor_of_the_host_is_read_at_once():
    """A tensor in the host's memory needs no block."""
    hub, host = MessageHub("a"), Device()
    host.type = "cpu"
    hub.update_scalar("x", host.tensor(1.5))
    assert 1 == host.waits
    assert ([1.5], [1]) == data_of(hub, "x")


def test_updates_while_the_host_waits_come_whole():
    """What other threads add while a device is waited for has its count, in every answer."""
    hub, device = MessageHub("a"), Device()
    hub.update_scalar("x", 1.0, 3)
    hub.update_scalar("x", device.tensor(2.0))
    history = hub.get_scalar("x")

    def update_elsewhere():
        thread = threading.Thread(target=history.update, args=(9.0, 5), daemon=True)
        thread.start()
        thread.join(10)
        assert not thread.is_alive()  # an update waits for nobody

    device.during_wait = update_elsewhere
    values, counts = history.data
    assert len(values) == len(counts)
    hub.update_scalar("x", device.tensor(4.0))
    restored = pickle.loads(pickle.dumps(history))
    values, counts = restored.data
    assert len(values) == len(counts)
    pairs = list(zip(*(array.tolist() for array in history.data), strict=True))
    assert [(1, 3), (2, 1), (9, 5), (4, 1), (9, 5)] == pairs
    assert pairs[: len(values)] == list(zip(values.tolist(), counts.tolist(), strict=True))


def test_registered_statistics_see_values_and_counts_that_belong_together():
    """A statistic that reads values and then counts has as many of both."""
    hub, device = MessageHub("a"), Device()
    hub.update_scalar("x", device.tensor(2.0))
    history = hub.get_scalar("x")
    device.during_wait = lambda: history.update(9.0, 5)

    def lengths(self):
        return len(self._log_history), len(self._count_history)

    HistoryBuffer.register_statistics(lengths)
    try:
        values, counts = history.statistics("lengths")
    finally:
        del HistoryBuffer._statistics_methods["lengths"]
    assert values == counts


@pytest.mark.parametrize("name", ["train/acc", "train/loss"])
def test_a_name_is_not_seen_before_it_has_a_value(name):
    """Who logs while a thread adds the first value of a name sees no empty history."""
    hub, device = MessageHub("a"), Device()
    lines = []

    def look():
        lines.append(LogProcessor().get_log_after_iter(LoopState(hub), 0, "train")[1])

    device.during_copy = look
    hub.update_scalar(name, device.tensor(2.0))
    device.during_copy = lambda: None
    look()
    assert lines
    assert lines[-1].endswith(f"{name[6:]}: 2.0000")


# Checkpoints


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


def test_the_values_of_a_device_are_in_the_checkpoint():
    """A state waits for the device, and holds plain numbers."""
    hub, device = MessageHub("a"), Device()
    for number in (1.0, 2.0):
        hub.update_scalar("x", device.tensor(number))
    other = MessageHub("b")
    other.load_state_dict(pickle.loads(pickle.dumps(hub.state_dict())))
    assert ([1, 2], [1, 1]) == data_of(other, "x")
    assert 1 == device.waits


def test_a_device_that_fails_costs_nothing_else():
    """The values before and behind the one that could not be read are still there."""
    device = Device()
    hub = MessageHub("failing")
    hub.update_scalar("x", 1.0)
    hub.update_scalar("x", DeviceTensor(device, [2.0]))
    hub.update_scalar("x", 3.0)

    def fail():
        raise RuntimeError("an illegal memory access was encountered")

    device.during_wait = fail
    for _ in range(2):
        with pytest.raises(RuntimeError, match="illegal memory"):
            hub.get_scalar("x").mean()
    device.during_wait = lambda: None
    hub.update_scalar("x", 4.0)
    assert 4 == hub.get_scalar("x").since("never")
    assert ([1.0, 2.0, 3.0, 4.0], [1] * 4) == data_of(hub, "x")


def test_a_device_that_takes_no_copies_is_waited_for():
    """Where a value cannot be kept on its device, it is read at once rather than lost."""
    device = Device()
    hub = MessageHub("no-copies")

    class Stubborn(DeviceTensor):
        def new_empty(self, size):
            return DeviceTensor(device, [None] * size, inference=True, shape=(size,))

    hub.update_scalar("x", Stubborn(device, [2.5]))
    assert 1 == device.waits
    assert ([2.5], [1]) == data_of(hub, "x")


def test_a_short_history_of_a_device_stays_short():
    """Of values that nobody asks for no more are kept than count."""
    device = Device()
    buffer = HistoryBuffer(max_length=10)
    for number in range(100_000):
        buffer.update_on_device(DeviceTensor(device, [float(number)]))
    assert len(buffer._new) <= 3 * 4096
    assert 100_000 == buffer.since("never")
    assert 0 == device.waits
    assert list(map(float, range(99_990, 100_000))) == buffer.data[0].tolist()


def test_a_device_that_was_waited_for_lets_host_values_be_put_away_again():
    """As many as waited for the device do not become the number that wait ever after."""
    buffer, device = HistoryBuffer(), Device()
    for number in range(20_000):
        buffer.update_on_device(device.tensor(float(number)))
    assert 19_999 == buffer.current()
    for number in range(20_000):
        buffer.update(float(number))
        assert len(buffer._new) <= 4096
    assert 40_000 == len(buffer.data[0])


def test_a_complex_value_of_a_device_is_refused():
    """What is no number is none on a device either."""

    class Complex:
        is_complex = True

        def startswith(self, _kinds):
            return False

    value = DeviceTensor(Device(), [1j], Complex())
    with pytest.raises(MisuseError, match="no single number"):
        MessageHub("complex").update_scalar("x", value)


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
