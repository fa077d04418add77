"""The public contract of names and labels: how a logged metric is exported.

The module consists of pure functions over tables. A metric ``train.compute_time`` with unit
``s`` and STAGE TRAIN becomes the OpenTelemetry gauge ``dl.compute_time`` with unit ``s``, which
a Prometheus scrape shows as ``dl_compute_time_seconds{stage="train",kind="duration"}``.

Units are UCUM, suffixes follow OpenTelemetry's Prometheus compatibility rules:
https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/
"""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections.abc import Mapping

from otel_dllogger.metrics.kinds import find_kind
from otel_dllogger.values import HASH_CHARACTERS, key_text, short_hash, to_plain

MAX_LABEL_CHARACTERS = 256
"""The longest label value, in characters; longer ones are cut and made unique by a hash."""

_MAX_SANITIZED_CHARACTERS = 4_000
_MAX_NAME_CHARACTERS = 200  # OpenTelemetry allows 255 in all, Prometheus any number
_MAX_ANNOTATION_CHARACTERS = 61  # OpenTelemetry allows 63 in a unit, two of which are the braces

_STAGES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "eval": "val",
    "evaluation": "val",
    "test": "test",
    "testing": "test",
    "infer": "infer",
    "inference": "infer",
}
_STAGE_TOKEN = re.compile(r"(train|validation|valid|val|eval|test)[./_](?=.)", re.IGNORECASE)

# Typos found in published training scripts are in the table.
_GOALS = {
    "minimize": "minimize",
    "minimise": "minimize",
    "mimimize": "minimize",
    "minimze": "minimize",
    "min": "minimize",
    "maximize": "maximize",
    "maximise": "maximize",
    "maximze": "maximize",
    "maxmize": "maximize",
    "max": "maximize",
}

_SCOPES = {
    "rank": "rank",
    "ranks": "rank",
    "per rank": "rank",
    "local": "rank",
    "process": "rank",
    "gpu": "rank",
    "per gpu": "rank",
    "device": "rank",
    "worker": "rank",
    "global": "global",
    "run": "global",
    "world": "global",
    "all": "global",
    "all ranks": "global",
    "total": "global",
}
_BETWEEN_WORDS = re.compile(r"[\s_-]+")

# UCUM code: (suffix that Prometheus shows, spellings that scripts use)
_UNITS: dict[str, tuple[str, tuple[str, ...]]] = {
    "d": ("days", ("d", "day", "days")),
    "h": ("hours", ("h", "hr", "hrs", "hour", "hours")),
    "min": ("minutes", ("min", "mins", "minute", "minutes")),
    "s": ("seconds", ("s", "sec", "secs", "second", "seconds")),
    "ms": ("milliseconds", ("ms", "msec", "msecs", "millisecond", "milliseconds")),
    "us": ("microseconds", ("us", "usec", "usecs", "microsecond", "microseconds")),
    "ns": ("nanoseconds", ("ns", "nsec", "nsecs", "nanosecond", "nanoseconds")),
    "By": ("bytes", ("b", "byte", "bytes")),
    "KBy": ("kilobytes", ("kb", "kilobyte", "kilobytes")),
    "MBy": ("megabytes", ("mb", "megabyte", "megabytes")),
    "GBy": ("gigabytes", ("gb", "gigabyte", "gigabytes")),
    "TBy": ("terabytes", ("tb", "terabyte", "terabytes")),
    "KiBy": ("kibibytes", ("kib", "kibibyte", "kibibytes")),
    "MiBy": ("mebibytes", ("mib", "mebibyte", "mebibytes")),
    "GiBy": ("gibibytes", ("gib", "gibibyte", "gibibytes")),
    # Spelt as in OpenTelemetry.
    "TiBy": ("tibibytes", ("tib", "tebibyte", "tebibytes", "tibibytes")),
    "%": ("percent", ("%", "percent", "pct")),
    "W": ("watts", ("w", "watt", "watts")),
    "J": ("joules", ("j", "joule", "joules")),
    "Hz": ("hertz", ("hz", "hertz")),
    "Cel": ("celsius", ("c", "°c", "cel", "celsius")),
}
_UNIT_OF_SPELLING = {
    spelling: unit for unit, (_suffix, spellings) in _UNITS.items() for spelling in spellings
}
_UNIT_OF_SUFFIX = {
    suffix: {"By": "B", "%": "%", "Cel": "°C"}.get(unit, unit.replace("By", "B"))
    for unit, (suffix, _spellings) in _UNITS.items()
}
# UCUM code of a rate's denominator: (suffix, spellings)
_PER: dict[str, tuple[str, tuple[str, ...]]] = {
    "s": ("per_second", ("s", "sec", "secs", "second", "seconds")),
    "min": ("per_min", ("m", "min", "minute")),
    "h": ("per_hour", ("h", "hr", "hour")),
    "d": ("per_day", ("d", "day")),
}
_PER_OF_SPELLING = {
    spelling: unit for unit, (_, spellings) in _PER.items() for spelling in spellings
}
_RATE = re.compile(r"(?P<what>.*?)\s*(?:/|\bper\b)\s*(?P<per>[a-z]+)\.?")
_RATE_NAMES = {"fps": "frame", "ips": "item", "it/s": "iteration", "its": "iteration"}
_SINGULARS = {
    "img": "image",
    "imgs": "image",
    "seqs": "sequence",
    "seq": "sequence",
    "it": "iteration",
}
_RATE_IN_NAME = re.compile(r"/\s*(?:s|secs?|seconds?)\s*$", re.IGNORECASE)

_NOT_IN_NAMES = re.compile(r"[^a-z0-9]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029\ud800-\udfff]")


@dataclasses.dataclass(frozen=True, slots=True)
class MetricMetadata:
    """The metadata that a user gave a metric, in the terms of the contract.

    Attributes:
        unit: UCUM, ``""`` if there is none or the rules do not know it.
        goal: ``minimize``, ``maximize`` or None.
        stage: ``train``, ``val``, ``test``, ``infer``, as given in lower case, or None.
        scope: ``rank`` if each rank logs its own value, ``global`` if each logs that of the run,
            or None.
        unit_text: The unit as it was given, where the name of a series does not say it.
    """

    unit: str = ""
    goal: str | None = None
    stage: str | None = None
    scope: str | None = None
    unit_text: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class MappedMetric:
    """How a metric is exported.

    Attributes:
        otel_name: The name of the OpenTelemetry instrument, ``dl.<name>``.
        unit: The unit, UCUM.
        prometheus_name: The name on a scrape, ``dl_<name>[_<unit>]``.
        metric: The value of the ``metric`` label: the name as it was logged.
        stage: The value of the ``stage`` label, or None.
        goal: The value of the ``goal`` label, or None.
        kind: The value of the ``kind`` label, or None.
        unit_label: The value of the ``unit`` label, which says what the name does not; empty if
            there is none.
        scope: The value of the ``scope`` label, or None.
    """

    otel_name: str
    unit: str
    prometheus_name: str
    metric: str
    stage: str | None
    goal: str | None
    kind: str | None
    unit_label: str
    scope: str | None

    @property
    def description(self) -> str:
        """Return a description of the metric in words."""
        return f"Last value logged as {self.otel_name.removeprefix('dl.')}"

    @property
    def attributes(self) -> dict[str, str]:
        """Return the labels that depend on the metric alone."""
        attributes = {"metric": self.metric}
        known = (
            ("stage", self.stage),
            ("goal", self.goal),
            ("kind", self.kind),
            ("unit", self.unit_label),
            ("scope", self.scope),
        )
        attributes.update((label, value) for label, value in known if value)
        return attributes


def parse_metadata(raw: object) -> MetricMetadata:
    """Read the dict of a ``metadata`` call; anything in it that makes no sense counts as absent.

    Args:
        raw: A dict with ``unit``, ``GOAL``, ``STAGE``, ``SCOPE`` and others, any of which may be
            malformed.
    """
    plain = to_plain(raw)
    if not isinstance(plain, Mapping):
        return MetricMetadata()
    unit = parse_unit(plain.get("unit"))
    is_in_name = unit and not unit.startswith(("{", "/"))
    return MetricMetadata(
        unit=unit,
        goal=parse_goal(plain.get("GOAL", plain.get("goal"))),
        stage=parse_stage(plain.get("STAGE", plain.get("stage"))),
        scope=parse_scope(plain.get("SCOPE", plain.get("scope"))),
        unit_text="" if is_in_name else label_text(unit_text(plain.get("unit"))),
    )


def parse_unit(raw: object) -> str:
    """Return a unit as UCUM.

    ``images/s``, ``img/s`` and ``imgs/s`` are one unit, ``{image}/s``. A unit that is in none of
    the tables becomes an annotation, ``{bleu}``, which adds no suffix to a name.

    Args:
        raw: The unit as a script gives it; None and ``"1"`` mean no unit.
    """
    text = unit_text(raw)
    spelling = text.lower()
    if not text:
        return ""
    if spelling in _UNIT_OF_SPELLING:
        return _UNIT_OF_SPELLING[spelling]
    if spelling in _RATE_NAMES:
        return f"{{{_RATE_NAMES[spelling]}}}/s"
    rate = _RATE.fullmatch(spelling)
    if rate and rate["per"] in _PER_OF_SPELLING:
        return f"{_numerator(rate['what'])}/{_PER_OF_SPELLING[rate['per']]}"
    return _annotation(text)


def is_unit(text: str) -> bool:
    """Return whether a word is certainly a unit: one of the tables, or a rate of anything."""
    unit = parse_unit(text)
    return bool(unit) and (not unit.startswith("{") or "/" in unit.partition("}")[2])


def unit_text(raw: object) -> str:
    """Return a unit as a script gives it; empty if it means no unit."""
    text = " ".join(raw.split()) if isinstance(raw, str) else ""
    return "" if text.lower() in ("", "1", "none", "null", "-", "n/a") else text


def _numerator(what: str) -> str:
    if unit := _UNIT_OF_SPELLING.get(what):
        # "b/s" and the like are bytes, but "s/s" or "%/s" is more likely a label.
        return unit if unit.endswith("By") else _annotation(what)
    if what not in _SINGULARS and what.endswith("s") and not what.endswith("ss"):
        what = what[:-1]
    return _annotation(_SINGULARS.get(what, what))


def _annotation(text: str) -> str:
    text = text.strip().strip("{}")
    if not text or not text.isascii() or not text.isprintable() or "{" in text or "}" in text:
        return ""
    return f"{{{text[: _MAX_ANNOTATION_CHARACTERS - 4]}}}"  # room for the "/min" of a rate


def unit_suffix(unit: str) -> str:
    """Return the suffix that a unit adds to a Prometheus name, ``""`` for an annotation.

    Source: OpenTelemetry specification, Prometheus compatibility, "Metric Metadata".

    Args:
        unit: UCUM, as ``parse_unit`` returns it.
    """
    top, slash, bottom = unit.partition("/") if not unit.startswith("{") else _split(unit)
    top_suffix = _UNITS[top][0] if top in _UNITS else ""
    if not slash:
        return top_suffix
    per = _PER[bottom][0]
    return f"{top_suffix}_{per}" if top_suffix else per


def unit_of_name(name: str) -> str:
    """Return the unit that the suffix of a Prometheus name says, for people; empty if none does.

    Args:
        name: The name, such as ``dl_step_time_seconds``.
    """
    top, _, per = name.rpartition("_per_")
    unit = next((code for code, (suffix, _) in _PER.items() if suffix == f"per_{per}"), "")
    what = _UNIT_OF_SUFFIX.get((top if unit else name).rpartition("_")[2], "")
    return f"{what or 1}/{unit}" if unit else what


def _split(unit: str) -> tuple[str, str, str]:
    annotation, _brace, rest = unit.partition("}")
    return f"{annotation}}}", rest[:1], rest[1:]


def parse_goal(raw: object) -> str | None:
    """Return ``minimize``, ``maximize``, or None for NONE and anything else."""
    return _GOALS.get(raw.strip().lower()) if isinstance(raw, str) else None


def parse_stage(raw: object) -> str | None:
    """Return a stage from the table, or the given text in lower case if it is not in the table."""
    if not isinstance(raw, str):
        return None
    stage = raw.strip().lower()
    return None if stage in ("", "none") else _STAGES.get(stage, label_text(stage))


def is_stage(raw: str) -> bool:
    """Return whether a stage is in the table, or says that there is none."""
    return raw.strip().lower() in ("", "none", *_STAGES)


def parse_scope(raw: object) -> str | None:
    """Return ``rank``, ``global``, or None for NONE and anything else."""
    if not isinstance(raw, str):
        return None
    return _SCOPES.get(_BETWEEN_WORDS.sub(" ", raw.strip().lower()))


def is_scope(raw: str) -> bool:
    """Return whether a scope is in the table, or says that there is none."""
    return raw.strip().lower() in ("", "none") or parse_scope(raw) is not None


def map_metric(name: str, metadata: MetricMetadata) -> MappedMetric:
    """Return how a metric is exported.

    Args:
        name: The name as it was logged.
        metadata: What is known about it; empty if nothing is.
    """
    base, stage = _split_stage(name, metadata.stage)
    kind = find_kind(name, unit=metadata.unit or metadata.unit_text, goal=metadata.goal)
    suffix = unit_suffix(metadata.unit)
    base = _without_unit(_sanitize(base), metadata.unit) or suffix
    return MappedMetric(
        otel_name=f"dl.{base}",
        unit=metadata.unit,
        prometheus_name=f"dl_{base}" if suffix in ("", base) else f"dl_{base}_{suffix}",
        metric=label_text(name),
        stage=stage,
        goal=metadata.goal,
        kind=kind.kind,
        unit_label=metadata.unit_text or kind.unit,
        # The share that one rank reaches stands for the run: shares do not add up.
        scope=metadata.scope or ("global" if kind.is_share else None),
    )


def find_stage(name: str, metadata: MetricMetadata) -> str | None:
    """Return the stage that ``map_metric`` gives a metric, and nothing else, which is fast.

    Args:
        name: The name as it was logged.
        metadata: What is known about it.
    """
    return _split_stage(name, metadata.stage)[1]


def _split_stage(name: str, stage: str | None) -> tuple[str, str | None]:
    """Return a name without a token in front that agrees with the stage, and the stage."""
    token = _STAGE_TOKEN.match(name)
    if token:
        token_stage = _STAGES[token[1].lower()]
        if stage is None or stage == token_stage:
            return name[token.end() :], token_stage
    return name, stage


def _sanitize(name: str) -> str:
    """Return a name as lower-case letters, digits and single underscores."""
    # A name of a megabyte, which is data logged by mistake, would take a tenth of a second.
    name = _RATE_IN_NAME.sub("_per_second", name[:_MAX_SANITIZED_CHARACTERS])
    letters = unicodedata.normalize("NFKD", name).lower()
    letters = "".join(c for c in letters if not unicodedata.combining(c))
    return _NOT_IN_NAMES.sub("_", letters)[:_MAX_NAME_CHARACTERS].strip("_") or "unnamed"


def _without_unit(base: str, unit: str) -> str:
    """Remove a unit from the end of a name, so that the suffix does not repeat it.

    Returns:
        The rest; empty if the name consists only of the unit.
    """
    if unit in _UNITS:
        spellings = _UNITS[unit][1]
    elif unit.endswith("/s"):
        spellings = ("per_second", "per_sec")
    else:
        return base
    for spelling in sorted(spellings, key=len, reverse=True):
        if base == spelling or base.endswith(f"_{spelling}"):
            return base[: -len(spelling)].rstrip("_")
    return base


def label_text(value: object) -> str:
    """Return a value as text that any Prometheus page and any OTLP message can carry.

    Printable text of moderate length stays exactly as it is. Control characters and lone
    surrogates are escaped and long text is cut; a short hash then keeps different texts
    different.
    """
    text = value if isinstance(value, str) else key_text(value)
    safe = _CONTROL.sub(lambda m: f"\\u{ord(m[0]):04x}", text[: MAX_LABEL_CHARACTERS + 1])
    if len(safe) > MAX_LABEL_CHARACTERS:
        safe = safe[: MAX_LABEL_CHARACTERS - HASH_CHARACTERS - 1]
    if safe == text:
        return text
    return f"{safe}~{short_hash(text)}"
