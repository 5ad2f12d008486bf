"""Named API keys in storage: commands add, list and remove them, running replicas poll them.

keys/<name>.json   the SHA-256 of one key, and what it allows; the key itself is shown once and never stored
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field, ValidationError

from heliostat.infra.config.strict import StrictModel
from heliostat.infra.errors import ConfigError, HeliostatError, IntegrityError, NotFoundError, StorageError
from heliostat.infra.storage.base import Store

PREFIX = "keys"
NAME = "[A-Za-z0-9_.-]{1,64}"
Positive = Annotated[int, Field(gt=0)]


class ApiKey(StrictModel):
    """What is known of a key."""

    version: Literal[1] = 1
    name: Annotated[str, Field(pattern=f"^{NAME}$")]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    created: AwareDatetime
    expires: AwareDatetime | None = None
    models: tuple[str, ...] = ()
    """The models that it opens, endpoints and adapters; all where there are none."""
    requests_per_minute: Positive | None = None
    tokens_per_minute: Positive | None = None
    """Read and written together, over all replicas of an endpoint."""

    @property
    def is_limited(self) -> bool:
        """Whether its usage must be counted."""
        return bool(self.requests_per_minute or self.tokens_per_minute)

    def opens(self, *names: str) -> bool:
        """Whether it is valid for one of these models."""
        return not self.models or not set(names).isdisjoint(self.models)

    def has_expired(self) -> bool:
        """Whether it has expired."""
        return self.expires is not None and self.expires <= datetime.now(timezone.utc)


def holder_of(scope: Mapping[str, Any]) -> str:
    """Tells clients apart: the SHA-256 of the key that a request came with, empty on an endpoint without keys."""
    key: ApiKey | None = scope.get("heliostat.key")
    return key.sha256 if key else ""


def generate_key() -> str:
    """A new random key of 256 bits."""
    return secrets.token_urlsafe(32)


def digest_of(key: str) -> str:
    """SHA-256 of a key in hexadecimal; only this is stored."""
    return hashlib.sha256(key.encode()).hexdigest()


def add_key(
    store: Store,
    name: str,
    *,
    expires: datetime | None = None,
    models: tuple[str, ...] = (),
    requests_per_minute: int | None = None,
    tokens_per_minute: int | None = None,
) -> str:
    """Creates a key and returns it; raises ConfigError if the name is taken or not allowed."""
    key = generate_key()
    if not re.fullmatch(NAME, name) or not name.strip("."):
        raise ConfigError(f"keys add: name {name!r} given; 1 to 64 letters, digits, dots, dashes and _ are allowed")
    made = ApiKey(
        name=name, sha256=digest_of(key), created=datetime.now(timezone.utc), expires=expires, models=models,
        requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute,
    )  # fmt: skip
    if store.exists(_where(name)):
        raise ConfigError(f"keys add: {name!r} is there already; heliostat keys remove {name} first")
    store.write_bytes(_where(name), made.model_dump_json(indent=2).encode(), if_absent=True)
    return key


@dataclass(frozen=True)
class StoredKeys:
    """The keys in a storage, by path and version, and why the others there cannot be read."""

    keys: Mapping[tuple[str, str], ApiKey]
    damaged: Mapping[tuple[str, str], str]

    @property
    def names(self) -> list[str]:
        """The names of all, those that cannot be read included."""
        return sorted({PurePosixPath(path).stem for path, _ in (*self.keys, *self.damaged)})

    @property
    def paths(self) -> set[str]:
        """The paths of those that open something."""
        return {path for path, _ in self.keys}


def read_keys(store: Store, known: Mapping[tuple[str, str], ApiKey] | None = None) -> StoredKeys:
    """Reads each key of the storage on its own, so that one that is damaged keeps no other one out, or in.

    Those in `known` are not read again; one that has changed since and cannot be read now stays as it is there, unless
    it is damaged. Raises StorageError if the storage cannot be listed.
    """
    keys, damaged = {}, {}
    known = known or {}
    earlier = {path: (path, version) for path, version in known}
    for one in sorted((entry.key, entry.version) for entry in store.list(PREFIX) if entry.key.endswith(".json")):
        try:
            keys[one] = known.get(one) or _read_key(store, one[0])
        except NotFoundError:
            continue  # removed since it was listed
        except HeliostatError as error:
            damaged[one] = str(error)
            if one[0] in earlier and not isinstance(error, IntegrityError):
                keys[earlier[one[0]]] = known[earlier[one[0]]]
    return StoredKeys(keys, damaged)


def _read_key(store: Store, where: str) -> ApiKey:
    try:
        return ApiKey.model_validate_json(store.read_bytes(where))
    except ValidationError as error:
        raise IntegrityError(f"{store.url}/{where}: damaged: not a key of this version") from error


def remove_key(store: Store, name: str) -> None:
    """Deletes a key; replicas refuse it within seconds. Raises ConfigError if there is none of this name."""
    try:
        store.read_bytes(_where(name))
    except NotFoundError:
        names = ", ".join(read_keys(store).names) or "none"
        raise ConfigError(f"keys remove: {name!r} given; there are: {names}") from None
    except StorageError as error:
        raise ConfigError(f"keys remove: {name!r}: {error}") from error
    store.delete(_where(name))


def _where(name: str) -> str:
    return f"{PREFIX}/{name}.json"
