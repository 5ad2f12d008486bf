"""A client with a key while another one attacks the same endpoint for a minute, in all known ways at once.

MiniLM on real reviews, four replicas. The attacker has a key, and an address for each way, so that none is in the way
of another. It keeps as many connections with half a header as it can, as many requests whose body stalls as the
endpoint has places, and sends a request that ends every replica that reads it. The other client asks at a tenth of what
the endpoint can answer, before the attack and during it. Marks: it loses no request, and its p99 is at most twice that
of before. The attack is made on the same cores, so what it takes of them is told too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from heliostat.cluster.folders import free_ports
from heliostat.serve.access.auth import ENVIRONMENT
from heliostat.serve.access.keys import generate_key
from tests.benchmarks.bench_classifier_endpoint import publish, serve_heliostat
from tests.benchmarks.bench_overload import load, reviews
from tests.benchmarks.load import command, server
from tests.benchmarks.record import record

SECONDS = float(os.environ.get("BENCH_SECONDS", "60"))
REPLICAS = 4
SHARE = 0.1
"""Of what the endpoint can answer, what the other client asks."""
MARKS = {"errors": 0, "p99_ratio": 2.0}
ADDRESSES = {"half a header": "127.0.0.2", "stalled body": "127.0.0.3", "lethal": "127.0.0.4"}
"""Of the attacker."""
HALF_HEADERS, STALLED = 4400, 64
LETHAL = "this text ends the process that reads it"
LETHAL_SECONDS = 1.0
TRAP = f"""\
import importlib.abc, importlib.util, os, sys

class Trap(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "heliostat.serve.predictors.texts":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            encode = module.TextEncoder.encode

            def trapped(self, texts, *arguments):
                if {LETHAL!r} in texts:
                    os._exit(139)
                return encode(self, texts, *arguments)

            module.TextEncoder.encode = trapped

        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Trap())
"""
"""A `sitecustomize.py` for the replicas: a model with a fault, as any native library may have."""


async def attack(url: str, key: str) -> Counter[str]:
    """Attacks until it is cancelled; returns what the endpoint did about it."""
    found: Counter[str] = Counter()
    address = urllib.parse.urlsplit(url)
    head = (
        f"POST {address.path}/v1/predict HTTP/1.1\r\nhost: {address.netloc}\r\nauthorization: Bearer {key}\r\n"
        "content-type: application/json\r\n"
    )
    lethal = json.dumps({"text": LETHAL})

    async def again(kind: str, sent: str, pause: float) -> None:
        """Sends `sent` on a connection, waits until the other side ends it or answers, and begins again."""
        while True:
            try:
                reader, writer = await asyncio.open_connection(
                    address.hostname, address.port, local_addr=(ADDRESSES[kind], 0)
                )
                writer.write(sent.encode())
                answer = await reader.read(12)
                found[f"{kind}: {answer[9:].decode() or 'closed'}"] += 1
                writer.close()
            except OSError as error:
                found[f"{kind}: {type(error).__name__}"] += 1
            await asyncio.sleep(pause)

    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(
            again(
                "lethal", f"{head}connection: close\r\ncontent-length: {len(lethal)}\r\n\r\n{lethal}", LETHAL_SECONDS
            ),
            *(again("stalled body", head + 'content-length: 100\r\n\r\n{"text":', 0.1) for _ in range(STALLED)),
            *(again("half a header", head, 1.0) for _ in range(HALF_HEADERS)),
        )
    return found


def run_attack(url: str) -> None:
    """Attacks for SECONDS and prints what came of it."""

    async def bounded() -> Counter[str]:
        task = asyncio.create_task(attack(url, sys.stdin.readline().strip()))
        await asyncio.sleep(SECONDS)
        task.cancel()
        return await task

    found = asyncio.run(bounded())
    sys.stdout.write(json.dumps({**found, "cpu_seconds": time.process_time()}))


def measured(url: str, attacker: str) -> dict[str, Any]:
    """The figures."""
    texts = reviews()
    load(url, texts, concurrency=32, requests=600)
    _, full = load(url, texts, concurrency=32, requests=600)
    rate = SHARE * full.requests_per_second
    quiet = {"rate": rate, "requests": int(rate * SECONDS)}
    _, before = load(url, texts, **quiet)
    process = subprocess.Popen(
        command("bench_attack", "attack", url), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    process.stdin.write(attacker + "\n")
    process.stdin.flush()
    time.sleep(2)
    _, during = load(url, texts, **quiet)
    said, _ = process.communicate(timeout=120)
    assert before.latency
    assert during.latency
    return {
        "marks": MARKS,
        "seconds": SECONDS,
        "capacity_per_second": full.requests_per_second,
        "requests_per_second": rate,
        "errors": during.errors,
        "p99_ratio": during.latency.p99 / before.latency.p99,
        "before_ms": asdict(before.latency),
        "during_ms": asdict(during.latency),
        "attacker": json.loads(said),
    }


def main() -> None:
    """Publishes the model, starts the endpoint, attacks it and records the figures."""
    if sys.argv[1:2] == ["heliostat"]:
        serve_heliostat(sys.argv[2], sys.argv[3], int(sys.argv[4]), REPLICAS)
        return
    if sys.argv[1:2] == ["attack"]:
        run_attack(sys.argv[2])
        return
    attacker, other = generate_key(), generate_key()
    with tempfile.TemporaryDirectory() as temporary:
        folder, port = Path(temporary), free_ports(1)[0]
        (folder / "sitecustomize.py").write_text(TRAP)
        os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
        os.environ[ENVIRONMENT] = f"{other},{attacker}"
        ours = command("bench_attack", "heliostat", folder / "storage", publish(folder), port)
        url = f"http://127.0.0.1:{port}/reviews"
        with server(ours, url + "/health", log=folder / "log"):
            os.environ[ENVIRONMENT] = other
            record("attack", measured(url, attacker))


if __name__ == "__main__":
    main()
