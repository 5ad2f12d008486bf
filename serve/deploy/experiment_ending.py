"""Status of experiments, running or ended, and how to end one."""

from __future__ import annotations

import time
from contextlib import suppress

from pydantic import TypeAdapter

from heliostat.infra.errors import ConfigError
from heliostat.infra.storage.config import StorageConfig
from heliostat.infra.storage.store import open_store
from heliostat.serve.args import CANDIDATE_SUFFIX
from heliostat.serve.deploy.applications import deployed, remove, run, running_experiment, wait
from heliostat.serve.experiment.coordinator import ExperimentStatus, find_coordinator

END_SECONDS = 60.0
_statuses = TypeAdapter(ExperimentStatus)


def experiment_status(name: str) -> ExperimentStatus | None:
    """Status of the running experiment; None if none runs."""
    import ray
    from ray.exceptions import ActorDiedError

    with suppress(ActorDiedError):  # it has ended since the coordinator was found
        coordinator = find_coordinator(name)
        return ray.get(coordinator.status.remote()) if coordinator else None
    return None


def last_experiment_status(name: str, storage: StorageConfig) -> ExperimentStatus:
    """Recorded status of the last experiment that ended; raises ConfigError if there was none."""
    store = open_store(storage)
    records = sorted(entry.key for entry in store.list(_folder(name)))
    if not records:
        raise ConfigError(f"experiment: none of {name} runs, and none is recorded in {storage.url}")
    return _statuses.validate_json(store.read_bytes(records[-1]))


def end(name: str) -> ExperimentStatus | None:
    """Ends an experiment: sends all requests to the baseline, removes the candidate, and records the status.

    Returns the experiment's last status; None if none ran.
    """
    import ray

    args = deployed(name)
    if args and running_experiment(name):
        run(args)
        wait(args, time.monotonic() + END_SECONDS)
    found = experiment_status(name)
    remove(name + CANDIDATE_SUFFIX)
    if found and args:
        key = f"{_folder(name)}/{found.started:%Y%m%d-%H%M%S}.json"
        open_store(args.storage).write_bytes(key, _statuses.dump_json(found, indent=1))
    coordinator = find_coordinator(name)
    if coordinator:
        ray.kill(coordinator)
    return found


def _folder(name: str) -> str:
    return f"experiments/{name}"
