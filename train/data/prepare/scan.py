"""The first pass of data preparation: which records are kept, and the hash that decides their split.

The hash of a text depends on nothing else, so the text keeps its split whatever else is in the data, in any order, on
any machine. A second, independent part of the hash orders the records for `data.limit`.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, KeysView
from typing import Any

import numpy as np
import pyarrow as pa

from heliostat.infra.errors import DamagedError, DataError
from heliostat.train.data import filter
from heliostat.train.data.config import SPLITS, Columns, DataConfig, Split
from heliostat.train.data.encoder import Encoder
from heliostat.train.data.formats.base import Needed, NotedRecord, Record
from heliostat.train.data.formats.source import Source, read
from heliostat.train.data.values import label_text, refuse_missing, unicode_text

KEPT, FILTERED, EMPTY, DAMAGED, BROKEN = range(5)
DIGEST_BYTES = 16
BLOCK_RECORDS = 2048
INDEX_COLUMN_NAMES = r"|Unnamed: \d+|__index_level_\d+__"
"""Names that pandas and R give to a column of row numbers."""
ALL = ""
Bounds = dict[str, tuple[int, int]]
"""Per class, or of ALL together: hashes below the first bound are for test, those below the second for validation, so
that changing the share of validation does not change the test split."""
ScanResult = tuple[int, bytes, str | None, str | None, str | None]
"""Status, digest, label, the record as JSON, and a note on it."""
ROW = pa.schema(
    [
        ("file", pa.int32()),
        ("number", pa.int64()),
        ("status", pa.int8()),
        ("digest", pa.binary(DIGEST_BYTES)),
        ("label", pa.string()),
        ("record", pa.large_string()),  # as JSON: one schema for any records
        ("problem", pa.string()),
    ]
)
KEYS = ["file", "number", "status", "digest", "label", "problem"]
"""The columns that selection needs: all except the record itself."""


def scan(source: Source, file: int, data: DataConfig, encoder: Encoder) -> Iterator[pa.Table]:
    """Yields one row of `ROW` for each record of file number `file`, in order.

    A DataError becomes the last row, with status BROKEN and the message in `problem`: the user gets one line, not a
    worker's traceback, and the first error in file order is reported. In other rows, `problem` is a note to pass on.
    """
    rows: list[tuple[Any, ...]] = []
    number = 0
    try:
        for number, record in _records(source, file, data, encoder):
            rows.append((file, number, *_screened(record, data, encoder, source.place(file, number))))
            if len(rows) == BLOCK_RECORDS:
                yield _table(rows)
                rows = []
    except DataError as error:
        rows.append((file, number + 1, BROKEN, bytes(DIGEST_BYTES), None, None, str(error)))
    yield _table(rows)


def _records(source: Source, file: int, data: DataConfig, encoder: Encoder) -> Iterator[tuple[int, Record]]:
    """The records of file number `file`; if the spec lists no columns, all need those of the source's first record."""
    needed = needed_columns(data, encoder)
    if encoder.columns(data) is not None:
        yield from read(source.files[file], source.format, needed, quoting=data.quoting)
        return
    columns = _first_columns(source, needed, data)
    for number, record in read(source.files[file], source.format, needed, every=True, quoting=data.quoting):
        if record.keys() != columns:
            name = min(record.keys() ^ columns)
            has = "has a column" if name in record else "has no column"
            raise DataError(
                f"{source.place(file, number)}: {has} {name!r}, unlike the first record; list the columns that the "
                "model sees in data.columns.features, and data.missing says what happens where one is missing"
            )
        ordered = {name: record[name] for name in columns}
        yield number, NotedRecord(ordered, record.note) if isinstance(record, NotedRecord) else ordered


def _first_columns(source: Source, needed: Needed, data: DataConfig) -> KeysView[str]:
    """The columns of the source's first record; raises DataError for a column of row numbers."""
    every = (record for file in source.files for _, record in read(file, source.format, needed, True, data.quoting))
    first = next(every, {})
    for name in first:
        if re.fullmatch(INDEX_COLUMN_NAMES, unicode_text(name, name)):
            raise DataError(
                f"data.columns.features: {source.files[0]} has a column {name!r}, the number of a row most likely; "
                "list the columns that the model sees"
            )
    return first.keys()


def needed_columns(data: DataConfig, encoder: Encoder) -> Needed:
    """Each column that the encoder or the filter needs, with the spec key that names it."""
    keys = column_keys(data.columns)
    wanted = [*(encoder.columns(data) or ()), *label_columns(data, encoder)]
    needed = {column: keys.get(column, "data.columns") for column in wanted}
    filtered = filter.parse(data.where).columns if data.where else ()
    return {**dict.fromkeys(filtered, "data.where"), **needed}


def label_columns(data: DataConfig, encoder: Encoder) -> list[str]:
    """The column of the classes; empty if records have none."""
    return [data.columns.label] if encoder.labelled and data.columns.label else []


def column_keys(columns: Columns) -> dict[str, str]:
    """Each column named in the spec, with the key that names it."""
    named = columns.model_dump(exclude_none=True)
    listed = [(key, [names] if isinstance(names, str) else names) for key, names in named.items()]
    return {name: f"data.columns.{key}" for key, names in listed for name in names}


def _screened(record: Record, data: DataConfig, encoder: Encoder, place: str) -> ScanResult:
    nothing = bytes(DIGEST_BYTES), None, None
    note = record.note if isinstance(record, NotedRecord) else None
    try:
        if data.where and not filter.parse(data.where)(record):
            return FILTERED, *nothing, note
        label = None
        for column in label_columns(data, encoder):
            word = label_text(record[column], column, data)
            label = data.label_names.get(word, word) if word else word
        cleaned = encoder.clean(record, data)
        unlabelled = label_columns(data, encoder) if label is None else []
        refuse_missing(unlabelled, data)
        text = "" if cleaned is None or unlabelled else normalised(encoder.text(cleaned, data))
        if not text:
            return EMPTY, *nothing, note
        return KEPT, digest_of(text), label, json.dumps(cleaned), note
    except DataError as error:
        if isinstance(error, DamagedError) and data.missing == "drop":
            return DAMAGED, *nothing, f"left out, as data.missing says ({error})"
        raise DataError(f"{place}: {error}") from None


def normalised(text: str) -> str:
    """The text that is hashed: in Unicode NFC, each run of white space replaced by one space."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def digest_of(text: str) -> bytes:
    """BLAKE2b hash of the text: 8 bytes that decide its split, 8 that order it for `data.limit`."""
    return hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).digest()


def hashes(digests: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """The two halves of each digest, for split and limit: uint64 [records] each."""
    flat = digests.combine_chunks()
    halves = np.frombuffer(flat.buffers()[1], dtype=">u8").reshape(-1, 2).astype(np.uint64)
    halves = halves[flat.offset : flat.offset + len(flat)]
    return halves[:, 0], halves[:, 1]


def bounds_of(hashed: np.ndarray, labels: np.ndarray, split: Split) -> Bounds:
    """The bounds of `split` for records with these hashes (uint64 [records]) and labels (text [records])."""
    if not split.stratify:
        return {ALL: _pair(int(share * 2.0**64) for share in _shares(split))}
    return {label: _quantiles(np.sort(hashed[labels == label]), split) for label in np.unique(labels).tolist()}


def split_of(hashed: np.ndarray, labels: np.ndarray, bounds: Bounds) -> np.ndarray:
    """The split of each record as an index into `SPLITS`: int8 [records], by hash (uint64) and label (text)."""
    order = np.array([SPLITS.index(name) for name in ("test", "validation", "train")], dtype=np.int8)
    place = np.zeros(len(hashed), dtype=np.int8)
    for label, pair in bounds.items():
        mine = np.full(len(hashed), True) if label == ALL else labels == label
        for bound in pair:
            place[mine] += hashed[mine] >= np.uint64(bound)
    return order[place]


def ends_of(count: int, split: Split) -> tuple[int, int]:
    """Where test and validation end among `count` records of a class, with `data.split.stratify`."""
    return _pair(round(share * count) for share in _shares(split))


def _shares(split: Split) -> tuple[float, float]:
    return split.test, split.test + split.validation


def _quantiles(hashed: np.ndarray, split: Split) -> tuple[int, int]:
    """Bounds that split the sorted hashes in these shares, or as nearly as equal records allow, which stay together."""
    first = np.flatnonzero(np.diff(hashed, prepend=hashed[:1] - np.uint64(1)))
    starts = np.append(first, len(hashed))
    ends = [starts[np.abs(starts - end).argmin()] for end in ends_of(len(hashed), split)]
    return _pair(int(hashed[end]) if end < len(hashed) else 2**64 - 1 for end in ends)


def _pair(bounds: Iterable[int]) -> tuple[int, int]:
    first, second = bounds
    return first, second


def _table(rows: list[tuple[Any, ...]]) -> pa.Table:
    columns: list[Any] = list(zip(*rows, strict=True)) or [()] * len(ROW)
    return pa.table([pa.array(c, field.type) for c, field in zip(columns, ROW, strict=True)], schema=ROW)
