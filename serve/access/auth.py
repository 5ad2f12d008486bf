"""API key authentication of an endpoint.

Keys are in storage (`heliostat keys`), with names, expiry and limits, or in the environment variable
HELIOSTAT_API_KEYS, separated by commas. Each entry there is either a key itself or `name:sha256`, the hash of a key in
hexadecimal, so that a deployment need not know the keys. Only hashes are kept.
"""

from __future__ import annotations

import hashlib
import os
import re

from heliostat.infra.errors import ConfigError
from heliostat.serve.access.keyring import KeyRing
from heliostat.serve.access.keys import ApiKey, digest_of
from heliostat.serve.errors import App, Receive, RequestError, Scope, Send, send_error

ENVIRONMENT = "HELIOSTAT_API_KEYS"
SHORTEST_KEY = 16
_HASHED = re.compile(r"[A-Za-z0-9_.-]+:[0-9a-f]{64}")
_HOW_TO_MAKE_ONE = (
    f"{ENVIRONMENT}: not set, no key is in the storage, and serve.auth is 'keys'; make one with "
    "heliostat keys add NAME, or open the endpoint to everyone with serve.auth=none"
)
OPEN_PATHS = frozenset({"/health", "/", ""})
"""Paths without a key: health checks of load balancers, and the page, where a user enters the key."""


def hash_keys(text: str) -> tuple[str, ...]:
    """`name:sha256` for each key in `text`, which is separated by commas.

    Raises ConfigError for a key of fewer than 16 characters, without showing it.
    """
    entries = [entry.strip() for entry in text.split(",") if entry.strip()]
    return tuple(_hashed(entry, number) for number, entry in enumerate(entries, start=1))


def _hashed(entry: str, number: int) -> str:
    if _HASHED.fullmatch(entry):
        return entry
    if len(entry) < SHORTEST_KEY:
        raise ConfigError(
            f"{ENVIRONMENT}: key {number} has {len(entry)} characters; at least {SHORTEST_KEY} are needed"
        )
    return f"key-{number}:{digest_of(entry)}"


def keys_from_environment(required: bool) -> tuple[str, ...]:
    """The hashed keys in HELIOSTAT_API_KEYS; raises ConfigError, with advice, if a key is required and none is set."""
    keys = hash_keys(os.environ.get(ENVIRONMENT, ""))
    if required and not keys:
        raise ConfigError(_HOW_TO_MAKE_ONE)
    return keys


class ApiKeyMiddleware:
    """Requires `Authorization: Bearer KEY` with a valid key for one of the models; puts the key into the scope.

    Answers 401 otherwise, or 403 if the key is for other models.
    """

    def __init__(self, app: App, keys: KeyRing, *models: str) -> None:
        self.app = app
        self.keys = keys
        self.models = models

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if path not in OPEN_PATHS:
            try:
                scope["heliostat.key"] = self.key_of(scope)
            except RequestError as error:
                await send_error(scope, send, error)
                return
        await self.app(scope, receive, send)

    def key_of(self, scope: Scope) -> ApiKey:
        """The request's key; raises RequestError if it is missing, unknown, expired or for other models."""
        scheme, _, given = _authorization(scope).partition(b" ")
        key = self.keys.find(hashlib.sha256(given.strip()).hexdigest()) if scheme.lower() == b"bearer" else None
        if key is None:
            raise _refusal("an unknown key was given" if _authorization(scope) else "no key was given")
        if key.has_expired():
            raise _refusal(f"key {key.name!r} ended at {key.expires:%Y-%m-%d %H:%M} UTC", code="expired_api_key")
        if not key.opens(*self.models):
            raise not_allowed(key, *self.models)
        return key


def not_allowed(key: ApiKey, *models: str) -> RequestError:
    """The error 403: the key is for other models."""
    asked = " or ".join(repr(model) for model in models)
    message = f"key {key.name!r} is for {', '.join(key.models)}, not for {asked}"
    return RequestError(403, message, code="model_not_allowed")


def _authorization(scope: Scope) -> bytes:
    return next((value for name, value in scope["headers"] if name == b"authorization"), b"")


def _refusal(why: str, code: str = "invalid_api_key") -> RequestError:
    return RequestError(
        401,
        f"Authorization: {why}; send a valid API key as 'Authorization: Bearer KEY'",
        code=code,
        headers={"WWW-Authenticate": 'Bearer realm="heliostat"'},
    )
