"""SmolLM2-135M on instruction records: packed rows and the chunked loss against padded batches and whole logits.

Both are bfloat16 on all cores, forward and backward, over the same batches of 8 records in random order. Mark: twice
the useful tokens/s (padding counts nothing).
"""

from __future__ import annotations

import os
import resource
import statistics
import sys
import time
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from heliostat.infra.memory import keep_freed_memory
from heliostat.spec import load_spec
from heliostat.train.data.formats.source import find_source, read
from heliostat.train.data.packing import unpack
from heliostat.train.data.rows import Rows
from heliostat.train.data.sources.resolve import resolve
from heliostat.train.models.pretrained import as_folder
from heliostat.train.tasks.causal_lm import TASK
from tests.benchmarks.processes import measured, say
from tests.benchmarks.record import record

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
MICRO_BATCH = 8
WARM_UP = 1
BATCHES = 6
RECORDS = 2000
MAX_LENGTH = 1024
"""None of the records is longer."""
MARK = 2.0


def records(max_length: int) -> Rows:
    """The first records of the `chat` recipe as tokens, the way `heliostat prepare` stores them."""
    spec = load_spec("chat", ())
    source = find_source(resolve(spec.data.source, spec.storage, "data.source"), spec.data.format)
    names = [spec.data.columns.prompt, spec.data.columns.context, spec.data.columns.answer]
    needed = {name: "data.columns" for name in names if name}
    found = [one for path in source.files for _, one in islice(read(path, source.format, needed), RECORDS)]
    columns = {name: [one[name] for one in found] for name in needed}
    encoded = TASK.encoder(spec.data, base()).encode(columns, spec.data)
    ids, labels = ([row[:max_length] for row in encoded[name]] for name in ("input_ids", "labels"))
    lists = pa.list_(pa.int32())
    return Rows(pa.table({"input_ids": pa.array(ids, lists), "labels": pa.array(labels, lists)}), ())


def base() -> Any:
    """The folder of the recipe's model."""
    spec = load_spec("chat", ())
    return as_folder(resolve(spec.model.origin, spec.storage, "model.source"))


def measure(kind: str) -> dict[str, float]:
    """Useful tokens/s and the peak of memory of one kind, in this process."""
    from transformers import AutoModelForCausalLM

    keep_freed_memory()
    rows = records(MAX_LENGTH)
    if kind == "packed":
        model = TASK.load_model(base(), (), 0.0).bfloat16().train()
    else:
        model = AutoModelForCausalLM.from_pretrained(base(), dtype=torch.bfloat16, use_cache=False).train()
    order = np.random.default_rng(0).permutation(len(rows))
    tokens, seconds = 0, 0.0
    for at in range(WARM_UP + BATCHES):
        batch = TASK.collate(rows, order[at * MICRO_BATCH : (at + 1) * MICRO_BATCH])
        started = time.perf_counter()
        loss = TASK.loss(model, batch) if kind == "packed" else padded_loss(model, batch)
        torch.autograd.backward(loss)
        model.zero_grad()
        if at >= WARM_UP:
            seconds += time.perf_counter() - started
            tokens += sum(len(ids) for ids in rows.lists("input_ids", order[at * MICRO_BATCH : (at + 1) * MICRO_BATCH]))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"tokens_per_second": tokens / seconds, "peak_gib": peak, "loss": loss.item()}


def padded_loss(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """What is usual: rows padded to the longest, logits of all of them, cross-entropy in float32."""
    rows = unpack(batch)
    labels = torch.full_like(rows["input_ids"], -100)
    labels[batch["records"][0], batch["position_ids"][0]] = batch["targets"][0]
    logits = model(**rows).logits.float()
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")


def main() -> None:
    """Each kind in processes of its own, in turns."""
    if len(sys.argv) > 1:
        say(measure(sys.argv[1]))
        return
    found: dict[str, list[dict[str, float]]] = {"padded": [], "packed": []}
    for _ in range(ROUNDS):
        for kind, results in found.items():
            results.append(measured("tests.benchmarks.bench_packing", [kind]))
    medians = {
        kind: {name: round(statistics.median(one[name] for one in results), 2) for name in results[0]}
        for kind, results in found.items()
    }
    ratio = medians["packed"]["tokens_per_second"] / medians["padded"]["tokens_per_second"]
    record("packing", {"mark": MARK, "ratio": round(ratio, 2), "medians": medians, "rounds": found})


if __name__ == "__main__":
    main()
