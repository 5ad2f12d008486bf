"""What trials are compared by: metrics of the task's validation, and what a trial's workers measure."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import model_validator

from heliostat.infra.config.strict import StrictModel
from heliostat.train.metrics.names import OWN, REPORTED, Mode
from heliostat.tune.trials import Objective

MEASURED: dict[str, Mode] = {
    "tokens_per_second": "max",
    "records_per_second": "max",
    "latency_ms": "min",
    "parameters": "min",
    "size_bytes": "min",
}
"""What workers measure of a trial where an objective asks for it; see `measure.py`."""


class ObjectiveConfig(StrictModel):
    """An objective; a spec may write the metric alone."""

    metric: str
    """One that the task's validation reports, or `tokens_per_second`, `records_per_second`, `latency_ms`, `parameters`,
    `size_bytes`, which trials' workers measure."""
    mode: Mode | None = None
    """`min` or `max`; that of the metric if omitted."""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"metric": value}
        if not isinstance(value, dict):
            raise ValueError("a metric or {metric, mode} is allowed")
        return value


def check_distinct(objectives: Sequence[ObjectiveConfig]) -> None:
    """Raises ValueError if there is none, or one metric twice."""
    names = [one.metric for one in objectives]
    if not names:
        raise ValueError("empty; give at least one metric, or leave tune.objectives out for the task's own")
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name!r} is there twice; once is allowed")


def objectives_of(given: Sequence[ObjectiveConfig] | None, task: str) -> tuple[Objective, ...]:
    """The objectives of a spec; the task's own metric if it has none.

    Raises ValueError for a metric that neither the task reports nor workers measure, and for the mode that is not its.
    """
    known = {**REPORTED[task], **MEASURED}
    wanted = given or [ObjectiveConfig(metric=OWN[task])]
    for one in wanted:
        if one.metric not in known:
            near = get_close_matches(one.metric, known, n=1)
            raise ValueError(
                f"tune.objectives: {one.metric!r} given; {task} reports {', '.join(REPORTED[task])}; workers "
                f"measure {', '.join(MEASURED)}{f'; did you mean {near[0]!r}?' if near else ''}"
            )
        mode = known[one.metric]
        if one.mode not in (None, mode):
            better = "less is better" if mode == "min" else "more is better"
            raise ValueError(f"tune.objectives: mode {one.mode} of {one.metric} given; {better}, {mode} is allowed")
    return tuple(Objective(one.metric, known[one.metric]) for one in wanted)
