"""The live page as an application: its files, what it shows as JSON, and its stream of events."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from otel_dllogger.view.server.changes import whole
from otel_dllogger.view.server.files import INDEX, load_files
from otel_dllogger.view.server.selection import Selection, SelectionError
from otel_dllogger.view.server.streams import FullError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from otel_dllogger.view.server.streams import Streams

_STREAM_HEADERS = {
    "Cache-Control": "no-store, no-transform",
    "X-Accel-Buffering": "no",  # nginx would keep events until it has enough of them
}


class _EventStream(StreamingResponse):
    """A response of events.

    Args:
        events: The events.
        stack: What is open as long as the response.
    """

    def __init__(
        self, events: AsyncIterator[bytes], stack: contextlib.AsyncExitStack[bool | None]
    ) -> None:
        super().__init__(events, media_type="text/event-stream", headers=_STREAM_HEADERS)
        self._stack = stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._stack:
            await super().__call__(scope, receive, send)


def make_app(streams: Streams) -> Starlette:
    """Return the application.

    Args:
        streams: What it shows, and to whom.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        ticking = asyncio.create_task(streams.run())
        try:
            yield
        finally:
            ticking.cancel()

    async def runs(request: Request) -> Response:
        names = Selection.of(request.query_params).runs
        return _json(await streams.ask(lambda board: board.plain_runs(names)))

    async def curves(request: Request) -> Response:
        selection = Selection.of(request.query_params)
        return _json(await streams.ask(lambda board: whole(board.look(selection))["curves"]))

    async def state(request: Request) -> Response:
        selection = Selection.of(request.query_params)
        return _json(await streams.ask(lambda board: whole(board.look(selection))))

    async def events(request: Request) -> Response:
        selection = Selection.of(request.query_params)
        if request.method == "HEAD":
            return Response(media_type="text/event-stream", headers=_STREAM_HEADERS)
        last_id = request.headers.get("last-event-id", "")
        stack = contextlib.AsyncExitStack()
        channel = await stack.enter_async_context(streams.open(selection))
        return _EventStream(channel.events(last_id), stack)

    answers = (
        ("/runs.json", runs),
        ("/curves.json", curves),
        ("/state.json", state),
        ("/events", events),
    )
    app = Starlette(
        routes=[
            *_files(),
            *(Route(path, answer, methods=["GET"]) for path, answer in answers),
        ],
        exception_handlers={
            SelectionError: lambda _, error: _line(400, str(error)),
            FullError: lambda *_: _line(503, "too many pages are open; close some"),
            404: lambda *_: _line(404, "see /"),
        },
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # its redirects are not relative: a proxy breaks them
    return app


def _files() -> list[Route]:
    files = load_files()

    def answer_with(name: str) -> Callable[[Request], Response]:
        file = files[name]
        headers = {"Cache-Control": "no-cache", "ETag": file.etag}

        def answer(request: Request) -> Response:
            if request.headers.get("if-none-match") == file.etag:
                return Response(status_code=304, headers=headers)
            return Response(file.body, media_type=file.media_type, headers=headers)

        return answer

    paths = {"/": INDEX, **{f"/{name}": name for name in files}}
    return [Route(path, answer_with(name), methods=["GET"]) for path, name in paths.items()]


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")


def _line(status: int, words: Any) -> Response:
    return PlainTextResponse(f"{status}: {words}\n", status)
