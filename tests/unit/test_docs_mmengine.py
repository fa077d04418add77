"""The document about MMEngine's logging says what its examples print."""

from __future__ import annotations

import re

import pytest

from otel_dllogger import training
from tests.support.mmengine_examples import TEXT, Example, examples, printed_by, steady

pytestmark = pytest.mark.newest_only


@pytest.mark.slow
@pytest.mark.parametrize("example", examples(""), ids=str)
def test_example_prints_what_the_document_says(example: Example) -> None:
    """A block of Python prints the block of text below it."""
    assert steady(printed_by(example.section, "")[example.number - 1]) == steady(example.printed)


def test_every_example_is_run() -> None:
    """No block of Python or text is left out because it is fenced in another way."""
    kinds = ("", "mmengine", "config")
    found = [example for kind in kinds for example in examples(kind)]
    assert len(found) == TEXT.count("```python")
    assert sum(bool(example.printed) for example in found) == TEXT.count("```text")


def test_all_names_are_in_the_document() -> None:
    """Nothing that the package offers is left out."""
    names = [*training.__all__, "DLLoggerVisBackend", "DLLoggerHook"]
    assert [name for name in names if not re.search(rf"\b{name}\b", TEXT)] == []
