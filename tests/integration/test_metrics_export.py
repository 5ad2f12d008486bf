"""What Ray's agent serves of what two processes measured: numbers that are wrong without Heliostat's exporter."""

from __future__ import annotations

import os
import signal
import time
import urllib.request
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import ray
from prometheus_client.parser import text_string_to_metric_families

from heliostat.cluster.config import ClusterConfig
from heliostat.cluster.scrape import metrics_targets
from heliostat.cluster.session.session import session
from tests.waiting import until

MODEL = {"model": "tiny", "version": "7"}
SECONDS = (0.0026, 0.0026, 0.01, 0.3, 59.0)
REPORT_SECONDS = 1.0


class Process:
    """A process that observes SECONDS, sets a gauge once, and lives on."""

    def __init__(self, version: str) -> None:
        from heliostat.infra.metrics import catalogue
        from heliostat.infra.metrics.export import Exporter

        self.exporter = Exporter()
        labels = {"model": "tiny", "version": version}
        self.exporter.begin(catalogue.SERVING, {**labels, "adapter": ""})
        self.exporter.add(catalogue.ONGOING_REQUESTS, 3, labels)
        for seconds in SECONDS:
            self.exporter.add(catalogue.REQUEST_SECONDS, seconds, {**labels, "adapter": ""})

    def pid(self) -> int:
        return os.getpid()


def samples(name: str, **labels: str) -> list[float]:
    """What the agents serve at this moment."""
    found = []
    for target in metrics_targets():
        with urllib.request.urlopen(f"http://{target}/metrics", timeout=10) as response:
            for family in text_string_to_metric_families(response.read().decode()):
                for sample in family.samples:
                    if sample.name == name and labels.items() <= sample.labels.items():
                        found.append(sample.value)
    return found


@pytest.fixture(scope="module")
def processes() -> Iterator[list[Any]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_metrics_report_interval_ms", str(int(1000 * REPORT_SECONDS)))
        with session(ClusterConfig(num_cpus=2), cpus=2):
            actors = [ray.remote(num_cpus=0)(Process).remote(version) for version in ("7", "8")]
            ray.get([actor.pid.remote() for actor in actors])
            until(lambda: len(samples("ray_heliostat_ongoing_requests")) == 2, "the agent has both", 60)
            yield actors


@pytest.mark.usefixtures("processes")
def test_counts_and_sums_are_those_of_each_process() -> None:
    for version in ("7", "8"):
        is_there = partial(lambda at: samples("ray_heliostat_request_seconds_total", version=at) != [0.0], version)
        until(is_there, "it is there", 30)
        assert samples("ray_heliostat_request_seconds_count", version=version) == [len(SECONDS)]
        assert samples("ray_heliostat_request_seconds_total", version=version) == [pytest.approx(sum(SECONDS))]


@pytest.mark.usefixtures("processes")
def test_counters_are_there_at_zero_before_their_first_event() -> None:
    until(lambda: bool(samples("ray_heliostat_requests_total", version="7", status="500")), "it is there", 30)
    assert samples("ray_heliostat_requests_total", version="7", status="500") == [0.0]


def test_a_gauge_that_was_set_once_is_in_every_scrape_until_its_process_ends(processes: list[Any]) -> None:
    for _ in range(12):  # Ray's agent forgets a gauge after two reports
        assert samples("ray_heliostat_ongoing_requests", version="8") == [3.0]
        time.sleep(REPORT_SECONDS / 2)
    os.kill(ray.get(processes[1].pid.remote()), signal.SIGKILL)
    until(lambda: not samples("ray_heliostat_ongoing_requests", version="8"), "the gauge is gone", 60)
    assert samples("ray_heliostat_ongoing_requests", version="7") == [3.0]
