"""Analyse PromQL far enough to find the series, labels and times that it asks for.

This is not a parser: ``promtool`` checks whether an expression is valid. Grafana's variables may
be anywhere that Grafana allows them, so that a dashboard is read as it is written.

The rules are those of Prometheus, ``promql/parser/lex.go`` and
https://prometheus.io/docs/prometheus/latest/querying/basics/.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

AGGREGATORS = frozenset(
    {"sum", "min", "max", "avg", "group", "stddev", "stdvar", "count", "count_values"}
    | {"bottomk", "topk", "quantile", "limitk", "limit_ratio"}
)
COUNTER_FUNCTIONS = frozenset({"rate", "increase", "irate", "changes", "resets"})

_LABEL_LISTS = frozenset({"by", "without", "on", "ignoring", "group_left", "group_right"})
_KEYWORDS = frozenset({"and", "or", "unless", "atan2", "bool", "offset", "inf", "nan"})
_TOKEN = re.compile(
    r"""
    (?P<space>\s+|\#[^\n]*)
    |(?P<string>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`[^`]*`)
    |(?P<variable>\$\w+|\$\{[^}]+\}|\[\[\w+(?::\w+)?\]\])
    |(?P<duration>(?:\d+(?:ms|[smhdwy]))+(?!\w))
    |(?P<number>0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
    |(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)
    |(?P<operator>=~|!~|!=|==|<=|>=|[-+*/%^<>=(){}\[\],:@])
    """,
    re.VERBOSE,
)
_DURATION = re.compile(r"(?<!\w)(?:\d+(?:ms|[smhdwy]))+(?!\w)")


class PromQLError(ValueError):
    """The error for text that is not PromQL."""


@dataclass(frozen=True)
class Token:
    """A piece of an expression, and its kind."""

    kind: str
    text: str


@dataclass(frozen=True)
class Matcher:
    """A condition on a label; the value is without its quotes."""

    label: str
    operator: str
    value: str


@dataclass
class Selector:
    """A selector of series.

    Attributes:
        name: The metric's name; empty if there are only matchers.
        matchers: The matchers in braces.
        functions: The functions and aggregators around it, the innermost last.
        has_range: Whether it has a range of time, as in ``x[5m]``.
    """

    name: str
    matchers: tuple[Matcher, ...]
    functions: tuple[str, ...]
    has_range: bool = False

    @property
    def drops_names(self) -> bool:
        """Return whether a function over time merges series that differ only by name.

        Prometheus then refuses the query, but only once there are two such series.
        """
        for function in reversed(self.functions):
            if function in AGGREGATORS:
                return False
            if function in COUNTER_FUNCTIONS or function.endswith("_over_time"):
                return True
        return False

    @property
    def has_many_names(self) -> bool:
        """Return whether it selects metrics by a pattern of their names."""
        return any(one.label == "__name__" and one.operator != "=" for one in self.matchers)


@dataclass
class Expression:
    """What an expression asks for.

    Attributes:
        selectors: Every selector, from left to right.
        labels: Every label that is used to group, match or copy.
        durations: Every literal duration, such as ``5m``.
        windows: The texts in brackets.
        bare_variables: Grafana's variables outside of strings.
    """

    selectors: list[Selector] = field(default_factory=list)
    labels: set[str] = field(default_factory=set)
    durations: list[str] = field(default_factory=list)
    windows: list[str] = field(default_factory=list)
    bare_variables: list[str] = field(default_factory=list)

    @property
    def names(self) -> set[str]:
        """Return the names of metrics, including those that a matcher gives in full."""
        names = {one.name for one in self.selectors if one.name}
        for selector in self.selectors:
            for matcher in selector.matchers:
                if matcher.label == "__name__" and matcher.operator == "=":
                    names.add(matcher.value)
        return names


def tokens(text: str) -> Iterator[Token]:
    """Yield the tokens of an expression, without comments and white space.

    Raises:
        PromQLError: If a character is not part of the language, or a string does not end.
    """
    position = 0
    while position < len(text):
        found = _TOKEN.match(text, position)
        if not found:
            raise PromQLError(f"{text[position : position + 20]!r} is no PromQL, in {text!r}")
        position = found.end()
        if found.lastgroup != "space":
            yield Token(str(found.lastgroup), found[0])


def read(text: str) -> Expression:
    """Return what an expression asks for.

    Raises:
        PromQLError: If it cannot be split into tokens, or its brackets do not match.
    """
    return _Reader(text).read()


class _Reader:
    """A reader of an expression from left to right, which knows the open brackets."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.left = list(tokens(text))[::-1]
        self.result = Expression()
        self.open: list[str] = []
        self.before_parenthesis = ""

    def read(self) -> Expression:
        while self.left:
            self._read_one(self.left.pop())
        if self.open:
            raise PromQLError(f"a ')' is missing in {self.text!r}")
        return self.result

    def _read_one(self, token: Token) -> None:
        if token.kind == "name":
            self._read_name(token.text)
        elif token.kind == "duration":
            self.result.durations.append(token.text)
        elif token.kind == "variable":
            self.result.bare_variables.append(token.text)
        elif token.text == "{":
            self._read_matchers("")
        elif token.text == "[":
            self._read_window()
        elif token.text == "(":
            self.open.append(self.before_parenthesis)
            self.before_parenthesis = ""
        elif token.text == ")":
            if not self.open:
                raise PromQLError(f"a '(' is missing in {self.text!r}")
            self.open.pop()
        elif token.text in "}]":
            raise PromQLError(f"{token.text!r} closes nothing in {self.text!r}")

    def _read_name(self, name: str) -> None:
        following = self.left[-1].text if self.left else ""
        if name.lower() in _LABEL_LISTS and following == "(":
            self._read_labels()
        elif self._opens_a_call(name.lower(), following):
            self.before_parenthesis = name
        elif following == "{" and name.lower() not in _KEYWORDS:
            self.left.pop()
            self._read_matchers(name)
        elif name.lower() not in _KEYWORDS | _LABEL_LISTS:
            self._add_selector(name, ())

    @staticmethod
    def _opens_a_call(name: str, following: str) -> bool:
        if following == "(":
            return name not in _KEYWORDS
        return name in AGGREGATORS and following.lower() in ("by", "without")

    def _read_labels(self) -> None:
        self.left.pop()
        for token in self._until(")"):
            if token.kind == "name":
                self.result.labels.add(token.text)

    def _read_matchers(self, name: str) -> None:
        matchers = []
        inside = [token for token in self._until("}") if token.text != ","]
        for at in range(0, len(inside), 3):
            label, operator, value = (*inside[at : at + 3], None, None)[:3]
            if label is None or operator is None or value is None or value.kind != "string":
                raise PromQLError(f"a matcher is not whole in {self.text!r}")
            matchers.append(Matcher(label.text, operator.text, value.text[1:-1]))
            self.result.labels.add(label.text)
        self.result.labels.discard("__name__")
        self._add_selector(name, tuple(matchers))

    def _add_selector(self, name: str, matchers: tuple[Matcher, ...]) -> None:
        has_range = bool(self.left) and self.left[-1].text == "["
        functions = tuple(function.lower() for function in self.open if function)
        self.result.selectors.append(Selector(name, matchers, functions, has_range))

    def _read_window(self) -> None:
        window = "".join(token.text for token in self._until("]"))
        self.result.windows.append(window)
        # A search, since the colon of a subquery can also be part of a name.
        self.result.durations += _DURATION.findall(window)

    def _until(self, end: str) -> Iterator[Token]:
        while self.left:
            token = self.left.pop()
            if token.text == end:
                return
            yield token
        raise PromQLError(f"{end!r} is missing in {self.text!r}")
