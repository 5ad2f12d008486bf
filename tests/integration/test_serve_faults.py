"""Replicas that are replaced, taken away and killed under load: what clients see of it. Run by `make faults`."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from heliostat.cluster.config import ClusterConfig
from heliostat.cluster.session.session import session
from heliostat.serve.access.auth import ENVIRONMENT
from heliostat.serve.access.keys import generate_key
from heliostat.serve.args import AppArgs
from heliostat.serve.deploy.launch import Endpoint, deploy, status, undeploy
from heliostat.serve.errors import sse_event
from heliostat.serve.http.stream_guard import GONE
from tests.integration.observed import replica_pids
from tests.integration.tiny_models import app_args, classifier, generator, publish
from tests.ports import free_port
from tests.waiting import until

pytestmark = pytest.mark.faults
KEY = generate_key()
PORT = free_port()
REQUESTS = int(os.environ.get("SERVE_REQUESTS", "10000"))
KILL_SECONDS = 5.0
REPLICAS = 4
CLIENTS = 8
LONG_SECONDS = 600
"""Longer than Ray's own settings leave to an answer when replicas change: such an endpoint is deployed nevertheless."""
GONE_EVENT = sse_event(GONE.body).decode().strip()


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults") / "storage"


@pytest.fixture(scope="module")
def ray_session() -> Iterator[None]:
    os.environ[ENVIRONMENT] = KEY
    with session(ClusterConfig(num_cpus=8), cpus=1):
        yield
    os.environ.pop(ENVIRONMENT)


def arguments(name: str, published: tuple[str, str], storage: Path, version: str = "1", **config: Any) -> AppArgs:
    replicas = {"min": REPLICAS, "max": REPLICAS}
    settings = {"port": PORT, "cpus_per_replica": 0.25, "timeout_seconds": 30, "replicas": replicas, **config}
    return app_args(name, published, storage, version, settings)


@contextmanager
def killing(name: str) -> Iterator[list[int]]:
    """Ends a replica with SIGKILL every KILL_SECONDS while the block runs; the pids so far."""
    ended, killed, draw = threading.Event(), [], random.Random(0)

    def run() -> None:
        while not ended.wait(KILL_SECONDS):
            if pids := [pid for pid in replica_pids(name) if pid not in killed]:
                killed.append(draw.choice(pids))
                os.kill(killed[-1], signal.SIGKILL)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield killed
    ended.set()
    thread.join()


def load(url: str, requests: int, done: Callable[[], bool] = lambda: False) -> Counter[str]:
    """What CLIENTS clients see who ask until `requests` are answered, or longer until `done`: outcome -> how often."""
    found: Counter[str] = Counter()

    async def client(http: httpx.AsyncClient) -> None:
        while sum(found.values()) < requests or not done():
            try:
                response = await http.post(f"{url}/v1/predict", json={"text": "a joy"})
                found[f"{response.status_code} {response.text[:200] if response.status_code != 200 else ''}"] += 1
            except httpx.HTTPError as error:
                found[f"{type(error).__name__}: {error}"] += 1

    async def run() -> None:
        headers = {"authorization": f"Bearer {KEY}"}
        limits = httpx.Limits(max_connections=CLIENTS, keepalive_expiry=600)
        async with httpx.AsyncClient(headers=headers, timeout=60, limits=limits) as http:
            await asyncio.gather(*(client(http) for _ in range(CLIENTS)))

    asyncio.run(run())
    return found


@pytest.fixture(scope="module")
def sentiment(ray_session: None, storage: Path) -> Iterator[Endpoint]:
    published = publish(storage, "sentiment", "text-classification", classifier)
    yield deploy(arguments("sentiment", published, storage))
    undeploy("sentiment")


def test_no_request_fails_while_replicas_are_killed(sentiment: Endpoint) -> None:
    with killing("sentiment") as killed:
        found = load(sentiment.url, REQUESTS, done=lambda: len(killed) >= 5)
    assert len(killed) >= 5
    assert set(found) == {"200 "}, found


def test_no_request_fails_during_a_roll_and_a_downscale_to_one(sentiment: Endpoint, storage: Path) -> None:
    published = publish(storage, "sentiment", "text-classification", classifier, run="r2")
    one = {"replicas": {"min": 1, "max": 1}}
    ended = threading.Event()

    def roll() -> None:
        deploy(arguments("sentiment", published, storage, version="2"))
        deploy(arguments("sentiment", published, storage, version="2", **one))
        until(lambda: len(replica_pids("sentiment")) == 1, "one replica is left", seconds=120)
        ended.set()

    thread = threading.Thread(target=roll)
    thread.start()
    found = load(sentiment.url, REQUESTS, done=lambda: ended.is_set() or not thread.is_alive())
    thread.join()
    assert ended.is_set()
    assert set(found) == {"200 "}, found
    assert next(one.version for one in status() if one.name == "sentiment") == "2"


def test_requests_of_a_stopped_replica_end_as_the_spec_says(ray_session: None, storage: Path) -> None:
    """HAProxy's own deadline for this endpoint, seconds after its spec's; the client has 30 s, which stop a test."""
    published = publish(storage, "hurried", "text-classification", classifier)
    settings: dict[str, Any] = {"timeout_seconds": 2, "replicas": {"min": 2, "max": 2}}
    hurried = deploy(arguments("hurried", published, storage, **settings))
    stopped = replica_pids("hurried")[0]
    os.kill(stopped, signal.SIGSTOP)
    headers = {"authorization": f"Bearer {KEY}"}
    try:
        with httpx.Client(headers=headers, timeout=30) as http, ThreadPoolExecutor() as threads:
            asked = [
                threads.submit(http.post, f"{hurried.url}/v1/predict", json={"text": f"a joy {number}"})
                for number in range(8)
            ]
            found = Counter(
                (one.result().status_code, one.result().json().get("error", {}).get("code")) for one in asked
            )
    finally:
        with suppress(ProcessLookupError):
            os.kill(stopped, signal.SIGKILL)
        undeploy("hurried")
    assert set(found) == {(200, None), (504, "timeout")}, found


def test_a_stream_is_cut_on_the_killed_replica_only_and_ends_with_an_error_event(
    ray_session: None, storage: Path
) -> None:
    published = publish(storage, "chat", "causal-lm", generator)
    settings: dict[str, Any] = {"precision": "fp32", "max_tokens": 1900, "replicas": {"min": 2, "max": 2}}
    settings["timeout_seconds"] = LONG_SECONDS
    chat = deploy(arguments("chat", published, storage, **settings))
    streams = 8
    begun: list[str] = []
    killed: list[int] = []

    async def stream(http: httpx.AsyncClient) -> str:
        body = {
            "model": "chat",
            "messages": [{"role": "user", "content": "a film"}],
            "stream": True,
            "max_tokens": 1500,
        }
        last = ""
        try:
            async with http.stream("POST", f"{chat.url}/v1/chat/completions", json=body) as response:
                begun.append(response.headers["x-model-version"])
                if len(begun) == streams:
                    killed.append(replica_pids("chat")[0])
                    os.kill(killed[0], signal.SIGKILL)
                async for line in response.aiter_lines():
                    last = line or last
        except httpx.HTTPError as error:
            return type(error).__name__
        return {"data: [DONE]": "whole", GONE_EVENT: "gone"}.get(last, f"silence after {last[:80]!r}")

    async def run() -> list[str]:
        headers = {"authorization": f"Bearer {KEY}"}
        async with httpx.AsyncClient(headers=headers, timeout=60) as http:
            return await asyncio.gather(*(stream(http) for _ in range(streams)))

    found = Counter(asyncio.run(run()))
    undeploy("chat")
    assert found["whole"] >= streams // 4, found
    assert found["gone"] >= 1, found
    assert found["whole"] + found["gone"] == streams, found
