"""One request to a collector, its repetitions, and points on their way into requests."""

from __future__ import annotations

import threading

import pytest

pytest.importorskip("opentelemetry.proto", reason="pip install 'otel-dllogger[otlp]'")

from otel_dllogger.metrics.data_points import Description, Series
from otel_dllogger.otlp.batches import MAX_POINTS, MAX_SPAN_US
from otel_dllogger.otlp.encoder import Encoder
from otel_dllogger.otlp.exporter import (
    FIRST_WAIT_S,
    LONGEST_WAIT_S,
    Exporter,
)
from otel_dllogger.otlp.patience import Refused, Stopped
from otel_dllogger.otlp.patient_exporter import PatientExporter
from otel_dllogger.otlp.transport import Answer, Outcome
from tests.support.collector import decode

START_US = 1_700_000_000_000_000


class Transport:
    """Give the answers that it was given, then take everything."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.requests = []
        self.timeouts_s = []

    def send(self, request, timeout_s):
        self.timeouts_s.append(timeout_s)
        answer = self.answers.pop(0) if self.answers else Answer(Outcome.TAKEN)
        if isinstance(answer, Exception):
            raise answer
        if answer.outcome is Outcome.TAKEN:
            self.requests.append(request)
        return answer

    def close(self):
        """There is nothing to close."""


class Clock:
    """A clock that the test moves."""

    now_s = 100.0

    def __call__(self):
        return self.now_s


@pytest.mark.parametrize(
    ("answer", "misdirected", "outcome"),
    [
        (Answer(Outcome.TAKEN), Outcome.REFUSED, Outcome.TAKEN),
        (Answer(Outcome.REFUSED), Outcome.RETRY, Outcome.REFUSED),
        (Answer(Outcome.MISDIRECTED), Outcome.REFUSED, Outcome.REFUSED),
        (Answer(Outcome.MISDIRECTED), Outcome.RETRY, Outcome.RETRY),
        (Answer(Outcome.MISDIRECTED), Outcome.MISDIRECTED, Outcome.MISDIRECTED),
        (Answer(Outcome.RETRY), Outcome.REFUSED, Outcome.RETRY),
        (RuntimeError("never seen before"), Outcome.REFUSED, Outcome.RETRY),
    ],
)
def test_what_becomes_of_a_request(answer, misdirected, outcome, counted):
    """An address that somebody may mend is waited for or not; a bug may pass."""
    exporter = Exporter(Transport(answer), timeout_s=5, misdirected=misdirected)
    assert outcome is exporter.attempt(b"request").outcome
    assert (outcome is Outcome.RETRY) == bool(exporter.failures) == (exporter.wait_s > 0)
    assert isinstance(answer, Exception) == bool(counted())


def test_attempts_are_due_ever_later_until_one_is_answered():
    """Neither more often than the wait says, nor longer than a request may take."""
    clock, transport = Clock(), Transport(*[Answer(Outcome.RETRY)] * 12)
    exporter = Exporter(transport, timeout_s=5, clock=clock)
    assert exporter.wait_s <= 0
    waits_s = []
    for _ in range(12):
        exporter.attempt(b"request", 3)
        waits_s.append(exporter.wait_s)
        clock.now_s += exporter.wait_s
    assert FIRST_WAIT_S / 2 <= waits_s[0] <= FIRST_WAIT_S
    assert min(waits_s[7:]) >= LONGEST_WAIT_S / 2
    assert 12 == exporter.failures
    assert {3} == set(transport.timeouts_s)
    exporter.attempt(b"request")
    assert (0, 5) == (exporter.failures, transport.timeouts_s[-1])


def test_an_attempt_can_be_hastened_and_a_collector_can_ask_for_time():
    """At the end of a process there is no time to wait for what a collector asked for."""
    exporter = Exporter(Transport(Answer(Outcome.RETRY, retry_after_s=60)), timeout_s=5)
    exporter.attempt(b"request")
    assert 59 < exporter.wait_s <= 60
    exporter.hasten()
    assert exporter.wait_s <= 0


def patient(transport, **options):
    """Return an exporter of points that waits for nobody, and what it told."""
    told = []
    options = {"timeout_s": 5, "stopping": threading.Event(), "patience_s": 0, **options}
    return PatientExporter(transport, Encoder(), tell=told.append, **options), told


def series(name="dl.loss"):
    """Return a series of a gauge."""
    return Series(Description(name, "", "", {"run": "r"}, name.replace(".", "_")))


def sent_points(transport):
    """Return the points of each request that was taken."""
    return [decode(request)[-1] for request in transport.requests]


@pytest.mark.slow
def test_points_of_one_time_share_a_request_up_to_twice_its_size():
    """A receiver that keeps milliseconds sees them together, and no request has no end."""
    transport = Transport()
    exporter, _ = patient(transport)
    exporter.add(("r", 0), [(series(f"dl.m{i}"), START_US, 1.0) for i in range(5 * MAX_POINTS)])
    exporter.flush()
    assert [2 * MAX_POINTS, 2 * MAX_POINTS, MAX_POINTS] == [
        len(points) for points in sent_points(transport)
    ]
    assert 5 * MAX_POINTS == exporter.sent


def test_a_request_has_several_ranks_and_spans_a_bounded_time():
    """Each rank under its own resource; what is too old to travel along goes before."""
    transport, one = Transport(), series()
    exporter, _ = patient(transport)
    exporter.add(("r", 0), [(one, START_US, 1.0), (one, START_US + 5, 2.0)])
    exporter.add(("r", 1), [(series(), START_US + 7, 3.0)])
    exporter.add(("r", 0), [(one, START_US + MAX_SPAN_US + 1, 4.0)])
    assert [[1.0, 2.0, 3.0]] == [[p.value for p in points] for points in sent_points(transport)]
    assert transport.requests[0].count(b"r/0") == transport.requests[0].count(b"r/1") == 1
    exporter.flush()
    assert [4.0] == [point.value for point in sent_points(transport)[1]]


def test_a_stop_ends_before_the_next_request():
    """What was not taken is not sent, and it does not count as sent."""
    transport = Transport()
    exporter, _ = patient(transport)
    exporter._stopping.set()
    with pytest.raises(Stopped):
        exporter.add(("r", 0), [(series(), START_US + i * 10**6, 1.0) for i in range(100)])
    assert (0, []) == (exporter.sent, transport.requests)


@pytest.mark.parametrize("outcome", [Outcome.REFUSED, Outcome.MISDIRECTED])
def test_a_refusal_ends_it_where_nothing_may_be_left_out(outcome):
    """As for a backfill, whose points would else count as sent."""
    exporter, told = patient(Transport(Answer(outcome, message="too old")), skips_refused=False)
    exporter.add(("r", 0), [(series(), START_US, 1.0)])
    with pytest.raises(Refused, match=r"^too old$"):
        exporter.flush()
    assert (0, 0, []) == (exporter.sent, exporter.refused, told)


def test_points_that_were_refused_of_a_request_are_told():
    """The rest of it was taken."""
    transport = Transport(Answer(Outcome.TAKEN, refused=1, message="too old"))
    exporter, told = patient(transport)
    exporter.add(("r", 0), [(series(), START_US + i, 1.0) for i in range(3)])
    exporter.flush()
    assert (2, 1) == (exporter.sent, exporter.refused)
    assert ["a collector refused 1 point so far: too old"] == told
