"""The token for Ray's token authentication."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
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
