"""The modules of the package, by name."""

from __future__ import annotations

from pathlib import Path

import otel_dllogger

PACKAGE = Path(otel_dllogger.__file__).parent


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


# A shadow is not part of the package: it stands in for another package's name.
MODULES = {
    module_name(path): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if "shadows" not in path.relative_to(PACKAGE).parts
}
