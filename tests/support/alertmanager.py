"""A real Alertmanager on a free port, and a receiver that keeps what it is sent."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from tests.support.prometheus import find_program, wait_for

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_LISTENING = re.compile(r'msg="Listening on" address=127\.0\.0\.1:(\d+)')


class Receiver:
    """A webhook: every message that Alertmanager sends, by the path that it is sent to."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, dict[str, Any]]] = []
        messages = self.messages

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                messages.append((self.path, json.loads(body)))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_arguments: object) -> None:
                """Print nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> Receiver:  # noqa: PYI034 - Self came with Python 3.11
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Alertmanager:
    """An Alertmanager with a configuration, alone on a port of its own."""

    def __init__(self, folder: Path, configuration: Path, *, flags: Sequence[str] = ()) -> None:
        self._log = folder / "alertmanager.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    find_program("prometheus-alertmanager"),
                    f"--config.file={configuration}",
                    f"--storage.path={folder / 'alertmanager-data'}",
                    "--web.listen-address=127.0.0.1:0",
                    "--cluster.listen-address=",
                    *flags,
                ],
                stdout=log,
                stderr=log,
                cwd=folder,
            )

    def __enter__(self) -> Alertmanager:  # noqa: PYI034 - Self came with Python 3.11
        try:
            listening = wait_for(self._listening, bool)
        except BaseException:
            self.__exit__()
            raise
        self.address = f"127.0.0.1:{listening[1]}"
        self.url = f"http://{self.address}"
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _listening(self) -> re.Match[str] | None:
        text = self._log.read_text()
        assert self._process.poll() is None, text
        return _LISTENING.search(text)

    def page(self) -> str:
        """Return its own metrics."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as answer:
            return answer.read().decode()

    def send(self, alerts: list[dict[str, Any]]) -> None:
        """Post alerts as Prometheus does."""
        request = urllib.request.Request(
            f"{self.url}/api/v2/alerts",
            data=json.dumps(alerts).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 200

    def suppressed(self) -> dict[str, bool]:
        """Return whether each alert is kept back because of another, by name and rank."""
        url = f"{self.url}/api/v2/alerts"
        with urllib.request.urlopen(url, timeout=10) as answer:
            alerts = json.load(answer)
        return {
            " ".join(filter(None, map(one["labels"].get, ("alertname", "rank", "run")))): bool(
                one["status"]["inhibitedBy"]
            )
            for one in alerts
        }
