"""The `tune` section of a spec."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from heliostat.infra.config.strict import StrictModel
from heliostat.infra.config.types import Positive
from heliostat.tune.space.domains import Domain
from heliostat.tune.space.space import Space, check_points

Amount = Annotated[float, Field(gt=0)]


class BudgetConfig(StrictModel):
    """What a search may spend, over all resumes; when one is used up, running trials are stored and the search ends."""

    hours: Amount | None = None
    """In which a driver runs."""
    worker_hours: Amount | None = None
    """Hours of workers, idle ones too: two workers use up an hour in 30 minutes."""


class TuneConfig(StrictModel):
    """A search over keys of the spec."""

    space: dict[str, Domain] = {}
    """Key -> domain, such as `learning_rate: {loguniform: [1e-5, 1e-3]}`; a key without a dot is one of `train`."""
    points: list[dict[str, Any]] = []
    """Configurations to try first; keys that are left out are drawn."""
    trials: Positive = 8
    concurrent: Positive | None = None
    """Most trials that run at the same time, each on `train.workers` workers (the minimum); as many as the cluster has
    room for if omitted."""
    lag: Annotated[int, Field(ge=0)] | Literal["none"] | None = None
    """Each decision sees all results but those of so many works before it, so that a seed gives one search, whatever
    ends first; `lag` + 1 trials run at the same time at most. A quarter of `trials` if omitted; `none` decides by what
    is there: the fastest, and never twice the same."""
    epochs: Amount | None = None
    """Epochs of the longest trial; `train.epochs` if omitted."""
    grace: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Share of a trial before the scheduler may stop it, and between its validations."""
    reduction_factor: Annotated[float, Field(gt=1)] = 2
    """Of so many trials at a rung, `asha` and `hyperband` promote one, and rungs are so far apart."""
    scheduler: Literal["asha", "hyperband", "median", "pbt", "pb2", "none"] = "asha"
    search: Literal["random", "grid", "tpe", "gp", "cmaes", "optuna"] = "tpe"
    """Who proposes values; `optuna` is the former name of `tpe`."""
    seed: Annotated[int, Field(ge=0)] = 0
    budget: BudgetConfig = BudgetConfig()
    max_failures: Annotated[int, Field(ge=0)] = 2
    """Times that a trial may go on from its last checkpoint after its workers were lost."""
    checkpoint_bytes: Positive = 20_000_000_000
    """Most bytes of paused trials' checkpoints in storage; with more, those of the worst are deleted, which would start
    over if they were promoted."""
    resume: Literal["never", "auto"] = "never"
    """`auto`: go on with the spec's newest search if it has not ended; for drivers that may be restarted."""
    scale_learning_rate: Literal["none", "sqrt", "linear"] = "none"
    """How a trial's learning rate follows its global batch, from that of `train`."""

    @property
    def decision_lag(self) -> int | None:
        """Works whose results a decision does not see; None without a fixed number."""
        if self.lag == "none":
            return None
        return self.trials // 4 if self.lag is None else self.lag

    @property
    def most_gangs(self) -> int:
        """Most trials at the same time."""
        by_lag = self.trials if self.decision_lag is None else self.decision_lag + 1
        return min(by_lag, self.concurrent or by_lag)

    @field_validator("space")
    @classmethod
    def _has_no_circle(cls, space: dict[str, Domain]) -> dict[str, Domain]:
        Space(space)
        return space

    @model_validator(mode="after")
    def _a_population_can_change(self) -> TuneConfig:
        if self.scheduler in ("pbt", "pb2") and (self.grace > 0.5 or self.trials < 2):
            key, allowed = ("grace", "at most 0.5") if self.grace > 0.5 else ("trials", "at least 2")
            raise ValueError(
                f"tune.{key}: {getattr(self, key)} given; {self.scheduler} compares trials on their way, {allowed}"
            )
        return self

    @model_validator(mode="after")
    def _points_are_inside(self) -> TuneConfig:
        check_points(Space(self.space), self.points)
        return self
