"""Loops of one's own: what is logged when, how far a loop is, and how it ends."""

from __future__ import annotations

import itertools
import pickle
import threading
import time

import pytest

from otel_dllogger import Logger
from otel_dllogger.training import (
    LogProcessor,
    MessageHub,
    MisuseError,
    log_results,
    track,
)
from tests.support.track import Keeper, finish, infos, wait_s

pytestmark = [pytest.mark.newest_only, pytest.mark.usefixtures("nothing_global")]


# Epochs


def test_epochs_one_after_the_other(hub, keeper, options):
    """Each epoch yields the loader's batches; iterations are counted through."""
    for epoch in range(3):
        for number, batch in enumerate(track("abcde", log_every=2, max_epochs=3, **options)):
            assert "abcde"[number] == batch
            assert (epoch or None, epoch * 5 + number or None) == infos(hub)
            hub.update_scalar("train/loss", 10.0 * epoch + number)
        assert (epoch + 1, (epoch + 1) * 5) == infos(hub)
    assert [(1, 2), (1, 4), (2, 7), (2, 9), (3, 12), (3, 14)] == keeper.steps
    assert "[2][2/5]" in keeper.logged[2][2]
    assert 15 == len(hub.get_scalar("train/time").data[0])
    assert 15 == len(hub.get_scalar("train/data_time").data[0])
    assert {"train/loss", "train/time", "train/data_time", "train/eta"} == set(keeper.logged[0][1])
    assert 0.5 == keeper.logged[0][1]["train/loss"]


@pytest.mark.parametrize(
    ("length", "every", "expected"),
    [
        (10, 10, [10]),
        (25, 10, [10, 20]),
        (9, 10, [9]),
        (1, 10, [1]),
        (3, 1, [1, 2, 3]),
        (10, 5, [5, 10]),
        (0, 5, []),
    ],
)
@pytest.mark.parametrize("mode", ["train", "val", "test"])
def test_what_is_logged_when(keeper, options, length, every, expected, mode):
    """A record comes every so many batches, and of a shorter loader with the last one."""
    finish(track(range(length), mode=mode, log_every=every, **options))
    assert expected == [step[-1] for step in keeper.steps]


def test_ten_batches_between_records_by_default(keeper, options):
    """The default is MMEngine's."""
    finish(track(range(25), **options))
    assert [(1, 10), (1, 20)] == keeper.steps


def test_times_are_measured(hub, options):
    """The time of a batch is that of its loading and of the loop's body."""

    def slow_loader():
        for number in range(4):
            wait_s(0.01)
            yield number

    for _ in track(slow_loader(), **options):
        wait_s(0.02)
    loading, whole = (hub.get_scalar(f"train/{name}").data[0] for name in ("data_time", "time"))
    assert (4, 4) == (len(loading), len(whole))
    assert (loading >= 0.01).all()
    assert (whole >= loading + 0.02).all()
    assert loading.mean() < 1
    assert whole.mean() < 1


def test_the_time_before_a_loop_begins_does_not_count(hub, options):
    """A loop that is made early measures from its first batch on."""
    loop = track(range(2), **options)
    wait_s(0.02)
    start_s = time.perf_counter()
    finish(loop)
    assert hub.get_scalar("train/time").data[0].sum() <= time.perf_counter() - start_s


# The time that is left


def test_the_time_left_of_a_training_by_epoch(hub, options):
    """What is left are the other batches of this epoch and the other epochs."""
    left = []
    for _ in range(2):
        for _ in track(range(4), log_every=1, max_epochs=3, **options):
            wait_s(0.001)
            if "eta" in hub.runtime_info:
                mean_s = hub.get_scalar("train/time").mean()
                left.append(hub.get_info("eta") / mean_s)
    # Asked in the body, of the batch before; that of the last one is gone with its epoch.
    assert [11, 10, 9, 7, 6, 5] == pytest.approx(left)


def test_the_time_left_of_a_training_by_iteration(hub, keeper, options):
    """What is left are the other iterations, and nothing after the last one."""
    left = []
    for _ in track(range(4), log_every=1, max_iters=6, **options):
        wait_s(0.001)
        if "eta" in hub.runtime_info:
            left.append(hub.get_info("eta") / hub.get_scalar("train/time").mean())
    assert [5, 4, 3, 2, 1] == pytest.approx(left)
    assert 0 == keeper.logged[-1][1]["train/eta"]


@pytest.mark.parametrize("mode", ["val", "test"])
def test_the_time_left_of_a_validation(hub, keeper, options, mode):
    """What is left are the other batches, at the pace of this loop."""
    for _ in range(40):
        hub.update_scalar(f"{mode}/time", 1000.0)
    hub.update_info("eta", 1e6)
    for _ in track(range(4), mode=mode, log_every=1, **options):
        wait_s(0.001)
    etas = [data[f"{mode}/eta"] for _, data, _ in keeper.logged]
    assert 0 == etas[-1]
    assert all(0.003 <= eta < 1000 for eta in etas[:1])
    assert etas[1] >= 0.002


def test_of_an_unknown_length_nothing_is_known_of_the_time_left(hub, keeper, options):
    """A loader without a length has no ETA, nor an old one."""
    hub.update_info("eta", 5.0)
    finish(track(iter(range(5)), log_every=2, max_epochs=2, **options))
    assert [(1, 2), (1, 4)] == keeper.steps
    assert all("train/eta" not in data for _, data, _ in keeper.logged)
    assert "Epoch(train) [1][2/?]" in keeper.logged[0][2]
    assert hub.get_info("eta") is None


def test_after_the_last_epoch_no_time_is_left(keeper, options):
    """One epoch too many has nothing left, rather than less."""
    for _ in range(2):
        finish(track(range(4), log_every=4, max_epochs=1, **options))
        assert 0 == keeper.logged[-1][1]["train/eta"]


@pytest.mark.parametrize("mode", ["train", "val"])
def test_the_time_left_is_that_of_the_loop_under_way(hub, options, mode):
    """After a loop, also one that is left in its middle, nothing is known of it."""
    finish(track(range(4), mode=mode, log_every=2, max_epochs=2, **options))
    assert hub.get_info("eta") is None
    for batch in track(range(4), mode=mode, log_every=1, max_epochs=2, **options):
        if batch == 2:
            break
    assert hub.get_info("eta") is None


def test_without_max_epochs_the_time_left_is_this_epochs(hub, keeper, options):
    """Nothing is known of other epochs."""
    finish(track(range(4), log_every=2, **options))
    assert 0 == keeper.logged[-1][1]["train/eta"]
    for number, _ in enumerate(track(range(4), log_every=1, **options)):
        if number == 1:
            ratio = hub.get_info("eta") / hub.get_scalar("train/time").mean()
            assert 3 == pytest.approx(ratio)


# Iterations


def test_iterations_begin_the_loader_again(hub, keeper, options):
    """The loader is begun again until all iterations are done, and then the loop ends."""
    batches = finish(track("abcd", log_every=3, max_iters=10, **options))
    assert "abcdabcdab" == "".join(batches)
    assert [3, 6, 9] == keeper.steps
    assert (None, 10) == infos(hub)
    assert [] == finish(track("abcd", max_iters=10, **options))
    assert "ab" == "".join(track("abcd", max_iters=12, **options))
    assert (None, 12) == infos(hub)


def test_a_loader_is_begun_only_when_it_is_needed(options):
    """After the last iteration no other batch is loaded."""
    loaded = []

    class Loader:
        def __iter__(self):
            for number in range(3):
                loaded.append(number)
                yield number

    finish(track(Loader(), max_iters=3, **options))
    assert [0, 1, 2] == loaded


def test_iterations_are_counted_from_loop_to_loop(keeper, options):
    """Records are as far from each other as they are said to be, in whatever parts they come."""
    batches = itertools.count()
    for length in (15, 15, 15, 3, 2):
        finish(track(itertools.islice(batches, length), max_iters=50, **options))
    assert [10, 20, 30, 40, 48, 50] == keeper.steps


def test_an_iterator_is_used_up_once(hub, options):
    """What cannot begin again ends before all iterations are done."""
    assert [0, 1, 2] == finish(track(iter(range(3)), max_iters=10, **options))
    assert (None, 3) == infos(hub)


@pytest.mark.timeout(20)
def test_a_loader_without_batches_ends(options):
    """Nothing can be begun again and again."""
    assert [] == finish(track([], max_iters=10, **options))


def test_iterations_within_epochs(hub, keeper, options):
    """With both limits a loop is of one epoch, and ends early at the last iteration."""
    every = {"log_every": 2, "max_epochs": 5, "max_iters": 6, **options}
    assert [0, 1, 2, 3] == finish(track(range(4), **every))
    assert [0, 1] == finish(track(range(4), **every))
    assert [] == finish(track(range(4), **every))
    assert [(1, 2), (1, 4), (2, 6)] == keeper.steps
    assert 6 == hub.get_info("iter")
    assert 0 == keeper.logged[-1][1]["train/eta"]


# Resuming


@pytest.mark.parametrize("limits", [{"max_epochs": 4}, {"max_iters": 30}])
def test_a_training_goes_on_where_its_checkpoint_was(options, limits):
    """A hub that loaded a state goes on counting, through a pickle as well."""
    finish(
        track(
            range(5),
            log_every=5,
            **{**limits, "max_iters": 5} if "max_iters" in limits else limits,
            **options,
        )
    )
    state = pickle.loads(pickle.dumps(options["hub"].state_dict()))
    keeper, other = Keeper(), MessageHub("b")
    other.load_state_dict(state)
    finish(track(range(5), hub=other, logger=Logger([keeper]), log_every=5, **limits))
    expected = [(2, 10)] if "max_epochs" in limits else [10, 15, 20, 25, 30]
    assert expected == keeper.steps


# Other ends


def test_a_break_leaves_the_loop(hub, keeper, options):
    """A loop that is left in the middle has not done its epoch; the next one begins anew."""
    for batch in track(range(10), log_every=2, **options):
        if batch == 5:
            break
    assert (None, 5) == infos(hub)
    assert [(1, 2), (1, 4)] == keeper.steps
    assert 10 == len(finish(track(range(10), log_every=5, **options)))
    assert (1, 15) == infos(hub)


def test_an_error_in_the_body_passes_through(hub, keeper, options):
    """What the body raises is raised, and nothing is logged after it."""

    def train():
        for batch in track(range(10), log_every=2, **options):
            1 / (3 - batch)

    with pytest.raises(ZeroDivisionError):
        train()
    assert [(1, 2)] == keeper.steps
    assert (None, 3) == infos(hub)


def test_an_error_of_the_loader_passes_through(options):
    """What the loader raises is raised."""

    def loader():
        yield 1
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        finish(track(loader(), **options))


def test_a_stop_iteration_of_a_body_is_no_end(options):
    """What is thrown into the loop comes out of it."""
    loop = track(range(3), **options)
    next(loop)
    with pytest.raises(KeyError):
        loop.throw(KeyError("x"))
    assert [] == finish(loop)


# What is wrong


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"mode": "training"}, "mode='training' is not one of train, val, test"),
        ({"mode": None}, "mode=None is not one of"),
        ({"log_every": 0}, "log_every=0 is not a whole number from 1 up: pass how many batches"),
        ({"log_every": None}, "log_every=None is not a whole number"),
        ({"log_every": 2.5}, r"log_every=2\.5 is not a whole number"),
        ({"max_epochs": 0}, "max_epochs=0 is not a whole number"),
        ({"max_epochs": -1}, "max_epochs=-1 is not a whole number"),
        ({"max_iters": 0}, "max_iters=0 is not a whole number"),
        ({"max_iters": "9"}, "max_iters='9' is not a whole number"),
    ],
)
def test_wrong_options_raise_at_the_call(options, wrong, message):
    """What cannot mean anything raises before the first batch."""
    with pytest.raises(MisuseError, match=message):
        track(range(3), **wrong, **options)


def test_what_is_no_loader_raises_at_the_call(options):
    """What has no batches raises where the mistake is."""
    with pytest.raises((MisuseError, TypeError)):
        track(5, **options)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"hub": 3}, "hub=3 is not a MessageHub"), ({"logger": 3}, "logger=3 is not a Logger")],
)
def test_what_is_no_hub_or_logger_is_refused_at_the_call(wrong, message):
    """Both are looked at before the first batch, and before results are kept."""
    with pytest.raises(MisuseError, match=message):
        track([1], **wrong)
    with pytest.raises(MisuseError, match=message):
        log_results({"acc": 1.0}, **wrong)
    with pytest.raises(MisuseError, match="is not a dict"):
        log_results([1.0])


def test_a_loop_of_few_batches_has_a_record(hub, keeper, options):
    """Where there are fewer than log_every, also without a length, the last one counts."""
    for _ in track(iter([1, 2, 3]), **options, max_epochs=1):
        hub.update_scalar("train/loss", 1.0)
    for _ in track([1] * 5, **options, max_iters=4):
        hub.update_scalar("train/loss", 2.0)
    assert [(1, 3), 4] == keeper.steps
    assert 4 == hub.get_info("iter")


def test_a_processor_counts_as_its_loop(hub, options):
    """Epochs in a training by iteration would be lines that mean nothing."""
    by_epoch = LogProcessor()
    with pytest.raises(MisuseError, match="LogProcessor\\(by_epoch=False\\)"):
        track([1], processor=by_epoch, max_iters=3, **options)
    finish(track([1], max_iters=3, **options))
    with pytest.raises(MisuseError, match="LogProcessor\\(by_epoch=False\\)"):
        log_results({"acc": 1.0}, processor=by_epoch, **options)
    assert "val/acc" not in hub.log_scalars
    with pytest.raises(MisuseError, match=r"processor=.* is not a LogProcessor"):
        track([1], processor={"window_size": 5}, **options)


def test_the_epoch_can_be_said(hub, keeper, options):
    """A loop that is left early is counted by whoever leaves it."""
    for epoch in range(3):
        for batch in track(range(10), epoch=epoch, log_every=2, max_epochs=3, **options):
            if batch == 3:
                break
    assert [(1, 2), (2, 5), (3, 8)] == keeper.steps
    with pytest.raises(MisuseError, match="epoch=-1 is not a whole number from 0 up"):
        track([1], epoch=-1, **options)


def test_a_training_without_end_has_an_eta(hub, keeper, options):
    """More iterations than time can hold are no reason to stop."""
    loop = track(itertools.repeat(1), max_iters=10**24, log_every=1, **options)
    for _ in itertools.islice(loop, 3):
        hub.update_scalar("train/loss", 1.0)
    assert [1, 2] == keeper.steps


def test_loops_that_are_made_before_they_begin(hub, keeper, options):
    """Where a loop is, it asks when it begins."""
    loops = [track(range(4), log_every=4, max_epochs=2, **options) for _ in range(2)]
    finish(itertools.chain(*loops))
    assert [(1, 4), (2, 8)] == keeper.steps
    assert (2, 8) == infos(hub)


def test_a_validation_in_another_thread_takes_no_time_away(hub, options):
    """What runs beside a batch is not within it."""

    def validate_beside():
        for _ in track(range(2), mode="val", **options):
            wait_s(0.01)

    for _ in track(range(2), **options):
        start_s = time.perf_counter()
        thread = threading.Thread(target=validate_beside)
        thread.start()
        thread.join()
        took_s = time.perf_counter() - start_s
        hub.update_scalar("train/joined", took_s)
    joined, whole = (hub.get_scalar(f"train/{name}").data[0] for name in ("joined", "time"))
    assert (whole >= joined).all()


def test_what_is_not_resumed_stays_so(hub, keeper, options):
    """The loop puts in what it measures as the hub was told to keep it."""
    for key in ("train/time", "train/data_time", "val/time"):
        hub.update_scalar(key, 1.0, resumed=False)
    for key in ("eta", "iter", "epoch", "max_epochs"):
        hub.update_info(key, 0, resumed=False)
    finish(track(range(2), log_every=2, max_epochs=1, epoch=0, **options))
    finish(track(range(2), mode="val", log_every=2, **options))
    log_results({}, **options)
    assert 3 == len(keeper.logged)
    state = hub.state_dict()
    assert ["val/data_time"] == list(state["log_scalars"])
    assert not {"eta", "iter", "epoch"} & state["runtime_info"].keys()


def test_a_validation_within_a_batch_is_not_of_its_time(hub, options):
    """What nested loops take is theirs, however deep."""
    for _ in track(range(2), **options):
        for _ in track(range(2), mode="val", **options):
            wait_s(0.02)
            for _ in track(range(2), mode="test", **options):
                wait_s(0.02)
    train, val, test = (hub.get_scalar(f"{m}/time").data[0] for m in ("train", "val", "test"))
    assert (2, 4, 8) == (len(train), len(val), len(test))
    assert (test >= 0.02).all()
    assert (val >= 0.02).all()
    assert 0 <= train.min() <= train.max() < val.min()
    assert val.sum() < test.sum()


def test_loops_that_are_held_or_take_turns_cost_no_time(hub, options):
    """A time is never less than nothing, whichever loop ends when."""
    for _ in track(range(3), **options):
        inner = track(range(10), mode="val", **options)
        for number in inner:
            wait_s(0.005)
            if number == 1:
                break
    turns = track(range(4), mode="val", **options)
    for _ in track(range(6), **options):
        wait_s(0.005)
        next(turns, None)
    assert hub.get_scalar("train/time").data[0].min() > 0
    assert hub.get_scalar("train/time").data[0][3:].min() >= 0.005


def test_a_loop_that_is_held_is_not_resumed(hub, keeper, options):
    """Two loops lead to one record, also where the first one is left and kept."""
    held = []
    for value in (10.0, 0.0):
        held.append(track(range(10), mode="val", **options))
        for number, _ in enumerate(held[-1]):
            hub.update_scalar("val/loss", value)
            if number == 4 - len(held):
                break
    held.pop().close()
    held.pop().close()
    line = log_results({"acc": 1.0}, **options)
    assert 40 / 7 == keeper.logged[-1][1]["val/loss"]
    assert line.startswith("Epoch(val) [0][2/2]")


class Sampler:
    """Note the epochs that it is told of."""

    def __init__(self):
        self.epochs = []

    def set_epoch(self, epoch):
        self.epochs.append(epoch)


class Loader(list):
    """A loader with PyTorch's names."""


@pytest.mark.parametrize("place", ["sampler", "batch_sampler"])
def test_a_loader_that_begins_again_is_shuffled_anew(options, place):
    """The sampler is told each further epoch, as DistributedSampler wants it."""
    loader, sampler = Loader([1, 2]), Sampler()
    if place == "sampler":
        loader.sampler = sampler
    else:
        loader.batch_sampler = type("Batches", (), {"sampler": sampler})
    finish(track(loader, max_iters=6, **options))
    assert [1, 2] == sampler.epochs
