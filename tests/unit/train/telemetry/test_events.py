"""What a worker exports when it begins, and what its steps and checkpoints are as spans."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from heliostat.infra.config.strict import build
from heliostat.infra.metrics.metric import Metric
from heliostat.infra.tracing import semconv
from heliostat.infra.tracing.span import inside
from heliostat.train.checkpoints.checkpoint import StoreStats
from heliostat.train.job import Job
from heliostat.train.parallel.distributed import World
from heliostat.train.telemetry.events import report_start, step_reporter, store_reporter
from heliostat.train.telemetry.stats import StepStats
from tests.spans import Kept, id_of, parent_of, trace_of

WORLD = World(1, 2, "cpu")


@pytest.fixture
def job() -> Job:
    settings: dict[str, Any] = {
        "name": "tiny", "task": "tabular-classification", "run_id": "run-1", "model": {"mlp": {}},
        "data": {"source": "x.csv"}, "data_fingerprint": "f", "train": {}, "storage": {"url": "x"}, "spec": "",
    }  # fmt: skip
    return build(Job, settings)


def step(number: int) -> StepStats:
    return StepStats(number, 100, 0.5, 1e-3, 1.0, seconds=2.0, samples=8, micro_batch_size=4, tokens=64)


def test_each_tenth_step_is_a_trace_of_its_own_that_links_to_the_workers(job: Job) -> None:
    kept = Kept()
    with inside(kept.tracer.begin("worker")):
        on_step = step_reporter(job, None, WORLD, 1e9, lambda *_: None)
    for number in range(1, 31):
        on_step(step(number))
    steps, worker = kept.named("step"), kept.one("worker")
    assert [(one.attributes or {})[semconv.STEP] for one in steps] == [10, 20, 30]
    assert {(one.attributes or {})[semconv.RANK] for one in steps} == {1}
    assert [link.context.span_id for one in steps for link in one.links] == [id_of(worker)] * 3
    assert len({trace_of(one) for one in (*steps, worker)}) == 4
    assert all((one.end_time or 0) - (one.start_time or 0) == 2_000_000_000 for one in steps)


def test_a_checkpoint_is_a_part_of_the_workers_span_and_its_upload_of_it(job: Job) -> None:
    kept = Kept()
    with inside(kept.tracer.begin("worker")):
        on_stored = store_reporter(job, WORLD, lambda *_: None)
    on_stored(StoreStats(40, wait_seconds=1.0, store_seconds=3.0, bytes=100))
    worker, checkpoint, upload = (kept.one(name) for name in ("worker", "checkpoint", "upload"))
    assert (parent_of(upload), parent_of(checkpoint)) == (id_of(checkpoint), id_of(worker))
    assert (checkpoint.end_time or 0) - (checkpoint.start_time or 0) == 4_000_000_000
    assert dict(checkpoint.attributes or {}) == {semconv.RANK: 1, semconv.STEP: 40, semconv.BYTES: 100}


def test_of_a_run_that_is_not_sampled_nothing_is_recorded(job: Job) -> None:
    kept = Kept()
    with inside(kept.tracer.begin("worker", headers={"traceparent": f"00-{'a' * 32}-{'b' * 16}-00"})):
        step_reporter(job, None, WORLD, 1e9, lambda *_: None)(step(10))
    assert kept.all() == []


JOB: Any = SimpleNamespace(name="m", run_id="r1")


@pytest.mark.parametrize(("reason", "restarts"), [("", []), ("resize", ["resize"])])
def test_a_worker_that_begins_anew_says_why(reason: str, restarts: list[str]) -> None:
    told: list[tuple[str, float, dict[str, str]]] = []

    def record(metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        assert set(labels) == set(metric.labels)
        told.append((metric.name, value, dict(labels)))

    report_start(JOB, World(0, 3, "cpu"), record, reason)
    values = {name: value for name, value, _ in told}
    assert values["heliostat_train_starts_total"] == 1
    assert values["heliostat_train_workers"] == 3
    assert [labels["restart_reason"] for name, _, labels in told if "restarts" in name] == restarts
