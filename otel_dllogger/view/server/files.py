"""The files of the page: a fixed table, so that no path of a request reaches the file system."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

PAGE = Path(__file__).parent.parent / "page"
"""The folder of the page's files."""

INDEX = "index.html"

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class PageFile(NamedTuple):
    """One file of the page.

    Attributes:
        body: Its content.
        media_type: What it is.
        etag: What tells its versions apart.
    """

    body: bytes
    media_type: str
    etag: str


def load_files() -> dict[str, PageFile]:
    """Return the files of the page by their paths in its folder."""
    found = {}
    for path in sorted(PAGE.rglob("*")):
        media_type = _TYPES.get(path.suffix)
        if media_type is not None:
            body = path.read_bytes()
            etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
            found[path.relative_to(PAGE).as_posix()] = PageFile(body, media_type, etag)
    return found
