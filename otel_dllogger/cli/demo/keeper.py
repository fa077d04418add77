"""Run the demo's Prometheus for as long as the demo lives, and remove its data.

The demo holds the other end of the standard input, and the kernel closes that even where the
demo is killed and can end nothing itself.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading

_STOP_S = 5.0


def main() -> int:
    """Run Prometheus until it or the demo ends."""
    program, config, address = sys.argv[1:]
    with tempfile.TemporaryDirectory(
        prefix="otel-dllogger-prometheus-", ignore_cleanup_errors=True
    ) as data:
        process = subprocess.Popen(  # noqa: S603 - the user's own Prometheus
            [
                program,
                f"--config.file={config}",
                f"--storage.tsdb.path={data}",
                f"--web.listen-address={address}",
                "--log.level=warn",
            ],
            stdin=subprocess.DEVNULL,
        )
        threading.Thread(target=_end_with_demo, args=(process,), daemon=True).start()
        code = process.wait()
    return code if code >= 0 else 128 - code  # as a shell says it


def _end_with_demo(process: subprocess.Popen[bytes]) -> None:
    os.read(sys.stdin.fileno(), 1)  # nothing is ever written: it ends with the demo
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()


if __name__ == "__main__":
    sys.exit(main())
