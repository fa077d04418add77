"""A real ``otel-dllogger view``, and what its page reads from it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from tests.support.command import COMMAND, uncovered
from tests.support.http import Answer, ask, connect

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from typing_extensions import Self

_LINK = re.compile(rb"http://\S+:(\d+)/\S*")
END_S = 1.5  # uvicorn would wait for two seconds, then cancel
DEADLINE_S = 40.0


class ViewProcess:
    """The command in a process of its own, on a free port.

    Args:
        arguments: What it shows, and its options.
        listen: Its address.
        cwd: Its folder.
    """

    def __init__(
        self, *arguments: object, listen: str = "127.0.0.1:0", cwd: Path | None = None
    ) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "view", *map(str, arguments), "--listen", listen],
            env=uncovered(),
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.said = self.process.stdout.readline()
        found = _LINK.search(self.said)
        assert found, self.said + self.process.communicate()[1]
        self.link = found[0].decode()
        self.port = int(found[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Send it a signal; return its exit code and all that it wrote."""
        self.process.send_signal(number)
        rest, errors = self.process.communicate(timeout=END_S)
        return self.process.returncode, (self.said + rest + errors).decode()

    def get(self, path: str = "/", *query: tuple[str, str], **headers: str) -> Answer:
        """Ask for a path."""
        return ask(self.port, path + ("?" + urlencode(query) if query else ""), **headers)

    def json(self, path: str, *query: tuple[str, str]) -> Any:
        """Ask for a path that answers with JSON."""
        answer = self.get(path, *query)
        assert answer.status == 200, answer
        return json.loads(answer.body)

    def wait_for_ranks(self, ranks: int) -> list[dict[str, Any]]:
        """Wait until all that there is was read, and there are that many ranks."""
        deadline_s = time.monotonic() + DEADLINE_S
        while True:
            state = self.json("/state.json")
            found = sum(run["ranks"] for run in state["runs"])
            if state["reading"]["is_current"] and found == ranks:
                return self.json("/runs.json")
            assert time.monotonic() < deadline_s, state

    def raw(self, request: bytes) -> bytes:
        """Send bytes as they are, and return the beginning of the answer: up to its headers."""
        with connect(self.port, request) as client:
            answer = b""
            while b"\r\n\r\n" not in answer and (part := client.recv(1 << 16)):
                answer += part
        return answer

    def events(self, *query: tuple[str, str], last_id: str = "") -> Iterator[tuple[str, Any]]:
        """Yield the events of a page, each with its id, as they come."""
        head = f"GET /events?{urlencode(query)} HTTP/1.1\r\nHost: localhost\r\n"
        head += f"Last-Event-ID: {last_id}\r\n\r\n"
        with connect(self.port, head.encode()) as client, client.makefile("rb") as stream:
            assert b" 200 " in stream.readline()
            name = ""
            for line in stream:
                field, _, value = line.decode().rstrip("\n").partition(": ")
                if field == "id":
                    name = value
                elif field == "data":
                    yield name, json.loads(value)


def merge(known: dict[str, Any], message: dict[str, Any]) -> dict[str, Any]:
    """Return what a page knows after a message, as ``stream.js`` does it."""
    if message["is_whole"]:
        return message
    merged = {**known, **message}
    runs = {run["name"]: run for run in known["shown"]}
    if "shown" in message:
        merged["shown"] = [{**runs.get(run["name"], {}), **run} for run in message["shown"]]
    curves = {curve["metric"]: curve for curve in known["curves"]}
    for tail in message["curves"]:
        curve = curves.get(tail["metric"])
        first = tail["first"]
        curves[tail["metric"]] = tail if not first else _joined(curve, tail, first)
    merged["curves"] = [{**curve, "first": 0} for curve in curves.values()]
    merged["is_whole"] = True
    return merged


def _joined(curve: Any, tail: Any, first: int) -> Any:
    joined = {**tail, "places": curve["places"][:first] + tail["places"]}
    for kind in ("lines", "bands"):
        joined[kind] = []
        for one, other in zip(curve[kind], tail[kind], strict=True):
            columns = {}
            for name, value in other.items():
                if name == "nonfinite":
                    columns[name] = [pair for pair in one[name] if pair[0] < first] + value
                elif isinstance(value, list):
                    columns[name] = one[name][:first] + value
                else:
                    columns[name] = value
            joined[kind].append(columns)
    return joined
