"""The `tune` section of a spec."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from heliostat.infra.config.strict import StrictModel
from heliostat.infra.config.types import Positive
from heliostat.tune.choice import check_shape
from heliostat.tune.objectives import ObjectiveConfig, check_distinct
from heliostat.tune.price import CPU, Price
from heliostat.tune.schedulers.catalog import KINDS
from heliostat.tune.space.domains import Domain
from heliostat.tune.space.space import Space, check_points

REDUCTION_FACTOR = 2.0
Amount = Annotated[float, Field(gt=0)]
Seeds = Annotated[int, Field(ge=1, le=100)]


class BudgetConfig(StrictModel):
    """What a search may spend, over all resumes; when one is used up, running trials are stored and the search ends."""

    hours: Amount | None = None
    """In which a driver runs."""
    worker_hours: Amount | None = None
    """Hours of workers, idle ones too: two workers use up an hour in 30 minutes."""
    usd: Amount | None = None
    """What these hours cost, at `tune.price`."""


class TuneConfig(StrictModel):
    """A search over keys of the spec."""

    space: dict[str, Domain] = {}
    """Key -> domain, such as `learning_rate: {loguniform: [1e-5, 1e-3]}`; a key without a dot is one of `train`."""
    points: list[dict[str, Any]] = []
    """Configurations to try first; keys that are left out are drawn."""
    objectives: list[ObjectiveConfig] | None = None
    """Metrics that trials are compared by, such as `[f1, latency_ms]`; the task's own one if omitted."""
    choose: Literal["first", "knee"] | dict[str, dict[str, float]] = "first"
    """Which trial of the Pareto front is taken: `first`, the best in the first objective; `knee`, the best compromise;
    `{latency_ms: {max: 20}}`, the best in the first objective of those that keep the bounds."""
    trials: Positive = 8
    """Configurations, apart from clones."""
    repeats: Seeds = 1
    """Times that each configuration is trained, on a seed of its own each, from `train.seed` on; it is compared by the
    mean."""
    confirm: Annotated[int, Field(ge=0)] = 0
    """So many of the best are trained again in full on new seeds, after the search: the best of these is the winner."""
    confirm_seeds: Annotated[Seeds, Field(ge=2)] = 3
    """New seeds on which each of them is trained."""
    concurrent: Positive | None = None
    """Most trials that run at the same time, each on `train.workers` workers (the minimum); as many as the cluster has
    room for if omitted."""
    gpus_per_trial: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of a GPU that a trial of one worker has, with as much of its memory: 0.5 lets two trials of a small model
    share one. A whole GPU for each worker if omitted."""
    lag: Annotated[int, Field(ge=0)] | Literal["none"] | None = None
    """Each decision sees all results but those of so many works before it, so that a seed gives one search, whatever
    ends first; `lag` + 1 trials run at the same time at most. A quarter of them if omitted; `none` decides by what
    is there: the fastest, and never twice the same."""
    epochs: Amount | None = None
    """Epochs of the longest trial; `train.epochs` if omitted."""
    grace: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Share of a trial before the scheduler may stop it, and between its validations."""
    scheduler: Literal["asha", "hyperband", "median", "pbt", "pb2", "none"] = "asha"
    reduction_factor: Annotated[float, Field(gt=1)] = REDUCTION_FACTOR
    """Of so many trials at a rung, `asha` and `hyperband` promote one, and rungs are so far apart."""
    search: Literal["random", "grid", "tpe", "gp", "cmaes", "optuna"] = "tpe"
    """Who proposes values; `optuna` is the former name of `tpe`."""
    seed: Annotated[int, Field(ge=0)] = 0
    budget: BudgetConfig = BudgetConfig()
    price: str | None = None
    """`NAME=USD`: an hour of the accelerator that a worker has, or of a core (`CPU=0.04`); `heliostat tune --price`
    sets it. Of all hours of the search, those before a resume too."""
    patience: Positive | None = None
    """After so many trials, none of which is better than all before it that were trained as far, no further one is
    begun: those that deserve it are still promoted. All of `trials` are begun if omitted."""
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    """For `patience`, a trial is better by more than this."""
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
    def runs(self) -> int:
        """Trials of the whole search: repeats and confirmations too."""
        return self.trials * self.repeats + self.confirm * self.confirm_seeds

    @property
    def decision_lag(self) -> int | None:
        """Works whose results a decision does not see; None without a fixed number."""
        if self.lag == "none":
            return None
        return self.trials * self.repeats // 4 if self.lag is None else self.lag

    @property
    def most_gangs(self) -> int:
        """Most trials at the same time."""
        by_lag = self.trials * self.repeats if self.decision_lag is None else self.decision_lag + 1
        return min(by_lag, self.concurrent or by_lag)

    @field_validator("price")
    @classmethod
    def _is_a_price(cls, price: str | None) -> str | None:
        if price is not None:
            Price.read(price)
        return price

    @model_validator(mode="after")
    def _money_has_a_price(self) -> TuneConfig:
        if self.budget.usd and not self.price:
            raise ValueError(
                f"tune.budget.usd: {self.budget.usd:g} given without a price; --price NAME=USD is needed, an hour "
                f"of an accelerator (named as in heliostat plan) or of a core ({CPU}=USD)"
            )
        return self

    @model_validator(mode="after")
    def _reduction_is_for_rungs(self) -> TuneConfig:
        if self.reduction_factor != REDUCTION_FACTOR and self.scheduler not in ("asha", "hyperband"):
            raise ValueError(
                f"tune.reduction_factor: {self.reduction_factor:g} given; it is for asha and hyperband, and not "
                f"{self.scheduler}"
            )
        return self

    @field_validator("objectives")
    @classmethod
    def _are_distinct(cls, objectives: list[ObjectiveConfig] | None) -> list[ObjectiveConfig] | None:
        if objectives is not None:
            check_distinct(objectives)
        return objectives

    @field_validator("choose", mode="before")
    @classmethod
    def _is_a_rule(cls, value: Any) -> Any:
        check_shape(value)
        return value

    @field_validator("space")
    @classmethod
    def _has_no_circle(cls, space: dict[str, Domain]) -> dict[str, Domain]:
        Space(space)
        return space

    @model_validator(mode="after")
    def _can_run_again(self) -> TuneConfig:
        self.check_runs()
        return self

    def check_runs(self) -> None:
        """Raises ValueError where configurations cannot run as often as is asked."""
        if self.confirm > self.trials:
            raise ValueError(f"tune.confirm: {self.confirm} given; tune.trials, {self.trials}, is the most")
        for key, value, least in (("repeats", self.repeats, 1), ("confirm", self.confirm, 0)):
            if value > least and KINDS[self.scheduler].changes_values:
                raise ValueError(
                    f"tune.{key}: {value} given; {least} is allowed with tune.scheduler: {self.scheduler}, "
                    "whose trials change their values on the way"
                )

    @model_validator(mode="after")
    def _a_difference_is_for_patience(self) -> TuneConfig:
        if self.min_delta and not self.patience:
            raise ValueError(f"tune.min_delta: {self.min_delta:g} given without tune.patience, which it is for")
        return self

    @model_validator(mode="after")
    def _a_population_can_change(self) -> TuneConfig:
        if KINDS[self.scheduler].changes_values and (self.grace > 0.5 or self.trials < 2):
            key, allowed = ("grace", "at most 0.5") if self.grace > 0.5 else ("trials", "at least 2")
            raise ValueError(
                f"tune.{key}: {getattr(self, key)} given; {self.scheduler} compares trials on their way, {allowed}"
            )
        return self

    @model_validator(mode="after")
    def _points_are_inside(self) -> TuneConfig:
        check_points(Space(self.space), self.points)
        return self
