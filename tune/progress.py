"""Tells the driver how the trials of a search fare."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ray import tune


class Progress(tune.Callback):
    """Calls `on_trial` after each validation and at the end of each trial."""

    def __init__(self, on_trial: Callable[[Mapping[str, Any]], None]) -> None:
        self._on_trial = on_trial

    def __getstate__(self) -> dict[str, Any]:
        """Ray Tune stores its experiment, callbacks included; the terminal of a driver cannot be stored."""
        return {"_on_trial": _say_nothing}

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        """A validation."""
        self._tell(trial, result, over=False)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """The trial ran to its end or was stopped."""
        self._tell(trial, trial.last_result or {}, over=True)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """The trial failed."""
        self._tell(trial, trial.last_result or {}, over=True)

    def _tell(self, trial: Any, result: Mapping[str, Any], over: bool) -> None:
        event = {"id": trial.trial_id, "values": trial.config, "result": dict(result), "over": over}
        self._on_trial(event)


def _say_nothing(event: Mapping[str, Any]) -> None:
    """What a restored search tells its driver."""
