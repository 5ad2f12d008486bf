"""What watching costs: metrics, a line of JSON and traces of requests to an endpoint; metrics and heartbeats of a run.

MiniLM on real IMDb reviews. Three endpoints run at the same time: one exports its metrics and logs each request, one
traces a request in ten too, and one does nothing of that; bursts of load go to one after the other. The cores are what
limits them, so the CPU seconds of the replica for each request are compared: requests/s vary by a tenth from burst to
burst with what else the machine does. In training, blocks of steps of one process alternate. Marks: 2 % of a request,
5 % with traces, 1 % of a step.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil  # type: ignore[import-untyped]
from rich.console import Console
from rich.table import Table

from heliostat.serve.replica.replica import Replica
from tests.benchmarks.bench_classifier_endpoint import publish, serve_heliostat, write_script
from tests.benchmarks.bench_training import write_reviews
from tests.benchmarks.load import Load, command, median, server, wrk
from tests.benchmarks.processes import measured, say
from tests.benchmarks.record import record
from tests.spans import receiver

MODULE = "tests.benchmarks.bench_watching"
CONNECTIONS = 32
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "12"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "6"))
WARM_UP_SECONDS = 10
BLOCKS = int(os.environ.get("BENCH_BLOCKS", "24"))
STEPS = 10
"""Of a block."""
MARKS = {"watched": 0.02, "traced": 0.05, "training": 0.01}
PORTS = {"watched": 18631, "traced": 18632, "unwatched": 18633}


class SilentExporter:
    """Takes the place of the exporter, and of its thread."""

    def add(self, *_: object) -> None:
        """Drops a value."""

    begin = add

    def close(self) -> None:
        """Does nothing."""


class UnwatchedReplica(Replica):
    """A replica without metrics."""

    def __init__(self, args: dict[str, Any]) -> None:
        from heliostat.infra.metrics import export

        export.Exporter = SilentExporter  # type: ignore[assignment,misc]
        super().__init__(args)


def serve(kind: str, storage: str, digest: str) -> None:
    """One of the endpoints, with one replica for all cores."""
    from heliostat.serve import app

    if kind == "unwatched":
        vars(app)["Replica"] = UnwatchedReplica
    serve_heliostat(storage, digest, PORTS[kind], replicas=1)


def train(file: str) -> None:
    """Seconds of a step, by kind, block by block: the callbacks of a worker, its exporter and its heartbeat."""
    import torch

    from heliostat.cluster.config import ClusterConfig
    from heliostat.cluster.session.session import session
    from heliostat.infra.config.strict import build
    from heliostat.train import tasks
    from heliostat.train.config import TrainConfig
    from heliostat.train.data.batches import BatchPlan
    from heliostat.train.engine import build_engine
    from heliostat.train.loop import Run, train_step
    from heliostat.train.parallel.distributed import configure_process, join
    from tests.benchmarks.training_loop import base, reviews

    configure_process(1)
    world, task, rows = join("cpu"), tasks.get("text-classification"), reviews(file)
    values = {"global_batch_size": 32, "learning_rate": 2e-4, "epochs": 99, "dropout": 0.0, "precision": "bf16"}
    train = build(TrainConfig, values)
    torch.manual_seed(0)
    run = Run(task, build_engine(task.load_model(base(), rows.labels, 0.0), train, world), train, rows, rows, world)
    plan = BatchPlan(rows.lengths, rows.targets, train.global_batch_size, train.seed)
    found: dict[str, list[float]] = {"watched": [], "unwatched": []}

    def block(on_step: Callable[[Any], None], start: int) -> float:
        started = time.perf_counter()
        for step in range(start, start + STEPS):
            on_step(train_step(run, plan, step % plan.steps_per_epoch, plan.steps_per_epoch))
        return (time.perf_counter() - started) / STEPS

    with session(ClusterConfig(num_cpus=2), cpus=1):
        block(lambda _: None, 0)
        for at in range(BLOCKS):  # both kinds see the same batches
            with watching(run) as on_step:
                found["watched"].append(block(on_step, at * STEPS))
            found["unwatched"].append(block(lambda _: None, at * STEPS))
    say(found)


@contextmanager
def watching(run: Any) -> Iterator[Callable[[Any], None]]:
    """What a worker does at each step for those who watch, and beside it."""
    import ray

    from heliostat.infra.metrics.catalogue import TRAINING
    from heliostat.infra.metrics.export import Exporter
    from heliostat.train.launch import DriverChannel
    from heliostat.train.telemetry.events import metric_labels, step_reporter
    from heliostat.train.telemetry.heartbeat import Heartbeat

    job: Any = SimpleNamespace(name="reviews", run_id="bench")
    channel: Any = ray.remote(num_cpus=0)(DriverChannel).remote()
    ray.get(channel.take.remote())
    exporter = Exporter()
    exporter.begin(TRAINING, metric_labels(job, run.world))
    heartbeat = Heartbeat(channel.beat.remote, 0, "127.0.0.1", run.clocks)
    report = step_reporter(job, channel, run.world, 1e12, exporter.add)

    def on_step(stats: Any) -> None:
        heartbeat.stepped(stats)
        report(stats)

    yield on_step
    heartbeat.close()
    exporter.close()
    ray.kill(channel)


def of_training(folder: Path) -> dict[str, Any]:
    """The share of a step that watching costs: the median of the pairs of blocks."""
    write_reviews(folder / "reviews.arrow", 128)
    found = measured(MODULE, ["train", str(folder / "reviews.arrow")], 1)
    costs = [with_it / without - 1 for with_it, without in zip(found["watched"], found["unwatched"], strict=True)]
    return {
        "cost": round(statistics.median(costs), 4),
        "quartiles": [round(one, 4) for one in statistics.quantiles(costs, n=4)],
        "seconds_per_step": {kind: round(statistics.median(found[kind]), 4) for kind in found},
        "blocks": BLOCKS,
        "steps_per_block": STEPS,
    }


def replica_of(server: int) -> psutil.Process:
    """The process of the one replica that a server has, which is a descendant of it."""
    below = psutil.Process(server).children(recursive=True)
    (found,) = (one for one in below if "".join(one.cmdline()).startswith("ray::ServeReplica"))
    return found


def cpu_seconds(process: psutil.Process) -> float:
    """CPU seconds of all its threads, since it began."""
    times = process.cpu_times()
    return float(times.user + times.system)


def of_the_endpoint(folder: Path) -> dict[str, Any]:
    """The shares of a request that watching costs, in CPU seconds of the replica: the medians of the rounds."""
    from heliostat.serve.access.auth import ENVIRONMENT
    from heliostat.serve.access.keys import generate_key

    os.environ[ENVIRONMENT] = generate_key()
    digest, script = publish(folder), write_script(folder, os.environ[ENVIRONMENT])
    urls = {kind: f"http://127.0.0.1:{port}/reviews" for kind, port in PORTS.items()}
    found: dict[str, list[Load]] = {kind: [] for kind in PORTS}
    cpu: dict[str, list[float]] = {kind: [] for kind in PORTS}
    with ExitStack() as servers:
        traces, received = servers.enter_context(receiver())
        sampled = ["OTEL_TRACES_SAMPLER=parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG=0.1"]
        variables = {
            "watched": ["HELIOSTAT_LOG=json"],
            "traced": ["HELIOSTAT_LOG=json", f"OTEL_EXPORTER_OTLP_ENDPOINT={traces}", *sampled],
            "unwatched": ["HELIOSTAT_LOG_LEVEL=WARNING"],
        }
        replicas: dict[str, psutil.Process] = {}
        for kind in PORTS:
            line = ["env", *variables[kind], *command("bench_watching", kind, folder / "storage", digest)]
            started = servers.enter_context(server(line, f"{urls[kind]}/health", log=folder / f"{kind}.log"))
            replicas[kind] = replica_of(started)
        for url in urls.values():
            wrk(f"{url}/v1/predict", CONNECTIONS, WARM_UP_SECONDS, script)
        for at in range(ROUNDS):
            for kind in sorted(urls, reverse=bool(at % 2)):  # the machine changes within a round
                before = cpu_seconds(replicas[kind])
                found[kind].append(wrk(f"{urls[kind]}/v1/predict", CONNECTIONS, SECONDS, script))
                asked = found[kind][-1].requests_per_second * SECONDS
                cpu[kind].append((cpu_seconds(replicas[kind]) - before) / asked)
    rates = {kind: [load.requests_per_second for load in loads] for kind, loads in found.items()}
    costs = {
        kind: [with_it / without - 1 for with_it, without in zip(cpu[kind], cpu["unwatched"], strict=True)]
        for kind in ("watched", "traced")
    }
    return {
        "cost": {kind: round(statistics.median(found), 4) for kind, found in costs.items()},
        "quartiles": {kind: [round(one, 4) for one in statistics.quantiles(costs[kind], n=4)] for kind in costs},
        "spans": sum(len(scope.spans) for one in received for scope in one.scope_spans),
        "medians": {kind: asdict(median(loads)) for kind, loads in found.items()},
        "cpu_seconds_per_request": cpu,
        "requests_per_second": rates,
        "connections": CONNECTIONS,
        "rounds": ROUNDS,
        "seconds": SECONDS,
    }


def main() -> None:
    """Measures both, prints a table and records it."""
    if sys.argv[1:2] == ["train"]:
        train(sys.argv[2])
        return
    if sys.argv[1:]:
        serve(*sys.argv[1:4])
        return
    with tempfile.TemporaryDirectory() as temporary:
        results = {"endpoint": of_the_endpoint(Path(temporary)), "training": of_training(Path(temporary))}
    costs = {**results["endpoint"]["cost"], "training": results["training"]["cost"]}
    table = Table("what", "cost", "mark")
    for name, cost in costs.items():
        table.add_row(name, f"{cost:.2%}", f"{MARKS[name]:.0%}")
    Console().print(table)
    Console().print(f"recorded in {record('watching', {'marks': MARKS, **results})}")


if __name__ == "__main__":
    main()
