"""API keys: an endpoint answers only to those who have one.

Keys come from the environment variable HELIOSTAT_API_KEYS, separated by commas. Each is either the key itself or
`name:sha256`, the hash of a key in hexadecimal, so that a deployment need not know the keys. Only hashes are kept.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterable

from heliostat.infra.errors import ConfigError
from heliostat.serve.errors import App, Receive, RequestError, Scope, Send, send_error

ENVIRONMENT = "HELIOSTAT_API_KEYS"
SHORTEST_KEY = 16
_HASHED = re.compile(r"[A-Za-z0-9_.-]+:[0-9a-f]{64}")
_HOW_TO_MAKE_ONE = (
    f"{ENVIRONMENT}: not set, and serve.auth is 'keys'; make a key with "
    f"export {ENVIRONMENT}=$(python3 -c 'import secrets; print(secrets.token_urlsafe(32))'), "
    "or open the endpoint to everyone with serve.auth=none"
)
OPEN_PATHS = frozenset({"/health"})
"""Routes that load balancers ask without a key."""


def generate_key() -> str:
    """A new key, 256 bits."""
    return secrets.token_urlsafe(32)


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
    return f"key-{number}:{hashlib.sha256(entry.encode()).hexdigest()}"


def keys_from_environment(required: bool) -> tuple[str, ...]:
    """The hashed keys of HELIOSTAT_API_KEYS; ConfigError says how to make one where none is there but required."""
    keys = hash_keys(os.environ.get(ENVIRONMENT, ""))
    if required and not keys:
        raise ConfigError(_HOW_TO_MAKE_ONE)
    return keys


class RequireKey:
    """Passes on requests that carry `Authorization: Bearer KEY` with a known key; the others get 401."""

    def __init__(self, app: App, keys: Iterable[str]) -> None:
        self.app = app
        self.digests = [bytes.fromhex(key.rpartition(":")[2]) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if path in OPEN_PATHS or self.knows(scope):
            await self.app(scope, receive, send)
        else:
            await send_error(send, _refusal(scope))

    def knows(self, scope: Scope) -> bool:
        """Whether the request's key is known; takes as long whichever key it is."""
        scheme, _, key = _authorization(scope).partition(b" ")
        digest = hashlib.sha256(key.strip()).digest()
        matches = [hmac.compare_digest(digest, known) for known in self.digests]
        return scheme.lower() == b"bearer" and any(matches)


def _authorization(scope: Scope) -> bytes:
    return next((value for name, value in scope["headers"] if name == b"authorization"), b"")


def _refusal(scope: Scope) -> RequestError:
    given = "an unknown key was given" if _authorization(scope) else "no key was given"
    return RequestError(
        401,
        f"Authorization: {given}; send a valid API key as 'Authorization: Bearer KEY'",
        code="invalid_api_key",
        headers={"WWW-Authenticate": 'Bearer realm="heliostat"'},
    )
