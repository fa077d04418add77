"""Arguments of backends that mean nothing: refused when the backend is made, in one line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import otel_dllogger as dllogger

pytestmark = pytest.mark.newest_only

NUMPY = pytest.importorskip("numpy", reason="pip install numpy")

WHO = {"rank": ["0", 1.5, True, -2, 10**12, [0], ...], "run": [5, b"r", Path("r"), ["r"]]}
EXPORTED = WHO | {
    "max_series": [-5, "many", 0, 1.5, True],
    "text_parameters": ["false", None, 1],
}

WRONG = {
    "OTelBackend": EXPORTED | {"meter_provider": [5, "global", dict]},
    "PrometheusBackend": EXPORTED
    | {
        "port": ["x", "9464", 70000, -1, 1.5, True, 2**70, ()],
        "host": [5, b"127.0.0.1", ["127.0.0.1"]],
        "discovery_dir": [5, True, ["a"], "a\0b", object()],
        "linger_s": ["x", "5", -1, float("nan"), float("inf"), True, 3601, 10**400, [1]],
    },
    "OTLPBackend": EXPORTED
    | {
        "endpoint": [5, b"http://localhost", "ftp://x", "http://localhost:x"],
        "protocol": [5, "http", ["grpc"]],
        "headers": [5, "a=b", [("a", "b")], {"a": 5}, {1: "b"}],
        "timeout_s": ["x", True, 0, -1, float("nan"), 301],
        "compression": [5, True, "zip"],
        "interval_s": ["x", True, 0, -1, float("nan"), 301, None],
        "max_queue_bytes": ["x", 1e9, 5, True, None, 2**70],
    },
    "JSONStreamBackend": {"filename": [None, 5, True, "a\0b", ["a"], object()]},
    "StdOutBackend": {
        "step_format": [5, "x", None],
        "metric_format": [5, "x", None],
        "prefix_format": [5, "x", None],
        "line_format": [5, "x"],
    },
}


class Hostile:
    """Raise wherever it is looked at."""

    def __getattr__(self, name: str) -> object:
        raise ArithmeticError(name)

    def __repr__(self) -> str:
        raise ArithmeticError("repr")

    def __eq__(self, other: object) -> bool:
        raise ArithmeticError("eq")

    __index__ = __float__ = __fspath__ = __len__ = __iter__ = __repr__
    __hash__ = None


@pytest.mark.parametrize(
    ("backend", "name", "values"),
    [
        pytest.param(backend, name, values, id=f"{backend}-{name}")
        for backend, options in WRONG.items()
        for name, values in options.items()
    ],
)
def test_what_means_nothing_is_refused_in_one_line(backend, name, values, tmp_path, monkeypatch):
    """With the value, the rule and the next step; and nothing is opened, nor left open."""
    monkeypatch.chdir(tmp_path)
    if backend == "OTLPBackend":
        pytest.importorskip("opentelemetry.proto", reason="pip install 'otel-dllogger[otlp]'")
    for value in (*values, *([] if name == "meter_provider" else [Hostile()])):
        with pytest.raises(dllogger.ConfigurationError) as caught:
            getattr(dllogger, backend)(1, **{name: value})
        message = str(caught.value)
        assert "\n" not in message
        assert len(message) < 350
        assert re.match(rf"{name}(=| of type ).* is not .*[;,] \w+", message), message
        if name not in ("headers", "endpoint") and not isinstance(value, Hostile):
            assert message.startswith(f"{name}={value!r}"[:60])
        if name == "headers":
            assert "'b'" not in message
    assert [] == list(tmp_path.iterdir())


def test_numbers_of_numpy_are_numbers(tmp_path):
    """As they come from a configuration that was computed."""
    int64, float32 = NUMPY.int64, NUMPY.float32
    backend = dllogger.PrometheusBackend(
        0, port=int64(0), linger_s=float32(0), rank=int64(3), max_series=int64(90), run="r"
    )
    assert (3, "r") == (backend.topology.rank, backend.topology.run)
    backend.close()
    dllogger.JSONStreamBackend(0, tmp_path / "a").close()
    dllogger.JSONStreamBackend(0, str(tmp_path / "b")).close()
    dllogger.JSONStreamBackend(0, bytes(tmp_path / "c")).close()
    assert ["a", "b", "c"] == sorted(path.name for path in tmp_path.iterdir())
