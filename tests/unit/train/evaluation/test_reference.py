"""What is counted of a training split, as far as it goes beyond the bins themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from heliostat.infra.drift.reference import LABEL, SCORE
from heliostat.infra.registry.inputs import CategoryColumn, ImageInputs, Inputs, NumberColumn, TableInputs
from heliostat.train import tasks
from heliostat.train.data.rows import Rows
from heliostat.train.evaluation import reference
from heliostat.train.evaluation.evaluate import Evaluation
from heliostat.train.models.architectures.config import Mlp, ModelConfig
from heliostat.train.models.architectures.network import FILE, Settings

TABLE = TableInputs(
    columns=(
        NumberColumn(name="x", mean=0.0, std=1.0, fill=0.0, missing=0.25),
        CategoryColumn(name="c", values=("a", "b")),
    )
)


def folder_of(inputs: Inputs, folder: Path) -> Path:
    """The folder of a network that takes these inputs."""
    settings = Settings(model=ModelConfig(mlp=Mlp()), inputs=inputs)
    (folder / FILE).write_text(settings.model_dump_json(), encoding="utf-8")
    return folder


def test_a_table_is_counted_with_its_missing_cells_and_the_answers_to_the_test_split(tmp_path: Path) -> None:
    features = [[0.0, 1, 0], [0.0, 0, 1], [3.0, 0, 1], [5.0, 0, 1]] * 100
    rows = Rows(pa.table({"features": pa.array(features, pa.list_(pa.float32()))}), ("no", "yes"))
    logits = np.array([[0.0, np.log(3)], [0.0, np.log(3)], [np.log(9), 0.0]], dtype=np.float32)
    task = tasks.get("tabular-classification")
    found = reference.reference_of(task, rows, Evaluation({}, logits, None, None), folder_of(TABLE, tmp_path), 1)
    assert found is not None
    x, c, label, score = found.columns
    assert (x.name, x.counts) == ("x", (100, 100, 100, 100))
    assert (c.name, c.counts) == ("c", (100, 300, 0, 0, 0))
    assert (label.name, label.counts) == (LABEL, (1, 2, 0, 0, 0))
    assert (score.name, score.counts) == (SCORE, (2, 1, 0))


def test_a_large_split_is_sampled_and_one_without_test_records_has_no_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "MOST_RECORDS", 50)
    inputs = ImageInputs(height=2, width=2, mode="grey", mean=(0.5,), std=(0.2,))
    pixels = [[at % 256] * 4 for at in range(1000)]
    rows = Rows(pa.table({"pixels": pa.array(pixels, pa.list_(pa.uint8()))}), ("no", "yes"), inputs.shape)
    none = Evaluation({}, np.empty((0, 0), dtype=np.float32), None, None)
    found = reference.reference_of(tasks.get("image-classification"), rows, none, folder_of(inputs, tmp_path), 1)
    assert found is not None
    assert [(column.name, sum(column.counts)) for column in found.columns] == [("brightness", 50), ("contrast", 50)]


def test_a_language_model_has_no_reference(tmp_path: Path) -> None:
    rows = Rows(pa.table({"input_ids": [[1, 2]]}), ())
    assert reference.reference_of(tasks.get("causal-lm"), rows, None, tmp_path, 8) is None
