"""Open pages, and what they get each second.

Pages that show the same share a channel, whose changes are worked out and encoded once. A page
that did not read the last change in time gets the whole instead, so nothing piles up for slow
ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from typing import TYPE_CHECKING, Any

from otel_dllogger.http.server import count_fault
from otel_dllogger.view.server.changes import changes, encode, whole

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from otel_dllogger.view.server.board import Board, Look
    from otel_dllogger.view.server.selection import Selection

INTERVAL_S = 1.0
"""Seconds between two changes."""

MAX_PAGES = 256
MAX_CHANNELS = 64
"""The most open pages, and the most different things that they show."""

_RETRY_MS = 1_000
_SHARE = 1.0  # the pause is at least that many times as long as the work before it


class FullError(Exception):
    """There are too many open pages."""


class Channel:
    """What one or more open pages show.

    Attributes:
        pages: How many pages show it.
    """

    def __init__(self) -> None:
        self.pages = 0
        self._name = secrets.token_hex(4)
        self._number = 0
        self._look: Look | None = None
        self._change = b""
        self._whole: bytes | None = None
        self._told = asyncio.Event()
        self._is_over = False

    def publish(self, look: Look, change: bytes) -> None:
        """Tell the pages of another look.

        Args:
            look: The look.
            change: What is different in it.
        """
        self._number += 1
        self._look, self._change, self._whole = look, change, None
        self._wake()

    def end(self) -> None:
        """Tell the pages nothing any more."""
        self._is_over = True
        self._wake()

    def _wake(self) -> None:
        told, self._told = self._told, asyncio.Event()
        told.set()

    @property
    def look(self) -> Look | None:
        """Return the last look."""
        return self._look

    async def events(self, last_id: str) -> AsyncIterator[bytes]:
        """Yield events, each once it is there.

        Args:
            last_id: The last event that the page has, from an earlier connection.
        """
        name, _, number = last_id.partition("-")
        known = int(number) if name == self._name and number.isdecimal() else -1
        while not self._is_over:
            told = self._told
            if known != self._number:
                body = self._change if known == self._number - 1 else self._encoded()
                known = self._number
                yield b"retry: %d\nid: %s-%d\ndata: %s\n\n" % (
                    _RETRY_MS,
                    self._name.encode(),
                    known,
                    body,
                )
            await told.wait()

    def _encoded(self) -> bytes:
        if self._whole is None and self._look is not None:
            self._whole = encode(whole(self._look))
        return self._whole or b"{}"


class Streams:
    """All open pages.

    Args:
        board: What they show.
    """

    def __init__(self, board: Board) -> None:
        self._board = board
        self._channels: dict[Selection, Channel] = {}
        self._lock = asyncio.Lock()

    async def ask(self, function: Callable[[Board], Any]) -> Any:
        """Return what a function makes of the board, on another thread, as JSON."""

        def answer() -> bytes:
            self._board.begin()
            return encode(function(self._board))

        async with self._lock:
            return await asyncio.to_thread(answer)

    @contextlib.asynccontextmanager
    async def open(self, selection: Selection) -> AsyncIterator[Channel]:
        """Keep a channel open while a page reads it.

        Args:
            selection: What the page shows.

        Raises:
            FullError: If there are too many open pages.
        """
        channel = self._channels.get(selection)
        if channel is None:
            if len(self._channels) >= MAX_CHANNELS:
                raise FullError
            channel = self._channels[selection] = Channel()
        if sum(each.pages for each in self._channels.values()) >= MAX_PAGES:
            raise FullError
        channel.pages += 1
        try:
            if channel.look is None:
                await self._advance({selection: channel})
            yield channel
        finally:
            channel.pages -= 1
            if not channel.pages and self._channels.get(selection) is channel:
                del self._channels[selection]

    def end(self) -> None:
        """End the streams of all pages."""
        for channel in self._channels.values():
            channel.end()

    async def run(self) -> None:
        """Tell all pages what changed, each second, until it is cancelled."""
        while True:
            begun_s = time.monotonic()
            if self._channels:
                try:
                    await self._advance(dict(self._channels))
                except Exception as error:
                    count_fault("working out what pages show", error)
            took_s = time.monotonic() - begun_s
            await asyncio.sleep(max(INTERVAL_S - took_s, _SHARE * took_s))

    async def _advance(self, channels: dict[Selection, Channel]) -> None:
        def look() -> list[tuple[Channel, Look, bytes]]:
            self._board.begin()
            found = []
            for selection, channel in channels.items():
                before, after = channel.look, self._board.look(selection)
                change = b"" if before is None else encode(changes(before, after))
                found.append((channel, after, change))
            return found

        async with self._lock:
            found = await asyncio.to_thread(look)
            for channel, after, change in found:
                channel.publish(after, change)
