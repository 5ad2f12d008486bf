from __future__ import annotations

import re

import pytest

from heliostat.infra.metrics.catalogue import CATALOGUE, EXPORTED, LABELS, SERVING, STORAGE, TRAINING, TUNING
from heliostat.infra.metrics.metric import Metric

BASE_UNITS = {"seconds", "bytes", "tokens", "ratio"}
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
    assert metric.purpose.endswith(".")


@every_metric
def test_a_base_unit_is_in_the_name(metric: Metric) -> None:
    assert metric.unit not in BASE_UNITS or metric.unit in metric.name.split("_")


def test_a_metric_belongs_to_one_kind_of_process() -> None:
    assert sorted(one.name for one in (*TRAINING, *SERVING, *TUNING, *STORAGE, *EXPORTED)) == sorted(
        one.name for one in CATALOGUE
    )


@every_metric
def test_labels_are_bounded(metric: Metric) -> None:
    assert set(metric.labels) <= set(LABELS)
    assert len(set(metric.labels)) == len(metric.labels)


@every_metric
def test_buckets_belong_to_histograms_and_rise(metric: Metric) -> None:
    assert bool(metric.buckets) == (metric.kind == "histogram")
    assert list(metric.buckets) == sorted(set(metric.buckets))
    assert all(bound > 0 for bound in metric.buckets)
