"""Tests with a real MMEngine and PyTorch, in an environment that has them: make test-torch."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

collect_ignore_glob = [] if importlib.util.find_spec("mmengine") else ["test_*.py"]


def pytest_configure(config: pytest.Config) -> None:
    """Fill YAPF's cache before several processes import MMEngine at once.

    YAPF, which MMEngine imports, gives its cached grammar its name before it is written: a second
    process that imports it at that moment fails with "EOFError: Ran out of input".
    """
    if not hasattr(config, "workerinput") and importlib.util.find_spec("yapf"):
        importlib.import_module("yapf")
