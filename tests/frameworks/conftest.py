"""Tests with a real MMEngine and PyTorch, in an environment that has them: make test-torch."""

from __future__ import annotations

import importlib.util

collect_ignore_glob = [] if importlib.util.find_spec("mmengine") else ["test_*.py"]
