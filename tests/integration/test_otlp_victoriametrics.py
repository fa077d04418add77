"""A real VictoriaMetrics gets over OTLP what a scrape of the same run would have given it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from otel_dllogger import Logger, PrometheusBackend
from otel_dllogger.backends.otlp import OTLPBackend
from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.metrics import naming
from otel_dllogger.otlp.settings import read_options
from otel_dllogger.otlp.transport import Outcome, open_transport
from otel_dllogger.record import Record
from tests.support.http import ask
from tests.support.victoriametrics import VictoriaMetrics

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("opentelemetry.proto", reason="pip install 'otel-dllogger[otlp]'")

START_US = 1_700_000_000_000_000
NAN = float("nan")


@pytest.fixture(scope="module")
def victoria_metrics(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VictoriaMetrics]:
    """One for all tests; each has a run of its own."""
    with VictoriaMetrics(tmp_path_factory.mktemp("otlp") / "data") as server:
        yield server


def test_every_step_is_stored_with_its_own_time(victoria_metrics: VictoriaMetrics) -> None:
    """Hundreds of steps of two ranks, queried back point by point."""
    steps = range(500)
    times_us = [START_US + step * 37_000 + step % 7 * 1000 for step in steps]
    for rank in (0, 1):
        backend = OTLPBackend(
            1, endpoint=victoria_metrics.otlp, run="steps", rank=rank, interval_s=0.05
        )
        for step, time_us in zip(steps, times_us, strict=True):
            values = {"train.loss": 8 / (1 + step) + rank, "train.lr": 0.1}
            backend.write_record(Record(time_us, step, (0, step), values))
        backend.close()
    for rank in (0, 1):
        (series,) = victoria_metrics.export(f'dl_loss{{run="steps",rank="{rank}"}}')
        assert [time_us // 1000 for time_us in times_us] == series["timestamps"]
        # It keeps decimal digits, about twelve.
        values = [8 / (1 + step) + rank for step in steps]
        assert pytest.approx(values, rel=1e-11) == series["values"]
        (place,) = victoria_metrics.export(f'dllogger_iteration{{run="steps",rank="{rank}"}}')
        assert list(steps) == place["values"][: len(steps)]
    assert 0 == sum(DIAGNOSTICS.dropped.values())


@pytest.mark.parametrize(
    ("path", "step"),
    [
        ("", "the endpoint of VictoriaMetrics is http://HOST:8428/opentelemetry, that of"),
        ("/api/v1/otlp", "the endpoint of VictoriaMetrics is http://HOST:8428/opentelemetry, that"),
        ("/opentelemetry/", None),
        ("/opentelemetry/v1/metrics", None),
        ("/opentelemetry/api/v1/push", None),
    ],
)
def test_an_endpoint_that_is_given_in_any_way_is_right_or_says_what_is(
    victoria_metrics: VictoriaMetrics, caplog: Any, path: str, step: str | None
) -> None:
    """What the environment variable takes, an argument takes as well."""
    backend = OTLPBackend(1, endpoint=victoria_metrics.url + path, run="endpoint", rank=0)
    backend.write_record(Record(START_US, 0, (0, 0), {"loss": 1.0}))
    backend.close()
    refused = DIAGNOSTICS.dropped["otlp_refused"]
    told = " ".join(record.message for record in caplog.records)
    if step is None:
        assert (0, "") == (refused, told)
    else:
        assert refused > 0
        assert "HTTP status 400" in told
        assert step in told


def test_a_bridge_waits_until_a_wrong_path_is_mended(victoria_metrics: VictoriaMetrics) -> None:
    """VictoriaMetrics answers 400 where others answer 404; the points are not lost."""
    transport = open_transport(read_options(endpoint=victoria_metrics.url))
    assert Outcome.MISDIRECTED is transport.send(b"", 30).outcome
    transport.close()


def test_log_records_end_and_metrics_go_on(victoria_metrics: VictoriaMetrics, caplog: Any) -> None:
    """It takes no logs, and says so with status 400, as if the request were wrong."""
    backend = OTLPBackend(1, endpoint=victoria_metrics.otlp, run="logs", rank=0, interval_s=0.05)
    logger = Logger([backend])
    logger.info("text")
    backend._senders[1]._thread.join(60)
    logger.log((0, 1), {"loss": 1.0})
    logger.info("not sent")
    logger.close()
    DIAGNOSTICS.drain()
    (told,) = [record.message for record in caplog.records]
    assert "the collector takes no logs" in told
    assert "OTEL_LOGS_EXPORTER=none" in told
    assert not any(DIAGNOSTICS.dropped.values())  # nobody asked for logs
    assert [[1.0]] == [one["values"] for one in victoria_metrics.export('dl_loss{run="logs"}')]


def names_and_labels(samples: Any) -> set[tuple[str, ...]]:
    """Return each series without empty labels, which are none to Prometheus."""
    return {
        (name, *(f"{key}={value}" for key, value in sorted(labels.items()) if value))
        for name, labels in samples
    }


def test_names_and_labels_are_those_of_a_page(victoria_metrics: VictoriaMetrics) -> None:
    """The same run on a metrics page and over OTLP: every series, of every unit, is the same."""
    units = [
        *naming._UNITS,
        *(f"{what}/{per}" for what in ("images", "MB") for per in naming._PER),
        "bleu",
        "1",
        "",
    ]
    page = PrometheusBackend(1, port=0, run="page", rank=0, text_parameters=True)
    otlp = OTLPBackend(1, endpoint=victoria_metrics.otlp, run="page", rank=0, text_parameters=True)
    logger = Logger([page, otlp])
    values = dict.fromkeys(
        ("train.loss", "mAP", "F1", "f1", "val_items/s", "eval_90%_latency", "straße", "a.b_c"), 1.5
    )
    for number, unit in enumerate(units):
        values[f"metric_{number}"] = number
        logger.metadata(f"metric_{number}", {"unit": unit})
    for unit in ("seconds", "percent", "fps", "MB", "TiB"):  # the name is the unit itself
        values[f"train.{unit}"] = 1
        logger.metadata(f"train.{unit}", {"unit": unit, "STAGE": "TRAIN"})
    logger.metadata("train.loss", {"GOAL": "MINIMIZE"})
    logger.log("PARAMETER", {"lr": 0.1, "optimizer": "sgd"})
    logger.info({"seed": 1})
    logger.log((0, 1), values)
    logger.log((0, 1), {"train.loss": 1.0, "rank": 3})
    logger.log((0,), {"train.loss": 1.0})
    logger.log((0, 0, 1), {"val.loss": 1.0})
    logger.log((), {"best": 1.0})
    assert page.endpoint is not None
    text = ask(page.endpoint.port).body.decode()
    logger.close()
    expected = names_and_labels(
        (sample.name, sample.labels)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name != "target_info"  # who sends: job and instance, over OTLP
    )
    found = []
    for series in victoria_metrics.export('{run="page"}'):
        labels = series["metric"]
        found.append((labels.pop("__name__"), labels))
    assert expected == names_and_labels(found)
    assert len(expected) > 100


def test_a_diverged_loss_is_not_shown_as_the_last_good_one(
    victoria_metrics: VictoriaMetrics,
) -> None:
    """From NaN until the next finite value an instant query finds nothing."""
    backend = OTLPBackend(1, endpoint=victoria_metrics.otlp, run="nan", rank=0)
    for step, value in enumerate((1.0, NAN, 2.0)):
        time_us = START_US + step * 10_000_000
        backend.write_record(Record(time_us, step, (0, step), {"loss": value}))
    backend.close()
    found = [
        [value for _labels, value in victoria_metrics.query('dl_loss{run="nan"}', time_s)]
        for time_s in (START_US / 1e6 + 5, START_US / 1e6 + 15, START_US / 1e6 + 25)
    ]
    assert [[1.0], [], [2.0]] == found
