"""The reference that a classifier is published with: what serving compares its inputs and answers with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from heliostat.infra.drift.reference import LABEL, SCORE, Reference, category_bins, number_bins
from heliostat.infra.drift.statistics import TextStatistics
from heliostat.train.data.rows import Rows
from heliostat.train.evaluation.evaluate import Evaluation
from heliostat.train.tasks.base import Task
from heliostat.train.tasks.classifier import Classifier

MOST_RECORDS = 20_000
"""Of a larger training split, so many records are counted, evenly spread over it."""


def reference_of(task: Task, rows: Rows, test: Evaluation | None, folder: Path, max_length: int) -> Reference | None:
    """The bins of the training split `rows`, and of the model's answers in `test`; None for tasks without classes.

    `folder` holds the published model, `max_length` is the number of tokens that it was trained on.
    """
    if not isinstance(task, Classifier) or not len(rows):
        return None
    indices = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MOST_RECORDS)).astype(np.int64))
    statistics, values = task.observed(rows, indices, folder, max_length)
    columns = [
        category_bins(name, one) if name in statistics.categories else number_bins(name, one)
        for name, one in values.items()
    ]
    if test is not None and len(test.outputs):
        shifted = np.exp(test.outputs - test.outputs.max(axis=1, keepdims=True))
        score = (shifted / shifted.sum(axis=1, keepdims=True)).max(axis=1)
        columns += [
            category_bins(LABEL, test.outputs.argmax(axis=1).astype(np.float64)),
            number_bins(SCORE, score.astype(np.float64)),
        ]
    common = tuple(sorted(statistics.common)) if isinstance(statistics, TextStatistics) else ()
    return Reference(columns=tuple(columns), left_out=statistics.left_out, common_tokens=common)
