"""Validations and tests in loops of one's own, and their results."""

from __future__ import annotations

import pickle
import re

import pytest

from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.training import (
    HistoryBuffer,
    LogProcessor,
    LoopState,
    MessageHub,
    MisuseError,
    log_results,
    track,
)
from tests.support.track import finish, infos, validate, wait_s

pytestmark = [pytest.mark.newest_only, pytest.mark.usefixtures("nothing_global")]


def test_validations_within_a_training(hub, keeper, options):
    """A validation knows the training's epoch and iteration, and changes neither."""
    for epoch in range(2):
        finish(track(range(4), log_every=4, max_epochs=2, **options))
        assert [0, 1, 2] == finish(track(range(3), mode="val", log_every=2, **options))
        assert (epoch + 1, epoch * 4 + 4) == infos(hub)
        log_results({"acc": epoch / 4}, **options)
    assert [(1, 4), (1, 4, 2), (1,), (2, 8), (2, 8, 2), (2,)] == keeper.steps
    _, data, line = keeper.logged[-1]
    assert {"val/acc", "val/time", "val/data_time"} == set(data)
    assert 0.25 == data["val/acc"]
    assert re.fullmatch(
        r"Epoch\(val\) \[2\]\[3/3\]    acc: 0.2500  data_time: \S+  time: \S+", line
    )
    assert {"val/eta", "val/time", "val/data_time"} == set(keeper.logged[1][1])


def test_a_test_on_its_own(keeper, options):
    """A test has no epoch, and its results are the run's."""
    finish(track(range(3), mode="test", log_every=3, **options))
    line = log_results({"acc": 0.5}, mode="test", **options)
    assert [(None, None, 3), ()] == keeper.steps
    assert line.startswith("Epoch(test) [3/3]    acc: 0.5000")


def test_results_of_a_training_by_iteration(hub, keeper, options):
    """Results stand at the iteration where the training is."""
    finish(track(range(4), max_iters=4, log_every=4, **options))
    finish(track(range(4), mode="val", log_every=2, **options))
    line = log_results({"acc": 0.5}, **options)
    assert [4, (0, 4, 2), (0, 4, 4), (0, 4, 4)] == keeper.steps
    assert line.startswith("Iter(val) [4/4]    acc: 0.5000")


def test_results_without_a_loop(keeper, options):
    """Results need no loop before them."""
    assert "Epoch(val) [0][?/?]    acc: 0.5000" == log_results({"acc": 0.5}, **options)
    assert [((0,), {"val/acc": 0.5})] == [entry[:2] for entry in keeper.logged]


def test_results_that_are_no_numbers(keeper, options):
    """A list is in the record and on the line, a nested dict as well."""
    line = log_results({"acc": 0.5, "per_class": [1, 2], "text": "good"}, **options)
    assert line.endswith("acc: 0.5000  per_class: [1, 2]  text: good")
    assert {"val/acc": 0.5, "val/per_class": [1, 2], "val/text": "good"} == keeper.logged[0][1]


@pytest.mark.parametrize(("first", "second"), [(None, 0.5), (0.5, None), ([1], 0.5), (0.5, [1])])
def test_the_last_results_count(keeper, options, first, second):
    """A result that was no number once, or was one, is what it is now, and stands there once."""
    log_results({"acc": first}, **options)
    line = log_results({"acc": second}, **options)
    text = f"{second:.4f}" if isinstance(second, float) else second
    assert {"val/acc": second} == keeper.logged[-1][1]
    assert f"Epoch(val) [0][?/?]    acc: {text}" == line


def test_results_have_a_processor_of_their_own(options):
    """A given processor decides about the line."""
    line = log_results({"acc": 0.5}, processor=LogProcessor(num_digits=1), **options)
    assert line.endswith("acc: 0.5")


@pytest.mark.parametrize("mode", ["train", "", None])
def test_results_are_of_a_validation_or_a_test(hub, options, mode):
    """A training has no results, and nothing of them is kept."""
    with pytest.raises(MisuseError, match=r"mode=.* has no results: pass one of val, test"):
        log_results({"acc": 0.5}, mode=mode, **options)
    assert {} == hub.log_scalars


def test_a_validation_has_no_results_of_the_one_before(hub, keeper, options):
    """Only what is measured in it is logged while it is under way."""
    for accuracy in (0.5, 0.75):
        for _ in track(range(2), mode="val", log_every=2, **options):
            hub.update_scalars({"val/loss": 1.0, "val/distance": 2.0})
        log_results({"accuracy": accuracy}, **options)
    assert 2.0 == keeper.logged[1][1]["val/distance"]
    progress = {"val/data_time", "val/time", "val/loss", "val/eta"}
    assert progress == keeper.logged[2][1].keys()
    assert [0.5, 0.75] == [keeper.logged[n][1]["val/accuracy"] for n in (1, 3)]


def test_results_are_those_that_were_given(hub, keeper, options):
    """A loss is no mean over validations, nor mixed with what the loop measured."""
    for loss in (1.0, 0.25):
        for _ in track(range(2), mode="val", log_every=2, **options):
            hub.update_scalar("val/loss_cls", 3.0)
        line = log_results({"loss": loss, "loss_cls": 7.0}, **options)
        assert f"loss: {loss:.4f}" in line
    logged = [data for _, data, _ in keeper.logged]
    assert [1.0, 0.25] == [logged[n]["val/loss"] for n in (1, 3)]
    assert [7.0, 7.0] == [logged[n]["val/loss_cls"] for n in (1, 3)]
    assert 3.0 == logged[2]["val/loss_cls"]
    assert "val/loss" not in logged[2]
    assert [1.0, 0.25] == hub.get_scalar("val/loss").data[0].tolist()  # for statistics of all


def test_results_of_another_call_are_not_repeated(hub, keeper, options):
    """What was not given this time is not in the record of this time."""
    log_results({"acc": 0.5, "table": [1, 2]}, **options)
    line = log_results({"recall": 0.25}, **options)
    assert "acc" not in line
    assert {"val/recall": 0.25} == keeper.logged[-1][1]


@pytest.mark.parametrize("window", [{}, {"window_size": "global"}, {"window_size": 2}])
def test_a_statistic_of_all_results(keeper, options, window):
    """A configuration sees every result there was."""
    best = {"data_src": "acc", "log_name": "best", "method_name": "max", **window}
    for accuracy in (0.5, 0.75, 0.25):
        log_results({"acc": accuracy}, processor=LogProcessor(custom_cfg=[best]), **options)
    assert {"val/acc": 0.25, "val/best": 0.75} == keeper.logged[-1][1]


def test_a_validation_counts_for_itself(hub, keeper, options):
    """Means are of its own batches: of the last ten under way, of all as results."""
    validate(hub, options, [100.0] * 3)
    line = validate(hub, options, [1.0, 2.0, 3.0])
    assert [100.0, 100.0, 2.0, 2.0] == [data["val/loss"] for _, data, _ in keeper.logged]
    assert "loss: 2.0000" in line
    validate(hub, options, [13.0] * 10 + [1.0] * 10)
    assert [1.0, 7.0] == [data["val/loss"] for _, data, _ in keeper.logged[4:]]


def test_what_a_loop_measures_stays_beside_a_result_of_its_name(hub, keeper, options):
    """A result takes neither the loop's scalar nor its history away, be it a number or not."""
    line = validate(hub, options, [1.0] * 3, loss=[1, 2])
    assert 1 == line.count("  loss: ")
    validate(hub, options, [2.0] * 3, loss=9.0)
    validate(hub, options, [3.0] * 3)
    assert [1.0, [1, 2], 2.0, 9.0, 3.0, 3.0] == [data["val/loss"] for _, data, _ in keeper.logged]
    assert [1.0] * 3 + [2.0] * 3 + [9.0] + [3.0] * 3 == hub.get_scalar("val/loss").data[0].tolist()


def test_a_validation_that_measures_nothing_logs_nothing_old(hub, keeper, options):
    """What another validation measured, times included, is not in the results of this one."""
    validate(hub, options, [1.0] * 3, accuracy=0.5)
    log_results({"accuracy": 0.75}, **options)
    assert {"val/accuracy": 0.75} == keeper.logged[-1][1]


def test_a_validation_goes_on_after_a_resume(hub, keeper, options):
    """What was measured before a checkpoint is of other validations after it."""
    hub.log_scalars["val/loss"] = HistoryBuffer([], [], max_length=2)
    hub.update_scalar("val/early", 1.0, resumed=False)
    validate(hub, options, [100.0] * 3)
    resumed = MessageHub("resumed")
    resumed.load_state_dict(pickle.loads(pickle.dumps(hub.state_dict())))
    options["hub"] = resumed
    resumed.update_scalar("val/early", 2.0, resumed=False)
    log_results({"accuracy": 0.75}, **options)
    assert {"val/accuracy": 0.75, "val/early": 2.0} == keeper.logged[-1][1]
    validate(resumed, options, [1.0])
    assert {"val/loss", "val/time", "val/data_time"} == set(keeper.logged[-1][1])
    assert 1.0 == keeper.logged[-1][1]["val/loss"]


def test_a_full_history_still_shows_its_last_values(hub, keeper, options):
    """What is no longer kept counts as well, where it is asked how many came since."""
    hub.log_scalars["val/loss"] = HistoryBuffer([], [], max_length=4)
    for loss in (100.0, 1.0):
        validate(hub, options, [loss] * 3)
    assert [100.0, 100.0, 1.0, 1.0] == [data["val/loss"] for _, data, _ in keeper.logged]


def test_results_of_several_loops(hub, keeper, options):
    """All that was measured since the results before is in them; under way each has its own."""
    hub.update_scalar("val/threshold", 0.5)
    for name in ("loss_clean", "loss_noisy"):
        for loss in track([1.0, 3.0], mode="val", log_every=2, **options):
            hub.update_scalar(f"val/{name}", loss)
    log_results({"accuracy": 0.5}, **options)
    times = {"val/time", "val/data_time"}
    assert [
        {*times, "val/eta", "val/loss_clean"},
        {*times, "val/eta", "val/loss_noisy"},
        {*times, "val/loss_clean", "val/loss_noisy", "val/threshold", "val/accuracy"},
    ] == [set(data) for _, data, _ in keeper.logged]


@pytest.mark.parametrize("log_every", [1, 100])
def test_the_times_of_results_are_of_their_validation(hub, keeper, options, log_every):
    """Of all its batches and of no other, of several loops, and of one that is left early."""
    some = {"mode": "val", "log_every": log_every, **options}
    means = []
    for lengths in ([3], [3], [4, 1], [10], [2]):
        before = len(hub.get_scalar("val/time").data[0]) if means else 0
        for length in lengths:
            for number, _ in enumerate(track(range(10 if length == 2 else length), **some), 1):
                wait_s(0.001 * len(means))
                if number == length:
                    break
        log_results({"acc": 1.0}, **options)
        # A break leaves the last batch unmeasured.
        mean_s = hub.get_scalar("val/time").data[0][before:].mean()
        means.append(mean_s)
        assert pytest.approx(mean_s) == keeper.logged[-1][1]["val/time"]
    assert len(set(means)) == len(means)


def test_the_times_that_are_put_in_by_hand(hub, keeper, options):
    """Without a loop they are those that there are."""
    for time_s in (1.0, 0.0, 0.0, 0.0):
        hub.update_scalar("val/time", time_s)
    log_results({"acc": 1.0}, **options)
    assert {"val/time": 0.25, "val/acc": 1.0} == keeper.logged[-1][1]


@pytest.mark.parametrize("window", ["epoch", "global", 10, None])
@pytest.mark.parametrize("method", ["max", "mean"])
def test_windows_begin_with_their_validation(hub, keeper, options, window, method):
    """Under way as in the results; those that are of all values are of all validations."""
    hub.update_info("iter", 1000)
    items = [{"data_src": "loss", "log_name": "loss_own", "method_name": method}]
    items = [{**item, "window_size": window} for item in items]
    options["processor"] = LogProcessor(custom_cfg=items)
    for value in (100.0, 1.0):
        del keeper.logged[:]
        for _ in track(range(4), mode="val", log_every=2, **options):
            hub.update_scalar("val/loss", value)
        log_results({"acc": 1.0}, **options)
        shown = [data["val/loss_own"] for _, data, _ in keeper.logged]
        if window in {"epoch", 10} or value == 100.0:
            assert [value] * 3 == shown
        elif method == "max":
            assert [100.0] * 3 == shown
        else:
            assert pytest.approx([402 / 6, 404 / 8, 404 / 8]) == shown


def test_a_validation_that_is_begun_again_counts_once(hub, keeper, options):
    """A checkpoint of the middle of one is resumed with the whole of it before it."""
    validate(hub, options, [1.0], acc=1.0)
    for number in track(range(4), mode="val", log_every=2, **options):
        hub.update_scalar("val/loss", 1000.0)
        if number == 2:
            state = pickle.loads(pickle.dumps(hub.state_dict()))
            break
    resumed = MessageHub("resumed")
    resumed.load_state_dict(state)
    options["hub"] = resumed
    validate(resumed, options, [2.0], acc=2.0)
    assert 2.0 == keeper.logged[-1][1]["val/loss"]
    for _ in track(range(4), mode="val", log_every=2, **options):  # and a break is no such thing
        resumed.update_scalar("val/first", 1.0)
        break
    validate(resumed, options, [2.0], acc=2.0)
    assert 1.0 == keeper.logged[-1][1]["val/first"]


@pytest.mark.parametrize(("window", "expected"), [("epoch", 0.25), (2, 0.5), ("global", 0.75)])
def test_windows_of_results_count_validations(keeper, options, window, expected):
    """However many batches a validation has."""
    item = {"data_src": "acc", "log_name": "own", "method_name": "max", "window_size": window}
    for accuracy in (0.75, 0.5, 0.25):
        finish(track(range(5), mode="val", **options))
        log_results({"acc": accuracy}, processor=LogProcessor(custom_cfg=[item]), **options)
    assert expected == keeper.logged[-1][1]["val/own"]


def test_an_epochs_window_has_all_values_of_a_validation(hub, keeper, options):
    """However many a batch gives."""
    item = {"data_src": "iou", "log_name": "most", "method_name": "max", "window_size": "epoch"}
    for most in (100.0, 12.0):
        for batch in track(range(4), mode="val", **options):
            for number in range(3):
                hub.update_scalar("val/iou", most - 3 * batch - number)
        log_results({}, processor=LogProcessor(custom_cfg=[item]), **options)
    assert 12.0 == keeper.logged[-1][1]["val/most"]


def test_results_of_one_mode_leave_those_of_another(hub, keeper, options):
    """A test may be measured before a validation is logged."""
    hub.update_scalars({"test/loss": 1.0, "val/loss": 2.0})
    log_results({}, mode="val", **options)
    log_results({}, mode="test", **options)
    assert [{"val/loss": 2.0}, {"test/loss": 1.0}] == [data for _, data, _ in keeper.logged]


@pytest.mark.parametrize("name", ["epoch", "iter", "time", "data_time", "grad_norm", "memory"])
def test_a_result_of_any_name_is_as_it_was_given(hub, keeper, options, name):
    """Also one that the processor knows something of, in the middle of validations."""
    validate(hub, options, [1.0] * 4, **{name: 100.0})
    line = validate(hub, options, [1.0] * 4, **{name: 200.0})
    assert [100.0, 200.0] == [keeper.logged[n][1][f"val/{name}"] for n in (1, 3)]
    assert f"{name}: 200.0000" in line


def test_a_result_is_as_given_whatever_else_is_made_of_it(keeper, options):
    """An item of a configuration shows its statistic under another name only."""
    items = [
        {"data_src": "loss", "method_name": "mean", "window_size": "global"},
        {"data_src": "loss", "method_name": "max", "log_name": "worst"},
    ]
    for loss in (4.0, 2.0):
        log_results({"loss": loss}, processor=LogProcessor(custom_cfg=items), **options)
    assert {"val/loss": 2.0, "val/worst": 4.0} == keeper.logged[-1][1]


def test_a_result_of_a_scalar_that_is_not_resumed(hub, keeper, options):
    """How the loop keeps its scalar is how its result is kept."""
    hub.update_scalar("val/loss", 1.0, resumed=False)
    log_results({"loss": 2.0}, **options)
    log_results({"loss": [2.0]}, **options)
    assert [2.0, [2.0]] == [data["val/loss"] for _, data, _ in keeper.logged]
    assert "val/loss" not in hub.state_dict()["log_scalars"]


def test_a_result_may_name_its_mode(keeper, options):
    """As scalars of the hub do."""
    log_results({"val/acc": 0.5, 1: 0.25}, **options)
    assert {"val/acc": 0.5, "val/1": 0.25} == keeper.logged[-1][1]


def test_an_item_of_what_has_no_value_here_has_none(hub, keeper, options):
    """Be its source the name of another item, which has one."""
    items = [
        {"data_src": "loss", "log_name": "acc", "method_name": "min"},
        {"data_src": "acc", "log_name": "worst", "method_name": "min", "window_size": 5},
    ]
    options["processor"] = LogProcessor(custom_cfg=items)
    log_results({"acc": -7.0}, **options)
    hub.update_scalar("val/loss", 1.0)
    log_results({}, **options)
    assert [-7.0, 1.0] == [data["val/acc"] for _, data, _ in keeper.logged]
    assert ["val/worst" in data for _, data, _ in keeper.logged] == [True, False]


class Unspeakable:
    """Have no text."""

    def __repr__(self):
        raise ValueError


def test_a_result_that_cannot_be_shown_raises_nothing(options, hub):
    """It is kept as it is."""
    log_results({"acc": 0.5, "odd": Unspeakable()}, **options)
    assert 0.5 == hub.get_scalar("val/acc").current()


def test_results_that_are_logged_by_hand_are_logged(hub, keeper, options, caplog):
    """They are those of MMEngine's window, no other record has them, and nobody is warned."""
    for loss in (1.0, 3.0):
        finish(track(range(2), **options))
        hub.update_scalar("val/loss", loss)
        hub.update_scalar("val/acc", loss)
        hub.log_to(options["logger"], LoopState(hub, "val", max_epochs=2, batch_idx=None))
    results = [data for _, data, _ in keeper.logged[1::2]]
    assert [(1.0, 1.0), (2.0, 3.0)] == [(data["val/loss"], data["val/acc"]) for data in results]
    log_results({"f1": 0.5}, **options)
    assert {"val/f1": 0.5} == keeper.logged[-1][1]
    assert [] == [r for r in caplog.records if "is not logged" in r.getMessage()]


def test_results_may_be_logged_while_training_goes_on(hub, options, caplog):
    """As of an evaluation that takes its time: nobody is warned."""
    for _ in range(4):
        finish(track(range(2), **options))
        log_results({}, **options)
        for _ in track(range(2), mode="val", **options):
            hub.update_scalar("val/boxes", 1.0)
    for _ in range(3):  # nor where several lead to one
        finish(track(range(2), **options))
        for _ in track(range(2), mode="val", **options):
            hub.update_scalar("val/boxes", 1.0)
    assert [] == [r for r in caplog.records if "is not logged" in r.getMessage()]


def test_what_a_validation_leaves_unlogged_is_warned_of(hub, options, caplog):
    """A scalar that no progress shows, and whose results nobody logs, is named once."""
    for epoch in range(3):
        finish(track(range(2), **options))
        DIAGNOSTICS._warned_at.clear()  # minutes pass
        for _ in track(range(2), mode="val", **options):
            hub.update_scalars({"val/forgotten": 0.5, "val/loss_x": 1.0})
            hub.update_scalar("test/logged", 1.0)
        log_results({}, mode="test", **options)
        assert epoch + 1 == hub.get_info("epoch")
    (said,) = [r.getMessage() for r in caplog.records if "is not logged" in r.getMessage()]
    assert "'val/forgotten' in the hub is not logged: call log_results({}, mode='val')" in said
