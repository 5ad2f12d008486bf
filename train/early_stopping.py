"""Ends a run whose metric no longer improves (`train.early_stopping`)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from heliostat.infra import log
from heliostat.infra.registry.published import EarlyStop
from heliostat.train.config import EarlyStoppingConfig
from heliostat.train.parallel.distributed import World
from heliostat.train.telemetry.stats import Report

_log = log.get(__name__)


class Patience:
    """That of a run that never ends early."""

    @property
    def is_over(self) -> bool:
        """Whether the run ends now."""
        return False

    def check(self, validations: int) -> None:
        """Warns if it cannot be over in a run of so many validations."""

    def saw(self, report: Report, world: World) -> bool:
        """Takes in a validation; whether its metric improved. A collective call of all ranks."""
        return False

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        return {}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Goes on from what a checkpoint holds."""

    def stop(self) -> EarlyStop | None:
        """Where and why the run has ended early; None if it has not."""
        return None


@dataclass
class Limited(Patience):
    """Over when the metric has not improved by more than `min_delta` in `patience` validations.

    As in Keras, a validation is compared with the last one that improved: many small steps add up to a large one.
    """

    config: EarlyStoppingConfig
    metric: str
    mode: str
    """`min` or `max`."""
    best: float | None = None
    """Of the last validation that improved."""
    since: int = 0
    """The step of that one."""
    waited: int = 0
    """Validations since then."""
    step: int = 0
    steps: int = 0
    """Steps of the whole run."""

    @property
    def is_over(self) -> bool:
        """Whether so many validations in a row have not improved."""
        return self.waited >= self.config.patience

    def check(self, validations: int) -> None:
        """Warns if the run has too few: the first one always improves, and the last one ends it anyway."""
        if validations < self.config.patience + 2:
            _log.warning(
                "train.early_stopping.patience: %d given, and the run has %d validations, so it cannot end early; "
                "train.validate_every sets their interval in steps",
                self.config.patience,
                validations,
            )

    def saw(self, report: Report, world: World) -> bool:
        """Takes in a validation, as rank 0 has measured it: a rounding elsewhere must not part the ranks."""
        value = world.from_first(lambda: report.metrics.get(self.metric, math.nan))
        improves = self._improves(value)
        self.step, self.steps, self.waited = report.step, report.steps, 0 if improves else self.waited + 1
        if improves:
            self.best, self.since = value, report.step
        return improves

    def _improves(self, value: float) -> bool:
        if not math.isfinite(value) or self.best is None:
            return math.isfinite(value)
        return (value - self.best if self.mode == "max" else self.best - value) > self.config.min_delta

    def state(self) -> dict[str, Any]:
        """Best value, its step, validations since then, and the steps of the last one and of the run."""
        return {name: getattr(self, name) for name in ("best", "since", "waited", "step", "steps")}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Goes on from that; from nothing if it is empty."""
        vars(self).update(state)

    def stop(self) -> EarlyStop | None:
        """Where and why the run has ended before its last step; None if it has not."""
        if not self.is_over or self.step == self.steps:
            return None
        return EarlyStop(
            step=self.step, steps=self.steps, metric=self.metric, since=self.since, **self.config.model_dump()
        )


def patience_of(config: EarlyStoppingConfig | None, metric: str, mode: str) -> Patience:
    """The patience that a spec asks for."""
    return Limited(config, metric, mode) if config else Patience()
