"""A decorated generator is in its phase while it runs, and not while its consumer does."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import weakref

import pytest

from otel_dllogger.phases import PHASES


def outcomes(recording):
    return [phase.outcome for phase in recording.phases]


def talk(said):
    """Yield what was sent and thrown, until "end" or "fail" is sent."""
    try:
        got = None
        while got != "end":
            said.append(PHASES.names())
            if got == "fail":
                raise OSError("broken")
            try:
                got = yield got
            except KeyError as error:
                got = error.args[0]
        return "returned"
    finally:
        said.append("closed")


async def talk_async(said):
    """Do the same asynchronously."""
    try:
        got = None
        while got != "end":
            await asyncio.sleep(0)
            said.append(PHASES.names())
            if got == "fail":
                raise OSError("broken")
            try:
                got = yield got
            except KeyError as error:
                got = error.args[0]
    finally:
        said.append("closed")


def test_the_body_of_a_loop_is_not_in_the_phase_of_its_loader(recording, logger):
    """It would count as data wait otherwise."""

    @logger.phase("data_wait")
    def batches():
        assert PHASES.names() == ["data_wait"]
        yield from range(2)

    for _batch in batches():
        assert not PHASES.names()
        with logger.phase("train"):
            assert PHASES.names() == ["train"]
    assert [phase.name for phase in recording.phases] == [*["data_wait", "train"] * 2, "data_wait"]
    assert inspect.isgeneratorfunction(batches)


def test_send_throw_and_return_keep_their_meaning(recording, logger):
    """As without the decorator."""
    said = []
    generator = logger.phase("data_wait")(talk)(said)
    assert next(generator) is None
    assert generator.send("sent") == "sent"
    assert generator.throw(KeyError("thrown")) == "thrown"
    with pytest.raises(StopIteration) as end:
        generator.send("end")
    assert (end.value.value, said) == ("returned", [["data_wait"]] * 3 + ["closed"])
    assert outcomes(recording) == ["ok"] * 4


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, StopIteration])
def test_what_is_thrown_into_a_generator_comes_out(recording, logger, error):
    """A StopIteration as a RuntimeError, since it must not end the consumer's loop."""
    said = []
    expected = RuntimeError if error is StopIteration else error
    generator = logger.phase("data_wait")(talk)(said)
    next(generator)
    with pytest.raises(expected):
        generator.throw(error("thrown"))
    assert outcomes(recording)[1:] == ["interrupted" if error is KeyboardInterrupt else "error"]
    assert said[-1] == "closed"
    assert not PHASES.names()


def test_an_error_is_not_kept(logger):
    """It leaves no cycle of the error and the generator's frame to the garbage collector."""

    class BrokenError(Exception):
        pass

    gc.disable()
    try:
        generator = logger.phase("data_wait")(talk)([])
        next(generator)
        error = BrokenError()
        kept = weakref.ref(error)
        with contextlib.suppress(BrokenError):
            generator.throw(error)
        del error
        assert kept() is None
    finally:
        gc.enable()


def test_a_generator_that_is_left_is_closed_without_a_phase(recording, logger):
    """By a break, and by close."""
    said = []
    for _item in logger.phase("data_wait")(talk)(said):
        break
    assert said == [["data_wait"], "closed"]
    generator = logger.phase("data_wait")(talk)(said)
    next(generator)
    generator.close()
    assert said == [["data_wait"], "closed"] * 2
    assert outcomes(recording) == ["ok"] * 2

    @logger.phase("data_wait")
    def stubborn():
        with contextlib.suppress(GeneratorExit):
            yield
        yield

    generator = stubborn()
    next(generator)
    with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
        generator.close()


def test_an_asynchronous_generator_does_the_same(recording, logger):
    """With asend, athrow and aclose."""
    said = []

    async def use():
        decorated = logger.phase("data_wait")(talk_async)
        assert inspect.isasyncgenfunction(decorated)
        generator = decorated(said)
        assert await anext_of(generator) is None
        assert not PHASES.names()
        assert await generator.asend("sent") == "sent"
        assert await generator.athrow(KeyError("thrown")) == "thrown"
        with pytest.raises(StopAsyncIteration):
            await generator.asend("end")
        generator = decorated(said)
        await anext_of(generator)
        await generator.aclose()
        generator = decorated(said)
        await anext_of(generator)
        with pytest.raises(OSError, match="broken"):
            await generator.asend("fail")

    asyncio.run(use())
    waits = [["data_wait"]]
    assert said == [*waits * 3, "closed", *waits, "closed", *waits * 2, "closed"]
    assert outcomes(recording) == ["ok"] * 6 + ["error"]
    assert not PHASES.names()


async def anext_of(generator):
    return await generator.__anext__()  # anext came with Python 3.10, for all iterators
