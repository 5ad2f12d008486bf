from __future__ import annotations

import hashlib
from typing import Any

import pytest

from heliostat.infra.errors import ConfigError
from heliostat.serve.access.auth import ENVIRONMENT, ApiKeyMiddleware, hash_keys, keys_from_environment
from heliostat.serve.access.keyring import KeyRing
from heliostat.serve.errors import Receive, Scope, Send

pytestmark = pytest.mark.anyio
KEY = "0123456789abcdef-one"
OTHER = "0123456789abcdef-two"


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


async def ask(keys: tuple[str, ...], *authorization: str, path: str = "/v1/predict") -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("the body must not be read before the key is known")

    headers = [(b"authorization", value.encode()) for value in authorization]
    scope = {"type": "http", "path": f"/tiny{path}", "root_path": "/tiny", "headers": headers}
    await ApiKeyMiddleware(answer, KeyRing(keys), "tiny")(scope, receive, send)
    return sent


def test_keys_are_hashed_and_named() -> None:
    assert hash_keys(f" {KEY} , team-a:{digest(OTHER)},") == (f"key-1:{digest(KEY)}", f"team-a:{digest(OTHER)}")


def test_a_short_key_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigError, match="key 2 has 6 characters; at least 16") as caught:
        hash_keys(f"{KEY},secret")
    assert "secret" not in str(caught.value)


def test_no_keys_says_how_to_make_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    assert keys_from_environment(required=False) == ()
    with pytest.raises(ConfigError, match=r"HELIOSTAT_API_KEYS: not set.*heliostat keys add NAME.*serve.auth=none"):
        keys_from_environment(required=True)


@pytest.mark.parametrize("header", [f"Bearer {KEY}", f"bearer {KEY}", f"Bearer  {OTHER} "])
async def test_a_known_key_passes(header: str) -> None:
    sent = await ask((*hash_keys(KEY), f"b:{digest(OTHER)}"), header)
    assert sent[0]["status"] == 200


@pytest.mark.parametrize("header", [None, "", f"Basic {KEY}", KEY, "Bearer", f"Bearer {KEY}x", f"Bearer {digest(KEY)}"])
async def test_all_else_is_refused(header: str | None) -> None:
    sent = await ask(hash_keys(KEY), *([] if header is None else [header]))
    assert sent[0]["status"] == 401
    assert dict(sent[0]["headers"])[b"www-authenticate"].startswith(b"Bearer")
    assert b'"invalid_api_key"' in sent[1]["body"]
    assert KEY.encode() not in sent[1]["body"]


async def test_without_keys_nobody_passes() -> None:
    assert (await ask((), "Bearer "))[0]["status"] == 401


async def test_health_needs_no_key() -> None:
    assert (await ask(hash_keys(KEY), path="/health"))[0]["status"] == 200
