"""Pages that accept a connection and never answer, as those of a stopped process."""

from __future__ import annotations

import socket
import threading
import time

from otel_dllogger.view.model import Model
from otel_dllogger.view.page_source import FixedPlaces, PageSource


def test_views_do_not_wait_for_a_page_that_never_answers() -> None:
    """The model is free meanwhile; a page that is gone is not waited for each time."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        model = Model()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/metrics"
        source = PageSource([FixedPlaces([url])], model)
        asked = []
        for _ in range(2):
            thread = threading.Thread(target=_poll_now, args=(source,))
            thread.start()
            asked.append(server.accept()[0])  # it has asked, and waits
            assert model.lock.acquire(timeout=0.5)
            model.lock.release()
            thread.join()
        assert list(source.errors) == [url]
        begun_s = time.monotonic()
        _poll_now(source)
        assert time.monotonic() - begun_s < 1.0
        source.close()
        for connection in asked:
            connection.close()


def _poll_now(source: PageSource) -> None:
    """Read the pages, once that is due."""
    due_s = source._due_s
    while time.monotonic() < due_s:
        time.sleep(0.01)
    source.poll()
