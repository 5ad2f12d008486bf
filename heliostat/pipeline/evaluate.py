"""Evaluates a published model on the test split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from heliostat.pipeline.report import report_on_model
from heliostat.spec import Spec
from heliostat.view.terminal import View

if TYPE_CHECKING:
    from heliostat.infra.registry.registry import ModelVersion
    from heliostat.train.data.prepared import Prepared


def run(spec: Spec, model: ModelVersion, prepared: Prepared, view: View) -> Mapping[str, Any]:
    """Evaluates a published model on the test split of the spec's data, on this machine, and writes a report.

    Raises StorageError, once the metrics are printed, if the report cannot be stored.
    """
    from heliostat.train.evaluation.assess import assess

    with view.progress("evaluate") as advance:
        advance("test split", 0, 0)
        found = assess(model, spec.storage, prepared)
    view.evaluated(model, found)
    view.report(report_on_model(spec, prepared, model, found))
    return found
