"""The token for Ray's token authentication.

It is in the first of these places that is set: RAY_AUTH_TOKEN (the token), RAY_AUTH_TOKEN_PATH (a file that holds it),
`~/.ray/auth_token`. Ray itself looks for it there, in this order.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import time
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

from heliostat.infra.log import get

log = get(__name__)


def token_environment(*, create: bool) -> dict[str, str | None]:
    """Variables that turn on Ray's token authentication; the token itself stays where Ray looks for it.

    Uses the user's token if there is one: RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or `~/.ray/auth_token`. Otherwise
    `create` writes one to that file; without it, authentication stays off. The user's RAY_AUTH_MODE takes precedence.
    """
    mode = os.environ.get("RAY_AUTH_MODE", "token").lower()
    if mode != "token":
        log.warning("RAY_AUTH_MODE is %s: this Ray takes orders from every process that can reach it", mode)
        return {}
    on: dict[str, str | None] = {"RAY_AUTH_MODE": "token"}
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return on
    file = token_file()
    if not _holds_token(file) and create:
        try:
            _write_token(file)
        except OSError:  # home is not writable: the token lives as long as this process
            return on | {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
    return on if create or _holds_token(file) else {}


def refusal() -> str:
    """Why a Ray that was asked with the token of this environment has refused it, as far as can be told from here."""
    place, token = _found()
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return "it refuses our token: RAY_AUTH_MODE is not token here, so none was sent"
    if not token:
        return f"it refuses our token: there is none in {place}"
    if (ended := _ended(token)) is not None:
        return f"it refuses our token: the one in {place} expired at {ended:%Y-%m-%d %H:%M:%S} UTC; get a new one"
    return f"it refuses our token: the one in {place} is not the cluster's"


def _found() -> tuple[str, str]:
    """The place that Ray takes the token from, and the token, which is empty if none is there."""
    if token := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return "RAY_AUTH_TOKEN", token
    if path := os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return f"RAY_AUTH_TOKEN_PATH ({path})", _read(Path(path))
    if token := _read(token_file()):
        return str(token_file()), token
    return f"RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or {token_file()}", ""


def _read(file: Path) -> str:
    try:
        return file.expanduser().read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""


def _ended(token: str) -> datetime | None:
    """When a token that says so expired, as those of Kubernetes' service accounts do; None for others.

    RFC 7519: the second of three parts is base64url of JSON, whose `exp` is in seconds since 1970.
    """
    try:
        payload = token.split(".")[1]
        until = float(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["exp"])
        return datetime.fromtimestamp(until, timezone.utc) if until < time.time() else None
    except (ValueError, LookupError, TypeError, OverflowError, OSError):
        return None


def token_file() -> Path:
    """The default location of Ray's token."""
    return Path.home() / ".ray" / "auth_token"


def _holds_token(file: Path) -> bool:
    try:
        if file.stat().st_mode & 0o077:  # Ray's own command leaves it readable for all users
            file.chmod(0o600)
        return file.stat().st_size > 0
    except OSError:
        return False


def _write_token(file: Path) -> None:
    """Writes a new token; if another process wrote one at the same time, keeps that one."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.{os.getpid()}")
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
        stream.write(secrets.token_hex(32))
    try:
        with suppress(FileExistsError):
            os.link(part, file)
    finally:
        part.unlink()
