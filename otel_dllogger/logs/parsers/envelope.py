r"""Take a line out of what launchers, containers and terminals put around it.

=====================================================  ============================================
around the line                                        from
=====================================================  ============================================
a byte order mark and two bytes a character            PowerShell's ``>``
``{"log":"...\n","stream":"stdout","time":"..."}``     Docker's json-file driver
``2024-05-01T10:00:00.1Z stdout F ...``                Kubernetes (CRI)
``[1,3]<stdout>:``, ``[prterun-node@1,3]<stdout>:``,   mpirun ``--tag-output`` of Open MPI: job,
``[1,3][node:4242]<stdout>:``                          rank
``[3]<stdout>:``                                       Horovod
``[rank3]:``, ``[rank: 3]``                            PyTorch, Lightning, torchtitan
``[default3]:``, ``[trainer3]:``                       torchrun ``--tee``: the role, the local rank
``3: ``, ``  3: ``                                     srun ``--label``
``[3] ``, ``[3]:``, ``3:`` before a record             MPICH and Intel MPI, ``-prepend-rank``
``Iteration:  23%|##3  | 650/2771 [01:23<04:25]``      tqdm's progress bars, before or behind
escape sequences                                       terminals' colours
=====================================================  ============================================

The time of a container's line is that of records that have none. The rank in a tag is that of the
line's records, unless their data name another.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from orjson import JSONDecodeError, loads

from otel_dllogger.logs.parsers.context import MAX_LINE_BYTES

if TYPE_CHECKING:
    from otel_dllogger.logs.parsers.context import FileContext

_UTF8_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
_ESCAPES = re.compile(rb"\x1b(?:\[[0-9;:?]{0,40}[@-~]|\(B)")
DOCKER = (b'{"log":', b'{"log" :')
"""How a line of Docker's json-file driver begins."""

_CRI = re.compile(
    rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)) (?:stdout|stderr) ([FP])"
    rb"(?::\S{1,20})? ?"
)
_BAR = re.compile(
    rb"(?:[A-Za-z][^\r\n:|]{0,80}:)?[ \t]*\d{1,3}%\|[^|\r\n]{0,400}\|[^\[\]\r\n]{0,80}"
    rb"\[[^\[\]\r\n]{0,120}\]"
)

# mpirun can put a time before its tag, as ctime writes it or in ISO 8601.
_TIME = (
    rb"(?:(?:(?:[A-Z][a-z]{2} ){2}[ \d]\d \d\d:\d\d:\d\d \d{4}"
    rb"|\[?\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?\]?)[ \t]*)?"
)
_TAG = re.compile(
    rb"[ \t]*"
    + _TIME
    + rb"(?P<tag>\[(?:[\w.@-]{0,100}@)?(?:\d{1,9},)?(?P<mpi>\d{1,9})(?::[^\]\s]{1,100})?\]"
    rb"(?:\[[\w.:-]{1,100}\])?<std(?:out|err|diag)>:"
    rb"|\[\d{1,9},(?P<job>\d{1,9})\]:"
    rb"|\[(?:global[_ -]?)?rank[_ -]?:? ?(?P<rank>\d{1,9})\]:?"
    rb"|\[(?!(?i:epoch|step|iter|iteration|batch|time)\d)(?P<role>[A-Za-z][A-Za-z._-]{0,40})"
    rb"(?P<local>\d{1,5})\]:)[ \t]?",
    re.IGNORECASE,
)
# "[0] " of MPICH and Intel MPI, "0:" of others: only before what begins a record.
_LABEL = re.compile(
    rb"[ \t]*(?P<tag>(?P<task>\d{1,7}):) "
    rb"|(?P<short>\[(?P<hydra>\d{1,7})\]:? ?|(?P<bare>\d{1,7}):)"
    rb"(?=DLL|TCAPPDLL |\{\"|\d{4}/\d\d/|(?:Epoch|Iter)\(| ?iteration +\d)"
)
_RANK_GROUPS = ("mpi", "job", "rank", "local", "task", "hydra", "bare")
_MAX_TAGS = 4


def unwrap(line: bytes, context: FileContext) -> bytes:
    """Return the line itself; its rank and its time, if they are around it, go to the context.

    Args:
        line: A line of the file.
        context: The file. ``rank`` is set for this line, ``outer_us`` if a container's time is
            there; the beginning of a line that a container cut is kept until its end comes.
    """
    if context.encoding:
        line = _decode(line, context.encoding)
    elif line[:2] in _UTF16_MARKS and context.offset_bytes <= len(line) + 1:
        context.encoding = _UTF16_MARKS[line[:2]]
        line = _decode(line[2:], context.encoding)
    line = line.removeprefix(_UTF8_MARK).rstrip(b"\r\n")
    if line.startswith(DOCKER):
        line = _read_docker(line, context)
    elif line[10:11] == b"T" and (found := _CRI.match(line)):
        context.outer_us = context.read_datetime(found[1].decode())
        line = _whole(line[found.end() :], found[2] == b"F", context)
    if b"\x1b" in line:
        line = _ESCAPES.sub(b"", line)
    first = line[:1]
    if first and first in b"[ \t0123456789ADFJMNOSTW":
        line = _take_tags(line, context)
    if b"%|" in line:
        line = _BAR.sub(b"\r", line)
    return line


def _decode(line: bytes, encoding: str) -> bytes:
    """Return a line of two bytes a character as UTF-8; it was split at the bytes of newlines."""
    if encoding == "utf-16-le":
        line = line.removesuffix(b"\n")  # the first byte of the newline; the second begins a line
        line = line[1:] if len(line) % 2 else line
    elif len(line) % 2:
        line = line[:-1]
    return line.decode(encoding, "replace").encode("utf-8", "replace")


def _read_docker(line: bytes, context: FileContext) -> bytes:
    try:
        fields = loads(line)
        text = fields["log"]
        if type(text) is not str:
            return line
        context.outer_us = context.read_datetime(str(fields.get("time", "")))
        return _whole(text.rstrip("\r\n").encode(), text.endswith("\n"), context)
    except (JSONDecodeError, KeyError, UnicodeEncodeError):
        return line


def _whole(part: bytes, is_end: bool, context: FileContext) -> bytes:
    """Return a line that a container may have cut, nothing as long as its end is missing."""
    before = context.cut
    if is_end:
        context.cut = ""
        return before.encode("utf-8", "surrogateescape") + part if before else part
    if len(before) + len(part) <= MAX_LINE_BYTES:
        context.cut = before + part.decode("utf-8", "surrogateescape")
    return b""


def _take_tags(line: bytes, context: FileContext) -> bytes:
    """Remove the tags at the beginning of a line; the last one that names a rank counts."""
    at = 0
    for _ in range(_MAX_TAGS):
        found = _TAG.match(line, at) or _LABEL.match(line, at)
        if found is None:
            break
        at = found.end()
        _note_rank(found, context)
    return line[at:]


def _note_rank(found: re.Match[bytes], context: FileContext) -> None:
    given = found.groupdict()
    kind = next(kind for kind in _RANK_GROUPS if given.get(kind) is not None)
    rank = int(given[kind])
    if rank in context.ranks_by:
        context.rank = rank
    else:
        what = "a local rank of torchrun" if kind == "local" else ""
        tag = (given.get("tag") or given["short"]).decode("ascii", "replace").strip()
        context.note_rank(rank, f"the tag {tag}" + (f", {what}" if what else ""))
        if kind == "local":
            context.guesses.setdefault(
                "rank",
                f"{tag} of torchrun --tee is the local rank: it is taken as the rank, which it is "
                "on one node",
            )
