"""Hooks of MkDocs: what reads well on a Git host or in a terminal also reads well on the site.

Links to files outside docs/, names of the API in docstrings, and the help of commands.
"""

from __future__ import annotations

import html
import importlib.metadata
import inspect
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mkdocs.plugins import get_plugin_logger

from otel_dllogger.cli.main import cli

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
API = "reference/api/"
REPOSITORY_LABELS = ("repository", "source", "homepage")

_LOG = get_plugin_logger("links")
_LINK = re.compile(r"(!?)\[((?:[^][`]|`[^`]*`)+)\]\(([^()\s]+)\)")
_ROW = re.compile(r"^\|.*\|$", re.MULTILINE)
_SPAN = re.compile(r"`[^`\n]*`")
_DIRECTIVE = re.compile(r"^::: ([\w.]+)$", re.MULTILINE)
_KEPT_LINES = re.compile(r"^\x08\n((?:.+\n?)+)", re.MULTILINE)  # after the \b of click
_PAGE_NAMED = re.compile(r"\bdocs/reference/([\w-]+)\.md\b")
_CODE = re.compile(r"<code>([A-Za-z_]\w*)((?:\.\w+)?)(?:\(\))?</code>")


def on_config(config: MkDocsConfig) -> None:
    """Take the address of the repository, if there is one, from the package's metadata."""
    lines = importlib.metadata.metadata("otel-dllogger").get_all("Project-URL") or ()
    addresses = {label.lower(): url for label, _, url in (line.partition(", ") for line in lines)}
    config.repo_url = next(filter(None, map(addresses.get, REPOSITORY_LABELS)), None)
    config.repo_name = config.repo_url and urlsplit(config.repo_url).path.strip("/")
    for command in (cli, *cli.commands.values()):
        command.help = _markdown_of_help(command.help or "")


def _markdown_of_help(text: str) -> str:
    """Return the help of a command as Markdown: examples in code blocks, and links to pages."""
    text = _PAGE_NAMED.sub(r"[\1.md](\1.md)", inspect.cleandoc(text))
    return _KEPT_LINES.sub(lambda match: f"```text\n{match[1].rstrip()}\n```\n", text)


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links to files of the repository into links that work on the site.

    On a Git host, a relative link such as ``../../deploy/bridge`` works as it is. On the site it
    leads to the repository if that has an address, and is plain text otherwise.
    """
    del files
    folder = posixpath.dirname(page.file.src_uri)

    def mend(match: re.Match[str]) -> str:
        is_picture, text, target = match.groups()
        url = urlsplit(target)
        path = posixpath.normpath(posixpath.join("docs", folder, url.path))
        if url.scheme or url.netloc or not url.path or path.startswith("docs/"):
            return match[0]
        if not (ROOT / path).exists():
            _LOG.warning("%s links to %s, which does not exist", page.file.src_uri, target)
        if config.repo_url and not is_picture:
            kind = "tree" if (ROOT / path).is_dir() else "blob"
            anchor = url.fragment and f"#{url.fragment}"
            return f"[{text}]({config.repo_url}/{kind}/main/{path}{anchor})"
        name = posixpath.basename(path)
        return (
            text
            if name in text and "`" in text
            else f"`{path}`"
            if name in text
            else (f"{text} (`{path}`)")
        )

    return _ROW.sub(_show_bars, _LINK.sub(mend, markdown))


def _show_bars(row: re.Match[str]) -> str:
    r"""Return a row of a table without the backslash of ``\|`` in code, as Git hosts show it."""
    return _SPAN.sub(lambda code: code[0].replace(r"\|", "|"), row[0])


def on_page_content(content: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Link each name of the API, and each page, that a docstring mentions.

    Docstrings are read in terminals and editors more often than here, so they have no links.
    """
    del files
    if not page.file.src_uri.startswith(API):
        return content
    names = _api_names(Path(config.docs_dir))

    def link(match: re.Match[str]) -> str:
        if match[1] not in names:
            return match[0]
        identifier = html.escape(names[match[1]] + match[2])
        return f'<autoref identifier="{identifier}" optional>{match[0]}</autoref>'

    content = _PAGE_NAMED.sub(r'<a href="../\1.html">\1.md</a>', content)
    return _CODE.sub(link, content)


def on_post_page(output: str, **_others: object) -> str:
    """Keep browsers from asking the Git host how many stars the repository has."""
    return output.replace(' data-md-component="source"', "")


def _api_names(docs: Path) -> dict[str, str]:
    """Return the path to import each name of the API by."""
    pages = "\n".join(path.read_text(encoding="utf-8") for path in (docs / API).glob("*.md"))
    return {path.rpartition(".")[2]: path for path in _DIRECTIVE.findall(pages)}
