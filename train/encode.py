"""The second pass: the records that stay, as tokens."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
import pyarrow as pa

from heliostat.infra.errors import HeliostatError
from heliostat.train import screen
from heliostat.train.config import DataConfig
from heliostat.train.data import SPLITS, Encoder

IGNORED = -100
"""The label of a token that the loss is not taken on."""
_TOKENS = pa.list_(pa.int32())
ENCODED = pa.schema(
    [
        ("place", pa.int64()),
        ("split", pa.int8()),
        ("input_ids", _TOKENS),
        ("labels", _TOKENS),
        ("label", pa.string()),
        ("length", pa.int32()),
        ("full_length", pa.int32()),
        ("targets", pa.int32()),
        ("record_id", pa.string()),
        ("text", pa.string()),
        ("problem", pa.string()),
    ]
)


def encode_block(rows: pa.Table, data: DataConfig, encoder: Encoder, cutoff: int) -> pa.Table:
    """The rows of a block (`screen.ROW`) that stay, as tokens (`ENCODED`).

    `cutoff` is the highest order hash that `data.limit` lets through. An error of the encoder becomes a row
    with the message in `problem`.
    """
    # Ray runs a task per CPU already; threads inside each would fight over the same cores.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    rows = _staying(rows, cutoff)
    if rows.num_rows == 0:
        return ENCODED.empty_table()
    records = [json.loads(record) for record in rows["record"].to_pylist()]
    try:
        encoded = encoder.encode({column: [record[column] for record in records] for column in records[0]}, data)
    except HeliostatError as error:
        return _row_of(str(error), int(places(rows)[0]))
    return _table(rows, records, encoded, data, encoder)


def places(rows: pa.Table) -> np.ndarray:
    """The order of records over all files, from columns `file` and `number`: int64 [records]."""
    return rows["file"].to_numpy().astype(np.int64) << 40 | rows["number"].to_numpy()


def place(code: int) -> tuple[int, int]:
    """The file and number that `places` made `code` of."""
    return code >> 40, code & ((1 << 40) - 1)


def _staying(rows: pa.Table, cutoff: int) -> pa.Table:
    if rows.num_rows == 0:
        return rows
    _, order = screen.hashes(rows["digest"])
    return rows.filter(pa.array((rows["status"].to_numpy() == screen.KEPT) & (order <= np.uint64(cutoff))))


def _table(
    rows: pa.Table,
    records: list[dict[str, Any]],
    encoded: dict[str, list[Any]],
    data: DataConfig,
    encoder: Encoder,
) -> pa.Table:
    whole, labels = encoded["input_ids"], encoded.get("labels")
    ids = [row[: data.max_length] for row in whole]
    cut = [row[: data.max_length] for row in labels] if labels else [None] * len(ids)
    codes = screen.split_of(screen.hashes(rows["digest"])[0], data.split.model_dump())
    tested = codes == SPLITS.index("test")
    columns = {
        "place": places(rows),
        "split": codes,
        "input_ids": ids,
        "labels": cut,
        "label": rows["label"],
        "length": [len(row) for row in ids],
        "full_length": encoded.get("full_length") or [len(row) for row in whole],
        "targets": [_targets(row) for row in cut],
        "record_id": [digest.hex()[:16] for digest in rows["digest"].to_pylist()],
        "text": [encoder.text(record, data) if test else None for record, test in zip(records, tested, strict=True)],
        "problem": [None] * len(ids),
    }
    return pa.table({field.name: _column(columns[field.name], field.type) for field in ENCODED}, schema=ENCODED)


def _column(values: Any, kind: pa.DataType) -> pa.Array | pa.ChunkedArray:
    return values if isinstance(values, pa.ChunkedArray) else pa.array(values, kind)


def _targets(labels: list[int] | None) -> int:
    """Outputs that the loss is taken on: the class, or all tokens but the first, which nothing precedes."""
    return 1 if labels is None else sum(label != IGNORED for label in labels[1:])


def _row_of(problem: str, code: int) -> pa.Table:
    return pa.Table.from_pylist([{"place": code, "problem": problem}], schema=ENCODED)
