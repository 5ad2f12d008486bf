"""Looks at the trials of a search, and asks its driver for changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from heliostat.infra.config.strict import parse_yaml
from heliostat.infra.errors import ConfigError, NotFoundError
from heliostat.infra.storage.base import Store
from heliostat.infra.storage.config import StorageConfig
from heliostat.infra.storage.store import open_store
from heliostat.pipeline.searches import newest_of
from heliostat.tune.history import look
from heliostat.tune.ranking import is_again, outcome
from heliostat.tune.requests import Request, ask
from heliostat.tune.state import SearchState
from heliostat.tune.trials import Trial

TAKEN_UP = "the search takes it up within seconds if it runs, else when it is resumed"


def look_at(called: str, storage: StorageConfig) -> SearchState:
    """How the search `MODEL` or `MODEL/SEARCH` stands; raises NotFoundError if there is none."""
    prefix, name, store = _find(called, storage)
    return look(store, prefix, name)


def stop(called: str, storage: StorageConfig, number: int) -> str:
    """Asks the driver to let a trial go on no further; returns what to expect."""
    prefix, name, store = _find(called, storage)
    trial = _trial(look(store, prefix, name), number)
    if outcome(trial) in ("finished", "stopped", "failed"):
        raise ConfigError(f"trial {number} of {name} has {outcome(trial)}; one that can go on is needed")
    ask(store, prefix, Request("stop", number))
    return f"trial {number} of {name} is to stop: {TAKEN_UP}"


def clone(called: str, storage: StorageConfig, number: int, changes: Sequence[str]) -> str:
    """Asks the driver for a trial that begins where `number` is, with changed values; returns what to expect."""
    prefix, name, store = _find(called, storage)
    state = look(store, prefix, name)
    trial = _trial(state, number)
    if not trial.scores or trial.error:
        raise ConfigError(f"trial {number} of {name} has nothing that a clone could start from")
    if trial.share == 1:
        raise ConfigError(f"trial {number} of {name} has finished; a clone goes on with one that has not")
    if is_again(trial):
        raise ConfigError(f"trial {number} of {name} runs trial {trial.configuration} on another seed; clone that one")
    changed = dict(map(_change, changes))
    unknown = [key for key in changed if key not in state.searched]
    if unknown:
        raise ConfigError(f"{unknown[0]}: not searched by {name} (searched: {', '.join(state.searched)})")
    ask(store, prefix, Request("clone", number, {**trial.values, **changed}))
    return f"a clone of trial {number} of {name} is asked for: {TAKEN_UP}"


def _find(called: str, storage: StorageConfig) -> tuple[str, str, Store]:
    """Prefix in storage, name and store of a search."""
    model, _, name = called.partition("/")
    name = name or newest_of(storage, model) or ""
    if not name:
        raise NotFoundError(f"{model}: no search yet in {storage.url}")
    return f"runs/{model}/{name}", name, open_store(storage)


def _trial(state: SearchState, number: int) -> Trial:
    if number >= len(state.trials):
        raise ConfigError(f"trial {number}: {state.name} has trials 0 to {len(state.trials) - 1}")
    return state.trials[number]


def _change(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise ConfigError(f"{text!r}: write KEY=VALUE, such as learning_rate=1e-4")
    return key, parse_yaml(value, text)
