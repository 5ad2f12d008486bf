"""Reports the progress of a search's trials to the driver."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ray import tune


class Progress(tune.Callback):
    """Calls `on_trial` after each validation and at the end of each trial."""

    def __init__(self, on_trial: Callable[[Mapping[str, Any]], None]) -> None:
        self._on_trial = on_trial

    def __getstate__(self) -> dict[str, Any]:
        """Ray Tune pickles its callbacks; `on_trial` may hold the driver's terminal, which cannot be pickled."""
        return {"_on_trial": _noop}

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        """Reports a validation."""
        self._tell(trial, result, over=False)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Reports a trial that finished or was stopped."""
        self._tell(trial, trial.last_result or {}, over=True)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Reports a trial that failed."""
        self._tell(trial, trial.last_result or {}, over=True)

    def _tell(self, trial: Any, result: Mapping[str, Any], over: bool) -> None:
        event = {"id": trial.trial_id, "values": trial.config, "result": dict(result), "over": over}
        self._on_trial(event)


def _noop(event: Mapping[str, Any]) -> None:
    """The callback after unpickling: does nothing."""
