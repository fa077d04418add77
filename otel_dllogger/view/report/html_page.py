"""A report as one HTML file, which needs nothing else: no network, no server.

Its tables are plain HTML. The curves are drawn by the scripts of the live page, from data that
``curve_data`` packed. No script and no style but those in the file is allowed by its policy.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import TYPE_CHECKING, Any

from otel_dllogger.errors import count_of
from otel_dllogger.metrics import health
from otel_dllogger.version import __version__
from otel_dllogger.view.goodput import PRODUCTIVE, REDONE
from otel_dllogger.view.report import FORMAT, words
from otel_dllogger.view.report.curve_data import title_of
from otel_dllogger.view.report.markup import Markup, element, raw_element

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from otel_dllogger.view.report.curve_data import PackedCurves

    Plain = Mapping[str, Any]

SCRIPTS = (
    "vendor/uplot.js",
    "numbers.js",
    "smoothing.js",
    "colours.js",
    "scales.js",
    "lines.js",
    "tooltip.js",
    "chart.js",
    "report.js",
)
STYLES = ("vendor/uplot.css", "chart.css", "report.css")
_MOST_TEXT = 2_000
_TABLE_ROWS = 2_000
_FEW = 2
_PARTS = 7
_COLOURED = (PRODUCTIVE, REDONE, "stalled", "down", "other")
"""Parts that have a colour of their own; the others share seven."""


def make_page(summary: Plain, curves: PackedCurves) -> str:
    """Return the HTML of a report.

    Args:
        summary: What ``summarise`` returned.
        curves: The curves of the same runs.
    """
    runs = summary["runs"]
    names = ", ".join(run["name"] for run in runs)
    scripts = [raw_element("script", _asset(name)) for name in SCRIPTS]
    styles = [raw_element("style", _asset(name)) for name in STYLES]
    data = base64.b64encode(curves.content).decode()
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy(scripts, styles)),
        element("meta", name="generator", content=f"{FORMAT} {__version__}"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{names} · training report"),
        *styles,
    )
    single = runs[0] if len(runs) == 1 else None
    body = element(
        "body",
        element(
            "main",
            _header(single) if single else _header_of_many(runs),
            *([] if single else [_overview(runs)]),
            _first_sections(single) if single else None,
            _charts(curves),
            *(_last_sections(single) if single else [_section_of(run) for run in runs]),
            _doubts(summary["doubts"]),
        ),
        element("script", data, id="curves", type="application/octet-stream"),
        *scripts,
    )
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _asset(name: str) -> str:
    folder = resources.files("otel_dllogger.view") / "page"
    return folder.joinpath(*name.split("/")).read_text(encoding="utf-8")


def _policy(scripts: Iterable[str], styles: Iterable[str]) -> str:
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {' '.join(map(_hash, scripts))}",
            f"style-src {' '.join(map(_hash, styles))}",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
        )
    )


def _hash(whole: str) -> str:
    content = whole[whole.index(">") + 1 : whole.rindex("<")]
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _header(run: Plain) -> Markup:
    return element(
        "header",
        element("h1", run["name"], " ", _state(run["state"])),
        element("p", *_joined(_facts(run)), class_="facts"),
    )


def _header_of_many(runs: Sequence[Plain]) -> Markup:
    return element("header", element("h1", f"{len(runs)} runs"))


def _facts(run: Plain) -> list[str | Markup]:
    facts: list[str | Markup] = [count_of(run["ranks"], "rank"), words.place(run)]
    if run["begin_s"]:
        facts.append(f"{words.moment(run['begin_s'])} to {words.moment(run['end_s'])} UTC")
        facts.append(words.duration(words.length_s(run)))
    if run["attempts"] > 1:
        facts.append(count_of(run["attempts"], "attempt"))
    if run["step_s"] is not None:
        facts.append(f"{words.duration(run['step_s'])} a step")
    return facts


def _joined(parts: Iterable[str]) -> list[Markup]:
    return [element("span", part) for part in parts if part != words.NOTHING]


def _state(state: str) -> Markup:
    return element("span", state, class_=f"state {state}", title=health.STATES[state])


def _overview(runs: Sequence[Plain]) -> Markup:
    rows = []
    for run in runs:
        best = run["best"][0] if run["best"] else None
        rows.append(
            [
                element("th", run["name"], scope="row"),
                _cell(_state(run["state"])),
                _number(str(run["ranks"])),
                _number(words.number(run["step"])),
                _number(words.duration(words.length_s(run))),
                _cell(words.NOTHING if best is None else _title(best)),
                _value(None if best is None else best["value"]),
            ]
        )
    heads = ("Run", "State", "#Ranks", "#Step", "#Duration", "Metric", "#Best")
    return _section("Runs", _table(heads, rows))


def _section_of(run: Plain) -> Markup:
    return element(
        "article", _header(run), _first_sections(run), *_last_sections(run), class_="run"
    )


def _first_sections(run: Plain) -> Markup:
    return element("div", _findings(run), _best(run), class_="beside")


def _last_sections(run: Plain) -> list[Markup]:
    return [
        _ranks(run),
        element("div", _goodput(run), _goodput_by_rank(run), class_="beside"),
        element("div", _events(run), _nonfinite(run), _restarts(run), class_="beside"),
        element("div", _metrics(run), _options(run), class_="beside"),
    ]


def _findings(run: Plain) -> Markup | None:
    found = [
        element(
            "li",
            element("span", each["severity"], class_=f"severity {each['severity']}"),
            " ",
            each["words"],
        )
        for each in run["findings"]
    ]
    return _section("Findings", element("ul", *found, class_="findings")) if found else None


def _best(run: Plain) -> Markup | None:
    rows = [
        [
            element("th", _title(best), scope="row"),
            _cell("least" if best["goal"] == "minimize" else "greatest"),
            _value(best["value"]),
            _cell(best["unit"]),
            _number(words.number(best["step"])),
            _number(str(best["rank"])),
            _number(words.moment(best["time_s"])),
        ]
        for best in run["best"]
    ]
    heads = ("Metric", "Goal", "#Value", "Unit", "#Step", "#Rank", "#Time (UTC)")
    return _section("Best values", _table(heads, rows)) if rows else None


def _charts(curves: PackedCurves) -> Markup:
    notes = []
    if not curves.has_all_ranks:
        notes.append("Of this many ranks, those that need help have lines of their own.")
    if curves.left_out:
        notes.append(
            f"{count_of(curves.left_out, 'more metric')} without curves, to keep this file small."
        )
    notes.append(
        f"At most {curves.places} places each; the shade around a line reaches from the least to "
        "the greatest value of each place."
    )
    return _section(
        "Curves",
        element("div", id="controls", class_="controls"),
        element("div", id="charts", class_="charts"),
        element(
            "p",
            "The curves need JavaScript and a browser from 2023 or later. The tables do not.",
            id="no-curves",
            class_="note",
        ),
        element("p", " ".join(notes), class_="note"),
    )


def _ranks(run: Plain) -> Markup:
    loss = next((each for each in run["metrics"] if each["series"] == run["loss"]), None)
    unit = run["throughput_unit"]
    rows = []
    for each in run["by_rank"][:_TABLE_ROWS]:
        slow = None
        if each["is_straggler"]:
            part = each["slow_part"] or "step"
            slow = element("span", f"slow {part}", class_="slow")
        rows.append(
            [
                element(
                    "th",
                    str(each["rank"]),
                    scope="row",
                    class_="number rank",
                    data_run=run["name"],
                    data_rank=each["rank"],
                ),
                _cell(each["host"]),
                _cell(_state(each["state"])),
                _number(words.number(each["step"])),
                _value(each["loss"]),
                _value(each["throughput"]),
                _number(words.duration(each["step_s"])),
                _number(words.excess(each["excess"]), slow),
                _number(f"{each['nonfinite']:,}" if each["nonfinite"] else ""),
                _number(str(each["attempt"])),
            ]
        )
    heads = (
        "#Rank",
        "Host",
        "State",
        "#Step",
        f"#{_title(loss)}" if loss else "#Loss",
        f"#{unit}",
        "#Step time",
        "#To median",
        "#NaN, Inf",
        "#Attempt",
    )
    more = len(run["by_rank"]) - len(rows)
    note = element("p", f"and {count_of(more, 'more rank')}", class_="note") if more > 0 else None
    return _section("Ranks, those first that need help", _table(heads, rows), note)


def _goodput(run: Plain) -> Markup | None:
    """Return where the time went: a bar, and a table with the same colours."""
    goodput = run["goodput"]
    if goodput is None:
        return None
    ranks, at = len(goodput["by_rank"]), 0.0
    bars, rows = [], []
    for number, part in enumerate(goodput["parts"]):
        name, percent = part["name"], part["percent"]
        colour = name if name in _COLOURED else f"part{number % _PARTS}"
        bars.append(
            element(
                "rect",
                element("title", f"{name} {percent:.1f} %"),
                x=f"{at:.1f}%",
                width=f"{percent:.1f}%",
                height=10,
                class_=colour,
            )
        )
        at += percent
        rows.append(
            [
                element(
                    "th",
                    element("span", class_=f"swatch {colour}"),
                    f"{name}{words.redone(goodput, name)}",
                    scope="row",
                ),
                _number(words.duration(part["seconds"] / ranks)),
                _number(f"{percent:.1f} %"),
            ]
        )
    whole = f"{words.duration(goodput['wall_s'])} x {count_of(ranks, 'rank')}"
    return _section(
        "Where the time went",
        element("svg", *bars, class_="bar", role="img", aria_label="Parts of the time"),
        _table((f"Of {whole}", "#Time of a rank", "#Share"), rows),
        *(element("p", note, class_="note") for note in words.goodput_notes(goodput)),
    )


def _goodput_by_rank(run: Plain) -> Markup | None:
    """Return the shares of each rank, those first that trained least."""
    goodput = run["goodput"]
    if goodput is None or len(goodput["by_rank"]) < _FEW:
        return None
    names = [part["name"] for part in goodput["parts"]]
    found = []
    for each in goodput["by_rank"]:
        shares = {part["name"]: part["percent"] for part in each["parts"]}
        found.append((shares.get(PRODUCTIVE, 0.0), each["rank"], shares))
    rows = [
        [
            element("th", str(rank), scope="row", class_="number"),
            *(_number(f"{shares[name]:.1f}" if name in shares else "") for name in names),
        ]
        for _productive, rank, shares in sorted(found, key=lambda each: each[:2])[:_TABLE_ROWS]
    ]
    heads = ("#Rank", *(f"#{name}" for name in names))
    return _section("Where the time of each rank went, in percent", _table(heads, rows))


def _events(run: Plain) -> Markup | None:
    rows = [
        [
            _number(words.moment(event["time_s"])),
            element("th", event["name"], scope="row"),
            _number(words.ranks(event["ranks"])),
            _number(words.event_step(event)),
            _cell(event["data"]),
        ]
        for event in run["events"][:_TABLE_ROWS]
    ]
    more = len(run["events"]) - len(rows) + run["events_left_out"]
    note = element("p", f"and {count_of(more, 'more event')}", class_="note") if more else None
    heads = ("#Time (UTC)", "Event", "#Rank", "#At step", "Data")
    return _section("Events", _table(heads, rows), note) if rows else None


def _nonfinite(run: Plain) -> Markup | None:
    rows = [
        [
            element("th", _title(each), scope="row"),
            _number(str(each["rank"])),
            _number(f"{each['count']:,}"),
            _cell(each["value"]),
            _number(words.number(each["step"])),
            _number(words.moment(each["time_s"])),
        ]
        for each in run["nonfinite"][:_TABLE_ROWS]
    ]
    heads = ("Metric", "#Rank", "#Times", "First", "#At step", "#Time (UTC)")
    return _section("NaN and infinity", _table(heads, rows)) if rows else None


def _restarts(run: Plain) -> Markup | None:
    rows = [
        [
            element("th", str(each["attempt"]), scope="row", class_="number"),
            _number(words.moment(each["time_s"])),
            _number(words.number(each["step"])),
            _number(str(len(each["ranks"]))),
        ]
        for each in run["restarts"]
    ]
    heads = ("#Attempt", "#Began (UTC)", "#After step", "#Ranks")
    return _section("Restarts", _table(heads, rows)) if rows else None


def _metrics(run: Plain) -> Markup | None:
    rows = []
    for each in run["metrics"][:_TABLE_ROWS]:
        least, greatest = each["least"], each["greatest"]
        rows.append(
            [
                element("th", _title(each), scope="row", title=each["series"]),
                _cell(each["unit"]),
                _value(each["last_median"]),
                _value(None if least is None else least["value"]),
                _value(None if greatest is None else greatest["value"]),
                _number(f"{each['values']:,}"),
                _number(f"{each['nonfinite']:,}" if each["nonfinite"] else ""),
                _number(str(each["ranks"])),
            ]
        )
    heads = (
        "Metric",
        "Unit",
        "#Last, median",
        "#Least",
        "#Greatest",
        "#Values",
        "#NaN, Inf",
        "#Ranks",
    )
    return _section("All metrics", _table(heads, rows)) if rows else None


def _options(run: Plain) -> Markup | None:
    rows = [
        [element("th", name, scope="row"), _cell(_shortened(words.parameter(value)))]
        for name, value in run["parameters"].items()
    ]
    return _section("Parameters", _table(("Name", "Value"), rows)) if rows else None


def _shortened(text: str) -> str:
    return text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}…"


def _doubts(lines: Sequence[str]) -> Markup | None:
    if not lines:
        return None
    items = element("ul", *(element("li", line) for line in lines), class_="doubts")
    return _section("Doubtful in the logs", items)


def _title(each: Plain) -> str:
    return title_of(each["metric"], each["stage"], each["granularity"])


def _section(title: str, *children: Markup | None) -> Markup:
    return element("section", element("h2", title), *children)


def _cell(content: str) -> Markup:
    return element("td", content)


def _number(text: str, more: Markup | None = None) -> Markup:
    return element("td", text, " " if more else None, more, class_="number")


def _value(value: float | None) -> Markup:
    """Return a cell with a value: short to read, and exact for who points at it."""
    if value is None:
        return _number(words.NOTHING)
    exact = repr(value)
    return element(
        "td", element("data", words.number(value), value=exact, title=exact), class_="number"
    )


def _table(heads: Iterable[str], rows: Iterable[Iterable[Markup]]) -> Markup:
    """Return a table that scrolls by itself where it is too wide.

    Args:
        heads: The heads of the columns; one that begins with ``#`` is that of numbers.
        rows: The cells of each row.
    """
    columns = [
        element(
            "th",
            head.removeprefix("#"),
            scope="col",
            class_="number" if head.startswith("#") else None,
        )
        for head in heads
    ]
    return element(
        "div",
        element(
            "table",
            element("thead", element("tr", *columns)),
            element("tbody", *(element("tr", *row) for row in rows)),
        ),
        class_="scroll",  # with a height of its own, so that what follows is not far below
        tabindex="0",
        role="region",
        aria_label="table",
    )
