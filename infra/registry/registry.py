"""Registry of published models: their versions, and aliases such as `production`.

Stored in MLflow's model registry; the files are bundles in storage. A version never changes. Only `promote` and
`rollback` move an alias, and every move is recorded in a tag of the model. Whoever asks the registry first sends what
waits for MLflow in storage, so that no published model is missed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heliostat.infra import log, tracked_run, tracking, waiting
from heliostat.infra.errors import ModelError, StorageError, UnreachableError
from heliostat.infra.storage.config import StorageConfig
from heliostat.infra.waiting import Publication, Waiting

if TYPE_CHECKING:
    from mlflow import MlflowClient

PRODUCTION = "production"
_log = log.get(__name__)

_DIGEST = "heliostat.digest"
_METRICS = "heliostat.metrics"
_HISTORY = "heliostat.history."
_LOCAL = "heliostat:"  # prefix of local paths, because MLflow servers refuse plain ones as a source
_KEPT_MOVES = 100
_REFERENCE = re.compile(r"models:/([^/@]+)(?:/(\d+)|@([^/@]+))")


@dataclass(frozen=True)
class ModelVersion:
    """One published version of a model; only its aliases can change."""

    name: str
    version: int
    """From 1; 0 while it waits to be registered."""
    url: str
    """URL of its bundle."""
    digest: str
    """SHA-256 of the bundle's manifest."""
    run_id: str
    created: datetime
    aliases: tuple[str, ...]
    metrics: dict[str, float]

    @property
    def number(self) -> str:
        """The version as it is shown."""
        return str(self.version) if self.version else "not registered yet"


def register(
    storage: StorageConfig, name: str, url: str, digest: str, run_id: str | None, metrics: dict[str, float]
) -> ModelVersion:
    """Registers the bundle at `url` as the next version of the model `name`; does not move an alias."""
    with _registry(storage, name) as mlflow:
        return _register(mlflow, storage, Publication(name, url, digest, metrics), run_id)


def publish(storage: StorageConfig, publication: Publication, run_id: str | None) -> ModelVersion:
    """Registers a bundle as the model's next version; the first version becomes `production`.

    Idempotent: files that are registered already, by an earlier attempt, keep their version.
    """
    with _registry(storage, publication.name) as mlflow:
        return _publish(mlflow, storage, publication, run_id)


def unregistered(made: Publication, run_id: str | None) -> ModelVersion:
    """The version of a published bundle that waits to be registered."""
    now = datetime.now(timezone.utc)
    return ModelVersion(made.name, 0, made.url, made.digest, run_id or "", now, (), made.metrics)


def check(storage: StorageConfig) -> None:
    """Raises StorageError, before a command begins with what takes long, if MLflow does not answer."""
    with _registry(storage, tracking.tracking_uri(storage)) as mlflow:
        mlflow.search_registered_models(max_results=1)


def resolve(storage: StorageConfig, reference: str) -> ModelVersion:
    """The version that `models:/name/3` or `models:/name@alias` refers to; raises ModelError if there is none."""
    match = _REFERENCE.fullmatch(reference)
    if not match:
        raise ModelError(f"{reference}: not a model; models:/name@alias or models:/name/version is needed")
    name, version, alias = match.groups()
    with _registry(storage, reference) as mlflow:
        aliases = _aliases(mlflow, name, reference)
        if alias is None:
            return _located(storage, _get(mlflow, name, int(version), reference))
        if alias not in aliases:
            known = ", ".join(f"{key} -> {value}" for key, value in sorted(aliases.items())) or "none"
            raise ModelError(f"{reference}: no such alias; {name} has {known}")
        return _located(storage, _get(mlflow, name, aliases[alias], reference))


def promote(storage: StorageConfig, name: str, version: int, alias: str = PRODUCTION) -> ModelVersion:
    """Points `alias` at `version`; raises ModelError if there is no such version."""
    with _registry(storage, f"{name}@{alias}") as mlflow:
        _aliases(mlflow, name, name)
        _get(mlflow, name, version)
        return _located(storage, _move(mlflow, name, alias, version, "promote"))


def rollback(storage: StorageConfig, name: str, alias: str = PRODUCTION) -> ModelVersion:
    """Points `alias` back at its previous version; raises ModelError if there is none."""
    with _registry(storage, f"{name}@{alias}") as mlflow:
        current = _aliases(mlflow, name, name).get(alias)
        if current is None:
            raise ModelError(f"{name}@{alias}: no such alias, so there is nothing to go back from")
        earlier = _meanings(_history(mlflow, name, alias))
        while earlier and earlier[-1] == current:
            earlier.pop()
        if not earlier:
            raise ModelError(f"{name}@{alias}: nothing to go back to before version {current}")
        return _located(storage, _move(mlflow, name, alias, earlier[-1], "rollback"))


def list_models(storage: StorageConfig) -> list[ModelVersion]:
    """All versions of all models, sorted by name and newest first."""
    with _registry(storage, "models") as mlflow:
        return _all(mlflow, storage)


def watched_models(storage: StorageConfig) -> list[ModelVersion]:
    """All versions as `list_models` gives them, for somebody who only looks: MLflow is sent nothing that waits."""
    with tracking.explained("models"):
        return _all(tracking.client(storage), storage)


def history(storage: StorageConfig, name: str, alias: str = PRODUCTION) -> list[dict[str, Any]]:
    """All moves of an alias, oldest first: {action: promote or rollback, version, at: time in UTC}."""
    with _registry(storage, f"{name}@{alias}") as mlflow:
        _aliases(mlflow, name, name)
        return _history(mlflow, name, alias)


@contextmanager
def _registry(storage: StorageConfig, what: str) -> Iterator[MlflowClient]:
    """The registry, once it has been told what waits for it."""
    with tracking.explained(what):
        mlflow = tracking.client(storage)
        for key, one in waiting.stored(storage):
            _send(mlflow, storage, key, one)
        yield mlflow


def _send(mlflow: MlflowClient, storage: StorageConfig, key: str, one: Waiting) -> None:
    """Tells MLflow what waits of a run; what it refuses (for a run that was deleted, say) is named, and stays.

    Raises UnreachableError if it does not answer.
    """
    try:
        for step in (tracked_run.send, _send_publication):
            try:
                step(mlflow, storage, one)
            except UnreachableError:
                raise
            except StorageError as error:
                _log.warning("%s/%s stays there: %s", storage.url, key, error)
    finally:
        waiting.update(storage, key, one)


def _send_publication(mlflow: MlflowClient, storage: StorageConfig, one: Waiting) -> None:
    if one.publication:
        with tracking.explained(one.publication.name):
            _publish(mlflow, storage, one.publication, one.run_id)
        one.publication = None


def _publish(
    mlflow: MlflowClient, storage: StorageConfig, publication: Publication, run_id: str | None
) -> ModelVersion:
    name = publication.name
    every = [_read(one, {}) for one in _pages(mlflow.search_model_versions, f"name='{name}'")]
    known = [one.version for one in every if one.digest == publication.digest]
    version = min(known) if known else _register(mlflow, storage, publication, run_id).version
    if PRODUCTION not in _aliases(mlflow, name, name):
        _move(mlflow, name, PRODUCTION, version, "promote")
    return _located(storage, _get(mlflow, name, version))


def _register(
    mlflow: MlflowClient, storage: StorageConfig, publication: Publication, run_id: str | None
) -> ModelVersion:
    from mlflow.exceptions import MlflowException

    name = publication.name
    try:
        mlflow.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    made = mlflow.create_model_version(
        name,
        source=_source(storage, publication.url),
        run_id=run_id,
        tags={_DIGEST: publication.digest, _METRICS: json.dumps(publication.metrics)},
        await_creation_for=0,
    )
    return _located(storage, _get(mlflow, name, made.version))


def _source(storage: StorageConfig, url: str) -> str:
    """The place of a bundle as it is registered: relative to the storage's folder where the registry lies in it too."""
    if "://" in url:
        return url
    return _LOCAL + (url.removeprefix(f"{storage.url}/") if tracking.is_inside(storage) else url)


def _located(storage: StorageConfig, found: ModelVersion) -> ModelVersion:
    """The version with the URL of its bundle now, wherever the storage's folder was when it was registered."""
    if "://" in found.url or not tracking.is_inside(storage):
        return found
    place = Path(storage.url) / found.url  # an absolute path, of an earlier Heliostat, stays as it is
    within = f"models/{found.name}/"
    if not place.exists() and within in found.url:
        place = Path(storage.url) / within / found.url.rpartition(within)[2]
    return replace(found, url=str(place))


def _all(mlflow: MlflowClient, storage: StorageConfig) -> list[ModelVersion]:
    aliases = {model.name: model.aliases for model in _pages(mlflow.search_registered_models)}
    found = [_read(one, aliases.get(one.name, {})) for one in _pages(mlflow.search_model_versions)]
    return sorted((_located(storage, one) for one in found if one.digest), key=lambda one: (one.name, -one.version))


def _get(mlflow: MlflowClient, name: str, version: int, reference: str = "") -> ModelVersion:
    from mlflow.exceptions import MlflowException

    reference = reference or f"models:/{name}/{version}"
    try:
        found = mlflow.get_model_version(name, str(version))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        versions = sorted(int(one.version) for one in _pages(mlflow.search_model_versions, f"name='{name}'"))
        known = ", ".join(map(str, versions)) or "none"
        raise ModelError(f"{reference}: no such version; {name} has {known}") from error
    if _DIGEST not in found.tags:
        raise ModelError(f"{reference}: not published by Heliostat, so there is no manifest to check it against")
    return _read(found, mlflow.get_registered_model(name).aliases)


def _aliases(mlflow: MlflowClient, name: str, reference: str) -> dict[str, int]:
    """alias -> version of a model; raises ModelError, which lists the models, if this one does not exist."""
    from mlflow.exceptions import MlflowException

    try:
        return {key: int(value) for key, value in mlflow.get_registered_model(name).aliases.items()}
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        known = ", ".join(sorted(model.name for model in _pages(mlflow.search_registered_models))) or "none"
        raise ModelError(f"{reference}: no such model; published: {known}") from error


def _read(found: Any, aliases: dict[str, Any]) -> ModelVersion:
    return ModelVersion(
        name=found.name,
        version=int(found.version),
        url=found.source.removeprefix(_LOCAL),
        digest=found.tags.get(_DIGEST, ""),
        run_id=found.run_id or "",
        created=datetime.fromtimestamp(found.creation_timestamp / 1000, timezone.utc),
        aliases=tuple(sorted(key for key, value in aliases.items() if int(value) == int(found.version))),
        metrics=json.loads(found.tags.get(_METRICS, "{}")),
    )


def _move(mlflow: MlflowClient, name: str, alias: str, version: int, action: str) -> ModelVersion:
    """Sets the alias, then records it: an interruption in between only loses the record, not the history before it."""
    moves = _history(mlflow, name, alias)
    current = _aliases(mlflow, name, name).get(alias)
    if current is not None and _meanings(moves)[-1:] != [current]:
        moves.append(_note("promote", current))  # moved outside Heliostat, or interrupted before it was recorded
    mlflow.set_registered_model_alias(name, alias, str(version))
    moves.append(_note(action, version))
    mlflow.set_registered_model_tag(name, _HISTORY + alias, json.dumps(moves[-_KEPT_MOVES:]))
    return _get(mlflow, name, version)


def _note(action: str, version: int) -> dict[str, Any]:
    return {"action": action, "version": version, "at": datetime.now(timezone.utc).isoformat("T", "seconds")}


def _history(mlflow: MlflowClient, name: str, alias: str) -> list[dict[str, Any]]:
    return list(json.loads(mlflow.get_registered_model(name).tags.get(_HISTORY + alias, "[]")))


def _meanings(moves: list[dict[str, Any]]) -> list[int]:
    """The versions that a rollback can return to, oldest first."""
    versions: list[int] = []
    for move in moves:
        if move["action"] == "promote":
            versions.append(move["version"])
        else:
            while versions and versions[-1] != move["version"]:
                versions.pop()
    return versions


def _pages(search: Any, query: str | None = None) -> Iterator[Any]:
    """All results of an MLflow search, page by page."""
    token = None
    while True:
        page = search(filter_string=query, page_token=token)
        yield from page
        token = page.token
        if not token:
            return
