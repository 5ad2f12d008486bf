"""Preparing data without Ray, for tests, with an encoder whose tokens are the lengths of words."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pyarrow as pa
import pytest

from heliostat.infra.errors import DataError
from heliostat.train.data.config import SPLITS, DataConfig
from heliostat.train.data.encoder import Encoder
from heliostat.train.data.formats.source import find_source
from heliostat.train.data.prepare import pipeline, scan, select
from heliostat.train.data.prepare.encode import encode_block
from heliostat.train.data.prepared import Prepared


@dataclass(frozen=True)
class Words(Encoder):
    """One token per word: the word's length. With `answers`, the loss is on the answer only."""

    labelled: bool = True
    answers: bool = False
    name: str = "words"

    def columns(self, data: DataConfig) -> list[str]:
        asked = [data.columns.prompt, data.columns.context, data.columns.answer] if self.answers else []
        chat = [data.columns.messages] if data.columns.messages else []
        return [column for column in (asked or chat or [data.columns.text]) if column]

    def text(self, record: Mapping[str, Any], data: DataConfig) -> str:
        if data.columns.messages:
            return "\n".join(turn["content"] for turn in record[data.columns.messages])
        return " ".join(record[column] or "" for column in self.columns(data) if column in record)

    def encode(self, records: Mapping[str, Sequence[Any]], data: DataConfig) -> dict[str, list[Any]]:
        rows = [dict(zip(records, values, strict=True)) for values in zip(*records.values(), strict=True)]
        if any("unspeakable" in self.text(row, data) for row in rows):
            raise DataError("data.columns: a word that cannot be encoded")
        ids = [[len(word) for word in self.text(row, data).split()] for row in rows]
        if not self.answers:
            return {"input_ids": ids}
        asked = [len(row[str(data.columns.prompt)].split()) for row in rows]
        return {"input_ids": ids, "labels": [[-100] * n + row[n:] for n, row in zip(asked, ids, strict=True)]}

    def fingerprint(self) -> str:
        return self.name


@dataclass
class Result:
    tables: dict[str, pa.Table]
    counts: dict[str, int]
    labels: list[str]
    folder: Path

    def texts(self, split: str) -> set[str]:
        return set(self.tables[split]["record_id"].to_pylist())


def run(folder: Path, path: Path, encoder: Encoder, **options: Any) -> Result:
    """The steps of `prepare.build` in this process, block by block, without Ray."""
    data = DataConfig(source=str(path), **options)
    source = find_source(path, data.format)
    blocks = [block for i in range(len(source.files)) for block in scan.scan(source, i, data, encoder)]
    plan = select.select(pa.concat_tables(blocks[::-1]).select(scan.KEYS), source, data, encoder)
    encoder = encoder.fit(pipeline.training_records(blocks[::-1], plan), data)
    encoded = [encode_block(block, data, encoder, plan.cutoff, plan.bounds) for block in blocks[::-1]]
    out = Path(mkdtemp(prefix="out-", dir=folder))
    summary = pipeline._written(select.finish(pa.concat_tables(encoded), plan, source, data, encoder), plan, out)
    prepared = Prepared("f", "u", out, (), {})
    encoder.save(out)
    return Result({name: prepared.split(name) for name in SPLITS}, summary["counts"], summary["labels"], out)


def reviews(folder: Path, rows: Sequence[Sequence[object]], name: str = "reviews.csv") -> Path:
    with (folder / name).open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label", "stars"), *rows])
    return folder / name


def many(count: int, start: int = 0) -> list[tuple[str, str, int]]:
    return [(f"review number {i} of a film", "good" if i % 2 else "bad", i % 10) for i in range(start, start + count)]


def failure(folder: Path, path: Path, encoder: Encoder | None = None, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        run(folder, path, encoder or Words(), **options)
    assert "\n" not in str(caught.value)
    assert list(folder.glob("out-*/*")) == []
    return str(caught.value).replace(str(path), "FILE")
