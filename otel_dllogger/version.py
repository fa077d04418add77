"""The version of the package, and the User-Agent that it sends to servers."""

from __future__ import annotations

import sys
from typing import Final

__version__: Final = "0.2.0.dev0"
"""The only place of the version; a release is the same without ``.dev0``."""

USER_AGENT: Final = (
    f"otel-dllogger/{__version__} (Python {'.'.join(map(str, sys.version_info[:3]))})"
)
"""The User-Agent header of requests: the sender with its version and language.

Source: OpenTelemetry specification, OpenTelemetry Protocol Exporter, "User Agent".
"""
