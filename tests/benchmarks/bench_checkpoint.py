"""Checkpoints to a real S3 server (SeaweedFS): how long training stands still, and how fast the upload is.

Two workers with an encoder of 41 M parameters (8 layers, 512 wide) at ZeRO stage 2. In turns: a checkpoint that
training waits for until it is stored, and one beside which it goes on. Then rank 0's files, stored by Heliostat
(checksums, manifest) and by boto3's own multipart upload. Marks: a stall of 5 % at most, 0.8 of boto3's bytes/s at
least.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.processes import measured, say
from tests.benchmarks.record import record
from tests.seaweedfs import BUCKET, seaweedfs

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
WORKERS = 2
BATCH = 4
TOKENS = 32


def make_engine(world: Any) -> Any:
    """A DeepSpeed engine around a BERT with random weights, its optimizer's state in place."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    from heliostat.train.config import TrainConfig
    from heliostat.train.engine import build_engine

    torch.manual_seed(0)
    train = TrainConfig(global_batch_size=BATCH * world.size, zero_stage=2, precision="bf16")
    sizes = {"hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8, "intermediate_size": 2048}
    engine = build_engine(BertForSequenceClassification(BertConfig(**sizes)), train, world)
    step(engine)
    return engine


def step(engine: Any) -> float:
    """Seconds of one training step."""
    import torch

    started = time.perf_counter()
    tokens = torch.randint(1000, 30_000, (BATCH, TOKENS))
    engine.backward(engine(input_ids=tokens, labels=torch.zeros(BATCH, dtype=torch.long)).loss)
    engine.step()
    return time.perf_counter() - started


def worker() -> None:
    """What each rank does under torchrun; rank 0 writes what it measured to stdout."""
    from heliostat.infra.storage.store import open_store
    from heliostat.train.checkpoints.checkpoint import Checkpoints
    from heliostat.train.parallel.distributed import configure_process, join

    configure_process(1)
    world = join("cpu")
    engine = make_engine(world)
    points = Checkpoints(open_store(f"s3://{BUCKET}/run"), "checkpoints", world, {}, keep=1)
    found: dict[str, list[float]] = {name: [] for name in ("waited", "stall", "step_alone", "step_beside", "beside")}
    for number in range(ROUNDS + 1):
        world.sum(0.0)
        started = time.perf_counter()
        points.save(engine, 2 * number, {})
        points.wait()
        waited = time.perf_counter() - started
        alone = [step(engine) for _ in range(5)]
        started = time.perf_counter()
        points.save(engine, 2 * number + 1, {})
        stall = time.perf_counter() - started
        beside = []
        while world.sum(float(points.is_storing))[0]:
            beside.append(step(engine))
        whole = time.perf_counter() - started
        if number:  # the first warms up
            for name, value in zip(found, (waited, stall, median(alone), median(beside), whole), strict=True):
                found[name].append(value)
    if world.is_first:
        say({**found, "upload": uploads(engine)})
    world.sum(0.0)


def uploads(engine: Any) -> dict[str, Any]:
    """Bytes/s of Heliostat's upload of a checkpoint and of boto3's, in turns, and how much it is."""
    import boto3
    import torch

    from heliostat.infra.registry.bundle import publish_directory
    from heliostat.infra.storage.store import open_store

    client, store = boto3.client("s3"), open_store(f"s3://{BUCKET}/upload")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.save(engine.module.state_dict(), folder / "model.pt")
        torch.save(engine.optimizer.state_dict(), folder / "optimizer.pt")
        size = sum(file.stat().st_size for file in folder.iterdir())
        rates: dict[str, list[float]] = {"heliostat": [], "boto3": []}
        for number in range(ROUNDS + 1):
            started = time.perf_counter()
            for file in sorted(folder.iterdir()):
                client.upload_file(str(file), BUCKET, f"raw/{number}/{file.name}")
            between = time.perf_counter()
            publish_directory(store, str(number), folder)
            ended = time.perf_counter()
            store.delete(str(number))
            if number:
                rates["boto3"].append(size / (between - started))
                rates["heliostat"].append(size / (ended - between))
    return {"bytes": size, **rates}


def median(values: list[float]) -> float:
    """The median, or nothing where nothing was measured."""
    return statistics.median(values) if values else float("nan")


def main() -> None:
    """Starts the server and the workers, and records what they measured."""
    if sys.argv[1:] == ["worker"]:
        worker()
        return
    with tempfile.TemporaryDirectory() as folder, seaweedfs(Path(folder)) as environment:
        found = measured("tests.benchmarks.bench_checkpoint", ["worker"], WORKERS, environment)
    upload = found.pop("upload")
    ratios = [stall / waited for stall, waited in zip(found["stall"], found["waited"], strict=True)]
    rates = [ours / theirs for ours, theirs in zip(upload["heliostat"], upload["boto3"], strict=True)]
    results = {
        "stall_share": {"mark": 0.05, "measured": round(median(ratios), 4)},
        "upload_ratio": {"mark": 0.8, "measured": round(median(rates), 2)},
        "bytes_of_rank_0": upload["bytes"],
        "upload_megabytes_per_second": {name: round(median(upload[name]) / 1e6, 1) for name in ("heliostat", "boto3")},
        "seconds": {name: [round(value, 3) for value in values] for name, values in found.items()},
    }
    record("checkpoint", results)


if __name__ == "__main__":
    main()
