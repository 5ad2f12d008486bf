from __future__ import annotations

import re
from typing import Any

import pytest

from heliostat.infra.metrics import catalogue as metrics
from heliostat.infra.metrics import export
from heliostat.infra.metrics.catalogue import CATALOGUE, Metric

BOUNDED_LABELS = {"model", "version", "status", "kind", "run", "rank", "cause", "adapter"}
BASE_UNITS = {"seconds", "bytes", "tokens"}
OTHER_UNITS = {"ms", "milliseconds", "minutes", "kb", "mb", "gb", "mib", "gib", "percent"}

every_metric = pytest.mark.parametrize("metric", CATALOGUE, ids=lambda metric: metric.name)


def test_the_catalogue_holds_each_name_once() -> None:
    assert len(CATALOGUE) > 10
    assert len({metric.name for metric in CATALOGUE}) == len(CATALOGUE)


@every_metric
def test_a_name_follows_prometheus(metric: Metric) -> None:
    assert re.fullmatch(r"heliostat(_[a-z0-9]+)+", metric.name)
    assert not set(metric.name.split("_")) & OTHER_UNITS
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert not re.search(r"_(count|sum|bucket)$", metric.name), "Prometheus adds these itself"
    assert metric.help.endswith(".")


@every_metric
def test_a_unit_in_the_help_is_in_the_name(metric: Metric) -> None:
    said = [unit for unit in BASE_UNITS if metric.help.lower().startswith(unit)]
    assert all(unit in metric.name.split("_") for unit in said)


@every_metric
def test_labels_are_bounded(metric: Metric) -> None:
    assert set(metric.labels) <= BOUNDED_LABELS
    assert len(set(metric.labels)) == len(metric.labels)


@every_metric
def test_buckets_belong_to_histograms_and_rise(metric: Metric) -> None:
    assert bool(metric.buckets) == (metric.kind == "histogram")
    assert list(metric.buckets) == sorted(set(metric.buckets))
    assert all(bound > 0 for bound in metric.buckets)


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
    ("metric", "method"),
    [(metrics.REQUESTS, "inc"), (metrics.ONGOING_REQUESTS, "set"), (metrics.REQUEST_SECONDS, "observe")],
)
def test_record_uses_the_method_of_the_kind(instrument: FakeInstrument, metric: Metric, method: str) -> None:
    labels = dict.fromkeys(metric.labels, "x")
    export.record(metric, 2.0, labels)
    assert instrument.calls == [(method, 2.0, labels)]


def test_nothing_is_added_to_a_counter_where_there_is_nothing_to_add(instrument: FakeInstrument) -> None:
    export.record(metrics.TRAIN_SAMPLES, 0, dict.fromkeys(metrics.TRAIN_SAMPLES.labels, "x"))
    export.record(metrics.ONGOING_REQUESTS, 0, dict.fromkeys(metrics.ONGOING_REQUESTS.labels, "x"))
    assert [method for method, _, _ in instrument.calls] == ["set"]
