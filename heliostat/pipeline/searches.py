"""Searches by name: the status of each, and which one to go on with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from heliostat.infra.errors import ConfigError, NotFoundError
from heliostat.pipeline.runs import NAME, new_run_id
from heliostat.spec import Spec


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
    if found and (name or resume or record.get("status") == "running"):
        return found
    return new_search()


def new_search() -> str:
    """The name of a new search."""
    return f"search-{new_run_id()}"


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
    return _read(spec, search_key(spec, search))


def newest_search(spec: Spec) -> str | None:
    """The name of the spec's newest search; None if there is none."""
    return _read(spec, f"runs/{spec.name}/newest-search.json").get("search")


def _read(spec: Spec, key: str) -> dict[str, Any]:
    from heliostat.infra.storage.store import open_store

    try:
        found: dict[str, Any] = json.loads(open_store(spec.storage).read_bytes(key))
    except NotFoundError:
        return {}
    return found
