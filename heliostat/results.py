"""What came of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from heliostat.infra.registry.registry import ModelVersion


Curves = dict[str, dict[int, float]]
"""Values by step, under the names that they have in MLflow."""


@dataclass
class Trained:
    """What came of a run."""

    run_id: str
    model: ModelVersion
    result: Mapping[str, Any]
    """`metrics` on the test split, `confusion`, `reliability`, `worst`, `labels`, `url`, `digest`, `size_bytes`."""
    tracking_url: str
    curves: Curves
    """Of the whole run, by step: `train/loss`, `validation/accuracy` and their like."""
    report: str | None = None
    """Where its page is; None where there is none."""
