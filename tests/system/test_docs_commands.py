"""Every command in the documents works when it is typed as it stands there."""

from __future__ import annotations

import pytest

from tests.support.doc_commands import PAGES, commands_of, run_page
from tests.support.paths import ROOT

pytestmark = pytest.mark.newest_only

WITH_COMMANDS = [
    page for page in PAGES if page.is_file() and commands_of(page.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_a_page_works(page, tmp_path):
    """From top to bottom, in a checkout, without rights that a user does not have."""
    faults = run_page(page, tmp_path, limit_s=240)
    assert not faults, "\n\n".join(faults)


def test_commands_are_found_in_markdown():
    """With continuations, quotes over several lines, here-documents, and a status."""
    text = """
```console
$ one \\
    --two
printed
$ python -c 'a
b'  # a comment
$ cat > f <<'END'
x
END
```

<!-- exits 2 -->

```console
$ false
```
"""
    found = [(command.line, command.text, command.status) for command in commands_of(text)]
    assert found == [
        (3, "one \\\n    --two", 0),
        (6, "python -c 'a\nb'  # a comment", 0),
        (8, "cat > f <<'END'\nx\nEND", 0),
        (16, "false", 2),
    ]


def test_a_command_that_fails_is_found(tmp_path):
    """One that fails or is missing, those that lead nowhere; and not those beside them."""
    page = tmp_path / "page.md"
    page.write_text(
        "```console\n$ true\n$ false\n$ no-such-program\n"
        "$ docker compose --env-file deploy/none.env up\n"
        "$ docker compose restart none\n"
        "$ docker compose restart grafana\n"
        "$ true  # or with: torchrun\n```\n\n"
        '```bash title="saved.sh"\nexit 3\n```\n\n'
        "<!-- exits 3 -->\n```console\n$ sh saved.sh\n```\n"
    )
    (tmp_path / "work").mkdir()
    faults = run_page(page, tmp_path / "work", limit_s=60)
    assert [fault.partition(":")[0] for fault in faults] == [f"line {n}" for n in (3, 4, 5, 6)]
