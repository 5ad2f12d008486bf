"""A route that does nothing: Ray Serve as Heliostat sets it up, against Ray Serve as it comes, and with its fast path.

The fast path is HAProxy with RAY_SERVE_THROUGHPUT_OPTIMIZED. Marks: four times, and no slower. All servers run at the
same time, on the same application; bursts of load go to one after the other.
"""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.benchmarks.load import Load, command, median, server, wrk
from tests.benchmarks.record import record

CONNECTIONS = (1, 64)
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "4"))
WARM_UP_SECONDS = 2
MARKS = {"ray": 4.0, "ray_fast": 1.0}
PORTS = {"ray": 18611, "ray_fast": 18613, "heliostat": 18612}
FAST = {
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_HAPROXY_METRICS_PORT": "18614",
    "RAY_SERVE_HAPROXY_STATS_PORT": "18615",
    "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": "18616",
}
"""Ray's fast path, with ports that nobody else has."""


def application() -> Any:
    """One FastAPI route."""
    from fastapi import FastAPI

    app = FastAPI()

    @app.get("/")
    async def nothing() -> str:
        return "ok"

    return app


def serve_ray(port: int) -> None:
    """Ray Serve with its own settings, but for room for all connections."""
    import ray
    from ray import serve

    with tempfile.TemporaryDirectory(prefix="bench-ray-", dir="/tmp") as folder:
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _temp_dir=folder)
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        deployment = serve.deployment(serve.ingress(application)(type("Noop", (), {})), max_ongoing_requests=1000)
        serve.run(deployment.bind(), name="noop", route_prefix="/noop")
        sys.stdin.read()
        serve.shutdown()
        ray.shutdown()


def serve_heliostat(port: int) -> None:
    """The same application with the session, the ingress and the settings of every Heliostat endpoint."""
    from heliostat.cluster.config import ClusterConfig
    from heliostat.cluster.session.session import session
    from heliostat.serve.app import options
    from heliostat.serve.config import ServeConfig
    from heliostat.serve.deploy.ingress import start_serve, stop_serve

    with session(ClusterConfig(num_cpus=2), cpus=1):
        from ray import serve

        config = ServeConfig(port=port)
        start_serve(config)
        deployment = serve.deployment(serve.ingress(application)(type("Noop", (), {})), **options(config))
        serve.run(deployment.bind(), name="noop", route_prefix="/noop")
        sys.stdin.read()
        serve.delete("noop")
        stop_serve()


def measure() -> dict[str, dict[int, list[Load]]]:
    """Rounds of load, each server in turn."""
    urls = {name: f"http://127.0.0.1:{port}/noop/" for name, port in PORTS.items()}
    found: dict[str, dict[int, list[Load]]] = {name: {count: [] for count in CONNECTIONS} for name in PORTS}
    for url in urls.values():
        wrk(url, 8, WARM_UP_SECONDS)
    for _ in range(ROUNDS):
        for count in CONNECTIONS:
            for name, url in urls.items():
                found[name][count].append(wrk(url, count, SECONDS))
    return found


def main() -> None:
    """Starts both, measures, prints a table and records it."""
    if len(sys.argv) == 3:
        (serve_heliostat if sys.argv[1] == "heliostat" else serve_ray)(int(sys.argv[2]))
        return
    with tempfile.TemporaryDirectory() as logs, ExitStack() as servers:
        for name, port in PORTS.items():
            variables = [f"{key}={value}" for key, value in FAST.items()] if name == "ray_fast" else []
            line = ["env", *variables, *command("bench_noop_route", name, port)]
            servers.enter_context(server(line, f"http://127.0.0.1:{port}/noop/", log=Path(logs, f"{name}.log")))
        found = measure()
    report({name: {count: median(loads) for count, loads in counts.items()} for name, counts in found.items()})


def report(medians: dict[str, dict[int, Load]]) -> None:
    """The table and the file."""
    table = Table("connections", "server", "requests/s", "p50 ms", "p99 ms", "heliostat to it")
    ratios: dict[str, dict[str, float]] = {name: {} for name in MARKS}
    for count in CONNECTIONS:
        ours = medians["heliostat"][count].requests_per_second
        for name in PORTS:
            load = medians[name][count]
            cells = [str(count), name, f"{load.requests_per_second:.0f}", f"{load.p50_ms:.2f}", f"{load.p99_ms:.2f}"]
            if name in MARKS:
                ratios[name][str(count)] = round(ours / load.requests_per_second, 2)
                cells.append(f"{ratios[name][str(count)]:.2f}x")
            table.add_row(*cells)
    Console().print(table)
    results = {
        "marks": MARKS,
        "ratio_of_heliostat_to": ratios,
        "rounds": ROUNDS,
        "seconds": SECONDS,
        "medians": {name: {str(count): asdict(load) for count, load in one.items()} for name, one in medians.items()},
    }
    Console().print(f"recorded in {record('noop_route', results)}")


if __name__ == "__main__":
    main()
