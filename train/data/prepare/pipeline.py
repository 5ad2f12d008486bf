"""Prepares data with Ray Data: scan all records, select, encode those that are kept, write the splits.

Selection needs the hash of every record but no text, so only hashes and labels are collected on the driver; texts are
tokenised on the workers.
"""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from heliostat.infra.errors import ResourceError
from heliostat.train.data.config import SPLITS, DataConfig
from heliostat.train.data.encoder import Encoder, Progress
from heliostat.train.data.formats.source import Source
from heliostat.train.data.prepare import scan, select
from heliostat.train.data.prepare.encode import ENCODED, encode_block, kept_rows, places, splits_of

BLOCKS_PER_CPU = 4
"""Enough that the last block does not keep a CPU busy alone for long, few enough that task overhead is negligible."""
SMALLEST_BLOCK_BYTES = 1 << 20
LARGEST_BLOCK_BYTES = 64 << 20


def build(source: Source, data: DataConfig, encoder: Encoder, folder: Path, progress: Progress) -> dict[str, Any]:
    """Writes the splits into `folder` as Arrow files and returns their counts, labels and columns.

    Raises DataError if the data cannot be used as `data` says, ResourceError without a Ray session.
    """
    with _ray_data(source):
        progress("read", 0, 0)
        screened = ray.data.read_datasource(Files(source, data, encoder), **_reading(source)).materialize()
        plan = select.select(_collected(screened.select_columns(scan.KEYS)), source, data, encoder)
        progress("read", plan.counts["read"], plan.counts["read"])
        blocks = screened.iter_batches(batch_size=None, batch_format="pyarrow")
        encoder = encoder.fit(training_records(blocks, plan), data)
        encoder.save(folder)
        encoded = screened.map_batches(
            encode_block,
            batch_size=None,
            batch_format="pyarrow",
            zero_copy_batch=True,
            fn_kwargs={"data": data, "encoder": encoder, "cutoff": plan.cutoff, "bounds": plan.bounds},
        )
        table = _tokens(encoded, len(plan.kept), progress)
    return _written(select.finish(table, plan, source, data, encoder), plan, folder)


class Files(Datasource):
    """Ray Data source that reads and scans a source's files on the driver's node, where they are stored."""

    def __init__(self, source: Source, data: DataConfig, encoder: Encoder) -> None:
        super().__init__()
        self.source, self.data, self.encoder = source, data, encoder

    @property
    def supports_distributed_reads(self) -> bool:
        """False: Ray keeps the tasks on the driver's node."""
        return False

    def estimate_inmemory_data_size(self) -> int:
        """Size of the files on disk, in bytes."""
        return _size_bytes(self.source)

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        """At most `parallelism` tasks, each for a run of consecutive files."""
        files = np.arange(len(self.source.files))
        return [self._task(group.tolist()) for group in np.array_split(files, min(parallelism, len(files)))]

    def _task(self, group: list[int]) -> ReadTask:
        source, data, encoder = self.source, self.data, self.encoder

        def blocks() -> Iterator[pa.Table]:
            for file in group:
                yield from scan.scan(source, file, data, encoder)

        files = tuple(str(source.files[file]) for file in group)
        metadata = BlockMetadata(num_rows=None, size_bytes=None, exec_stats=None, input_files=files)
        return ReadTask(blocks, metadata, schema=scan.ROW)


def _size_bytes(source: Source) -> int:
    return sum(file.stat().st_size for file in source.files)


def _cpus() -> int:
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def _reading(source: Source) -> dict[str, Any]:
    """Options of the read; it requests no CPU if the driver's node has none.

    The head node of a cluster often has no CPUs for Ray, and a task that requested one there would wait forever.
    """
    here = ray.get_runtime_context().get_node_id()
    node = next(node for node in ray.nodes() if node["NodeID"] == here)
    cpus = int(node["Resources"].get("CPU", 0))
    tasks = min(len(source.files), BLOCKS_PER_CPU * max(cpus, 1))
    return {"override_num_blocks": tasks, "num_cpus": min(cpus, 1), "concurrency": min(tasks, max(cpus, 1))}


@contextmanager
def _ray_data(source: Source) -> Iterator[None]:
    """Configures Ray Data's block size for the data, and turns off its progress bars and log messages.

    Blocks keep their order: what an encoder learns, and which image is first, must not depend on timing.
    """
    if not ray.is_initialized():
        raise ResourceError("data: no Ray session; preparing data needs one, see heliostat.cluster.session.session")
    context = ray.data.DataContext.get_current()
    share = _size_bytes(source) // (BLOCKS_PER_CPU * _cpus())
    ordered = copy.copy(context.execution_options)
    ordered.preserve_order = True
    ours = {
        "enable_progress_bars": False,
        "execution_options": ordered,
        "target_max_block_size": min(max(share, SMALLEST_BLOCK_BYTES), LARGEST_BLOCK_BYTES),
    }
    before = {name: getattr(context, name) for name in ours}
    logger = logging.getLogger("ray.data")
    level = logger.level
    try:
        logger.setLevel(logging.ERROR)
        for name, value in ours.items():
            setattr(context, name, value)
        yield
    finally:
        logger.setLevel(level)
        for name, value in before.items():
            setattr(context, name, value)


def _collected(dataset: ray.data.Dataset) -> pa.Table:
    """The keys of all records (`scan.KEYS`); empty if there are none, for which Ray Data has no batch."""
    empty = scan.ROW.empty_table().select(scan.KEYS)
    return pa.concat_tables([empty, *dataset.iter_batches(batch_size=None, batch_format="pyarrow")])


def training_records(blocks: Iterable[pa.Table], plan: select.Plan) -> Iterator[dict[str, Any]]:
    """The clean records of the training split among scanned `blocks` (`scan.ROW`)."""
    for block in blocks:
        rows = kept_rows(block, plan.cutoff)
        if rows.num_rows:
            planned = np.isin(places(rows), plan.kept) & (splits_of(rows, plan.bounds) == SPLITS.index("train"))
            yield from map(json.loads, rows.filter(pa.array(planned))["record"].to_pylist())


def _tokens(dataset: ray.data.Dataset, total: int, progress: Progress) -> pa.Table:
    """All encoded blocks as one table; reports progress as they arrive."""
    tables = [ENCODED.empty_table()]
    done = 0
    for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
        tables.append(table)
        done += table.num_rows
        progress("tokenize", min(done, total), total)
    return pa.concat_tables(tables)


def _written(table: pa.Table, plan: select.Plan, folder: Path) -> dict[str, Any]:
    counts = dict(plan.counts)
    for code, name in enumerate(SPLITS):
        split = table.filter(pc.equal(table["split"], code)).drop_columns(["split"])
        counts[name] = split.num_rows
        _write(split if name == "test" else split.drop_columns(["text"]), folder / f"{name}.arrow")
    counts |= {"tokens": int(pc.sum(table["length"]).as_py() or 0)}
    return {"counts": counts, "labels": list(plan.labels), "columns": table.schema.names}


def _write(table: pa.Table, file: Path) -> None:
    """Writes one record batch, so that a memory-mapped column is contiguous and need not be copied."""
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
