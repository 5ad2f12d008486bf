"""The second pass of data preparation: encodes the records that are kept."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from heliostat.infra.errors import HeliostatError
from heliostat.train.data.config import SPLITS, DataConfig
from heliostat.train.data.encoder import Encoder
from heliostat.train.data.prepare import scan
from heliostat.train.data.prepare.windows import IGNORED, Window, splits, windows_of

_TOKENS = pa.large_list(pa.int32())
VALUES = {
    "input_ids": _TOKENS,
    "labels": _TOKENS,
    "features": pa.large_list(pa.float32()),
    "pixels": pa.large_list(pa.uint8()),
}
"""Columns that encoders may return: a list per record, or an array [records, numbers].

Large lists, since 32-bit offsets end at 2 Gi values: 700 photographs of a megapixel.
"""
ENCODED = pa.schema(
    [
        ("place", pa.int64()),
        ("split", pa.int8()),
        *VALUES.items(),
        ("label", pa.string()),
        ("length", pa.int32()),
        ("full_length", pa.int32()),
        ("targets", pa.int32()),
        ("unknown", pa.int32()),
        ("record_id", pa.large_string()),
        ("text", pa.large_string()),
        ("problem", pa.string()),
    ]
)


def encode_block(rows: pa.Table, data: DataConfig, encoder: Encoder, cutoff: int, bounds: scan.Bounds) -> pa.Table:
    """The rows of a block (`scan.ROW`) that are kept, encoded (`ENCODED`).

    `cutoff` is the highest order hash within `data.limit`. An error of the encoder becomes a row with the message in
    `problem`.
    """
    # Ray already runs one task per CPU; threads inside each task would compete for the same cores.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    rows = kept_rows(rows, cutoff)
    if rows.num_rows == 0:
        return ENCODED.empty_table()
    records = [json.loads(record) for record in rows["record"].to_pylist()]
    try:
        encoded = _encoded(records, data, encoder)
    except HeliostatError:
        return _first_problem(rows, records, data, encoder)
    return _table(rows, records, encoded, data, encoder, bounds)


def _encoded(records: Sequence[dict[str, Any]], data: DataConfig, encoder: Encoder) -> dict[str, Any]:
    return encoder.encode({column: [record[column] for record in records] for column in records[0]}, data)


def _first_problem(rows: pa.Table, records: list[dict[str, Any]], data: DataConfig, encoder: Encoder) -> pa.Table:
    """A row with the error message for the first record that the encoder rejects."""
    for record, code in zip(records, places(rows).tolist(), strict=True):
        try:
            _encoded([record], data, encoder)
        except HeliostatError as error:
            return pa.Table.from_pylist([{"place": code, "problem": str(error)}], schema=ENCODED)
    raise AssertionError("each record alone is fine")


def places(rows: pa.Table) -> np.ndarray:
    """Keys that order records over all files, from columns `file` and `number`: int64 [records]."""
    return rows["file"].to_numpy().astype(np.int64) << 40 | rows["number"].to_numpy()


def place(code: int) -> tuple[int, int]:
    """The file and number from which `places` made `code`."""
    return code >> 40, code & ((1 << 40) - 1)


def kept_rows(rows: pa.Table, cutoff: int) -> pa.Table:
    """The rows (`scan.ROW`) that the first pass and `data.limit`, with `cutoff`, keep."""
    if rows.num_rows == 0:
        return rows
    _, order = scan.hashes(rows["digest"])
    return rows.filter(pa.array((rows["status"].to_numpy() == scan.KEPT) & (order <= np.uint64(cutoff))))


def splits_of(rows: pa.Table, bounds: scan.Bounds) -> np.ndarray:
    """The split of each row as an index into `SPLITS`: int8 [rows]."""
    return scan.split_of(scan.hashes(rows["digest"])[0], rows["label"].to_numpy(), bounds)


def _table(
    rows: pa.Table,
    records: list[dict[str, Any]],
    encoded: dict[str, Any],
    data: DataConfig,
    encoder: Encoder,
    bounds: scan.Bounds,
) -> pa.Table:
    whole = encoded.get("input_ids")
    parts = windows_of(whole, data, encoder) if whole else [(record, Window(0, 0, 0)) for record in range(len(records))]
    origin = [record for record, _ in parts]
    ids = [whole[record][part.start : part.end] for record, part in parts] if whole else None
    labels = [part.learned(encoded["labels"][record]) for record, part in parts] if "labels" in encoded else None
    codes = splits_of(rows, bounds)[origin]
    tested = [code == SPLITS.index("test") and part.start == 0 for code, (_, part) in zip(codes, parts, strict=True)]
    lengths = [len(row) for row in ids] if ids else [1] * len(parts)
    whole_lengths = encoded.get("full_length") or [len(row) for row in whole or ()]
    digests = rows["digest"].to_pylist()
    columns = {
        **{name: encoded.get(name) for name in VALUES},
        "place": places(rows)[origin],
        "split": codes,
        "input_ids": ids,
        "labels": labels,
        "label": rows["label"].take(pa.array(origin)),
        "length": lengths,
        "full_length": lengths if splits(data, encoder) or not whole else whole_lengths,
        "targets": [_targets(row) for row in labels] if labels else [1] * len(parts),
        "unknown": [row.count(encoder.unknown_id) for row in ids] if ids else [0] * len(parts),
        "record_id": [digests[record].hex()[:16] for record in origin],
        "text": [encoder.text(records[i], data) if test else None for i, test in zip(origin, tested, strict=True)],
    }
    return pa.table(
        {field.name: _column(columns.get(field.name), field.type, len(parts)) for field in ENCODED}, schema=ENCODED
    )


def _column(values: Any, kind: pa.DataType, count: int) -> pa.Array | pa.ChunkedArray:
    if values is None:
        return pa.nulls(count, kind)
    if isinstance(values, np.ndarray) and values.ndim == 2:
        offsets = np.arange(count + 1, dtype=np.int64) * values.shape[1]
        return pa.LargeListArray.from_arrays(offsets, pa.array(values.reshape(-1), kind.value_type))
    return values if isinstance(values, pa.ChunkedArray) else pa.array(values, kind)


def _targets(labels: list[int]) -> int:
    """Number of targets: all tokens with a label except the first, which nothing precedes."""
    return sum(label != IGNORED for label in labels[1:])
