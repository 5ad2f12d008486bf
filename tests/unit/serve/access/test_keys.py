from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import httpx
import pytest
from fastapi import APIRouter
from typer.testing import CliRunner

from heliostat.cli import app as cli
from heliostat.infra.errors import ConfigError, StorageError
from heliostat.infra.storage.base import Entry
from heliostat.infra.storage.local import LocalStore
from heliostat.serve.access.auth import ENVIRONMENT
from heliostat.serve.access.control import AccessControl
from heliostat.serve.access.keyring import KeyRing
from heliostat.serve.access.keys import ApiKey, add_key, digest_of, generate_key, read_keys, remove_key
from heliostat.serve.access.quota import count_tokens
from heliostat.serve.access.sync import UsageSync
from heliostat.serve.access.usage import UsageCounter
from heliostat.serve.args import AppArgs
from heliostat.serve.config import ServeConfig
from heliostat.serve.errors import App
from heliostat.serve.http.app import create_app
from heliostat.serve.models.served_models import ServedModels
from heliostat.serve.replica.replica import access_control
from tests.unit.serve.conftest import KEY, Recorded, service_of
from tests.waiting import until

pytestmark = pytest.mark.anyio
NOW = datetime.now(timezone.utc)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(str(tmp_path))


def list_keys(store: LocalStore) -> list[ApiKey]:
    return list(read_keys(store).keys.values())


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


DAMAGED = {
    "empty": b"",
    "no json": b"{",
    "no key": b"{}",
    "no text": b"\xff\xfe",
    "deep": b"[" * 100_000,
    "another version": b'{"version": 2}',
    "no time zone": ApiKey(name="x", sha256="0" * 64, created=NOW).model_dump_json().replace("Z", "").encode(),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_key_opens_nothing_and_the_others_come_and_go(
    store: LocalStore, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    old = add_key(store, "old")
    ring = KeyRing((), store, seconds=0.02)
    store.write_bytes("keys/damaged.json", content)
    new = add_key(store, "new")
    remove_key(store, "old")
    until(lambda: ring.find(digest_of(new)) and not ring.find(digest_of(old)), "keys come and go", seconds=5)
    assert ring.state
    assert ring.state["damaged"] == 1
    ring.close()
    told = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert told == [f"keys: this one opens nothing: {store.url}/keys/damaged.json: damaged: not a key of this version"]


def test_a_key_without_permission_keeps_no_other_one_out(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    key = add_key(store, "shop")
    add_key(store, "locked")
    read = LocalStore.read_bytes

    def refuse(self: LocalStore, where: str) -> bytes:
        if "locked" in where:
            raise StorageError("locked: cannot read: permission denied")
        return read(self, where)

    monkeypatch.setattr(LocalStore, "read_bytes", refuse)
    ring = KeyRing((), store)
    assert ring.find(digest_of(key))
    ring.close()


@pytest.mark.parametrize("change", ["a limit", "damage"])
def test_a_changed_key_that_cannot_be_read_for_a_moment_stays_as_it_was(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, change: str
) -> None:
    key, read, is_down = add_key(store, "shop"), LocalStore.read_bytes, True
    ring = KeyRing((), store, seconds=3600)
    limited = ring.find(digest_of(key)).model_copy(update={"requests_per_minute": 7})  # type: ignore[union-attr]
    store.write_bytes("keys/shop.json", limited.model_dump_json().encode() if change == "a limit" else b"{")
    monkeypatch.setattr(LocalStore, "read_bytes", lambda *of: _down() if is_down else read(*of))
    for _ in range(2):
        ring.reload()
        found = ring.find(digest_of(key))
        assert found
        assert found.requests_per_minute is None
        assert ring.state
        assert ring.state["damaged"] == 1
    assert "opens what it was before: keys/shop.json: the storage is busy" in caplog.text
    is_down = False
    ring.reload()
    assert ring.find(digest_of(key)) == (limited if change == "a limit" else None)
    ring.close()


def _down() -> bytes:
    raise StorageError("keys/shop.json: the storage is busy")


def test_a_replica_starts_where_the_only_key_is_damaged_and_knows_it_once_it_is_mended(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    key = add_key(store, "shop")
    good = store.read_bytes("keys/shop.json")
    store.write_bytes("keys/shop.json", b"{")
    args = {"name": "tiny", "url": "x", "digest": "0", "version": "1", "storage": {"url": store.url}}
    access = access_control(AppArgs.model_validate(args))
    assert access
    assert not access.keys.find(digest_of(key))
    store.write_bytes("keys/shop.json", good)
    access.keys.reload()
    assert access.keys.find(digest_of(key))
    access.close()


class BrokenStore(LocalStore):
    """A storage that lists nothing while `error` is set."""

    error: Exception | None = None

    def list(self, prefix: str = "") -> list[Entry]:
        if BrokenStore.error:
            raise BrokenStore.error
        return super().list(prefix)


@pytest.mark.parametrize("error", [StorageError("no answer"), RuntimeError("a fault"), MemoryError()])
def test_the_watcher_survives_any_error_and_says_how_old_its_keys_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    store, seen = BrokenStore(str(tmp_path)), list[tuple[float, int, list[str]]]()
    key = add_key(store, "shop")
    ring = KeyRing((), store, seconds=0.02, observe=lambda *told: seen.append(told))
    monkeypatch.setattr(BrokenStore, "error", error)
    until(lambda: ring.age_seconds > 0.2, "the keys are old", seconds=5)
    assert ring.find(digest_of(key))
    assert ring.state
    assert ring.state["age_seconds"] >= 0.2
    count = len(seen)
    monkeypatch.setattr(BrokenStore, "error", None)
    other = add_key(store, "other")
    until(lambda: ring.find(digest_of(other)), "keys are read again", seconds=5)
    ring.close()
    assert len(seen) > count
    assert seen[-1][0] > seen[count - 1][0]
    assert seen[-1][1:] == (0, ["other", "shop"])


async def test_health_says_how_old_the_keys_are_and_how_many_are_damaged_and_not_which(
    store: LocalStore, served: ServedModels, recorded: Recorded
) -> None:
    store.write_bytes("keys/secret-name.json", b"{")
    app = endpoint(store, served, recorded, UsageCounter())
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        response = await client.get("/health")
    assert response.json()["keys"]["damaged"] == 1
    assert 0 <= response.json()["keys"]["age_seconds"] < 5
    assert "secret-name" not in response.text


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


def test_the_commands_add_list_and_remove(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HELIOSTAT_STORAGE", str(tmp_path))
    made = CliRunner().invoke(cli, ["keys", "add", "shop", "--days", "30", "--requests-per-minute", "60"])
    assert digest_of(made.stdout.strip()) == list_keys(LocalStore(str(tmp_path)))[0].sha256
    LocalStore(str(tmp_path)).write_bytes("keys/damaged.json", b"{")
    found = CliRunner().invoke(cli, ["keys", "list"])
    listed = found.stdout
    assert found.exit_code == 0
    assert "keys/damaged.json: damaged" in found.stderr
    assert "damaged opens nothing" in CliRunner().invoke(cli, ["keys", "remove", "damaged"]).stdout
    assert "shop" in listed
    assert made.stdout.strip() not in listed
    assert "shop" in CliRunner().invoke(cli, ["keys", "remove", "shop"]).stdout
    assert not list_keys(LocalStore(str(tmp_path)))
