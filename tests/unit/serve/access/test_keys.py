from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import APIRouter
from typer.testing import CliRunner

from heliostat.cli import app as cli
from heliostat.infra.errors import ConfigError, IntegrityError
from heliostat.infra.storage.local import LocalStore
from heliostat.serve.access.control import AccessControl
from heliostat.serve.access.keyring import KeyRing
from heliostat.serve.access.keys import add_key, digest_of, generate_key, list_keys, remove_key
from heliostat.serve.access.quota import REQUESTS, TOKENS, UsageAggregator, UsageCounter, UsageSync, count_tokens
from heliostat.serve.config import ServeConfig
from heliostat.serve.errors import App
from heliostat.serve.http.app import create_app
from heliostat.serve.models.served_models import ServedModels
from tests.unit.serve.conftest import KEY, Recorded, service_of
from tests.waiting import until

pytestmark = pytest.mark.anyio
NOW = datetime.now(timezone.utc)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(str(tmp_path))


def endpoint(store: LocalStore, served: ServedModels, recorded: Recorded, counter: UsageCounter) -> App:
    """One that reads and writes 10 tokens for each request."""
    router = APIRouter()

    @router.post("/v1/predict")
    async def predict() -> dict[str, str]:
        count_tokens(10)
        return {}

    config = ServeConfig()
    access = AccessControl(KeyRing((f"own:{digest_of(KEY)}",), store), counter, UsageSync(counter, "tiny"))
    access.sync.start = lambda: None  # type: ignore[method-assign]
    return create_app(served, service_of(router), config, access, recorded.metrics)


async def ask(app: App, key: str) -> httpx.Response:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.post("/v1/predict", json={}, headers={"authorization": f"Bearer {key}"})


def test_a_key_is_shown_once_and_only_its_hash_is_kept(store: LocalStore, tmp_path: Path) -> None:
    key = add_key(store, "shop", models=("sentiment",), requests_per_minute=60)
    (kept,) = list_keys(store)
    assert (kept.name, kept.sha256, kept.models, kept.is_limited) == ("shop", digest_of(key), ("sentiment",), True)
    assert key not in "".join(file.read_text() for file in tmp_path.rglob("*.json"))
    assert len({generate_key() for _ in range(10)}) == 10


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "ä", "x" * 65])
def test_a_name_that_is_no_name_is_refused(store: LocalStore, name: str) -> None:
    with pytest.raises(ConfigError, match="letters, digits, dots"):
        add_key(store, name)
    assert not list_keys(store)


def test_a_name_that_is_taken_or_missing_is_named(store: LocalStore) -> None:
    add_key(store, "shop")
    with pytest.raises(ConfigError, match="'shop' is there already"):
        add_key(store, "shop")
    with pytest.raises(ConfigError, match="'shops' given; there are: shop"):
        remove_key(store, "shops")


def test_a_running_replica_follows_the_storage(store: LocalStore) -> None:
    ring = KeyRing((), store, seconds=0.02)
    key = add_key(store, "shop")
    until(lambda: ring.find(digest_of(key)), "the key is known", seconds=5)
    remove_key(store, "shop")
    until(lambda: not ring.find(digest_of(key)), "the key is gone", seconds=5)
    ring.close()


def test_keys_that_cannot_be_read_leave_those_known_before(store: LocalStore) -> None:
    key = add_key(store, "shop")
    ring = KeyRing((), store, seconds=0.02)
    store.write_bytes("keys/other.json", b"{")
    with pytest.raises(IntegrityError, match=r"keys/other\.json: damaged"):
        ring.reload()
    time.sleep(0.1)
    assert ring.find(digest_of(key))
    ring.close()


async def test_a_key_that_has_ended_or_is_for_another_model_opens_nothing(
    store: LocalStore, served: ServedModels, recorded: Recorded
) -> None:
    old = add_key(store, "old", expires=NOW - timedelta(days=1))
    other = add_key(store, "other", models=("chat",))
    mine = add_key(store, "mine", expires=NOW + timedelta(days=1), models=("chat", "tiny"))
    app = endpoint(store, served, recorded, UsageCounter())
    found = {name: await ask(app, key) for name, key in (("old", old), ("other", other), ("mine", mine), ("own", KEY))}
    assert {name: one.status_code for name, one in found.items()} == {"old": 401, "other": 403, "mine": 200, "own": 200}
    assert found["old"].json()["error"]["code"] == "expired_api_key"
    assert "'other' is for chat, not for 'tiny'" in found["other"].json()["error"]["message"]


@pytest.mark.parametrize(
    ("limits", "allowed"), [({"requests_per_minute": 2}, 2), ({"tokens_per_minute": 25}, 3), ({}, 5)]
)
async def test_what_is_over_the_limit_of_a_key_waits_for_the_next_minute(
    store: LocalStore, served: ServedModels, recorded: Recorded, limits: dict[str, Any], allowed: int
) -> None:
    clock = [60_000.0 + 18]
    key, free = add_key(store, "shop", **limits), add_key(store, "free")
    app = endpoint(store, served, recorded, UsageCounter(lambda: clock[0]))
    answers = [await ask(app, key) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200] * allowed + [429] * (5 - allowed)
    if allowed < 5:
        assert answers[-1].headers["retry-after"] == "42"
        assert "'shop'" in answers[-1].json()["error"]["message"]
    assert (await ask(app, free)).status_code == 200
    clock[0] += 42
    assert (await ask(app, key)).status_code == 200


def test_replicas_know_of_each_other_after_they_shared() -> None:
    clock = [60_000.0]
    first, second, sums = UsageCounter(lambda: clock[0]), UsageCounter(lambda: clock[0]), UsageAggregator()
    first.add(("shop", REQUESTS), 3)
    second.add(("shop", REQUESTS), 4)
    second.add(("shop", TOKENS), 10)
    for counter in (first, second, first):
        counter.share(sums.report)
    assert (first.used(("shop", REQUESTS)), second.used(("shop", REQUESTS))) == (7, 7)
    assert first.used(("shop", TOKENS)) == 10
    clock[0] += 60
    first.add(("shop", REQUESTS))
    first.share(sums.report)
    assert (first.used(("shop", REQUESTS)), second.used(("shop", REQUESTS))) == (1, 0)


def test_what_could_not_be_told_is_told_the_next_time() -> None:
    counter, sums = UsageCounter(lambda: 60_000.0), UsageAggregator()
    counter.add(("shop", REQUESTS))

    def unreachable(minute: int, told: Any) -> Any:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        counter.share(unreachable)
    assert counter.used(("shop", REQUESTS)) == 1
    counter.share(sums.report)
    assert sums.report(1000, {}) == {("shop", REQUESTS): 1}


def test_the_commands_add_list_and_remove(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HELIOSTAT_STORAGE", str(tmp_path))
    made = CliRunner().invoke(cli, ["keys", "add", "shop", "--days", "30", "--requests-per-minute", "60"])
    assert digest_of(made.stdout.strip()) == list_keys(LocalStore(str(tmp_path)))[0].sha256
    listed = CliRunner().invoke(cli, ["keys", "list"]).stdout
    assert "shop" in listed
    assert made.stdout.strip() not in listed
    assert "shop" in CliRunner().invoke(cli, ["keys", "remove", "shop"]).stdout
    assert not list_keys(LocalStore(str(tmp_path)))
