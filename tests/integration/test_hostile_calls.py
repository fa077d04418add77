"""Whatever a script passes: nothing is raised into training, and a log call is one valid line."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from prometheus_client.parser import text_string_to_metric_families

from otel_dllogger import (
    ConfigurationError,
    JSONStreamBackend,
    Logger,
    OTelBackend,
    OTLPBackend,
    PrometheusBackend,
    StdOutBackend,
)
from tests.support.command import uncovered
from tests.support.http import ask
from tests.support.paths import TESTS

SCRIPTS = TESTS / "scripts"
DEADLINE_S = 120


class Meta(type):
    """A class that has no hash, or says that it is another."""

    __hash__ = None
    __eq__ = lambda _cls, _other: True  # noqa: E731


class Unhashable(metaclass=Meta):
    """A value of such a class."""


class LikeFloat(type):
    """Classes that pass for float where types are looked up."""

    __hash__ = lambda _cls: hash(float)  # noqa: E731
    __eq__ = lambda _cls, other: other is float  # noqa: E731


class PassesForFloat(tuple, metaclass=LikeFloat):
    """A tuple of such a class."""

    __slots__ = ()


class Raising:
    """Raise whatever is asked of it."""

    @property
    def __class__(self):
        raise RuntimeError("no class")

    def _raise(self, *_arguments):
        raise RuntimeError("nothing of me")

    __hash__ = __eq__ = __str__ = __repr__ = __float__ = __iter__ = __len__ = keys = items = _raise


class RaisingText(str):
    """Text with methods of its own."""

    __slots__ = ()

    def __hash__(self):
        raise RuntimeError("no hash")

    __str__ = __getitem__ = __len__ = encode = Raising._raise


class RaisingDict(dict):
    """A dict with methods of its own."""

    items = keys = values = copy = __iter__ = __len__ = Raising._raise


class NamedBadly(type):
    """A class without a name."""

    def __getattribute__(cls, name):
        raise RuntimeError("nothing of my class")


class Nameless(Raising, metaclass=NamedBadly):
    """A value of such a class, which raises as well."""


HOSTILE = {
    "unhashable": Unhashable,
    "passes for float": lambda: PassesForFloat((1,)),
    "raising": Raising,
    "raising text": lambda: RaisingText("text"),
    "raising dict": lambda: RaisingDict(a=1),
    "nameless": lambda: Nameless(),  # noqa: PLW0108 - pytest would ask the class for its name
    "None": lambda: None,
    "number": lambda: 5,
    "list": lambda: [Raising()],
    "dict": lambda: {"a": Raising()},
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_one_valid_line_always(make, tmp_path):
    """A hostile value, key, step, verbosity or metadata costs neither a line nor a call."""
    page = PrometheusBackend(1, port=0, text_parameters=True)
    out = tmp_path / "out"
    logger = Logger([JSONStreamBackend(1, tmp_path / "log"), StdOutBackend(1), page])
    hostile = make()
    calls = [
        lambda: logger.log((0, 1), {"loss": 0.5, "hostile": hostile}),
        lambda: logger.log(hostile, {"loss": 0.5}),
        lambda: logger.log((0, 1), hostile),
        lambda: logger.log((hostile, 1), [hostile]),
        lambda: logger.log("PARAMETER", {"lr": 0.5, "hostile": hostile}),
        lambda: logger.metadata("loss", hostile),
        lambda: logger.metadata(hostile, {"unit": hostile, "GOAL": hostile, "STAGE": hostile}),
        lambda: logger.metadata(hostile, hostile),
        lambda: logger.info(hostile),
        lambda: logger.metadata_batch(["loss", hostile], hostile),
    ]
    for call in calls:
        call()
    logger.metadata_batch(hostile, {})  # how many lines that makes depends
    logger.flush()
    lines = [json.loads(line[5:]) for line in (tmp_path / "log").read_text().splitlines()]
    kinds = [line["type"] for line in lines]
    assert ["LOG"] * 5 + ["METADATA"] * 3 + ["INFO"] + ["METADATA"] * 2 == kinds[:11]
    assert [0.5, 0.5] == [lines[0]["data"]["loss"], lines[1]["data"]["loss"]]
    families = {
        family.name
        for family in text_string_to_metric_families(ask(page.endpoint.port).body.decode())
    }
    assert {"dl_loss", "dllogger_parameter"} <= families
    logger.close()
    assert not out.exists()


@pytest.mark.parametrize("verbosity", ["x", None, [1], float("nan"), Raising], ids=repr)
def test_a_verbosity_of_a_call_that_is_not_a_number_costs_no_line(verbosity, tmp_path, caplog):
    """It is taken for 0, with a warning that says so."""
    logger = Logger([JSONStreamBackend(0, tmp_path / "log")])
    logger.log((0, 1), {"loss": 0.5}, verbosity() if verbosity is Raising else verbosity)
    logger.close()
    assert 1 == len((tmp_path / "log").read_text().splitlines())
    assert "is not a number: using 0" in caplog.text


@pytest.mark.parametrize("element", [5, "x", StdOutBackend, None], ids=repr)
def test_what_is_not_a_backend_is_refused_at_once(element):
    """A class whose parentheses were forgotten would print nothing for days."""
    with pytest.raises(ConfigurationError, match=r"backends\[1\]=.* is not a backend; make one"):
        Logger([StdOutBackend(1), element])


@pytest.mark.parametrize("make", [lambda: 5, Raising, object], ids=["5", "raising", "object"])
def test_what_cannot_be_gone_through_is_counted(make, counted):
    """A script may put anything in the place of the list of backends."""
    logger = Logger([])
    logger.backends = make()
    logger.log((0, 1), {"loss": 1})
    logger.metadata("loss", {})
    logger.info("text")
    logger.flush()
    logger.close()
    assert {"backend_failed": 6} == counted()  # a close begins with all, and then ends them


@pytest.mark.parametrize("verbosity", ["x", None, [1]])
@pytest.mark.parametrize(
    "make",
    [
        PrometheusBackend,
        OTelBackend,
        OTLPBackend,
        StdOutBackend,
        lambda verbosity: JSONStreamBackend(verbosity, "/dev/null"),
    ],
    ids=["PrometheusBackend", "OTelBackend", "OTLPBackend", "StdOutBackend", "JSONStreamBackend"],
)
def test_a_verbosity_that_is_not_a_number_is_refused_at_once(make, verbosity):
    """What every log call would compare with is looked at when the backend is made."""
    with pytest.raises(ConfigurationError, match=r"verbosity=.* is not a number; pass one first"):
        make(verbosity)


def test_a_number_is_copied_when_it_is_logged():
    """A value that the script changes in place, or that raises later, is what it was."""

    class Meter:
        value = 0.5

        def __float__(self):
            if self.value is None:
                raise ValueError("no value yet")
            return self.value

    meter = Meter()
    page = PrometheusBackend(1, port=0)
    logger = Logger([page])
    logger.metadata("meter", {"GOAL": "MINIMIZE"})
    logger.log((0, 1), {"meter": meter, "loss": 1.0})
    logger.log((1,), {"loss": 2.0})
    meter.value = None
    found = {
        (sample.name, sample.value)
        for family in text_string_to_metric_families(ask(page.endpoint.port).body.decode())
        for sample in family.samples
        if sample.name in ("dl_meter", "dl_loss", "dllogger_best")
    }
    logger.close()
    assert {
        ("dl_meter", 0.5),
        ("dl_loss", 1.0),
        ("dl_loss", 2.0),
        ("dllogger_best", 0.5),
    } == found


@pytest.mark.parametrize("seed", [1, 2])
def test_no_shape_crashes_an_encoder(seed, tmp_path):
    """Depth, width and types of any mix: every log call is a line, and the process lives."""
    count = 10
    result = subprocess.run(
        [sys.executable, SCRIPTS / "log_shapes.py", tmp_path / "log", str(seed), str(count)],
        capture_output=True,
        text=True,
        env=uncovered(),
        timeout=DEADLINE_S,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line[5:]) for line in (tmp_path / "log").read_text().splitlines()]
    kinds = [line["type"] for line in lines]
    assert 8 + count == kinds.count("LOG")
    assert count == kinds.count("METADATA") == kinds.count("INFO")
    assert "backend_failed" not in result.stderr
