"""The cost of OTLP: ``python -m benchmarks.otlp``.

It has three parts: the ``log`` call, compared with JSON alone; the processor time per point that
the sending thread takes from training; and how many points per second the thread can send to a
collector on this machine that answers at once.
"""

from __future__ import annotations

import random
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from benchmarks.measure import median_us
from otel_dllogger import JSONStreamBackend, Logger
from otel_dllogger.backends.otlp import OTLPBackend

NAMES = [f"train.metric_{i}" for i in range(10)]
TARGET_US = 1.0
"""The most microseconds that a call may take in addition to JSON alone."""

STEPS = 20_000


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Read the request and answer with success."""
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Log nothing."""


def call_us(folder: Path, url: str) -> dict[str, float]:
    """Return the time of a call by backends, measured in interleaved rounds.

    The thread runs between the rounds and not within them, as it does between the steps of a
    training. The time that it takes there is measured by ``thread_us``.

    Args:
        folder: The folder for the log files.
        url: The address of the collector.
    """
    values = random.Random(1)
    data = {name: values.uniform(0, 10) for name in NAMES}
    otlp = OTLPBackend(1, endpoint=url, run="bench", interval_s=300)
    json = Logger([JSONStreamBackend(1, folder / "json")])
    both = Logger([JSONStreamBackend(1, folder / "both"), otlp])

    def drain_and_log_json(i: int) -> None:
        if not i:
            _drain(otlp)
        json.log((1, i), data)

    times_us = median_us(
        {
            "JSON": drain_and_log_json,
            "JSON + OTLP": lambda i: both.log((1, i), data),
            "drained": lambda i: None if i else _drain(otlp),
        }
    )
    json.close()
    both.close()
    return times_us


def _drain(backend: OTLPBackend) -> None:
    """Have the thread send everything, and wait until it has."""
    sender = backend._sender  # noqa: SLF001 - not part of its interface
    assert sender is not None
    backend.flush()
    while backend._queue._entries or len(sender._backlog) or sender._sending:  # noqa: SLF001
        time.sleep(0.001)


def thread_us(url: str) -> tuple[float, float]:
    """Return the processor time and the elapsed time per value sent by the thread, in us.

    Args:
        url: The address of the collector.
    """
    backend = OTLPBackend(1, endpoint=url, run="bench", interval_s=300)
    logger = Logger([backend])
    logger.log((0, 0), dict.fromkeys(NAMES, 1.0))
    _drain(backend)
    sender = backend._sender  # noqa: SLF001 - not part of its interface
    assert sender is not None
    assert sender._thread.ident is not None  # noqa: SLF001
    clock = time.pthread_getcpuclockid(sender._thread.ident)  # noqa: SLF001
    backend._queue._on_pressure = lambda: None  # noqa: SLF001 - all of it in one go
    for i in range(STEPS):
        logger.log((1, i), {name: float(i) for name in NAMES})
    before_s, start_s = time.clock_gettime(clock), time.perf_counter()
    _drain(backend)
    elapsed_s, processor_s = time.perf_counter() - start_s, time.clock_gettime(clock) - before_s
    logger.close()
    values = STEPS * len(NAMES)
    return processor_s / values * 1e6, elapsed_s / values * 1e6


def main() -> None:
    """Measure and print."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    with tempfile.TemporaryDirectory() as folder:
        times_us = call_us(Path(folder), url)
    json_us, both_us = times_us["JSON"], times_us["JSON + OTLP"]
    print("| one `log` of ten values | us a call | of JSON |\n|---|---:|---:|")
    print(f"| JSON | {json_us:.2f} | 1.00 |")
    print(f"| JSON + OTLP | {both_us:.2f} | {both_us / json_us:.2f} |")
    print(f"\nOTLP adds {both_us - json_us:.2f} us a call (target: at most {TARGET_US:g}).")
    processor_us, elapsed_us = thread_us(url)
    print(
        f"The thread takes {processor_us:.2f} us of processor time a value and sends "
        f"{1e6 / elapsed_us:,.0f} values a second."
    )
    server.shutdown()


if __name__ == "__main__":
    main()
