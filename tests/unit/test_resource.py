"""The resource of a rank: what the environment says of it, less secrets."""

from __future__ import annotations

import pytest

from otel_dllogger.metrics.resource import _clean, rank_resource


def test_the_resource_has_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by their names nor in URLs and command lines."""
    attributes = "api_key=hunter2,db=pg://me:hunter2@h,cmd=x --token hunter2,team=a%20b"
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", attributes)
    found = rank_resource("run", 3).attributes
    assert "hunter2" not in str(found)
    assert "api_key" not in found
    assert found["db"] == "pg://[redacted]@h"
    assert found["cmd"] == "x --token [redacted]"
    assert (found["team"], found["service.instance.id"]) == ("a b", "run/3")


@pytest.mark.parametrize("kind", [tuple, list])
def test_arguments_in_the_resource_have_no_secrets(kind: type) -> None:
    """Those of the process, which a detector of OpenTelemetry may add."""
    arguments = kind(["train.py", "--password", "my hunter2", "--lr=0.1"])
    assert _clean(arguments) == ["train.py", "--password", "[redacted]", "--lr=0.1"]
    assert [_clean(kind([1, 2])), _clean(3), _clean(True)] == [kind([1, 2]), 3, True]
