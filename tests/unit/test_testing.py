"""The test double for users, and the document about backends of one's own."""

from __future__ import annotations

import contextlib
import io
import re

import numpy as np
import pytest

from otel_dllogger import Logger
from otel_dllogger.testing import RecordingBackend
from tests.support.paths import ROOT

EXAMPLES = re.findall(
    r"```python\n(.*?)```\n(?:\n```text\n(.*?)```\n)?",
    (ROOT / "docs" / "how-to" / "backends.md").read_text(encoding="utf-8"),
    re.DOTALL,
)


@pytest.fixture
def recording():
    return RecordingBackend()


@pytest.fixture
def logger(recording):
    with Logger([recording]) as logger:
        yield logger


def test_the_examples_of_the_document_work():
    """All blocks, in one namespace, print what stands below them."""
    names = {}
    assert len(EXAMPLES) == 3
    for source, printed in EXAMPLES:
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(compile(source, "backends.md", "exec"), names)
        assert printed == output.getvalue()


def test_it_keeps_each_call_in_order(logger, recording):
    """Steps, values and settings, each with the values of its own moment."""
    data = {"loss": np.float32(0.5), "tags": ["a"]}
    logger.log((0, 1), data)
    data["loss"], data["tags"] = 9, []
    logger.log((0, 2), {"lr": 0.1})
    settings = {"seed": 1}
    logger.info(settings)
    settings["seed"] = 2
    logger.info("text")
    assert [one.step for one in recording.records] == [(0, 1), (0, 2)]
    assert recording.records[0].plain == {"loss": 0.5, "tags": ["a"]}
    assert [one.plain for one in recording.infos] == [{"seed": 1}, "text"]
    assert (recording.values("loss"), recording.values("lr")) == ([0.5], [0.1])
    assert recording.values("tags") == recording.values("other") == []


def test_it_tells_steps_from_parameters(logger, recording):
    """By granularity; parameters are not values of a metric."""
    logger.log((0, 1), {"loss": 3.0})
    logger.log((0,), {"loss": 2.0})
    logger.log("PARAMETER", {"loss": "mse", "lr": 1})
    logger.log("PARAMETER", {"lr": 2})
    logger.log("PARAMETER", "text")
    assert recording.values("loss") == [3.0, 2.0]
    assert recording.values("loss", granularity="epoch") == [2.0]
    assert recording.values("lr") == []
    assert recording.parameters() == {"loss": "mse", "lr": 2}


def test_it_adds_up_what_was_said_of_a_metric(logger, recording):
    """As the package's backends do."""
    said = {"unit": "s", "GOAL": "MINIMIZE"}
    logger.metadata("loss", said)
    said.clear()
    logger.metadata("loss", {"unit": "ms"})
    logger.metadata("loss", "not a dict")
    logger.metadata(7, {"unit": "h"})
    assert recording.metadata_of("loss") == {"unit": "ms", "GOAL": "MINIMIZE"}
    assert recording.metadata_of("7") == {"unit": "h"}
    assert len(recording.metadata_calls) == 4


def test_it_is_cleared_and_closed(recording):
    """A test may look at one part of a script after the other."""
    with Logger([recording]) as logger:
        for _ in range(2):
            logger.log(0, {"loss": 1.0})
            logger.metadata("loss", {"unit": "s"})
            logger.info("text")
            assert recording.values("loss") == [1.0]
            recording.clear()
        assert not recording.is_closed
    assert recording.is_closed
    assert recording.records == recording.metadata_calls == recording.infos == []


def test_it_takes_what_its_verbosity_allows():
    """As any backend; by default it takes what a script logs with VERBOSE."""
    quiet, all_of_it = RecordingBackend(0), RecordingBackend()
    logger = Logger([quiet, all_of_it])
    logger.log(0, {"loss": 1.0}, verbosity=1)
    logger.log(1, {"loss": 2.0}, verbosity=0)
    assert (quiet.values("loss"), all_of_it.values("loss")) == ([2.0], [1.0, 2.0])


def test_a_step_is_that_of_the_call() -> None:
    """A list that the script goes on changing is read when it is logged."""
    recording = RecordingBackend()
    step = [0]
    Logger([recording]).log(step, {"loss": 1.0})
    step.append(5)
    assert [1.0] == recording.values("loss", granularity="epoch")


def test_a_granularity_that_does_not_exist_is_an_error() -> None:
    """Otherwise a test that expects nothing would pass."""
    with pytest.raises(ValueError, match="'iterations' is not one of run, epoch, iteration"):
        RecordingBackend().values("loss", granularity="iterations")


def test_clear_begins_anew() -> None:
    """As a new backend."""
    recording = RecordingBackend()
    recording.close()
    recording.clear()
    assert not recording.is_closed
