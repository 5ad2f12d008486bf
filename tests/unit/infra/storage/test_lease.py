"""A lease is held by one process, names it, and outlives it only for as long as it has to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from heliostat.infra.errors import ResourceError
from heliostat.infra.storage import lease
from heliostat.infra.storage.lease import Holder, leased
from heliostat.infra.storage.local import LocalStore
from tests.waiting import until

PREFIX = "runs/tiny/a/driver"
FIRST = f"{PREFIX}/000001.json"
ELSEWHERE = Holder("node-7", "another boot", 1, "5", "ada", "2026-01-01 00:00:00 UTC")
HOLD = """
import sys, time
from heliostat.infra.storage.lease import leased
from heliostat.infra.storage.local import LocalStore
with leased(LocalStore(sys.argv[1]), sys.argv[2], "run a", lambda: None):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(str(tmp_path))


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("waited"))


def hold(store: LocalStore, **changes: Any) -> AbstractContextManager[None]:
    return leased(store, PREFIX, "run a", changes.get("lost", lambda: None))


def put(store: LocalStore, holder: Holder, key: str = FIRST) -> None:
    store.write_bytes(key, json.dumps(asdict(holder)).encode())


def keys(store: LocalStore) -> list[str]:
    return [entry.key for entry in store.list(PREFIX)]


@pytest.mark.usefixtures("no_waiting")
def test_a_second_holder_is_told_of_the_first_at_once(store: LocalStore) -> None:
    told = rf"^run a is in use by process {os.getpid()} of .+ on .+, since 20.+ UTC; it can go on when that has ended$"
    with hold(store), pytest.raises(ResourceError, match=told), hold(store):
        pytest.fail("held twice")


@pytest.mark.usefixtures("no_waiting")
def test_a_lease_that_was_given_up_is_taken_at_once(store: LocalStore) -> None:
    for _ in range(3):
        with hold(store):
            pass
    assert keys(store) == [f"{PREFIX}/000003.json"]


def test_a_block_that_fails_gives_its_lease_up(store: LocalStore) -> None:
    with pytest.raises(ValueError, match="lost"), hold(store):
        raise ValueError("lost")
    assert json.loads(store.read_bytes(FIRST))["is_over"]


def test_a_killed_holder_of_this_machine_is_not_waited_for(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, store.url, PREFIX], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ResourceError, match=f"in use by process {other.pid} of "), hold(store):
            pass
        other.send_signal(signal.SIGKILL)
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("waited"))
    with hold(store):
        assert keys(store) == [f"{PREFIX}/000002.json"]


@pytest.mark.usefixtures("no_waiting")
def test_another_process_with_the_number_of_a_dead_one_is_not_taken_for_it(store: LocalStore) -> None:
    with hold(store):
        me = Holder(**json.loads(store.read_bytes(FIRST)))
    put(store, replace(me, started="0"))
    with hold(store):
        assert keys(store) == [f"{PREFIX}/000002.json"]


def test_a_holder_elsewhere_that_renews_is_told_of(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, ELSEWHERE)
    monkeypatch.setattr(time, "sleep", lambda _: put(store, replace(ELSEWHERE, renewals=1)))
    told = "run a is in use by process 1 of ada on node-7, since 2026-01-01 00:00:00 UTC"
    with pytest.raises(ResourceError, match=told), hold(store):
        pytest.fail("held twice")
    assert keys(store) == [FIRST]


def test_a_holder_elsewhere_that_does_not_renew_is_waited_for_as_long_as_is_documented(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    put(store, ELSEWHERE)
    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: now[0])
        patch.setattr(time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
        lease._wait_for_end(store, FIRST, "run a", Holder("here", "boot", 1, "1", "me", "now"))
    assert now[0] == lease.EXPIRY_SECONDS == 30
    monkeypatch.setattr(lease, "EXPIRY_SECONDS", 0.0)
    with hold(store):
        assert keys(store) == [f"{PREFIX}/000002.json"]


def test_a_holder_elsewhere_that_ends_is_not_waited_for_any_longer(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        put(store, replace(ELSEWHERE, is_over=True))

    put(store, ELSEWHERE)
    with monkeypatch.context() as patch:
        patch.setattr(time, "sleep", sleep)
        with hold(store):
            assert len(waits) == 1


def test_a_lease_is_renewed(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.01)
    with hold(store):
        until(lambda: json.loads(store.read_bytes(FIRST))["renewals"] > 2, "renewed", 30)


def test_a_holder_that_was_taken_for_dead_is_told_and_leaves_the_other_alone(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.01)
    lost = threading.Event()
    second = f"{PREFIX}/000002.json"
    with hold(store, lost=lost.set):
        put(store, ELSEWHERE, second)
        until(lost.is_set, "told", 30)
    assert Holder(**json.loads(store.read_bytes(second))) == ELSEWHERE
    assert "another process has taken over" in capsys.readouterr().err


def test_of_many_that_find_a_dead_holder_one_takes_over(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "EXPIRY_SECONDS", 0.0)
    put(store, ELSEWHERE)
    start, tried = threading.Barrier(8), threading.Barrier(8)

    def take(_: int) -> bool:
        start.wait(timeout=60)
        try:
            with hold(store):
                tried.wait(timeout=60)
        except ResourceError:
            tried.wait(timeout=60)
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(take, range(8))) == [False] * 7 + [True]


@pytest.mark.parametrize("seen", [None, FIRST], ids=["empty", "outdated"])
def test_a_listing_that_missed_the_living_holder_gives_no_second_lease(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, seen: str | None
) -> None:
    """Names in a folder that changes while it is listed can be missed, and numbers below the highest are free."""
    held = f"{PREFIX}/000003.json"
    put(store, replace(lease._this_process(), user="ada"), held)
    listings = [seen]
    newest = lease._newest
    monkeypatch.setattr(lease, "_newest", lambda *where: listings.pop() if listings else newest(*where))
    with pytest.raises(ResourceError, match="of ada"), hold(store):
        pass
    assert keys(store) == [held]
