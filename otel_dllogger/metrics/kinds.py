"""What a metric is: a loss, a score, a throughput, a duration and so on.

Metadata decides where it says enough: a unit, a GOAL. Otherwise the name does, by one table. No
kind is better than a wrong one, since dashboards and alerts select by kind. A unit that is guessed
from a name becomes a label, and never changes the name of a series.
"""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

LOSS = "loss"
SCORE = "score"
THROUGHPUT = "throughput"
STEP_RATE = "step_rate"
DURATION = "duration"
LEARNING_RATE = "learning_rate"
GRADIENT_NORM = "gradient_norm"

KINDS = (LOSS, SCORE, THROUGHPUT, STEP_RATE, DURATION, LEARNING_RATE, GRADIENT_NORM)
"""All kinds. The values of ``score`` are better if they are higher, those of ``loss`` if lower."""

_MAX_CHARACTERS = 256  # of a name, and of a unit, that are looked at
_MAX_UNIT_CHARACTERS = 32  # of a unit that a name has in brackets


class Kind(NamedTuple):
    """What a metric is.

    Attributes:
        kind: One of ``KINDS``, or None.
        unit: The unit that the name says or implies; empty if the metadata has a unit.
        by_convention: Whether the unit is only what frameworks usually mean by such a name.
        is_share: Whether it is a share of what is possible, such as MFU, so that the values of
            ranks do not add up.
    """

    kind: str | None = None
    unit: str = ""
    by_convention: bool = False
    is_share: bool = False


_NOTHING = Kind()


class _Row(NamedTuple):
    kind: str
    words: re.Pattern[str]
    unless: re.Pattern[str]
    unit: str = ""


_SPREAD = "std|stdev|stderr|var|variance"  # of values that are of the kind


def _row(kind: str, words: str, unless: str = "(?!)", unit: str = "") -> _Row:
    return _Row(
        kind, re.compile(rf"\b(?:{words})\b"), re.compile(rf"\b(?:{unless}|{_SPREAD})\b"), unit
    )


_PER_STEP = r"per (?:its?|iters?|iterations?|steps?|batch(?:es)?|updates?)"
_NOT_A_LEVEL = (
    "scale|scaler|scaling|weights?|coef|coefficient|factor|mult|multiplier|ratio|decay|count|num"
    "|threshold|patience|spikes?|deltas?|diff|gap"
    # How many; but Megatron-LM draws its loss "vs samples" as well.
    "|(?<!vs )(?:tokens|samples)$"
    # The epoch or step of the best value, not the value.
    "|best .*(?:epoch|step|iter|iteration)"
)
# FLOP that are counted, not per second, and what the hardware could do.
_NOT_A_RATE = (
    rf"total|num|count|sum|peak|promised|theoretical|{_PER_STEP}|per (?:sample|token|image|epoch)"
)
# Times that are not of a step: they are longer, point at a moment, are a setting, or say how
# long a recording is.
_OF_A_RUN = (
    r"(?:eta|remaining|left|elapsed|total|epochs?|wall|start|end|since|run|best|real|date|e2e"
    r"|timestamps?|stamp|unix|current|uptime|runtime|timeout|age|audio|speech|video)"
)
_NOT_OF_A_STEP = rf"^(?!.*\b{_PER_STEP}).*\b{_OF_A_RUN}"

# The words of a name, in lower case and with single blanks between them, are searched for the
# rows in this order: the first one that is found, and whose `unless` is not, is the kind.
_TABLE = (
    _row(DURATION, rf"time(?: {_PER_STEP})?$", _NOT_OF_A_STEP, unit="s"),
    _row(
        LEARNING_RATE,
        r"lr\d*|learning rate|learningrate",
        f"{_NOT_A_LEVEL}|loss|steps|epochs|time|scheduler step",
    ),
    _row(
        GRADIENT_NORM,
        r"(?:grads?|gradients?) (?:.* )?norms?|gradnorm|gnorm",
        f"{_NOT_A_LEVEL}|clip|clipping|limit|loss|time",
    ),
    _row(
        LOSS,
        r"(?:log)?loss\d*|losses(?: \d+)?$",
        f"{_NOT_A_LEVEL}|rate|packet|time|less|grads?|lr$",
    ),
    _row(
        SCORE,
        r"acc\d*|accuracy|top ?\d+|m?ap\d*|(?:sacre)?bleu\d*|rouge(?:\d+|l|lsum)?|meteor|cider|f1"
        r"|m?iou\d*|auc|auroc|auprc|dice|precision|recall|ndcg|mrr|hr \d+|psnr|ssim|mcc"
        r"|exact match",
        f"{_NOT_A_LEVEL}|error|err|cost|size|time|grads?|gradients?|steps|features?|attention|heat"
        r"|depth|memory|bits|amp|mixed|fp\d+|bf\d+|matmul|experts?",
    ),
    _row(
        LOSS,
        # That of the codes of a quantizer says how many of them are in use.
        r"nll|ppl|perplexity|cross entropy|crossentropy|xent|mse|rmse|mae|bpb|bpc|bpd"
        r"|bits per (?:byte|char|character|dim|token)",
        f"{_NOT_A_LEVEL}|time|codes?|codebooks?|prob|vq|quantizer",
    ),
    _row(THROUGHPUT, "mfu|hfu"),
    _row(THROUGHPUT, r"ips", unit="items/s"),
    _row(THROUGHPUT, r"fps", unit="frames/s"),
    _row(THROUGHPUT, r"tps", unit="tokens/s"),
    _row(THROUGHPUT, r"wps", unit="words/s"),
    _row(THROUGHPUT, r"tflops", _NOT_A_RATE, unit="TFLOP/s"),
    _row(THROUGHPUT, r"pflops", _NOT_A_RATE, unit="PFLOP/s"),
    _row(
        THROUGHPUT,
        "throughput",
        "network|net|disk|io|memory|pcie|nvlink|nic|bus|read|write|loss|time|ratio|h2d|d2h"
        "|checkpoint|ckpt|storage|comm|communication|all ?reduce",
    ),
    # Only the speed of training: not that of light, of a fan or of the wind.
    _row(
        THROUGHPUT,
        r"^(?:(?:train|training|val|validation|eval|test|avg|average|mean|current|global|total)"
        r" )*speed(?: per [a-z]+)?$",
    ),
    _row(STEP_RATE, "ups", unit="updates/s"),
)
_SHARES = re.compile(r"\b[mh]fu\b")

_THINGS = re.compile(
    r"tok(?:en)?s?|samples?|images?|imgs?|items?|seqs?|sequences?|sentences?|words?|examples?"
    r"|frames?|records?|rows?|pixels?|voxels?|points?|atoms?|molecules?|graphs?|documents?|docs?"
    r"|queries|requests?|utterances?|clips?|videos?|instances?|patches|pairs?|chars?|characters?"
    r"|[kmgtpe]?flops?"
)
_STEPS = re.compile(r"its?|iters?|iterations?|steps?|batch(?:es)?|updates?|epochs?")
# Steps of an environment are what its agent learns from, as samples are, not steps of training.
_SAMPLED_STEPS = re.compile(r"\b(?:env|environment|agent|sim|simulation) steps? per ")
_BYTES = re.compile(r"(?:[kmgt]i?)?by")  # UCUM
_PERIODS = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("min", "minute"), "min"),
    **dict.fromkeys(("h", "hr", "hour"), "h"),
    **dict.fromkeys(("d", "day"), "d"),
}
_EACH = r"(?: per (?P<{}>gpu|npu|tpu|device|rank|chip|card|node|worker|core))?"
_RATE = re.compile(
    rf"\b(?P<what>[a-z]+){_EACH.format('before')} per (?P<period>{'|'.join(_PERIODS)})"
    rf"{_EACH.format('after')}$"
)
_PER_EACH = re.compile(_EACH.format("each") + "$")

_TIMES = frozenset(("d", "h", "min", "s", "ms", "us", "ns"))  # UCUM
_SECONDS = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("ms", "msec", "msecs", "millisecond", "milliseconds"), "ms"),
    **dict.fromkeys(("us", "usec", "usecs", "microsecond", "microseconds"), "us"),
}
_IN_SECONDS = re.compile(
    rf"(?<!\bper )\b(?P<unit>{'|'.join(_SECONDS)})(?P<per_step> {_PER_STEP})?$"
)
_COUNT_IN_A_SECOND = re.compile(rf"\b(?:{_THINGS.pattern}|its|iters|steps|batches) s(?:ec)?s?$")
_LONGER_THAN_A_STEP = re.compile(_NOT_OF_A_STEP)
# A name that has one of these words may end in a lone "s" or "us", which is a unit then.
_PARTS_OF_A_STEP = re.compile(
    r"\b(?:time|latency|duration|data|load|loading|step|iter|iteration|batch|forward|fwd|backward"
    r"|bwd|optim|optimizer|compute|comm|communication|allreduce|wait)\b"
)
_WITHOUT_DIMENSION = re.compile(r"(?:nats?|bits?)(?: per [a-z]+)?")

# True and false positives, which in lower case are tokens and frames per second.
_POSITIVES = re.compile(r"(?<![A-Za-z])[TF]Ps(?![A-Za-z])")
_IN_BRACKETS = re.compile(r"[(\[]([^()\[\]]*)[)\]]\s*$")
_CAMEL = re.compile(
    r"(?<=[a-z0-9])(?=[A-Z][a-z])|(?<=[A-Z])(?=[A-Z][a-z]{2})|(?<=[a-z]{2})(?=[A-Z])"
)
_WORD = re.compile(r"[^\W_]+")


def find_kind(name: str, *, unit: str = "", goal: str | None = None) -> Kind:
    """Return what a metric is.

    Args:
        name: The name as it was logged.
        unit: Its unit: UCUM, or as it was given if that cannot be; empty if there is none.
        goal: ``minimize``, ``maximize`` or None.
    """
    guess = guess_kind(name)
    if unit:
        kind = _kind_with_unit(guess.kind, unit, goal)
    elif goal is not None and guess.kind in (None, LOSS, SCORE):
        kind = LOSS if goal == "minimize" else SCORE
    else:
        return guess
    is_share = guess.is_share and kind == THROUGHPUT
    return Kind(kind, "" if unit else guess.unit, is_share=is_share)


def _kind_with_unit(guess: str | None, unit: str, goal: str | None) -> str | None:
    words = _words(unit, slash=" per ")
    rate = _RATE.search(words)
    if unit in _TIMES:
        return DURATION
    if rate or unit.endswith(tuple(f"/{time}" for time in _TIMES)):
        counted = rate["what"] if rate else ""
        if _STEPS.fullmatch(counted) or (not counted and guess == STEP_RATE):
            return STEP_RATE
        is_bandwidth = _BYTES.fullmatch(counted) and goal != "maximize"
        return None if is_bandwidth or goal == "minimize" else THROUGHPUT
    kind = None if guess in (STEP_RATE, DURATION) else guess  # which have a unit of time
    if unit == "%":
        kind = SCORE if goal == "maximize" and kind in (None, LOSS) else kind
    elif not unit.startswith("{"):  # bytes, watts and the like
        return None
    elif goal == "minimize" and _WITHOUT_DIMENSION.fullmatch(words):
        return LOSS
    elif kind is None:  # a unit may say what it is: BLEU, TFLOPS
        kind = _look_up(words).kind
    return None if (kind, goal) in ((LOSS, "maximize"), (SCORE, "minimize")) else kind


def guess_kind(name: str) -> Kind:
    """Return what a metric is by its name alone.

    Args:
        name: The name as it was logged.
    """
    return _guess(name[-_MAX_CHARACTERS:])


@functools.lru_cache(maxsize=4096)  # a bridge maps the same names for each of a thousand ranks
def _guess(name: str) -> Kind:
    brackets = _IN_BRACKETS.search(name)
    hint = ""
    if brackets:
        hint = " ".join(brackets[1].split())
        name = name[: brackets.start()]
    words = _words(name)
    if _POSITIVES.search(name):
        return _NOTHING
    rate = _RATE.search(_words(hint or name, slash=" per "))
    if rate and (_THINGS.fullmatch(rate["what"]) or _STEPS.fullmatch(rate["what"])):
        is_step_rate = _STEPS.fullmatch(rate["what"]) and not _SAMPLED_STEPS.search(rate.string)
        kind = STEP_RATE if is_step_rate else THROUGHPUT
        return Kind(kind, _clean(hint) or _rate_unit(rate))
    seconds = _IN_SECONDS.search(_words(hint or name, slash=" per "))
    if seconds:
        is_sure = hint or seconds["per_step"] or seconds["unit"] not in ("s", "us")
        is_part = is_sure or _PARTS_OF_A_STEP.search(words)
        if not is_part or _LONGER_THAN_A_STEP.search(words) or _COUNT_IN_A_SECOND.search(words):
            return _NOTHING
        return Kind(DURATION, _SECONDS[seconds["unit"]])
    found = _look_up(words)
    if rate and found.kind != THROUGHPUT:  # what is counted is not known
        return _NOTHING
    if hint == "%":
        return _NOTHING if found.kind == DURATION else found._replace(unit="%" * bool(found.kind))
    return _NOTHING if hint and found.kind == DURATION else found


def _look_up(words: str) -> Kind:
    for row in _TABLE:
        if row.words.search(words) and not row.unless.search(words):
            each = _PER_EACH.search(words)
            per = f"/{each['each']}" if row.unit and each and each["each"] else ""
            return Kind(
                row.kind,
                f"{row.unit}{per}",
                by_convention=row.kind == DURATION,
                is_share=_SHARES.search(words) is not None,
            )
    return _NOTHING


def _rate_unit(rate: re.Match[str]) -> str:
    each = rate["before"] or rate["after"]
    return f"{rate['what']}/{_PERIODS[rate['period']]}" + (f"/{each}" if each else "")


def _clean(hint: str) -> str:
    """Return a unit that a name has in brackets, if it can be a label as it is."""
    return hint if len(hint) <= _MAX_UNIT_CHARACTERS and hint.isprintable() else ""


def _words(text: str, *, slash: str = " ") -> str:
    """Return the words of a name or unit in lower case, with a blank between them.

    Args:
        text: The name or the unit.
        slash: What a slash becomes.
    """
    text = _CAMEL.sub(" ", text[:_MAX_CHARACTERS].replace("/", slash))
    return " ".join(_WORD.findall(text.lower()))
