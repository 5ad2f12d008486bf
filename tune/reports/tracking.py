"""The trials of a search in MLflow: a child run each, with its learning curves, however often the search is resumed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from heliostat.infra import log, waiting
from heliostat.infra.errors import StorageError
from heliostat.infra.storage.config import StorageConfig
from heliostat.infra.tracked_run import PARENT, Run, start_run
from heliostat.infra.tracking import explained
from heliostat.tune.reports.latest import latest
from heliostat.tune.reports.table import ENDED, FAILED, PAUSED, Row, best_score, row, state_of
from heliostat.tune.state import SearchState
from heliostat.tune.trials import Score, Trial

KIND, NUMBER, STATE, STEP, REASON, ROLE, PAST = (
    f"heliostat.{name}" for name in ("kind", "trial", "outcome", "step", "reason", "role", "past")
)
"""Tags of a child: its trial's number and state, the last step that was logged, why it failed or was stopped, what it
is for (a first run, or one that repeats or confirms another one's configuration), and what its weights were trained
with before its own values, as JSON: pairs of the share until which, and the values."""
_MOST_LETTERS = 1000
"""Of a reason: an error may be pages."""
_PAGE = 1000
_log = log.get(__name__)


@dataclass(frozen=True)
class Logged:
    """What MLflow knows of a trial."""

    run_id: str | None
    """None while it waits in storage for MLflow."""
    state: str
    step: int


class TrialRuns:
    """The child runs of a search's run in MLflow."""

    def __init__(self, storage: StorageConfig, experiment: str, parent: Run, *, is_resumed: bool) -> None:
        """`is_resumed`: whether `parent` may have children from before, which are then looked up and gone on with."""
        self._storage, self._experiment, self._parent = storage, experiment, parent
        self._logged: dict[int, Logged] | None = None if is_resumed else {}

    def log(self, state: SearchState, *, with_paused: bool = False) -> None:
        """Logs the trials that have ended since the last call; `with_paused`, for the end of a search, paused ones too.

        A trial that went on after it was logged goes on in its run. MLflow never fails a search: what it does not take
        waits, as that of all runs.
        """
        if self._logged is None and not self._look_up():
            return
        states = (*ENDED, PAUSED) if with_paused else ENDED
        found = [
            trial for trial in state.trials if (now := state_of(trial, state)) in states and self._is_news(trial, now)
        ]
        by_number = {trial.number: trial for trial in state.trials}
        for trial in found:
            self._tell(trial, row(state, trial, by_number))
        if found:
            self._tell_best(state)

    def _look_up(self) -> bool:
        try:
            self._logged = {**kept_in_storage(self._storage, self._parent), **children(self._parent)}
        except StorageError as error:
            _log.warning("trials are not told to MLflow until it says which it knows: %s", error)
        return self._logged is not None

    def _is_news(self, trial: Trial, state: str) -> bool:
        assert self._logged is not None
        known = self._logged.get(trial.number)
        return known is None or (known.run_id is not None and (known.state, known.step) != (state, last_step(trial)))

    def _tell(self, trial: Trial, now: Row) -> None:
        assert self._logged is not None
        known = self._logged.get(trial.number)
        name, run_id = f"trial-{trial.number}", known.run_id if known else None
        tags = tags_of(trial, now)
        with start_run(self._storage, self._experiment, name, trial.values, tags, self._parent, run_id) as run:
            if known:
                for key, value in tags.items():
                    run.tag(key, value)
            for score in new_scores(trial, known):
                run.log(score.metrics, score.step)
            run.log({"share": now.share, "seconds": now.seconds}, last_step(trial))
            run.ends_as = "FAILED" if now.state == FAILED else "FINISHED"
        self._logged[trial.number] = Logged(run.id, now.state, last_step(trial))

    def _tell_best(self, state: SearchState) -> None:
        """Logs the best trial's values to the search's own run, by the number of trials that were logged."""
        best = best_score(state.chosen, state.objectives) if state.chosen else None
        if best:
            values = {f"best/{one.metric}": best.metrics[one.metric] for one in state.objectives}
            self._parent.log(values, len(self._logged or ()))


@contextmanager
def logging_trials(
    storage: StorageConfig, experiment: str, parent: Run, *, is_resumed: bool
) -> Iterator[Callable[[SearchState], None]]:
    """Gives the function that logs a state of the search; it returns at once, and MLflow is told by a thread.

    Each state says all, so one that is given while another is logged replaces those that wait. The last one is logged
    before the block ends, with its paused trials if it ends without an exception. Nobody else may log to `parent`
    meanwhile.
    """
    runs = TrialRuns(storage, experiment, parent, is_resumed=is_resumed)
    with latest(runs.log) as give:
        yield give
    if give.last is not None:
        runs.log(give.last, with_paused=True)


def tags_of(trial: Trial, now: Row) -> dict[str, str]:
    """What a child's tags say of its trial."""
    reason = now.reason[:_MOST_LETTERS]
    return {
        KIND: "trial",
        NUMBER: str(trial.number),
        STATE: now.state,
        STEP: str(last_step(trial)),
        REASON: reason,
        ROLE: now.role,
        **({PAST: json.dumps(now.past, default=str)} if now.past else {}),
    }


def new_scores(trial: Trial, known: Logged | None) -> Iterator[Score]:
    """The validations that MLflow has not been told."""
    return (score for score in trial.scores if known is None or score.step > known.step)


def last_step(trial: Trial) -> int:
    """The step of the last validation; 0 without one."""
    return trial.scores[-1].step if trial.scores else 0


def children(parent: Run) -> dict[int, Logged]:
    """The trials that MLflow has a child run of; raises StorageError if it does not answer."""
    if parent.id is None:
        return {}
    client, token, found = parent.connection.client, None, {}
    with explained(f"children of run {parent.id}"):
        experiment = client.get_run(parent.id).info.experiment_id
        while True:
            page = client.search_runs([experiment], f"tags.`{PARENT}` = '{parent.id}'", 1, _PAGE, page_token=token)
            found.update(
                {
                    int(one.data.tags[NUMBER]): logged(one.info.run_id, one.data.tags)
                    for one in page
                    if NUMBER in one.data.tags
                }
            )
            token = page.token
            if not token:
                return found


def kept_in_storage(storage: StorageConfig, parent: Run) -> dict[int, Logged]:
    """The trials whose run waits in storage until MLflow answers."""
    kept = [one.tags for _, one in waiting.stored(storage) if one.run_id is None]
    mine = [tags for tags in kept if tags.get(PARENT) == parent.id and NUMBER in tags]
    return {int(tags[NUMBER]): logged(None, tags) for tags in mine}


def logged(run_id: str | None, tags: Mapping[str, str]) -> Logged:
    """What a run's tags say."""
    return Logged(run_id, tags.get(STATE, ""), int(tags.get(STEP, 0)))
