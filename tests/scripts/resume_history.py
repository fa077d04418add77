"""Restore the pickle on stdin in a process that has registered nothing, and ask it."""

from __future__ import annotations

import pickle
import sys

history = pickle.load(sys.stdin.buffer)
print(history.statistics("spread", 3), history.mean(2), history.max_length)
