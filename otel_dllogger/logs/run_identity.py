"""Find the run, rank and host of a log file from its path."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple

from otel_dllogger.errors import ConfigurationError
from otel_dllogger.identity import clean_run
from otel_dllogger.logs.parsers.event_names import EVENT_NAME, path_stage
from otel_dllogger.logs.tail.find_files import split_glob

if TYPE_CHECKING:
    from collections.abc import Iterable

_FIELDS = ("run", "rank", "host")
_FIELD_TEXTS = {"run": "[^/]+", "rank": "[0-9]{1,9}", "host": "[^/]+"}
_FIELD_OR_STAR = re.compile(r"\{([^{}]*)\}|(\*+)|([{}])")

# The endings of a log's name, and what rotation or compression adds to it.
_NAME = re.compile(
    r"(?P<stem>.+?)(?:\.(?:json|jsonl|log|txt|out|err|csv))+"
    r"(?P<rotated>(?:[.-][0-9]{1,14}|\.(?:gz|bz2|xz|zst|old|bak))*)",
    re.IGNORECASE | re.DOTALL,
)

# Ranks as whole words: resnet50, lr3e-4, ranked3 and dropout_r0.5 hold none. The first pattern
# that matches counts, and of its matches the last one: "lora_r16_rank3" is rank 3.
_RANKS = (
    re.compile(
        r"(?<![^\W_])(?:global[_-]?)?rank[_.-]?(?P<rank>[0-9]{1,9})(?![^\W_])", re.IGNORECASE
    ),
    re.compile(r"(?<![^\W_])r(?P<rank>[0-9]{1,9})(?![^\W_]|\.[0-9])", re.IGNORECASE),
)
# A node before a port is the address in a run's name, as in train-node1-29500 (identity.py).
_BESIDE_RANK = re.compile(
    r"(?<![^\W_])(?:node|host|device|gpu|local[_-]?rank)[_-]?[0-9]{1,9}"
    r"(?![^\W_]|-[0-9]{4,5}(?![^\W_]))",
    re.IGNORECASE,
)
_PLACE = re.compile(
    r"(?:rank[_.-]?|r|(?:node|host)[_-]?)[0-9]{1,9}|checkpoint-[0-9]+", re.IGNORECASE
)
# If the file's name says the rank, a folder r3 does not: it belongs to the third run.
_PLACE_OF_RANKED = re.compile(
    r"(?:rank[_.-]?|(?:node|host)[_-]?)[0-9]{1,9}|checkpoint-[0-9]+", re.IGNORECASE
)


class _Layout(NamedTuple):
    """How a launcher arranges the output of its processes.

    Attributes:
        path: What a path without the ending of a log must match.
        rank_by: Where the rank comes from; ``{folder}`` is the name of the file's folder.
    """

    path: re.Pattern[str]
    rank_by: str


_LAYOUTS = (
    # torchrun --log-dir; each start of the workers is another attempt.
    _Layout(
        re.compile(
            r".*?/(?P<run>[^/]+)/attempt_[0-9]+/(?P<rank>[0-9]{1,9})/std(?:out|err)", re.DOTALL
        ),
        "the folder {folder} of torchrun, a local rank",
    ),
    # mpirun --output-filename OUT, with and without the number of the job.
    _Layout(
        re.compile(
            r".*?/(?P<run>[^/]+)/(?:[0-9]+/)?rank\.(?P<rank>[0-9]{1,9})/std(?:out|err)", re.DOTALL
        ),
        "the folder {folder}",
    ),
)
"""They mean what they mean wherever they are, above a root as well."""

# sbatch's slurm-%j.out and slurm-%A_%a.out; identity.py names the run of a job alike.
_SLURM_NAME = re.compile(r"slurm-(?P<run>[0-9]+(?:_[0-9]+)?)")

# MMEngine 0.10, logging/logger.py: <name>_<user>@<host>_device<local rank>_rank<rank>.log, where
# the host may be missing. The name is usually a time; one that a user chose may hold underscores.
_MMENGINE_NAMES = tuple(
    re.compile(rf"(?P<name>{name})(?:_(?P<host>{host}))?_device[0-9]+_rank(?P<rank>[0-9]{{1,9}})")
    for name, host in (("[0-9]{8}_[0-9]{6}", ".+"), (".+?", "[^_]+"))
)
_TIMESTAMP = re.compile(r"[0-9]{8}_[0-9]{6}")
# As TensorBoard's SummaryWriter and Transformers name the folder of a start, in a folder runs.
_START = re.compile(r"[A-Z][a-z]{2}[0-9]{2}_[0-9]{2}-[0-9]{2}-[0-9]{2}_.+", re.DOTALL)

_GENERIC = re.compile(
    r"log(?:s|ger|files?)?|dl{2,3}(?:og(?:ger)?)?|nvlog|tcap.*|train(?:ing)?|metrics?|scalars?"
    r"|out(?:puts?)?|std(?:out|err)|err|console|raport|report|experiment|jsonl?|txt|tb|tensorboard"
    r"|csv|results?|progress|trainer|state|summary|history|loss(?:es)?|debug|default|main"
    r"|nohup|slurm"
    r"|rank|local|global|node|host|device"
)
"""Words that do not name a run; ``experiment_raport.json`` is the default of NVIDIA's examples."""

_SCALARS_FOLDER = "vis_data"
_JOINTS = "._- "


class RunIdentity(NamedTuple):
    """The run, rank and host that a log file belongs to.

    Attributes:
        run: The run, as ``identity.clean_run`` returns it; never empty.
        rank: The rank of records that do not name theirs.
        host: The host, None if it is not known.
        rank_by: Where the rank comes from, in words, such as "the file name"; empty if nothing
            says one, so that 0 is assumed.
        is_run_given: Whether the user named the run, or said where its name is in the path.
    """

    run: str
    rank: int
    host: str | None
    rank_by: str = ""
    is_run_given: bool = False


class RunIdentities:
    """The rules that find a file's run, rank and host in its path.

    For each of run, rank and host, the first of these rules that finds something applies:

    ====  ======================================================================================
    run   ``run``, for every file
    run   ``{run}`` of the first pattern that matches
    run   the folder of a launcher: ``ID`` of torchrun's ``ID/attempt_0/3/stdout.log``, ``OUT`` of
          mpirun's ``OUT/1/rank.3/stdout``
    run   the job, and the task of an array, of Slurm's ``slurm-4242_7.out``: ``4242_7``
    run   never the name of an event file of TensorBoard, which holds a time and a host; nor its
          folder, if that is named after a stage: ``resnet/validation/events...`` is ``resnet``
    run   the file's name without its rank, if a word is left that is not generic:
          ``myrun_rank3.json`` is ``myrun``, ``train_log_rank3.json`` gives nothing
    run   the nearest folder upwards that has such a word and is not a rank's, a node's or a
          checkpoint's: ``resnet50/logs/rank3/log.json`` is ``resnet50``. If a folder passed on
          the way (the nearest one), or else the file's name, is a time as MMEngine writes it,
          the time is added: ``resnet50/20250816_120000/vis_data/scalars.json`` is
          ``resnet50/20250816_120000``. So is a folder that is named after a time and a host:
          ``bert/runs/Nov28_12-00-00_node1/events...`` is ``bert/Nov28_12-00-00_node1``
    run   the nearest folder that is not a rank's, a node's or a time; the file's name;
          ``unknown``
    rank  ``{rank}`` of the first pattern that matches
    rank  the folder of a launcher; torchrun's says the local rank
    rank  the file's name: ``rank3``, ``rank_3``, ``rank-3`` or ``r3`` as a whole word in any
          case; the last one, and ``rank`` before ``r``
    rank  the nearest folder that holds such a word, up to and including the root. The root of
          a file that was given by name is its folder; the root of a glob is the part before
          its first wildcard
    rank  0
    host  ``{host}`` of the first pattern that matches
    host  the name of MMEngine's files, ``<name>_<user>@<host>_device0_rank3.log``, and of event
          files
    ====  ======================================================================================

    A number of more than 9 digits is not a rank. Rotation changes nothing: ``log.json.1`` and
    ``log.json-20250101`` count as ``log.json``.

    Args:
        roots: The files, folders and globs that are followed.
        run: The run of every file; empty counts as not given.
        patterns: Ends of paths, made of whole names, such as ``{run}/node-{host}/r{rank}.log``.
            ``{rank}`` matches digits; the other fields and ``*`` match any text without a ``/``.
            A pattern that begins with ``/`` is a whole path.

    Raises:
        ConfigurationError: If a pattern is invalid.
    """

    def __init__(
        self, roots: Iterable[str], *, run: str | None = None, patterns: Iterable[str] = ()
    ) -> None:
        # The widest first, so that their order does not matter.
        self._roots = sorted({split_glob(root)[0] for root in roots}, key=len)
        self._run = clean_run(run or "")
        self._patterns = [_parse_pattern(pattern) for pattern in patterns]

    def of(self, path: str) -> RunIdentity:
        """Return the run, rank and host that a file belongs to.

        Args:
            path: The file, which need not exist.
        """
        whole = os.path.abspath(path)  # noqa: PTH100 - links stay
        said, rest = self._match(whole)
        *folders, name = rest.split("/")
        if path_stage(rest) is not None:
            del folders[-1]
        if folders[-2:-1] == ["runs"] and _START.fullmatch(folders[-1]):
            del folders[-2]  # it says nothing, but the folder above it does
        launched = _read_layout(rest)
        rank, host, stem = _read_name(name)
        rank_by = "" if rank is None else "the file name"
        place = _PLACE if rank is None else _PLACE_OF_RANKED
        if "rank" in said:
            rank, rank_by = int(said["rank"]), "the pattern"
        elif launched is not None:
            rank, rank_by = launched.rank, launched.rank_by
        elif rank is None:
            for i in range(len(folders) - 1, self._first_folder(whole) - 1, -1):
                rank, left = _split_rank(folders[i])
                if rank is not None:
                    rank_by, folders[i] = f"the folder {clean_run(folders[i])}", left
                    break
        given = self._run or clean_run(said.get("run", ""))
        return RunIdentity(
            run=given
            or (launched.run if launched else "")
            or clean_run("/".join(filter(None, _find_run(folders, stem, place))))
            or "unknown",
            rank=rank or 0,
            host=clean_run(said.get("host", host or "")) or None,
            rank_by=rank_by,
            is_run_given=bool(given),
        )

    def _match(self, path: str) -> tuple[dict[str, str], str]:
        """Return the fields of the first matching pattern, and the path without rank and host."""
        stem = _stem(path)
        for pattern in self._patterns:
            found = pattern.fullmatch(path) or pattern.fullmatch(_without_rotation(path))
            if found is not None:
                said = found.groupdict()
                spans = [found.span(field) for field in ("rank", "host") if field in said]
                # If the pattern has no {run}, the files of all ranks must still agree on the run.
                return said, _without_spans(stem, spans)
        return {}, stem

    def _first_folder(self, path: str) -> int:
        """Return the index, among a path's names, of the root that it was found under."""
        folder = os.path.dirname(path)  # noqa: PTH120
        for root in self._roots:
            if root in (path, "/"):
                break
            if f"{folder}/".startswith(f"{root}/"):
                return root.count("/")
        else:
            return folder.count("/")  # a link's target
        return 0 if root == "/" else folder.count("/")


def find_stamp(path: str) -> str:
    """Return the time that a file or its folder is named after, ``""`` if there is none."""
    *folders, name = _stem(os.path.abspath(path)).split("/")  # noqa: PTH100 - links stay
    _rank, _host, stem = _read_name(name)
    return _find_run(folders, stem)[1]


def _parse_pattern(pattern: str) -> re.Pattern[str]:
    """Return a regular expression that matches a whole path.

    Raises:
        ConfigurationError: If the pattern is invalid.
    """
    fields: list[str] = []
    regex = "" if pattern.startswith("/") else "(?:.*/)?"
    at = 0
    for found in _FIELD_OR_STAR.finditer(pattern):
        regex += re.escape(pattern[at : found.start()])
        at = found.end()
        if found[2]:
            regex += "[^/]*"
            continue
        if found[3] or found[1] not in _FIELDS:
            raise _bad_pattern(pattern, f"{found[0]!r} is not a field")
        if found[1] in fields:
            raise _bad_pattern(pattern, f"{found[0]} is in it twice")
        fields.append(found[1])
        regex += f"(?P<{found[1]}>{_FIELD_TEXTS[found[1]]})"
    if not fields:
        raise _bad_pattern(pattern, "it has no field")
    if pattern.endswith("/"):
        raise _bad_pattern(pattern, "it ends in a folder")
    return re.compile(regex + re.escape(pattern[at:]), re.DOTALL)


def _bad_pattern(pattern: str, rule: str) -> ConfigurationError:
    return ConfigurationError(
        f"pattern {pattern!r}: {rule}; name files with {{run}}, {{rank}} or {{host}}, each at most "
        "once, as in '{run}_rank{rank}.json'"
    )


def _without_rotation(path: str) -> str:
    """Return a path as it was before the file was rotated."""
    folder, slash, name = path.rpartition("/")
    found = _NAME.fullmatch(name)
    return path if found is None else folder + slash + name[: found.start("rotated")]


def _stem(path: str) -> str:
    """Return a path without the ending of a log; any other ending is part of the name."""
    folder, slash, name = path.rpartition("/")
    found = _NAME.fullmatch(name)
    return path if found is None else folder + slash + found["stem"]


def _read_layout(stem: str) -> RunIdentity | None:
    """Return what the folders of a launcher say.

    Args:
        stem: The path, without the ending of a log.
    """
    for layout in _LAYOUTS:
        found = layout.path.fullmatch(stem)
        if found is not None:
            rank_by = layout.rank_by.format(folder=stem.split("/")[-2])
            return RunIdentity(clean_run(found["run"]), int(found["rank"]), None, rank_by)
    return None


def _read_name(stem: str) -> tuple[int | None, str | None, str]:
    """Return the rank and the host in a file's name, and the rest of the name."""
    found = EVENT_NAME.fullmatch(stem)
    if found is not None:
        return _split_rank(found["rest"])[0], found["host"], ""
    for pattern in _MMENGINE_NAMES:
        found = pattern.fullmatch(stem)
        if found is not None:
            host = (found["host"] or "").rpartition("@")[2].partition(".")[0]
            return int(found["rank"]), host, found["name"]
    rank, left = _split_rank(stem)
    job = _SLURM_NAME.fullmatch(left)
    return rank, None, left if job is None else job["run"]


def _split_rank(text: str) -> tuple[int | None, str]:
    """Split a name into the rank and the rest, without the rank, the device and the node."""
    bare = text
    for found in reversed(list(_BESIDE_RANK.finditer(text))):
        bare = _without(bare, *found.span())
    for name in (bare, text):  # a local rank is better than none
        for pattern in _RANKS:
            ranks = list(pattern.finditer(name))
            if ranks:
                return int(ranks[-1]["rank"]), _without(name, *ranks[-1].span())
    return None, text


def _without(text: str, start: int, end: int) -> str:
    """Remove a part of a name, with the rest of its word and what joins that to other words."""
    while start > 0 and text[start - 1].isalnum():
        start -= 1
    while end < len(text) and text[end].isalnum():
        end += 1
    left, right = text[:start].rstrip(_JOINTS), text[end:].lstrip(_JOINTS)
    return left + text[start - 1] + right if left and right else left + right


def _without_spans(path: str, spans: list[tuple[int, int]]) -> str:
    """Remove parts of the names in a path."""
    for start, end in sorted(spans, reverse=True):
        if end <= len(path):  # not in the ending, which is already gone
            first = path.rfind("/", 0, start) + 1
            last = path.find("/", end)
            last = len(path) if last < 0 else last
            name = _without(path[first:last], start - first, end - first)
            path = path[:first] + name + path[last:]
    return path


def _find_run(folders: list[str], stem: str, place: re.Pattern[str] = _PLACE) -> tuple[str, str]:
    """Return the name of a run and the time that belongs to it; either may be empty.

    Args:
        folders: The names of the folders, the topmost first.
        stem: The rest of the file's name.
        place: Matches the name of a rank's or node's folder.
    """
    is_time = _TIMESTAMP.fullmatch(stem) is not None
    if not is_time and _names_run(stem, place):
        return stem, ""
    stamp = fallback = ""
    for folder in reversed(folders):
        if _TIMESTAMP.fullmatch(folder) or _START.fullmatch(folder):
            stamp = stamp or folder
        elif _names_run(folder, place):
            return folder, stamp or (stem if is_time else "")
        elif not place.fullmatch(folder):
            fallback = fallback or folder
    stamp = stamp or (stem if is_time else "")
    return fallback or ("" if stamp else stem), stamp


def _names_run(text: str, place: re.Pattern[str]) -> bool:
    """Return whether a name holds a word that is not generic."""
    text = text.lower()
    if text == _SCALARS_FOLDER or place.fullmatch(text):
        return False
    words = filter(None, re.split(r"[\W_]+", text))
    return not all(map(_GENERIC.fullmatch, words))
