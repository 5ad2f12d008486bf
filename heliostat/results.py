"""The result of a training run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from heliostat.infra.registry.registry import ModelVersion


Curves = dict[str, dict[int, float]]
"""Values by step, by their names in MLflow."""


@dataclass
class TrainingResult:
    """The result of a training run."""

    run_id: str
    model: ModelVersion
    result: Mapping[str, Any]
    """`metrics` on the test split, `confusion`, `reliability`, `worst`, `labels`, `url`, `digest`, `size_bytes`; of a
    run that ended before its last step, `stopped_early` in words. `precision`: what it was trained in."""
    tracking_url: str
    curves: Curves
    """Curves of the whole run, such as `train/loss` and `validation/accuracy`."""
    report: str | None = None
    """Location of the HTML report; None if there is none."""
