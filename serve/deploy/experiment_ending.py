"""How an experiment stands, while it runs and afterwards, and its end."""

from __future__ import annotations

import time
from contextlib import suppress

from pydantic import TypeAdapter

from heliostat.infra.errors import ConfigError
from heliostat.infra.storage.config import StorageConfig
from heliostat.infra.storage.store import open_store
from heliostat.serve.args import CANDIDATE_SUFFIX
from heliostat.serve.deploy.applications import deployed, remove, run, running_experiment, wait
from heliostat.serve.experiment.coordinator import Standing, find_board

END_SECONDS = 60.0
_standings = TypeAdapter(Standing)


def standing(name: str) -> Standing | None:
    """Of the experiment that runs; None where none does."""
    import ray
    from ray.exceptions import ActorDiedError

    with suppress(ActorDiedError):  # it has ended since the board was found
        board = find_board(name)
        return ray.get(board.standing.remote()) if board else None
    return None


def last_standing(name: str, storage: StorageConfig) -> Standing:
    """Of the experiment that ended last; ConfigError where there was none."""
    store = open_store(storage)
    records = sorted(entry.key for entry in store.list(_folder(name)))
    if not records:
        raise ConfigError(f"experiment: none of {name} runs, and none is recorded in {storage.url}")
    return _standings.validate_json(store.read_bytes(records[-1]))


def end(name: str) -> Standing | None:
    """Gives all requests to the baseline, takes the candidate away once it has answered, and records the outcome.

    Returns how the experiment stood; None where none ran.
    """
    import ray

    args = deployed(name)
    if args and running_experiment(name):
        run(args)
        wait(args, time.monotonic() + END_SECONDS)
    found = standing(name)
    remove(name + CANDIDATE_SUFFIX)
    if found and args:
        key = f"{_folder(name)}/{found.started:%Y%m%d-%H%M%S}.json"
        open_store(args.storage).write_bytes(key, _standings.dump_json(found, indent=1))
    board = find_board(name)
    if board:
        ray.kill(board)
    return found


def _folder(name: str) -> str:
    return f"experiments/{name}"
