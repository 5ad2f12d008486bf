"""Which trials' checkpoints are kept: those that somebody may go on from, up to a size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from heliostat.infra.storage.base import Entry, Store
from heliostat.tune.ranking import best_first, is_lost, outcome
from heliostat.tune.trials import Objective, Trial


def sizes(entries: Iterable[Entry], prefix: str) -> dict[int, int]:
    """Bytes of each trial's checkpoints, of the objects below `prefix`, the folder of trials."""
    found: dict[int, int] = {}
    for entry in entries:
        number = int(entry.key.removeprefix(f"{prefix}/").partition("/")[0])
        found[number] = found.get(number, 0) + entry.size_bytes
    return found


def unneeded(
    known: dict[int, int], trials: Sequence[Trial], objectives: Sequence[Objective], most_bytes: int
) -> list[int]:
    """Trials of the `known` sizes whose checkpoints are to be deleted.

    Those that nobody goes on from, and then those of failed trials, which may be tried again, and the worst of the
    paused ones while all take more than `most_bytes`. Trials in training keep theirs, and so do those that the others
    began from.
    """
    begun_from = {trial.origin.trial for trial in trials if trial.origin and trial.is_training}
    over = {trial.number for trial in trials if _is_over(trial, objectives)} - begun_from
    gone = [number for number in known if number in over]
    left = sum(size for number, size in known.items() if number not in over)
    for trial in reversed(best_first(trials, objectives)):
        is_idle = outcome(trial) in ("paused", "failed") and trial.number not in {*begun_from, *over}
        if left > most_bytes and is_idle and trial.number in known:
            gone.append(trial.number)
            left -= known[trial.number]
    return gone


def _is_over(trial: Trial, objectives: Sequence[Objective]) -> bool:
    """Whether nobody can go on with the trial: one whose weights gave no number could only start over."""
    ends = outcome(trial)
    return ends in ("finished", "stopped") or (ends == "failed" and is_lost(replace(trial, error=None), objectives))


def retain(
    store: Store, prefix: str, trials: Sequence[Trial], objectives: Sequence[Objective], most_bytes: int
) -> list[int]:
    """Deletes what is unneeded; returns the paused trials that lost their checkpoints by it."""
    folder = f"{prefix}/trials"
    gone = unneeded(sizes(store.list(folder), folder), trials, objectives, most_bytes)
    for number in gone:
        store.delete(f"{folder}/{number}")
    return [number for number in gone if outcome(trials[number]) == "paused"]
