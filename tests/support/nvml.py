"""NVIDIA's driver library, as a stand-in with the GPUs that a test names."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.paths import TESTS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_SOURCE = TESTS / "support" / "nvml_stand_in.c"

H100 = "NVIDIA H100 80GB HBM3"
A100 = "NVIDIA A100-SXM4-40GB"

FOUR = tuple(
    f"gpu GPU-{letter * 8}-0000-1111-2222-333333333333 00000000:{bus}:00.0 0 {H100}"
    for letter, bus in zip("abcd", ("1B", "43", "61", "9D"), strict=True)
)
"""Four equal GPUs that are not partitioned."""

TWO_MODELS = (
    f"gpu GPU-slow 00000000:04:00.0 -1 {A100}",
    f"gpu GPU-fast 00000000:65:00.0 0 {H100}",
)

PARTITIONED = (
    f"gpu GPU-parent 00000000:65:00.0 1 {A100}",
    f"part MIG-one 7 0 {A100} MIG 1g.5gb",
    f"part MIG-two 2 0 {A100} MIG 3g.20gb",
    f"part MIG-half 2 1 {A100} MIG 1c.3g.20gb",
)


def build_library(folder: Path) -> Path:
    """Compile the library into a folder; without a compiler, the test is skipped."""
    compiler = shutil.which("cc") or pytest.skip("cc is not installed: apt-get install gcc")
    command = [compiler, "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([*command, "-o", folder / "libnvidia-ml.so.1", _SOURCE], check=True)
    return folder


def describe(library: Path, file: Path, lines: Sequence[str]) -> dict[str, str]:
    """Return the variables with which a process finds the library and these GPUs."""
    file.write_text("".join(f"{line}\n" for line in lines))
    known = os.environ.get("LD_LIBRARY_PATH")
    path = f"{library}:{known}" if known else str(library)
    return {"LD_LIBRARY_PATH": path, "NVML_STAND_IN": str(file)}
