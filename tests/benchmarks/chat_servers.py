"""SmolLM2-135M behind a Heliostat endpoint and behind another server: bursts of streamed chats to each in turns.

What is compared is a round's pair, as the machine's speed changes from one minute to the next.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heliostat.cluster.folders import free_ports
from heliostat.operations.bench import drawn
from heliostat.serve.access.auth import ENVIRONMENT
from heliostat.serve.access.keys import generate_key
from heliostat.serve.bench.config import BenchConfig
from heliostat.serve.bench.load import drive
from heliostat.serve.bench.summary import Summary, summarise
from heliostat.serve.config import ServeConfig
from tests.benchmarks.load import command, end_with_the_benchmark, server
from tests.benchmarks.record import record
from tests.integration.tiny_models import publish

NAME, OURS = "chat", "heliostat"
MAX_TOKENS = 64


@dataclass(frozen=True)
class Contest:
    """Two servers, and how they are compared."""

    module: str
    """The benchmark's, which is run again for each server."""
    other: str
    """Name of the other server."""
    serve_other: Callable[[str, int], None]
    """Serves the model folder at the port until standard input closes."""
    config: ServeConfig
    requests: Mapping[int, int]
    """Streams at a time -> how many in a burst."""
    rounds: int
    marks: Mapping[str, float]
    ready: str = "/health"
    """A route of the other server that answers once it is up."""

    def main(self) -> None:
        """Starts both, measures, prints and records the figures; or is one of the servers."""
        if sys.argv[1:2] == [self.other]:
            threading.Thread(target=end_with_the_benchmark, daemon=True).start()
            self.serve_other(sys.argv[2], int(sys.argv[3]))
        elif sys.argv[1:2] == [OURS]:
            serve_heliostat(self.config, sys.argv[2], sys.argv[3], int(sys.argv[4]))
        else:
            os.environ[ENVIRONMENT] = generate_key()
            with tempfile.TemporaryDirectory() as folder:
                found = self.measure(Path(folder))
            figures = {f"{streams}_streams": self.compared(kinds) for streams, kinds in found.items()}
            record(self.module.removeprefix("bench_"), {"marks": self.marks, **figures})

    def measure(self, folder: Path) -> dict[int, dict[str, list[Summary]]]:
        """Streams at a time -> server -> what each round's burst did."""
        _, digest = publish(folder / "storage", NAME, "causal-lm", write_model)
        model, (theirs, ours) = folder / f"{NAME}-r1" / "model", free_ports(2)
        urls = {self.other: f"http://127.0.0.1:{theirs}", OURS: f"http://127.0.0.1:{ours}/{NAME}"}
        commands = {
            self.other: command(self.module, self.other, model, theirs),
            OURS: command(self.module, OURS, folder / "storage", digest, ours),
        }
        found: dict[int, dict[str, list[Summary]]] = {count: {kind: [] for kind in urls} for count in self.requests}
        with (
            server(commands[self.other], urls[self.other] + self.ready, log=folder / "other.log", seconds=300),
            server(commands[OURS], urls[OURS] + "/health", log=folder / "heliostat.log", seconds=300),
        ):
            for at in range(-1, self.rounds):
                for streams, kinds in found.items():
                    for kind in list(kinds)[:: 1 if at % 2 else -1]:
                        summary = burst(urls[kind], streams, self.requests[streams], at)
                        if at >= 0:  # the round before the first warms up
                            kinds[kind].append(summary)
        return found

    def compared(self, kinds: dict[str, list[Summary]]) -> dict[str, Any]:
        """Medians of the rounds' ratios and differences, and each server's figures."""
        rates = {kind: [one.tokens_per_second for one in rounds] for kind, rounds in kinds.items()}
        firsts = {kind: [one.first_token.p50 for one in rounds if one.first_token] for kind, rounds in kinds.items()}
        ratios = [ours / theirs for ours, theirs in zip(rates[OURS], rates[self.other], strict=True)]
        apart = [ours - theirs for ours, theirs in zip(firsts[OURS], firsts[self.other], strict=True)]
        return {
            "tokens_per_second_ratio": round(statistics.median(ratios), 3),
            "first_token_ms_apart": round(statistics.median(apart), 2),
            "tokens_per_second": {kind: [round(rate, 1) for rate in found] for kind, found in rates.items()},
            "first_token_p50_ms": {kind: [round(first, 1) for first in found] for kind, found in firsts.items()},
        }


def write_model(folder: Path) -> dict[str, Any]:
    """The recipe's chat model as a folder; it has no probe."""
    import shutil

    from heliostat.spec import load_spec
    from heliostat.train.data.sources.resolve import resolve
    from heliostat.train.models.pretrained import as_folder

    spec = load_spec("chat", ())
    shutil.copytree(as_folder(resolve(spec.model.origin, spec.storage, "model.source")), folder, dirs_exist_ok=True)
    return {}


def serve_heliostat(config: ServeConfig, storage: str, digest: str, port: int) -> None:
    """The published model, on one replica."""
    from heliostat.cluster.config import ClusterConfig
    from heliostat.cluster.session.session import session
    from heliostat.infra.storage.config import StorageConfig
    from heliostat.serve.args import AppArgs
    from heliostat.serve.deploy.launch import deploy, undeploy

    with session(ClusterConfig(num_cpus=os.cpu_count()), cpus=1):
        url, kept = f"{storage}/models/{NAME}/r1", StorageConfig(url=storage)
        config = config.model_copy(update={"port": port})
        deploy(AppArgs(name=NAME, url=url, digest=digest, version="1", config=config, storage=kept))
        sys.stdin.read()
        undeploy(NAME)


def burst(url: str, streams: int, requests: int, seed: int) -> Summary:
    """So many streams at a time; SystemExit where a request fails, as the figures would mean nothing."""
    asked = BenchConfig(
        url=url, kind="chat", concurrency=streams, requests=requests, max_tokens=MAX_TOKENS, seed=seed,
        timeout_seconds=600,
    )  # fmt: skip
    _, samples, seconds = asyncio.run(drive(asked, os.environ[ENVIRONMENT], drawn(asked), lambda _: None))
    found = summarise(samples, seconds)
    if found.errors:
        sys.exit(f"{url}: {found.errors}")
    return found
