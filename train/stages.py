"""What each step of a run is trained with (`train.stages`)."""

from __future__ import annotations

from typing import Any

from heliostat.train.config import CHANGEABLE, StageConfig, TrainConfig


def train_at(train: TrainConfig, step: int, steps: int) -> TrainConfig:
    """`train` with the values of `step` (from 0) of `steps`."""
    stage = next((one for one in train.stages if step < _end(one, steps)), None)
    return train.model_copy(update=stage.changes) if stage else train


def schedule_until(train: TrainConfig, step: int, steps: int) -> list[tuple[int, dict[str, Any]]]:
    """What the first `step` steps of a run of `steps` are trained with: pairs of the step until which, and the values.

    Two runs with the same of it differ in nothing that stages could have changed.
    """
    found: list[tuple[int, dict[str, Any]]] = []
    ends = sorted({min(step, _end(stage, steps)) for stage in train.stages} | {step})
    for start, end in zip([0, *ends], ends, strict=False):
        if end > start:
            values = train_at(train, start, steps).model_dump(mode="json", include=set(CHANGEABLE))
            if found and found[-1][1] == values:
                found.pop()
            found.append((end, values))
    return found


def _end(stage: StageConfig, steps: int) -> int:
    return round(stage.until * steps)
