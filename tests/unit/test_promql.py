"""What is read of PromQL: metrics, labels, and where names are dropped."""

from __future__ import annotations

import pytest

from tests.support.promql import Expression, Matcher, PromQLError, Selector, read

pytestmark = pytest.mark.newest_only

FULL = 'a{b="c",d=~"$e"}'
READ = [
    ("up", {"up"}, set()),
    (FULL, {"a"}, {"b", "d"}),
    ('{__name__="a", b!="c"}', {"a"}, {"b"}),
    ('{__name__=~"a.+"}', set(), set()),
    ("sum by (run, rank) (rate(a_total[$__rate_interval]))", {"a_total"}, {"run", "rank"}),
    ("sum(a) by (run)", {"a"}, {"run"}),
    ("SUM without(run) (a)", {"a"}, {"run"}),
    ("a * on (run) group_left (host, pid) b", {"a", "b"}, {"run", "host", "pid"}),
    ("a and on () b or c unless ignoring (x) d atan2 e", set("abcde"), {"x"}),
    ('{__name__=~"a"} or {b="c"}', set(), {"b"}),
    ("a / on (run) group_right b", {"a", "b"}, {"run"}),
    ("topk by (run) ($k, a > bool 1.5e-3)", {"a"}, {"run"}),
    ("time() - a offset 5m @ end()", {"a"}, set()),
    ("quantile_over_time(0.5, (a + b)[1h:5m])", {"a", "b"}, set()),
    ("run:dl:max / ignoring(x) job:y:sum5m", {"run:dl:max", "job:y:sum5m"}, {"x"}),
    ('label_replace(a, "new", "$1", "old", "(.*)")', {"a"}, set()),
    ('count_values by (run) ("of", a)', {"a"}, {"run"}),
    ("a == Inf or b != NaN or c > 0x1F", {"a", "b", "c"}, set()),
    ('a{b="}\\"{"} # c{', {"a"}, {"b"}),
    ("a{b='\"', c=`\\`}\n+\nrate", {"a", "rate"}, {"b", "c"}),
    ("-a ^ 2 % 3", {"a"}, set()),
    ("absent(a) or vector(1)", {"a"}, set()),
    ("a[[[x]]]", {"a"}, set()),
    ("${x} * a", {"a"}, set()),
]


@pytest.mark.parametrize(("text", "names", "labels"), READ)
def test_metrics_are_told_from_everything_else(
    text: str, names: set[str], labels: set[str]
) -> None:
    """Functions, keywords, labels and strings are no metrics."""
    expression = read(text)
    assert (names, labels) == (expression.names, expression.labels)


def test_an_expression_is_read() -> None:
    """Matchers, functions, times and variables are where they stand."""
    text = 'max by (run) (rate(a_total{b=~"$c"}[5m] offset 1h)) > $k or x_over_time(d[$r:30s])'
    assert Expression(
        selectors=[
            Selector("a_total", (Matcher("b", "=~", "$c"),), ("max", "rate"), has_range=True),
            Selector("d", (), ("x_over_time",), has_range=True),
        ],
        labels={"run", "b"},
        durations=["5m", "1h", "30s"],
        windows=["5m", "$r:30s"],
        bare_variables=["$k"],
    ) == read(text)


@pytest.mark.parametrize(
    ("text", "drops_names"),
    [
        ('{__name__=~"a"}', False),
        ('rate({__name__=~"a"}[5m])', True),
        ('avg_over_time((sum by (x) ({__name__=~"a"}))[5m:])', False),
        ('sum(max_over_time({__name__=~"a"}[5m]))', True),
    ],
)
def test_it_is_known_where_names_are_dropped(text: str, drops_names: bool) -> None:
    """Under a function over time they are, unless something aggregates before."""
    (selector,) = read(text).selectors
    assert selector.has_many_names
    assert drops_names == selector.drops_names


@pytest.mark.parametrize("text", ["a}", "a{b}", "a{b=c}", "(a", "a)", "a[5m", 'a{b="c}', "a ; b"])
def test_what_is_no_promql_is_an_error(text: str) -> None:
    """Nothing is passed over in silence."""
    with pytest.raises(PromQLError):
        read(text)
