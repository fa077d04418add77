"""What scripts import: the names, their signatures, and that each says what it does."""

from __future__ import annotations

import importlib.metadata
import inspect

import pytest

import otel_dllogger

NAMES = [
    "GLOBAL_LOGGER",
    "Backend",
    "BackendProtocol",
    "ConfigurationError",
    "DLLLoggerAlreadyInitialized",
    "DLLoggerNotInitialized",
    "Event",
    "Info",
    "JSONStreamBackend",
    "Logger",
    "Metadata",
    "OTLPBackend",
    "OTelBackend",
    "Phase",
    "PhaseScope",
    "PrometheusBackend",
    "Record",
    "RecordBackend",
    "StdOutBackend",
    "Verbosity",
    "__version__",
    "default_metric_format",
    "default_prefix_format",
    "default_step_format",
    "event",
    "flush",
    "info",
    "init",
    "log",
    "metadata",
    "metadata_batch",
    "phase",
    "shutdown",
]

# As in NVIDIA's DLLogger 1.1.0, and for info and metadata_batch as in TCAP DLLogger.
SIGNATURES = {
    "init": "(backends)",
    "log": "(step, data, verbosity=0)",
    "metadata": "(metric, metadata)",
    "metadata_batch": "(metrics, metadata)",
    "info": "(data)",
    "phase": "(name, *, step=None)",
    "event": "(name, data=None, *, step=None)",
    "flush": "()",
    "shutdown": "()",
    "Logger": "(backends)",
    "Logger.log": "(self, step, data, verbosity=1)",
    "Logger.metadata": "(self, metric, metadata)",
    "Logger.metadata_batch": "(self, metrics, metadata)",
    "Logger.info": "(self, data)",
    "Logger.phase": "(self, name, *, step=None)",
    "Logger.event": "(self, name, data=None, *, step=None)",
    "Logger.flush": "(self)",
    "Logger.close": "(self)",
    "Backend": "(verbosity)",
    "Backend.log": "(self, timestamp, elapsedtime, step, data)",
    "Backend.metadata": "(self, timestamp, elapsedtime, metric, metadata)",
    "Backend.info": "(self, timestamp, data)",
    "Backend.flush": "(self)",
    "Backend.close": "(self)",
    "RecordBackend": "(verbosity)",
    "RecordBackend.write_record": "(self, record)",
    "RecordBackend.write_metadata": "(self, metadata)",
    "RecordBackend.write_info": "(self, info)",
    "RecordBackend.write_phase": "(self, phase)",
    "RecordBackend.write_event": "(self, event)",
    "Record": "(time_us, elapsed_us, step, data)",
    "Metadata": "(time_us, elapsed_us, metric, metadata)",
    "Info": "(time_us, elapsed_us, data)",
    "StdOutBackend": "(verbosity, step_format, metric_format, prefix_format, *, line_format=None)",
    "JSONStreamBackend": "(verbosity, filename, append=False, *, hang_seconds=None)",
    "OTLPBackend": "(verbosity, *, endpoint=None, protocol=None, headers=None, timeout_s=None, "
    "compression=None, interval_s=5.0, max_queue_bytes=67108864, run=None, rank=None, "
    "max_series=None, text_parameters=False, step_histogram=None)",
    "OTelBackend": "(verbosity, *, meter_provider=None, run=None, rank=None, max_series=None, "
    "text_parameters=False, step_histogram=None)",
    "PrometheusBackend": "(verbosity, *, host=None, port=None, discovery_dir=None, linger_s=None, "
    "run=None, rank=None, max_series=None, text_parameters=False, step_histogram=None)",
    "default_step_format": "(step)",
    "default_metric_format": "(metric, metadata, value)",
    "default_prefix_format": "(timestamp)",
}


def find(path: str):
    found = otel_dllogger
    for name in path.split("."):
        found = getattr(found, name)
    return found


def signature_text(path: str) -> str:
    """Return a signature without types, and without defaults that are functions."""
    signature = inspect.signature(find(path))
    empty = inspect.Parameter.empty
    parameters = [
        one.replace(annotation=empty, default=empty if callable(one.default) else one.default)
        for one in signature.parameters.values()
    ]
    return str(inspect.Signature(parameters))


def test_the_face_is_as_promised() -> None:
    """The names are these, sorted as ruff sorts them, and each one is there."""
    assert NAMES == otel_dllogger.__all__
    assert [] == [name for name in NAMES if name not in vars(otel_dllogger)]


@pytest.mark.parametrize("path", SIGNATURES)
def test_signatures_are_those_of_dllogger(path: str) -> None:
    """Scripts pass arguments by position and by name: both stay."""
    assert SIGNATURES[path] == signature_text(path)


def test_the_formats_are_the_defaults_of_stdout() -> None:
    """``StdOutBackend(0)`` formats as DLLogger's default functions do."""
    parameters = inspect.signature(otel_dllogger.StdOutBackend).parameters
    defaults = {
        f"default_{name}": one.default
        for name, one in parameters.items()
        if one.kind is one.POSITIONAL_OR_KEYWORD and name != "verbosity"
    }
    assert {name: getattr(otel_dllogger, name) for name in defaults} == defaults


def test_the_levels_of_verbosity_are_plain_ints() -> None:
    """Scripts compare and add to them, and pass 2 as well."""
    verbosity = otel_dllogger.Verbosity
    levels = (verbosity.OFF, verbosity.DEFAULT, verbosity.VERBOSE)
    assert (-1, 0, 1) == levels
    assert {int} == set(map(type, levels))


OBJECTS = [name for name in NAMES if name not in ("GLOBAL_LOGGER", "__version__")]
METHODS = [
    f"{name}.{method}"
    for name in OBJECTS
    if inspect.isclass(find(name))
    for method, value in vars(find(name)).items()
    if not method.startswith("_") and inspect.isfunction(value)
]


@pytest.mark.parametrize("path", OBJECTS + METHODS)
def test_every_public_object_says_what_it_does(path: str) -> None:
    """The first line of a docstring is one sentence."""
    documentation = inspect.getdoc(find(path)) or ""
    first, _, rest = documentation.partition("\n")
    assert first.endswith(".")
    assert rest[:1] in ("", "\n")


def test_the_version_is_that_of_the_installed_package() -> None:
    """``__version__`` and the package's metadata agree."""
    assert importlib.metadata.version("otel-dllogger") == otel_dllogger.__version__
