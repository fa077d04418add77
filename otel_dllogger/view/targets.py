"""What a user names to be shown: logs, a discovery folder, addresses of pages, or nothing."""

from __future__ import annotations

import dataclasses
import glob
from pathlib import Path
from typing import TYPE_CHECKING

from otel_dllogger.errors import ConfigurationError
from otel_dllogger.http.discovery_folder import folders_to_read
from otel_dllogger.http.scrape import SCANNED_PORTS, page_url, why_refused
from otel_dllogger.http.service_discovery import announced_pages
from otel_dllogger.logs.not_logs import refuse_not_logs
from otel_dllogger.redaction import redact_address
from otel_dllogger.view.log_source import LogSource
from otel_dllogger.view.page_source import (
    AnnouncedPlaces,
    FixedPlaces,
    HerePlaces,
    LocalPlaces,
    PageSource,
)

if TYPE_CHECKING:
    from otel_dllogger.logs.source import Source
    from otel_dllogger.view.follow import ModelSource
    from otel_dllogger.view.model import Model
    from otel_dllogger.view.page_source import Places


@dataclasses.dataclass(frozen=True, slots=True)
class Targets:
    """What is to be shown.

    Attributes:
        logs: The logs, and how to read them; None if there are none.
        places: Where pages are.
        words: What is looked at, for people.
    """

    logs: Source | None
    places: list[Places]
    words: str

    def open(self, model: Model) -> list[ModelSource]:
        """Return the sources that fill a model.

        Raises:
            ConfigurationError: If a path or a pattern of logs is invalid.
        """
        sources: list[ModelSource] = []
        if self.logs is not None:
            sources.append(LogSource(self.logs, model))
        if self.places:
            sources.append(PageSource(self.places, model))
        return sources


def find_targets(source: Source) -> Targets:
    """Return what to show.

    Args:
        source: How to read logs. Its paths may also be discovery folders and addresses: a URL,
            ``host:port`` or a port of this machine. Without any, it is what this machine has: the
            discovery folders, and the ports that ranks take.

    Raises:
        ConfigurationError: If there is nothing where a path points to, or an address is invalid.
    """
    if not source.paths:
        return _here()
    logs, urls, words = [], [], []
    places: list[Places] = []
    for target in source.paths:
        path = Path(target)
        url = None if path.exists() else page_url(target)
        if url is not None:
            refusal = why_refused(url)
            if refusal is not None:
                raise ConfigurationError(refusal)
            urls.append(url)
            words.append(redact_address(url))
        elif path.is_dir() and (announced_pages(path) or _is_empty(path)):
            places.append(AnnouncedPlaces(path))
            words.append(f"the ranks announced in {target}")
            if _is_empty(path):  # there is nothing yet that says what it is for
                logs.append(target)
        elif path.exists() or glob.has_magic(target):
            logs.append(target)
            words.append(target)
        else:
            raise ConfigurationError(
                f"no file {target!r}; pass a log, a folder, a discovery folder, or the address of "
                "a page such as 127.0.0.1:9464"
            )
    if not places and not urls:
        refuse_not_logs(logs)
    if urls:
        places.append(FixedPlaces(urls))
    return Targets(
        dataclasses.replace(source, paths=logs) if logs else None, places, ", ".join(words)
    )


def _here() -> Targets:
    ports = f"ports {SCANNED_PORTS[0]} to {SCANNED_PORTS[-1]} of this machine"
    folders = folders_to_read()
    if not folders:
        return Targets(None, [LocalPlaces()], ports)
    places: list[Places] = [*map(HerePlaces, folders), LocalPlaces()]
    names = " or ".join(str(folder.path) for folder in folders)
    return Targets(None, places, f"the ranks announced in {names}, and {ports}")


def _is_empty(folder: Path) -> bool:
    try:
        return next(folder.iterdir(), None) is None
    except OSError:
        return False
