"""A scrape of the exporter with 50 runs and 200 versions. Marks: 200 ms a scrape, 20 calls of storage a look."""

from __future__ import annotations

import tempfile
import time
import urllib.request
from pathlib import Path

from heliostat.infra.exporter.collector import ExporterCollector
from heliostat.infra.exporter.server import serving
from heliostat.infra.exporter.source import Source
from heliostat.infra.exporter.storage import StorageLook
from tests.benchmarks.record import record
from tests.unit.infra.exporter.stores import counting_store, put, put_run, version

RUNS, VERSIONS, SCRAPES = 50, 200, 50
MARK_SECONDS, MARK_CALLS = 0.2, 20


def main() -> None:
    """Measures scrapes, beside which a look is always under way, and the calls of the first five looks."""
    now = time.time()
    with tempfile.TemporaryDirectory() as folder:
        store = counting_store(Path(folder))
        for number in range(RUNS):
            put_run(store, "m", f"r{number:02}", "finished", now - number, now - 2000, now - 1000)
        for number in range(VERSIONS):
            for name in ("manifest.json", "heliostat.json", "model/config.json", "model/model.safetensors"):
                put(store, f"models/m/{number}/{name}")
        versions = [version("m", number, now + number) for number in range(VERSIONS)]
        look, calls = StorageLook(store), []
        for _ in range(5):
            store.calls.clear()
            look()
            calls.append(len(store.calls))
        found = ExporterCollector(Source("storage", look, 0), Source("registry", lambda: versions, 0))
        with serving(found, "127.0.0.1", 0) as port:
            seconds = sorted(scrape(f"http://127.0.0.1:{port}/metrics") for _ in range(SCRAPES))
    record(
        "exporter",
        {
            "runs": RUNS,
            "versions": VERSIONS,
            "calls_of_storage_by_look": calls,
            "scrape_seconds": {"median": seconds[SCRAPES // 2], "most": seconds[-1]},
            "holds": max(calls) <= MARK_CALLS and seconds[SCRAPES // 2] <= MARK_SECONDS,
        },
    )


def scrape(url: str) -> float:
    """Seconds of a scrape."""
    started = time.perf_counter()
    with urllib.request.urlopen(url, timeout=60) as answer:
        answer.read()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
