"""Values on an accelerator in the hub: nothing waits for them before somebody asks."""

from __future__ import annotations

import math
import pickle
import threading

import numpy as np
import pytest

from otel_dllogger.training import (
    HistoryBuffer,
    LogProcessor,
    LoopState,
    MessageHub,
    MisuseError,
)
from otel_dllogger.training.device import SIZE
from tests.support.message_hub import data_of

pytestmark = [pytest.mark.newest_only, pytest.mark.usefixtures("no_hubs")]


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
    with pytest.raises(MisuseError, match="not a single number"):
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
    with pytest.raises(MisuseError, match="not a single number"):
        MessageHub("complex").update_scalar("x", value)
