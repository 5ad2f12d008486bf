"""Parquet files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from heliostat.infra.errors import DataError
from heliostat.train.data.formats.base import Format, Needed, Record, check_columns

BATCH_RECORDS = 1024


def read(file: Path, needed: Needed, every: bool) -> Iterator[tuple[int, Record]]:
    """Reads a batch of rows at a time."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(file) as parquet:
            check_columns(file, parquet.schema_arrow.names, needed, every)
            number = 0
            for batch in parquet.iter_batches(batch_size=BATCH_RECORDS, columns=None if every else list(needed)):
                for record in batch.to_pylist():
                    number += 1
                    yield number, record
    except pa.ArrowException as error:
        raise DataError(f"{file}: not a readable Parquet file: {str(error).splitlines()[0]}") from None
    except UnicodeDecodeError:
        raise DataError(f"{file}: one of records {number + 1} to {number + batch.num_rows} is not UTF-8") from None


PARQUET = Format(read, (".parquet", ".pq"))
