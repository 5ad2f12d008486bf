"""All file formats by their names in `data.format`."""

from __future__ import annotations

from heliostat.train.data.formats import delimited, idx, image_folders, json_records, parquet, sheets, text
from heliostat.train.data.formats.base import Format

FORMATS: dict[str, Format] = {
    "csv": delimited.CSV,
    "jsonl": json_records.JSON_LINES,
    "json": json_records.JSON_LIST,
    "parquet": parquet.PARQUET,
    "text": text.LINES,
    "paragraphs": text.PARAGRAPHS,
    "images": image_folders.IMAGES,
    "idx": idx.IDX,
    "sheets": sheets.SHEETS,
}
