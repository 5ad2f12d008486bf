"""What the exporter tells Prometheus: inventories of storage and registry as the metrics of the catalogue."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import Metric as Family
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from heliostat.infra.exporter.source import Answer, Source
from heliostat.infra.exporter.storage import Inventory
from heliostat.infra.metrics import of_storage
from heliostat.infra.metrics.metric import Metric
from heliostat.infra.registry.registry import ModelVersion

MOST_VERSIONS = 200
"""The newest are shown, with the aliases that point to them."""
FIRST_SECONDS = 2.0
"""How long the first scrape waits for the first looks."""
Sample = tuple[Metric, tuple[str, ...], float]
"""A metric, values of its labels in their order, and its value."""


class ExporterCollector(Collector):
    """Answers a scrape with what is known, and has storage and registry looked at if that is due."""

    def __init__(self, storage: Source[Inventory], registry: Source[list[ModelVersion]]) -> None:
        self.storage, self.registry = storage, registry

    def describe(self) -> Iterable[Family]:
        """Nothing, so that being registered looks at nothing."""
        return ()

    def collect(self) -> Iterator[Family]:
        """All metrics; takes FIRST_SECONDS at most."""
        self.storage.begin()
        self.registry.begin()
        until = time.monotonic() + FIRST_SECONDS
        stored, registered = self.storage.answer(until), self.registry.answer(until)
        samples = [*_looked("storage", stored), *_looked("registry", registered)]
        if stored.value:
            samples += of_inventory(stored.value, time.time())
        if registered.value is not None:
            samples += of_versions(registered.value)
        return families(samples)


def families(samples: Sequence[Sample]) -> Iterator[Family]:
    """The samples by metric, in the catalogue's order."""
    for metric in of_storage.EXPORTED:
        kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
        family = kind(metric.name, metric.help, labels=metric.labels)
        for found, labels, value in samples:
            if found is metric:
                family.add_metric(labels, value)
        yield family


def of_inventory(found: Inventory, now: float) -> Iterator[Sample]:
    """What is in storage, and how far runs are."""
    for name, folder in found.folders.items():
        yield of_storage.STORED_BYTES, (name,), folder.bytes
        yield of_storage.STORED_OBJECTS, (name,), folder.objects
    yield of_storage.LEFT_OUT, ("runs",), found.runs_left_out
    for run in found.runs:
        labels = run.model, run.run
        yield of_storage.RUN_STATE, (*labels, run.state(found.states.get(run.record.key), now)), 1
        yield of_storage.RUN_PROGRESS, labels, run.progress
        yield of_storage.RUN_BYTES, labels, run.bytes
        yield of_storage.RUN_DRIVERS, labels, run.drivers
        yield of_storage.RUN_CHECKPOINTS, labels, len(run.checkpoints)
        if run.checkpoints:
            yield of_storage.RUN_CHECKPOINT, labels, max(run.checkpoints)
        if run.interval is not None:
            yield of_storage.RUN_INTERVAL, labels, run.interval


def of_versions(found: list[ModelVersion]) -> Iterator[Sample]:
    """Models, their newest versions, and aliases."""
    newest = sorted(found, key=lambda one: one.created, reverse=True)[:MOST_VERSIONS]
    aliases = [(one, alias) for one in found for alias in one.aliases]
    for name in {one.name for one in newest}:
        yield of_storage.MODEL_VERSIONS, (name,), sum(one.name == name for one in found)
    for one in newest:
        yield of_storage.VERSION_TIME, (one.name, str(one.version)), one.created.timestamp()
    for one, alias in aliases[:MOST_VERSIONS]:
        yield of_storage.ALIAS, (one.name, alias), one.version
    yield of_storage.LEFT_OUT, ("versions",), len(found) - len(newest)
    yield of_storage.LEFT_OUT, ("aliases",), max(0, len(aliases) - MOST_VERSIONS)


def _looked(source: str, answer: Answer[Inventory] | Answer[list[ModelVersion]]) -> Iterator[Sample]:
    yield of_storage.UP, (source,), answer.is_up
    yield of_storage.REFRESH_ERRORS, (source,), answer.errors
    if answer.at:
        yield of_storage.REFRESHED, (source,), answer.at
        yield of_storage.REFRESH_SECONDS, (source,), answer.seconds
