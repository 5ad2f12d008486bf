"""What of the values that a process measures reaches Ray."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from heliostat.infra.metrics import catalogue, export
from heliostat.infra.metrics.catalogue import LABELS, SERVING
from heliostat.infra.metrics.export import Exporter, Labels
from heliostat.infra.metrics.metric import Metric
from heliostat.serve.metrics import ServeMetrics
from tests.waiting import until

MODEL = {"model": "tiny", "version": "7"}
ANSWER = {**MODEL, "adapter": ""}
NEVER = 3600


class Passed:
    """What was passed to Ray, in order."""

    def __init__(self) -> None:
        self.values: list[tuple[Metric, float, Labels]] = []

    def record(self, metric: Metric, value: float, labels: Labels) -> None:
        self.values.append((metric, value, dict(labels)))

    def of(self, metric: Metric) -> list[tuple[float, Labels]]:
        return [(value, labels) for found, value, labels in self.values if found == metric]


@contextmanager
def exporter(seconds: float) -> Iterator[tuple[Exporter, Passed]]:
    passed = Passed()
    found = Exporter(passed.record, seconds)
    try:
        yield found, passed
    finally:
        found.close()


class FakeInstrument:
    """Stands in for Ray's Counter, Gauge and Histogram, which need a running Ray."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, float, dict[str, str]]] = []

    def __getattr__(self, method: str) -> Any:
        return lambda value, tags: self.calls.append((method, value, tags))


@pytest.fixture
def instrument(monkeypatch: pytest.MonkeyPatch) -> FakeInstrument:
    fake = FakeInstrument()
    monkeypatch.setattr(export, "_instrument", lambda metric: fake)
    return fake


@pytest.mark.parametrize(
    ("metric", "value", "method"),
    [
        (catalogue.REQUESTS, 2.0, "inc"),
        (catalogue.REQUESTS, 0.0, "_record"),
        (catalogue.ONGOING_REQUESTS, 0.0, "set"),
        (catalogue.REQUEST_SECONDS, 2.0, "observe"),
    ],
)
def test_record_uses_the_method_of_the_kind(
    instrument: FakeInstrument, metric: Metric, value: float, method: str
) -> None:
    labels = dict.fromkeys(metric.labels, "x")
    export.record(metric, value, labels)
    assert instrument.calls == [(method, value, labels)]


def test_counters_are_added_up_and_all_is_passed_at_the_end() -> None:
    with exporter(NEVER) as (found, passed):
        metrics = ServeMetrics("tiny", "7", found.add)
        for status, seconds in ((200, 0.1), (200, 0.2), (500, 0.3)):
            metrics.request(status, seconds)
        for count in (1, 2, 1):
            metrics.ongoing(count)
        assert passed.values == []
    assert passed.of(catalogue.REQUEST_SECONDS) == [(seconds, ANSWER) for seconds in (0.1, 0.2, 0.3)]
    assert passed.of(catalogue.REQUESTS) == [(2, {**ANSWER, "status": "200"}), (1, {**ANSWER, "status": "500"})]
    assert passed.of(catalogue.ONGOING_REQUESTS) == [(1, MODEL)]


def test_what_a_histogram_observes_is_added_up_in_a_counter_beside_it() -> None:
    with exporter(NEVER) as (found, passed):
        for value in (0.001, 0.25, 59.0):  # two of them are bounds of buckets
            found.add(catalogue.REQUEST_SECONDS, value, ANSWER)
    [(total, labels)] = passed.of(catalogue.REQUEST_SECONDS.total)
    assert total == pytest.approx(59.251)
    assert labels == ANSWER


def test_gauges_are_set_again_and_again_and_counters_are_not() -> None:
    with exporter(0.01) as (found, passed):
        ServeMetrics("tiny", "7", found.add).ongoing(4)
        found.add(catalogue.BATCH_SIZE, 3, MODEL)
        until(lambda: len(passed.of(catalogue.ONGOING_REQUESTS)) > 5, "the gauge is set again", seconds=10)
        found.add(catalogue.ONGOING_REQUESTS, 5, MODEL)
        until(lambda: passed.of(catalogue.ONGOING_REQUESTS)[-1] == (5, MODEL), "it has its last value", seconds=10)
    assert passed.of(catalogue.BATCH_SIZE) == [(3, MODEL)]
    assert passed.of(catalogue.BATCH_SIZE.total) == [(3, MODEL)]


def test_counters_begin_at_zero_for_each_value_that_a_label_may_have() -> None:
    with exporter(NEVER) as (found, passed):
        found.begin(SERVING, ANSWER)
    assert [value for _, value, _ in passed.values] == [0] * len(passed.values)
    begun = [labels["status"] for _, labels in passed.of(catalogue.REQUESTS)]
    assert begun == list(LABELS["status"].values)
    assert {metric for metric, _, _ in passed.values} == {metric for metric in SERVING if metric.kind == "counter"}


def test_a_value_that_cannot_be_recorded_stops_no_other() -> None:
    recorded: list[float] = []

    def record(metric: Metric, value: float, labels: Labels) -> None:
        if value == 1:
            raise RuntimeError("no agent")
        recorded.append(value)

    found = Exporter(record, NEVER)
    for value in (1.0, 4.0):
        found.add(catalogue.REQUEST_SECONDS, value, ANSWER)
    found.close()
    assert recorded == [4.0, 5.0]


def test_labels_that_a_metric_does_not_have_are_refused() -> None:
    with exporter(NEVER) as (found, _), pytest.raises(ValueError, match="heliostat_damaged_keys: labels model given"):
        found.add(catalogue.DAMAGED_KEYS, 1, {"model": "tiny"})
