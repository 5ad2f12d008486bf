"""Searches by name: the status of each, and which one to go on with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from heliostat.infra.errors import ConfigError, NotFoundError
from heliostat.infra.storage.config import StorageConfig
from heliostat.pipeline.runs import NAME, new_run_id
from heliostat.pipeline.trial_spec import check_stages, with_values
from heliostat.spec import Spec
from heliostat.tune.lineage import Schedule, schedule


def find_search(spec: Spec, name: str | None, resume: bool) -> str:
    """The search to go on with, or the name of a new one.

    That is `name`, else with `resume` the newest; `tune.resume: auto` goes on with the newest if it has not ended.
    Raises ConfigError for a name that is no valid folder name, and with `resume` if there is no search.
    """
    if name and not NAME.fullmatch(name):
        raise ConfigError(
            f"--search: {name!r} given; letters, digits, dots, dashes and underscores are allowed, 64 at most"
        )
    newest = newest_search(spec) if resume or spec.tune.resume == "auto" else None
    found = name or newest
    record = read_search(spec, found) if found else {}
    if resume and not record:
        which = f"search {name!r}" if name else "search yet"
        raise ConfigError(f"--resume: no {which} of {spec.name} in {spec.storage.url}")
    if record and name and not resume and spec.tune.resume == "never":
        raise ConfigError(f"--search: {name} exists; --resume goes on with it, another name begins a new one")
    if found and (name or resume or record.get("status") in ("running", "stopped")):
        return found
    return new_search()


def check_retry(spec: Spec, search: str, retry: str | None, resume: bool) -> None:
    """Raises ConfigError if `--retry` is given and there is nothing to try again in the search."""
    if retry is None:
        return
    if retry != "failed":
        raise ConfigError(f"--retry: {retry!r} given; failed is allowed")
    if not resume:
        raise ConfigError("--retry: failed given without --resume; it is for the trials of a search that is there")
    from heliostat.infra.storage.store import open_store
    from heliostat.tune.history import look

    if not any(trial.error for trial in look(open_store(spec.storage), f"runs/{spec.name}/{search}", search).trials):
        raise ConfigError(f"--retry: failed given, and no trial of {search} has failed; --resume alone goes on with it")


def new_search() -> str:
    """The name of a new search."""
    return f"search-{new_run_id()}"


def searched(spec: Spec, reference: str) -> tuple[Spec, str, str]:
    """The spec with the values of a trial, `SEARCH` for its best one or `SEARCH/TRIAL`; the latter, and what these are.

    The best is the one that the spec's `tune.choose` takes, whatever the search was begun with. Raises NotFoundError if
    there is no such search, ConfigError for a trial that it has not or that failed, and if none keeps the bounds.
    """
    from heliostat.infra.storage.store import open_store
    from heliostat.tune.choice import check_rule
    from heliostat.tune.history import look
    from heliostat.tune.ranking import best_first, is_lost

    name, _, number = reference.partition("/")
    state = replace(look(open_store(spec.storage), f"runs/{spec.name}/{name}", name), rule=spec.tune.choose)
    ranked = best_first(state.trials, state.objectives)
    usable = [trial for trial in ranked if trial.scores and not is_lost(trial, state.objectives)]
    if not number:
        try:
            check_rule(state.rule, state.objectives)
        except ValueError as error:
            raise ConfigError(f"{error}; {name} has other objectives") from error
        if state.unmet:
            raise ConfigError(f"--from-search: {name} given; {state.unmet}")
    best = next((one for one in usable if number == str(one.number)), None) if number else state.chosen
    if best is None:
        numbers = ", ".join(str(one) for one in sorted(trial.number for trial in usable)) or "none"
        raise ConfigError(f"--from-search: {reference} given; trials of {name} with a result: {numbers}")
    past = schedule(state.trials, best.number)
    check_stages(spec)
    found = with_values(spec, best.values, past)
    return found, f"{name}/{best.number}", f"trial {best.number} of {name}: {_said(best.values, past)}"


def _said(values: Mapping[str, Any], past: Schedule) -> str:
    """What a trial was trained with, part by part."""
    parts = [(f" until {until:.1%}", part) for until, part in past if part != values] + [("", values)]
    return "; ".join(", ".join(f"{key}={value}" for key, value in part.items()) + until for until, part in parts)


def search_key(spec: Spec, search: str) -> str:
    """Key of a search's status in storage."""
    return f"runs/{spec.name}/{search}/search.json"


def write_search(spec: Spec, search: str, record: Mapping[str, Any]) -> None:
    """Writes a search's status, and marks it as the newest."""
    from heliostat.infra.storage.store import open_store

    store = open_store(spec.storage)
    store.write_bytes(search_key(spec, search), json.dumps({"search": search, **record}).encode())
    store.write_bytes(f"runs/{spec.name}/newest-search.json", json.dumps({"search": search}).encode())


def read_search(spec: Spec, search: str) -> dict[str, Any]:
    """A search's status; empty if there is none of that name."""
    return _read(spec.storage, search_key(spec, search))


def newest_search(spec: Spec) -> str | None:
    """The name of the spec's newest search; None if there is none."""
    return newest_of(spec.storage, spec.name)


def newest_of(storage: StorageConfig, model: str) -> str | None:
    """The name of a model's newest search; None if there is none."""
    return _read(storage, f"runs/{model}/newest-search.json").get("search")


def _read(storage: StorageConfig, key: str) -> dict[str, Any]:
    from heliostat.infra.storage.store import open_store

    try:
        found: dict[str, Any] = json.loads(open_store(storage).read_bytes(key))
    except NotFoundError:
        return {}
    return found
