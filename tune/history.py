"""A search as its journal tells it: to go on with it, and to look at it from another process."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from heliostat.infra.errors import NotFoundError
from heliostat.infra.storage.base import Store
from heliostat.tune.decisions import Decisions
from heliostat.tune.journal import Event, Journal, result_from, score_from, work_from
from heliostat.tune.state import SearchState
from heliostat.tune.trials import Objective, Score


@dataclass
class History:
    """What has happened in a search, taken in event by event."""

    decisions: Decisions
    begun: list[Mapping[str, Any]] = field(default_factory=list)
    """What each driver of it was given."""
    scores: dict[int, list[Score]] = field(default_factory=dict)
    """Of works without a result, by their numbers."""
    spent: Mapping[str, float] = field(default_factory=dict)
    handled: list[str] = field(default_factory=list)
    """Requests that were taken up, by their keys."""
    ended: str | None = None
    """Why the last driver ended, empty if nothing was left to do; None if it runs or was killed."""

    def take(self, events: Iterable[Event]) -> History:
        """Takes in the events."""
        for event in events:
            self._take(event.kind, event.data)
        return self

    def _take(self, kind: str, data: Mapping[str, Any]) -> None:
        match kind:
            case "driver":
                self.begun.append(data)
                self.ended = None
            case "work":
                self.decisions.replay(work_from(data))
            case "score":
                self.scores.setdefault(data["work"], []).append(score_from(data["score"]))
            case "result":
                self.decisions.arrived(result_from(data))
                self.scores.pop(data["work"], None)
            case "stop":
                self.decisions.stop(data["trial"], data["reason"])
            case "request":
                self.handled.append(data["key"])
            case "spent":
                self.spent = data
            case "end":
                self.ended = data["reason"]


def look(store: Store, prefix: str, name: str) -> SearchState:
    """How the search stands, or has ended; raises NotFoundError if there is none."""
    history = History(Decisions.to_read()).take(Journal(store, prefix, name).read())
    if not history.begun:
        raise NotFoundError(f"{store.url}/{prefix}: no search")
    begun, trials = history.begun[-1], history.decisions.current(history.scores)
    running = () if history.ended is not None else {trial.number for trial in trials if trial.is_training}
    return SearchState(
        name=name,
        objectives=tuple(Objective(**one) for one in begun["objectives"]),
        rule=begun["choose"],
        trials=trials,
        running=running,
        elapsed_seconds=history.spent.get("seconds", 0.0),
        worker_hours=history.spent.get("worker_seconds", 0.0) / 3600,
        idle_worker_hours=history.spent.get("idle_worker_seconds", 0.0) / 3600,
        lag=begun.get("lag"),
        cost=history.spent.get("usd"),
        gang_hour_price=begun.get("gang_hour_usd"),
        wanted=begun["trials"],
        note=history.ended or "",
        keys=tuple(begun["space"]),
        repeated_steps=history.decisions.steps_again(),
    )
