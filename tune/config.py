"""The `tune` section of a spec."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from heliostat.infra.config.strict import StrictModel

SEARCHABLE = ("learning_rate", "global_batch_size", "warmup", "weight_decay", "schedule", "epochs")
"""The keys of `train` that a search can vary without restarting workers."""


class Domain(StrictModel):
    """A distribution of values; exactly one key must be given."""

    choice: list[Any] | None = None
    uniform: tuple[float, float] | None = None
    loguniform: tuple[float, float] | None = None


class TuneConfig(StrictModel):
    """A search over `train` keys."""

    space: dict[str, Domain] = {}
    """`train` key -> domain, such as `learning_rate: {loguniform: [1e-5, 1e-3]}`."""
    trials: Annotated[int, Field(gt=0)] = 8
    concurrent: Annotated[int, Field(gt=0)] = 1
    """Trials that run at the same time, each on `train.workers` workers (the minimum)."""
    epochs: Annotated[float, Field(gt=0)] | None = None
    """Epochs of the longest trial; `train.epochs` if omitted."""
    grace: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Share of a trial before the scheduler may stop it, and between its validations."""
    scheduler: Literal["asha", "none"] = "asha"
    search: Literal["random", "optuna"] = "optuna"
    seed: Annotated[int, Field(ge=0)] = 0

    @field_validator("space")
    @classmethod
    def _known(cls, space: dict[str, Domain]) -> dict[str, Domain]:
        for key, domain in space.items():
            if key not in SEARCHABLE:
                raise ValueError(f"{key!r} cannot be searched; allowed: {', '.join(SEARCHABLE)}")
            given = domain.model_dump(exclude_none=True)
            if len(given) != 1:
                raise ValueError(f"{key!r} needs exactly one of choice, uniform, loguniform")
            ((kind, values),) = given.items()
            if kind == "choice" and not values:
                raise ValueError(f"{key!r}: choice is empty")
            if kind != "choice" and not (values[0] < values[1] and (kind == "uniform" or values[0] > 0)):
                low = "0 < low < high" if kind == "loguniform" else "low < high"
                raise ValueError(f"{key!r}: {kind} {list(values)} given; needs {low}")
        return space
