"""The entry point of the command line: ``otel-dllogger`` and ``python -m otel_dllogger``."""

from __future__ import annotations

import sys

from otel_dllogger.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
