"""A report as Markdown, for a pull request."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from otel_dllogger.errors import count_of, printable
from otel_dllogger.metrics import health
from otel_dllogger.view.report import FORMAT, words
from otel_dllogger.view.report.curve_data import title_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    Plain = Mapping[str, Any]

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>()#+!|~&@$-])")
_MOST_ROWS = 12
_MOST_TEXT = 200


def make_markdown(summary: Plain) -> str:
    """Return a report as Markdown.

    Args:
        summary: What ``summarise`` returned.
    """
    blocks = [f"<!-- {FORMAT} -->"]
    for run in summary["runs"]:
        blocks += _run(run)
    if summary["doubts"]:
        blocks.append("**Doubtful in the logs**")
        blocks.append("\n".join(f"- {_text(line)}" for line in summary["doubts"]))
    return "\n\n".join(blocks) + "\n"


def _run(run: Plain) -> Iterator[str]:
    facts = [count_of(run["ranks"], "rank"), words.place(run), words.duration(words.length_s(run))]
    if run["attempts"] > 1:
        facts.append(count_of(run["attempts"], "attempt"))
    if run["step_s"] is not None:
        facts.append(f"{words.duration(run['step_s'])} a step")
    yield f"### {_text(run['name'])}: {run['state']}"
    yield " · ".join(fact for fact in facts if fact != words.NOTHING)
    if run["findings"]:
        yield "\n".join(
            f"- **{each['severity']}**: {_text(each['words'])}" for each in run["findings"]
        )
    if run["best"]:
        yield _table(
            ("Best", "Value", "Unit", "Step", "Rank"),
            (
                (
                    _title(each),
                    words.number(each["value"]),
                    _text(each["unit"]),
                    words.number(each["step"]),
                    str(each["rank"]),
                )
                for each in run["best"]
            ),
        )
    yield from _goodput(run)
    yield from _events(run)
    if run["nonfinite"]:
        yield _table(
            ("NaN, Inf", "Rank", "Times", "First at step"),
            (
                (
                    _title(each),
                    str(each["rank"]),
                    f"{each['count']:,}",
                    words.number(each["step"]),
                )
                for each in run["nonfinite"]
            ),
        )
    yield from _ranks(run)
    if run["parameters"]:
        rows = (
            (_text(name), _text(words.parameter(value)))
            for name, value in run["parameters"].items()
        )
        yield _folded(
            count_of(len(run["parameters"]), "parameter"),
            _table(("Parameter", "Value"), rows, most=len(run["parameters"])),
        )


def _goodput(run: Plain) -> Iterator[str]:
    """Yield where the time went, and what of that is not measured."""
    goodput = run["goodput"]
    if goodput is None:
        return
    whole = f"{words.duration(goodput['wall_s'])} x {count_of(len(goodput['by_rank']), 'rank')}"
    rows = (
        (
            _text(part["name"]) + words.redone(goodput, part["name"]),
            words.duration(part["seconds"] / len(goodput["by_rank"])),
            f"{part['percent']:.1f} %",
        )
        for part in goodput["parts"]
    )
    yield _table((f"Where the time went: {whole}", "Time of a rank", "Share"), rows)
    if notes := words.goodput_notes(goodput):
        yield "\n".join(f"- {_text(note)}" for note in notes)


def _events(run: Plain) -> Iterator[str]:
    rows = (
        (
            words.moment(event["time_s"]),
            _text(event["name"]),
            words.ranks(event["ranks"]),
            _text(words.event_step(event)),
            _text(event["data"]),
        )
        for event in run["events"]
    )
    if run["events"]:
        yield _table(("Time (UTC)", "Event", "Rank", "At step", "Data"), rows)


def _ranks(run: Plain) -> Iterator[str]:
    """Yield the table of ranks, folded if none of them needs help."""
    ranks: Sequence[Plain] = run["by_rank"]
    table = _table(
        ("Rank", "Host", "State", "Step", "Loss", "Step time", "To median", "NaN, Inf"),
        (
            (
                str(each["rank"]),
                _text(each["host"]),
                each["state"]
                + (f", slow {_text(each['slow_part'] or 'step')}" * each["is_straggler"]),
                words.number(each["step"]),
                words.number(each["loss"]),
                words.duration(each["step_s"]),
                words.excess(each["excess"]),
                f"{each['nonfinite']:,}",
            )
            for each in ranks
        ),
    )
    is_well = all(
        each["state"] == health.FINISHED and not each["nonfinite"] and not each["is_straggler"]
        for each in ranks
    )
    yield _folded(count_of(len(ranks), "rank"), table) if is_well else table


def _folded(title: str, content: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{content}\n\n</details>"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, most: int = _MOST_ROWS) -> str:
    listed = list(rows)
    lines = [heads, ["---"] * len(heads), *listed[:most]]
    if len(listed) > most:
        lines.append([f"and {len(listed) - most:,} more"] + [""] * (len(heads) - 1))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _title(each: Plain) -> str:
    return _text(title_of(each["metric"], each["stage"], each["granularity"]))


def _text(text: str) -> str:
    """Return text that Markdown shows as it is, in one line."""
    line = printable(" ".join(text.split()))  # a terminal may show it
    if len(line) > _MOST_TEXT:
        line = f"{line[:_MOST_TEXT]}…"
    return _SPECIAL.sub(r"\\\1", line)
