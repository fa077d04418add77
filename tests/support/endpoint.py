"""Pages for an endpoint to serve, and the threads that serve them."""

from __future__ import annotations

import random
import threading

PLAIN = "text/plain; version=0.0.4"


def small(accept: str) -> tuple[str, bytes]:
    return PLAIN, b"dl_loss 0.25\n"


def numbers(size_bytes: int) -> bytes:
    dice = random.Random(0)
    return b"".join(b"dl_x %d\n" % dice.getrandbits(60) for _ in range(size_bytes // 24))


def own_threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith("otel-dllogger-")]
