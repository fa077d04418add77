"""Fixtures that several files of system tests use."""

from __future__ import annotations

import pytest

import otel_dllogger as dllogger


@pytest.fixture
def _no_global_logger():
    yield
    dllogger.shutdown()
