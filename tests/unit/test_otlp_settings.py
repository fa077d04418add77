"""Where OTLP goes: arguments, then the standard variables, then the standard defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from otel_dllogger import ConfigurationError
from otel_dllogger.otlp.settings import LOGS, read_logs_options, read_options

if TYPE_CHECKING:
    from otel_dllogger.otlp.settings import OTLPOptions


def options(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], **arguments: Any
) -> OTLPOptions:
    """Read the options with these variables, without their common beginning."""
    for name, value in variables.items():
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", value)
    return read_options(**arguments)


@pytest.mark.parametrize(
    ("variables", "endpoint", "expected"),
    [
        ({}, None, "http://localhost:4318/v1/metrics"),
        ({"ENDPOINT": "http://a:1"}, None, "http://a:1/v1/metrics"),
        ({"ENDPOINT": "http://a:1/"}, None, "http://a:1/v1/metrics"),
        ({"ENDPOINT": "https://a/otlp"}, None, "https://a/otlp/v1/metrics"),
        ({"ENDPOINT": "http://a:1/v1/metrics"}, None, "http://a:1/v1/metrics"),
        ({"ENDPOINT": "http://a:1/v1/metrics/"}, None, "http://a:1/v1/metrics"),
        ({}, "http://c:3/v1/metrics/", "http://c:3/v1/metrics"),
        ({"METRICS_ENDPOINT": "http://b/v1/metrics/"}, None, "http://b/v1/metrics/"),
        ({"ENDPOINT": "  "}, None, "http://localhost:4318/v1/metrics"),
        ({"METRICS_ENDPOINT": "http://b:2"}, None, "http://b:2"),
        ({"METRICS_ENDPOINT": "http://b/x", "ENDPOINT": "http://a"}, None, "http://b/x"),
        ({"METRICS_ENDPOINT": "http://b/x"}, "http://c:3", "http://c:3/v1/metrics"),
        ({}, "http://c:3/", "http://c:3/v1/metrics"),
        ({}, "https://c/opentelemetry/v1/metrics", "https://c/opentelemetry/v1/metrics"),
        ({}, "http://c/opentelemetry", "http://c/opentelemetry/v1/metrics"),
        ({}, "http://c/api/v1/otlp/", "http://c/api/v1/otlp/v1/metrics"),
        ({}, "http://c/opentelemetry/api/v1/push", "http://c/opentelemetry/api/v1/push"),
        ({"ENDPOINT": "http://a/b?extra_label=x=y"}, None, "http://a/b/v1/metrics?extra_label=x=y"),
    ],
)
def test_the_address_for_http(
    variables: dict[str, str],
    endpoint: str | None,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The variable for all signals gets the path of this one once, the one for metrics never."""
    found = options(monkeypatch, variables, endpoint=endpoint)
    assert (expected, expected.startswith("https")) == (found.address, found.secure)
    assert "http/protobuf" == found.protocol


@pytest.mark.parametrize(
    ("variables", "endpoint", "expected"),
    [
        ({}, None, "http://localhost:4318/v1/logs"),
        ({"ENDPOINT": "http://a:1/v1/metrics"}, None, "http://a:1/v1/logs"),
        ({"ENDPOINT": "http://a:1/v1/logs"}, None, "http://a:1/v1/logs"),
        ({}, "http://c/opentelemetry/api/v1/push", "http://c/opentelemetry/v1/logs"),
        ({"METRICS_ENDPOINT": "http://b/x"}, None, None),
        ({"METRICS_ENDPOINT": "http://b/x"}, "http://c", "http://c/v1/logs"),
        ({"METRICS_ENDPOINT": "http://b/x", "ENDPOINT": "http://a"}, None, "http://a/v1/logs"),
        ({"LOGS_ENDPOINT": "http://l/x", "METRICS_ENDPOINT": "http://b"}, None, "http://l/x"),
        ({"LOGS_ENDPOINT": "http://l/x"}, "http://c", "http://l/x"),
    ],
)
def test_the_address_for_logs(
    variables: dict[str, str],
    endpoint: str | None,
    expected: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That of the metrics with another path; where only metrics have one, there is none."""
    for name, value in variables.items():
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", value)
    found = read_logs_options(endpoint=endpoint)
    assert expected == (None if found is None else found.address)
    assert "http://a/v1/metrics" == read_options(endpoint="http://a/v1/logs").address


def test_what_is_set_for_logs_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what is set for metrics is not for logs."""
    general = {"METRICS_HEADERS": "a=secret", "HEADERS": "b=2", "LOGS_TIMEOUT": "7"}
    found = options(monkeypatch, {**general, "LOGS_PROTOCOL": "grpc"}, signal=LOGS)
    assert ("grpc", 7.0, {"b": "2"}) == (found.protocol, found.timeout_s, found.headers)


@pytest.mark.parametrize(
    ("variables", "endpoint", "expected"),
    [
        ({}, None, ("localhost:4317", False)),
        ({"ENDPOINT": "http://a:1"}, None, ("a:1", False)),
        ({"ENDPOINT": "https://a:1"}, None, ("a:1", True)),
        ({"METRICS_ENDPOINT": "http://b:1", "ENDPOINT": "https://a:1"}, None, ("b:1", False)),
        ({"INSECURE": "true"}, "c:1", ("c:1", False)),
        ({"INSECURE": "true"}, "https://c:1", ("c:1", True)),
        ({}, "c:1", ("c:1", True)),
        ({}, "http://[::1]:1", ("[::1]:1", False)),
        ({}, "unix:///run/otlp", ("unix:///run/otlp", False)),
    ],
)
def test_the_target_for_grpc(
    variables: dict[str, str],
    endpoint: str | None,
    expected: tuple[str, bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The scheme says whether it is TLS; without one, it is, unless INSECURE says otherwise."""
    found = options(monkeypatch, {"PROTOCOL": "grpc", **variables}, endpoint=endpoint)
    assert expected == (found.address, found.secure)


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize(
    "name", ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"]
)
def test_a_variable_that_is_wrong_is_named_and_shown(
    monkeypatch: pytest.MonkeyPatch, protocol: str, name: str
) -> None:
    """As it was set, without what is put behind it."""
    monkeypatch.setenv(name, "foo:bar")
    with pytest.raises(
        ConfigurationError, match=rf"^{name}='foo:bar' is not .*; set it to an address such as http"
    ):
        read_options(protocol=protocol)


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize(
    "endpoint",
    ["ftp://a:1", "http://", "http://a:port", "http://a:99999", "http://\ud800", "http://a/\ud800"],
)
def test_an_address_that_is_none_is_refused(protocol: str, endpoint: str) -> None:
    """The error names the value and gives an example."""
    with pytest.raises(ConfigurationError, match=r"endpoint='.*' is not .*localhost:431"):
        read_options(protocol=protocol, endpoint=endpoint)


def test_those_for_metrics_come_before_those_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """And arguments before both; headers are put together."""
    general = {
        "PROTOCOL": "grpc",
        "HEADERS": "a=1,B=x%20y",
        "TIMEOUT": "20",
        "COMPRESSION": "gzip",
        "CERTIFICATE": "/ca",
        "CLIENT_CERTIFICATE": "/cert",
        "CLIENT_KEY": "/key",
    }
    found = options(monkeypatch, general)
    assert ("grpc", 20.0, "gzip") == (found.protocol, found.timeout_s, found.compression)
    assert {"a": "1", "b": "x y"} == found.headers
    assert ("/ca", "/cert", "/key") == (
        found.certificate,
        found.client_certificate,
        found.client_key,
    )
    own = {
        "METRICS_PROTOCOL": "http/protobuf",
        "METRICS_HEADERS": "a=2",
        "METRICS_TIMEOUT": "30",
        "METRICS_COMPRESSION": "none",
        "METRICS_CERTIFICATE": "/other",
    }
    found = options(monkeypatch, own)
    assert ("http/protobuf", 30.0, "none") == (found.protocol, found.timeout_s, found.compression)
    assert ({"a": "2"}, "/other") == (found.headers, found.certificate)
    found = read_options(protocol="grpc", headers={"A": "3"}, timeout_s=1, compression="gzip")
    assert ("grpc", 1, "gzip") == (found.protocol, found.timeout_s, found.compression)
    assert {"a": "3"} == found.headers


@pytest.mark.parametrize(
    ("text", "expected"), [("10", 10.0), ("0.5", 0.5), ("300", 300.0), ("10000", 10.0), ("x", 10.0)]
)
def test_a_timeout_is_read_in_either_unit(
    text: str, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seconds as Python's exporters have it, milliseconds as the specification does."""
    assert expected == options(monkeypatch, {"TIMEOUT": text}).timeout_s


def test_headers_are_not_shown() -> None:
    """They hold secrets, and so may an address."""
    assert "secret" not in repr(read_options(headers={"authorization": "secret"}))
    assert "secret" not in repr(read_options(endpoint="http://me:secret@a:1"))


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize(
    "endpoint",
    [
        "ftp://me:secret@a:1",
        "http://me:secret@",
        "http://me:secret@a:port",
        "http://me:secret@a:99999",
        "http://me:sec@secret@a:99999",
        "me:secret@a:b:1",
        "http://a:port?token=secret",
    ],
)
def test_an_address_that_is_refused_is_shown_without_its_password(
    protocol: str, endpoint: str
) -> None:
    """It may be printed where others read."""
    with pytest.raises(ConfigurationError, match="is not the address") as raised:
        read_options(protocol=protocol, endpoint=endpoint)
    assert "secret" not in str(raised.value)


def test_headers_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What cannot be read is left out and said, without what it holds."""
    text = "a=1, B = x%20y,api key=secret,c=Bearer x=,,secret,d=secret%0A,e=sec%0Aret, f="
    found = options(monkeypatch, {"HEADERS": text})
    assert {"a": "1", "b": "x y", "c": "Bearer x=", "d": "secret", "f": ""} == found.headers
    assert "OTEL_EXPORTER_OTLP_HEADERS has an entry that is not name=value" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize("headers", [{"a": "secret\nb"}, {"a": b"secret"}, {"secret x": "a"}])
def test_a_header_that_cannot_be_sent_is_refused(headers: dict[str, Any]) -> None:
    """Before a library says what is wrong with it, and all that is in it."""
    with pytest.raises(ConfigurationError, match="headers") as raised:
        read_options(headers=headers)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("protocol", "value", "sent"),
    [
        ("http/protobuf", "secr\u00e9t", True),
        ("http/protobuf", "secret \u4e2d", False),
        ("http/protobuf", "secret \ud800", False),
        ("grpc", "secr\u00e9t", False),
        ("grpc", "secret", True),
    ],
)
def test_what_a_header_can_hold(
    protocol: str,
    value: str,
    sent: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """HTTP has latin-1 and gRPC has ASCII; with anything else every request would fail."""
    if sent:
        assert {"a": value} == read_options(protocol=protocol, headers={"a": value}).headers
        return
    with pytest.raises(ConfigurationError, match=r"headers .* in (latin-1|ascii)") as raised:
        read_options(protocol=protocol, headers={"a": value})
    assert "secr" not in str(raised.value)
    encoded = quote(value, errors="replace")
    found = options(monkeypatch, {"HEADERS": f"a={encoded},b=1"}, protocol=protocol)
    assert "b" in found.headers
    assert "secr" not in caplog.text


def test_the_end_of_a_file_is_not_part_of_a_header() -> None:
    """A key that was read from a file ends in a line break."""
    assert {"a": "Bearer x"} == read_options(headers={"A": "Bearer x\n"}).headers


@pytest.mark.parametrize(
    ("option", "value"),
    [("protocol", "http/json"), ("compression", "zip"), ("timeout_s", 0), ("timeout_s", 1e6)],
)
def test_an_argument_that_means_nothing_is_refused(option: str, value: Any) -> None:
    """The error names it."""
    with pytest.raises(ConfigurationError, match=f"{option}="):
        read_options(**{option: value})


@pytest.mark.parametrize("name", ["PROTOCOL", "COMPRESSION"])
def test_a_variable_that_means_nothing_is_warned_of(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And the default is taken: an environment must not fail training."""
    found = options(monkeypatch, {name: "smoke"})
    assert ("http/protobuf", "none") == (found.protocol, found.compression)
    assert f"{name}='smoke' is not one of" in caplog.text
