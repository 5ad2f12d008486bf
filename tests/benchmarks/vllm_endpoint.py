"""SmolLM2-135M in vLLM behind a Heliostat endpoint (keys, limits, metrics, HAProxy) and behind vLLM's own server.

Both engines get the same arguments and one thread. Bursts of streamed chats go to one, then to the other, at 1, 8 and
32 at a time; what is compared is a round's pair. Marks: 0.98 of the tokens/s, and a first token within 2 ms at 1.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from heliostat.benching import drawn
from heliostat.cluster.folders import free_ports
from heliostat.serve.auth import ENVIRONMENT
from heliostat.serve.bench.config import BenchConfig
from heliostat.serve.bench.load import drive
from heliostat.serve.bench.summary import Summary, summarise
from heliostat.serve.config import ServeConfig
from heliostat.serve.keys import generate_key
from tests.benchmarks.load import command, server
from tests.benchmarks.record import record
from tests.integration.tiny_models import publish

NAME = "chat"
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "6"))
REQUESTS = {1: 10, 8: 32, 32: 64}
"""Streams at a time -> how many in a burst."""
MAX_TOKENS = 64
VLLM = {"max_model_len": 2048, "kv_cache_memory_bytes": 2 << 30}
MARKS = {"tokens_per_second": 0.98, "first_token_ms_apart": 2.0}


def config(port: int) -> ServeConfig:
    """How the endpoint is served; vLLM's own server gets what follows from it."""
    return ServeConfig(port=port, engine="vllm", vllm=VLLM)


def write_model(folder: Path) -> dict[str, Any]:
    """The recipe's chat model as a folder; it has no probe."""
    import shutil

    from heliostat.spec import load_spec
    from heliostat.train.models import as_folder
    from heliostat.train.sources import resolve

    spec = load_spec("chat", ())
    shutil.copytree(as_folder(resolve(spec.model.source, spec.storage, "model.source")), folder, dirs_exist_ok=True)
    return {}


def serve_heliostat(storage: str, digest: str, port: int) -> None:
    """The published model, on one replica."""
    from heliostat.cluster.config import ClusterConfig
    from heliostat.cluster.session import session
    from heliostat.infra.storage import StorageConfig
    from heliostat.serve.app import AppArgs
    from heliostat.serve.launch import deploy, undeploy

    with session(ClusterConfig(num_cpus=os.cpu_count()), cpus=1):
        url, kept = f"{storage}/models/{NAME}/r1", StorageConfig(url=storage)
        deploy(AppArgs(name=NAME, url=url, digest=digest, version="1", config=config(port), storage=kept))
        sys.stdin.read()
        undeploy(NAME)


def serve_bare(folder: str, port: int) -> None:
    """vLLM's own server with the same arguments and threads, and as few logs."""
    import uvloop
    from vllm.entrypoints.launchers.api_server.entry import run_server

    from heliostat.serve.engines.vllm import arguments

    args = arguments(Path(folder), config(port), NAME)
    args.host, args.port, args.disable_uvicorn_access_log = "127.0.0.1", port, True
    threading.Thread(target=end_with_the_benchmark, daemon=True).start()
    uvloop.run(run_server(args))


def end_with_the_benchmark() -> None:
    """Ends this process once its standard input closes."""
    sys.stdin.read()
    os.kill(os.getpid(), 15)


@contextmanager
def both(folder: Path) -> Iterator[dict[str, str]]:
    """Both servers; the address of each."""
    _, digest = publish(folder / "storage", NAME, "causal-lm", write_model)
    bare, ours = free_ports(2)
    urls = {"vllm": f"http://127.0.0.1:{bare}", "heliostat": f"http://127.0.0.1:{ours}/{NAME}"}
    commands = {
        "vllm": command("vllm_endpoint", "vllm", folder / f"{NAME}-r1" / "model", bare),
        "heliostat": command("vllm_endpoint", "heliostat", folder / "storage", digest, ours),
    }
    with (
        server(commands["vllm"], urls["vllm"] + "/health", log=folder / "vllm.log", seconds=300),
        server(commands["heliostat"], urls["heliostat"] + "/health", log=folder / "heliostat.log", seconds=300),
    ):
        yield urls


def burst(url: str, streams: int, seed: int) -> Summary:
    """So many streams at a time; SystemExit where a request fails, as the figures would mean nothing."""
    load = {"concurrency": streams, "requests": REQUESTS[streams], "max_tokens": MAX_TOKENS, "seed": seed}
    asked = BenchConfig.model_validate({"url": url, "kind": "chat", **load})
    _, samples, seconds = asyncio.run(drive(asked, os.environ[ENVIRONMENT], drawn(asked), lambda _: None))
    found = summarise(samples, seconds)
    if found.errors:
        sys.exit(f"{url}: {found.errors}")
    return found


def main() -> None:
    """Starts both, measures in turns, prints and records the figures."""
    if sys.argv[1:2] == ["vllm"]:
        serve_bare(sys.argv[2], int(sys.argv[3]))
        return
    if sys.argv[1:2] == ["heliostat"]:
        serve_heliostat(sys.argv[2], sys.argv[3], int(sys.argv[4]))
        return
    os.environ[ENVIRONMENT] = generate_key()
    found: dict[int, dict[str, list[Summary]]] = {streams: {"vllm": [], "heliostat": []} for streams in REQUESTS}
    with tempfile.TemporaryDirectory() as folder, both(Path(folder)) as urls:
        for at in range(-1, ROUNDS):
            for streams, kinds in found.items():
                order = list(kinds) if at % 2 else list(kinds)[::-1]
                for kind in order:
                    summary = burst(urls[kind], streams, at)
                    if at >= 0:  # the round before the first warms up
                        kinds[kind].append(summary)
    record("vllm", {"marks": MARKS, **{f"{streams}_streams": compared(kinds) for streams, kinds in found.items()}})


def compared(kinds: dict[str, list[Summary]]) -> dict[str, Any]:
    """Medians of the rounds' ratios and differences, and of each server's figures."""
    rates = {kind: [one.tokens_per_second for one in summaries] for kind, summaries in kinds.items()}
    firsts = {kind: [one.first_token.p50 for one in summaries if one.first_token] for kind, summaries in kinds.items()}
    ratios = [ours / bare for ours, bare in zip(rates["heliostat"], rates["vllm"], strict=True)]
    apart = [ours - bare for ours, bare in zip(firsts["heliostat"], firsts["vllm"], strict=True)]
    return {
        "tokens_per_second_ratio": round(statistics.median(ratios), 3),
        "first_token_ms_apart": round(statistics.median(apart), 2),
        "tokens_per_second": {kind: [round(rate, 1) for rate in found] for kind, found in rates.items()},
        "first_token_p50_ms": {kind: [round(first, 1) for first in found] for kind, found in firsts.items()},
    }


if __name__ == "__main__":
    main()
