"""Replicas that follow a step of load: one user, then sixteen at a time, then one again.

A classifier scales on ongoing requests, a chat model on the time to its first tokens too; both are tiny, so that
what is measured is the scaling. Mark: from one replica to four and back to one, without a turn on the way.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from heliostat.cluster.config import ClusterConfig
from heliostat.cluster.folders import free_ports
from heliostat.cluster.session.session import session
from heliostat.operations.bench import drawn
from heliostat.serve.access.auth import ENVIRONMENT
from heliostat.serve.access.keys import generate_key
from heliostat.serve.bench.config import BenchConfig
from heliostat.serve.bench.load import drive
from heliostat.serve.deploy.applications import applications, running_replicas
from heliostat.serve.deploy.launch import deploy, undeploy
from tests.benchmarks.record import record
from tests.integration.tiny_models import app_args, classifier, generator, publish

USERS = 16
MOST = 4
STEP_SECONDS = float(os.environ.get("BENCH_SECONDS", "90"))
BACK_SECONDS = 150.0
Sizes = list[tuple[float, int]]
"""When there were how many replicas, where that changed."""

CASES: dict[str, tuple[str, Callable[[Path], dict[str, Any]], dict[str, Any], dict[str, Any]]] = {
    "ongoing_requests": ("text-classification", classifier, {"target_ongoing_requests": 4}, {"kind": "predict"}),
    "first_token": (
        "causal-lm",
        generator,
        {"target_ongoing_requests": 1000, "target_first_token_seconds": 0.1, "max_batch_size": 4},
        {"kind": "chat", "max_tokens": 128},
    ),
}
"""Task, model, what the `serve` section says of scaling, and what is asked."""


def asked(url: str, users: int, seconds: float, settings: dict[str, Any]) -> dict[str, int]:
    """So many users for so long; what failed, and how often."""
    until, failed = time.monotonic() + seconds, dict[str, int]()
    while time.monotonic() < until:
        load = {"url": url, "concurrency": users, "requests": 8 * users, "warm_up": 0, **settings}
        config = BenchConfig.model_validate(load)
        _, samples, _ = asyncio.run(drive(config, os.environ[ENVIRONMENT], drawn(config), lambda _: None))
        for error in filter(None, (sample.error for sample in samples)):
            failed[error] = failed.get(error, 0) + 1
    return failed


@contextmanager
def watching(name: str) -> Iterator[Sizes]:
    """How many replicas take requests while the block runs."""
    ended, found = threading.Event(), Sizes()

    def look() -> None:
        while not ended.wait(0.25):
            count = running_replicas(applications()[name])
            if not found or found[-1][1] != count:
                found.append((time.monotonic(), count))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    yield found
    ended.set()
    thread.join()


def turns(counts: Sequence[int]) -> int:
    """How often a series that rose falls, or rises again."""
    rises = [b > a for a, b in pairwise(counts)]
    return sum(a != b for a, b in pairwise(rises))


def measured(name: str, storage: Path, port: int) -> dict[str, Any]:
    """One endpoint through the step."""
    task, model, scaling, settings = CASES[name]
    replicas = {"min": 1, "max": MOST}
    config = {"port": port, "cpus_per_replica": 0.25, "replicas": replicas, "downscale_delay_seconds": 20, **scaling}
    app = name.replace("_", "-")
    endpoint = deploy(app_args(app, publish(storage, app, task, model), storage, "1", config))
    with watching(app) as sizes:
        asked(endpoint.url, 1, 5, settings)
        step = time.monotonic()
        failed = asked(endpoint.url, USERS, STEP_SECONDS, settings)
        end = time.monotonic()
        while time.monotonic() < end + BACK_SECONDS and sizes[-1][1] > 1:
            asked(endpoint.url, 1, 1, settings)
            time.sleep(1)
    undeploy(app)

    def first(reached: Callable[[int], bool], after: float) -> float | None:
        return next((round(at - after, 1) for at, count in sizes if at > after and reached(count)), None)

    return {
        "failed": failed,
        "first_added_seconds": first(lambda count: count > 1, step),
        "all_seconds": first(lambda count: count == MOST, step),
        "back_to_one_seconds": first(lambda count: count == 1, end),
        "turns": turns([count for _, count in sizes]),
        "replicas": [(round(at - step, 1), count) for at, count in sizes],
    }


def main() -> None:
    """Measures both and records the figures."""
    os.environ[ENVIRONMENT] = generate_key()
    with tempfile.TemporaryDirectory() as folder, session(ClusterConfig(num_cpus=8), cpus=1):
        port = free_ports(1)[0]
        found = {name: measured(name, Path(folder) / "storage", port) for name in CASES}
    record("autoscaling", {"users": [1, USERS, 1], "step_seconds": STEP_SECONDS, "marks": {"turns": 1}, **found})


if __name__ == "__main__":
    main()
