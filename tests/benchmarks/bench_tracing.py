"""A cheap route of a replica's application with traces off, and with one request in ten recorded. Mark: 5 %.

Both servers run at the same time; bursts of load go to one, then to the other. The one with traces sends them, at 1 in
10, to an endpoint in this process, which takes its part of the same cores. Another one, whose endpoint never answers,
is measured beside them.
"""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from threading import Thread

import uvicorn
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from rich.console import Console
from rich.table import Table

from heliostat.serve.config import ServeConfig
from heliostat.serve.http.app import Service, create_app
from heliostat.serve.metrics import ServeMetrics
from heliostat.serve.models.served_models import ServedModels
from heliostat.serve.predictors.batcher import Batcher, Limits
from tests.benchmarks.load import Load, command, end_with_the_benchmark, median, server, wrk
from tests.benchmarks.record import record
from tests.silent import silent_server
from tests.spans import receiver

CONNECTIONS = int(os.environ.get("BENCH_CONNECTIONS", "32"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "7"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "4"))
WARM_UP_SECONDS = 1
MARK = 0.05
PORTS = {"off": 18621, "1 in 10": 18622, "1 in 10, no answer": 18623}
POST = """
wrk.method, wrk.body = "POST", '{"text": "a film"}'
wrk.headers["content-type"] = "application/json"
"""


def serve(port: int) -> None:
    """A replica's application, middlewares and batcher included, around a model that does nothing."""
    metrics = ServeMetrics("tiny", "1", lambda *_: None)
    batcher = Batcher[bytes, bytes](lambda batch: batch, len, Limits(32, 10_000), metrics, blank=b"", pass_seconds=60)
    router = APIRouter()

    @router.post("/v1/predict")
    async def predict(request: Request) -> JSONResponse:
        [answer] = await batcher.submit([await request.body()])
        return JSONResponse({"bytes": len(answer)})

    async def no_probe(*_: object) -> None:
        pass

    service = Service(no_probe, check_health=lambda: None, close=batcher.close, router=router)
    served = ServedModels("tiny", "1", "text-classification", "run-1", datetime.now(timezone.utc))
    app = create_app(served, service, ServeConfig(auth="none", max_ongoing_requests=256), None, metrics)
    Thread(target=end_with_the_benchmark, daemon=True).start()
    uvicorn.run(app, port=port, log_level="warning", access_log=False)  # type: ignore[arg-type]


def measure(script: Path) -> dict[str, Load]:
    """The median of rounds of load, each server in turn."""
    urls = {name: f"http://127.0.0.1:{port}/v1/predict" for name, port in PORTS.items()}
    found: dict[str, list[Load]] = {name: [] for name in PORTS}
    for url in urls.values():
        wrk(url, CONNECTIONS, WARM_UP_SECONDS, script)
    for _ in range(ROUNDS):
        for name, url in urls.items():
            found[name].append(wrk(url, CONNECTIONS, SECONDS, script))
    return {name: median(loads) for name, loads in found.items()}


def main() -> None:
    """Starts all, measures, prints a table and records it."""
    if len(sys.argv) == 2:
        serve(int(sys.argv[1]))
        return
    with tempfile.TemporaryDirectory() as folder, receiver() as (url, received), silent_server() as silent:
        script = Path(folder, "post.lua")
        script.write_text(POST, encoding="utf-8")
        sampled = ["OTEL_TRACES_SAMPLER=parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG=0.1"]
        variables = {
            "off": ["-u", "OTEL_EXPORTER_OTLP_ENDPOINT"],
            "1 in 10": [*sampled, f"OTEL_EXPORTER_OTLP_ENDPOINT={url}"],
            "1 in 10, no answer": [*sampled, f"OTEL_EXPORTER_OTLP_ENDPOINT={silent}"],
        }
        with ExitStack() as stack:
            for name, port in PORTS.items():
                line = ["env", *variables[name], *command("bench_tracing", port)]
                stack.enter_context(server(line, f"http://127.0.0.1:{port}/health", log=Path(folder, f"{port}.log")))
            medians = measure(script)
        spans = sum(len(scope.spans) for one in received for scope in one.scope_spans)
    report(medians, spans)


def report(medians: dict[str, Load], spans: int) -> None:
    """The table and the file."""
    table = Table("traces", "requests/s", "p50 ms", "p99 ms", "of those without")
    shares = {name: one.requests_per_second / medians["off"].requests_per_second for name, one in medians.items()}
    for name, one in medians.items():
        cells = (f"{one.requests_per_second:.0f}", f"{one.p50_ms:.2f}", f"{one.p99_ms:.2f}", f"{shares[name]:.3f}")
        table.add_row(name, *cells)
    Console().print(table)
    results = {
        "mark": MARK,
        "holds": shares["1 in 10"] >= 1 - MARK,
        "share": {name: round(share, 3) for name, share in shares.items()},
        "spans_received": spans,
        "connections": CONNECTIONS,
        "rounds": ROUNDS,
        "seconds": SECONDS,
        "medians": {name: asdict(one) for name, one in medians.items()},
    }
    Console().print(f"recorded in {record('tracing', results)}")


if __name__ == "__main__":
    main()
