"""SmolLM2-135M on instruction records: Heliostat's loop against Hugging Face's Trainer, tokens/s side by side.

Both have two workers with a thread each, the same DeepSpeed configuration (ZeRO stage 2, bfloat16), model, records and
global batch; what counts are tokens of records, not padding. Trainer pads each micro-batch to its longest record and
groups none, as it does unless told otherwise. Mark: as many tokens/s at least.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from heliostat.train.config import TrainConfig
from heliostat.train.data.batches import BatchPlan
from heliostat.train.data.rows import Rows
from heliostat.train.engine import build_engine, deepspeed_config, sized
from heliostat.train.loop import Run, train_step
from heliostat.train.parallel.distributed import configure_process, join
from heliostat.train.tasks.causal_lm import TASK
from tests.benchmarks.bench_packing import base, records
from tests.benchmarks.processes import measured, say
from tests.benchmarks.record import record

MODULE = "tests.benchmarks.bench_trainer"
WORKERS = 2
GLOBAL_BATCH = 16
MICRO_BATCH = 8
MAX_LENGTH = 512
STEPS = 5
WARM_UP = 1
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
MARK = 1.0


def ours() -> dict[str, float]:
    """Tokens/s of Heliostat's loop, over all workers."""
    configure_process(1)
    world, rows = join("cpu"), records(MAX_LENGTH)
    labels = [row != -100 for row in rows.lists("labels", np.arange(len(rows)))]
    table = rows.table.append_column("length", pa.array([len(row) for row in labels], pa.int32()))
    rows = Rows(table.append_column("targets", pa.array([int(row[1:].sum()) for row in labels], pa.int32())), ())
    train = TrainConfig(global_batch_size=GLOBAL_BATCH, zero_stage=2, learning_rate=1e-5, precision="bf16")
    torch.manual_seed(0)
    engine = build_engine(TASK.load_model(base(), (), 0.0), train, world)
    run, plan = Run(TASK, engine, train, rows, rows, world), BatchPlan(rows.lengths, rows.targets, GLOBAL_BATCH, 0)
    done = [train_step(run, plan, step, STEPS) for step in range(STEPS)][WARM_UP:]
    tokens = sum(world.sum(*(float(stats.tokens) for stats in done)))
    found = {"tokens_per_second": tokens / sum(stats.seconds for stats in done), "loss": done[-1].loss}
    world.sum(0.0)
    return {**found, "is_first": world.is_first}


class Collator(DataCollatorForSeq2Seq):
    """Counts the tokens of records that it pads."""

    tokens = 0

    def __call__(self, features: Any, return_tensors: Any = None) -> Any:
        self.tokens += sum(len(one["input_ids"]) for one in features)
        return super().__call__(features, return_tensors)


class Timer(TrainerCallback):
    """Notes when each step ends, and the tokens until then."""

    def __init__(self, collator: Collator) -> None:
        self.seen: list[tuple[float, int]] = []
        self._collator = collator

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seen.append((time.perf_counter(), self._collator.tokens))


def trainer() -> dict[str, float]:
    """Tokens/s of Trainer, over all workers."""
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(base(), dtype=torch.float32, use_cache=False)
    train = TrainConfig(global_batch_size=GLOBAL_BATCH, zero_stage=2, precision="bf16")
    collator = Collator(AutoTokenizer.from_pretrained(base()))
    timer = Timer(collator)
    with tempfile.TemporaryDirectory() as folder:
        made = Trainer(
            model=model,
            args=TrainingArguments(
                folder, per_device_train_batch_size=MICRO_BATCH, max_steps=STEPS, bf16=True, use_cpu=True,
                deepspeed=sized(deepspeed_config(train, WORKERS, MICRO_BATCH), model), learning_rate=1e-5, report_to=[],
                save_strategy="no", logging_steps=1, dataloader_num_workers=0, disable_tqdm=True, ddp_backend="gloo",
            ),
            train_dataset=as_mappings(records(MAX_LENGTH)),
            data_collator=collator,
            callbacks=[timer],
        )  # fmt: skip
        made.train()
    (began, before), (ended, after) = timer.seen[WARM_UP - 1], timer.seen[-1]
    totals: list[Any] = [None] * WORKERS
    torch.distributed.all_gather_object(totals, after - before)
    return {
        "tokens_per_second": sum(totals) / (ended - began),
        "loss": made.state.log_history[-2]["loss"],
        "is_first": torch.distributed.get_rank() == 0,
    }


def as_mappings(rows: Rows) -> list[dict[str, Any]]:
    """The records as Trainer takes them."""
    order = np.arange(len(rows))
    both = zip(rows.lists("input_ids", order), rows.lists("labels", order), strict=True)
    return [
        {"input_ids": ids.tolist(), "labels": labels.tolist(), "attention_mask": [1] * len(ids)} for ids, labels in both
    ]


def main() -> None:
    """Both, in turns."""
    if sys.argv[1:]:
        result = {"ours": ours, "trainer": trainer}[sys.argv[1]]()
        if result.pop("is_first"):
            say(result)
        return
    found: dict[str, list[Any]] = {"trainer": [], "ours": []}
    for _ in range(ROUNDS):
        for kind, results in found.items():
            results.append(measured(MODULE, [kind], WORKERS))
    rates = {kind: statistics.median(one["tokens_per_second"] for one in results) for kind, results in found.items()}
    record("trainer", {"mark": MARK, "ratio": round(rates["ours"] / rates["trainer"], 2), "medians": rates, **found})


if __name__ == "__main__":
    main()
