"""Limits of keys per minute: in one replica, behind the application."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import APIRouter

from heliostat.infra.storage.local import LocalStore
from heliostat.serve.access.control import AccessControl
from heliostat.serve.access.keyring import KeyRing
from heliostat.serve.access.keys import add_key
from heliostat.serve.access.quota import count_tokens
from heliostat.serve.access.sync import UsageSync
from heliostat.serve.access.usage import TOKENS, UsageCounter
from heliostat.serve.config import ServeConfig
from heliostat.serve.engines.openai_api import OpenAIApi
from heliostat.serve.engines.vllm_limits import guarded
from heliostat.serve.errors import App, Receive, Scope, Send
from heliostat.serve.http.app import create_app
from heliostat.serve.models.served_models import ServedModels
from tests.unit.serve.conftest import Client, Recorded, error_of, service_of
from tests.unit.serve.engines.test_openai_api import COMPLETION, Parrot

pytestmark = pytest.mark.anyio


class Endpoint:
    """One with a key of these limits, and a clock that a test sets."""

    def __init__(
        self, folder: Path, served: ServedModels, recorded: Recorded, router: APIRouter, **limits: int
    ) -> None:
        self.now = 1000.0
        self.counter = UsageCounter(lambda: self.now)
        store = LocalStore(str(folder))
        key, self.free = add_key(store, "shop", **limits), add_key(store, "free")  # type: ignore[arg-type]
        access = AccessControl(KeyRing((), store, seconds=600), self.counter, UsageSync(self.counter, "tiny"))
        access.sync.start = lambda: None  # type: ignore[method-assign]
        self.app = create_app(served, service_of(router), ServeConfig(max_tokens=64), access, recorded.metrics)
        self.client = Client(self.app)
        self.client.http.headers["authorization"] = f"Bearer {key}"

    async def ask(self, path: str = "/v1/predict", body: Any = None, key: str | None = None) -> httpx.Response:
        headers = {"authorization": f"Bearer {key}"} if key else None
        return await self.client.http.post(path, json=body or {}, headers=headers)

    @property
    def tokens(self) -> int:
        return self.counter.used(("shop", TOKENS))


def ten_tokens() -> APIRouter:
    """A route that uses 10 tokens for each request."""
    router = APIRouter()

    @router.post("/v1/predict")
    async def predict() -> dict[str, str]:
        count_tokens(10)
        return {}

    return router


@pytest.mark.parametrize(
    ("limits", "allowed"), [({"requests_per_minute": 2}, 2), ({"tokens_per_minute": 25}, 3), ({}, 5)]
)
async def test_what_is_over_the_limit_of_a_key_waits_until_the_first_is_a_minute_old(
    tmp_path: Path, served: ServedModels, recorded: Recorded, limits: dict[str, int], allowed: int
) -> None:
    endpoint = Endpoint(tmp_path, served, recorded, ten_tokens(), **limits)
    answers = []
    for _ in range(5):
        answers.append(await endpoint.ask())
        endpoint.now += 10
    assert [answer.status_code for answer in answers] == [200] * allowed + [429] * (5 - allowed)
    assert (await endpoint.ask(key=endpoint.free)).status_code == 200
    if allowed == 5:
        return
    assert answers[-1].headers["retry-after"] == "20"
    assert "'shop'" in error_of(answers[-1])["message"]
    endpoint.now += 9
    assert (await endpoint.ask()).status_code == 429
    endpoint.now += 1
    assert (await endpoint.ask()).status_code == 200


async def test_no_minute_has_more_than_the_limit_wherever_it_begins(
    tmp_path: Path, served: ServedModels, recorded: Recorded
) -> None:
    endpoint = Endpoint(tmp_path, served, recorded, ten_tokens(), requests_per_minute=6)
    passed = []
    for _ in range(100):
        if (await endpoint.ask()).status_code == 200:
            passed.append(endpoint.now)
        endpoint.now += 3
    assert len(passed) >= 5 * 6 - 1
    for start in passed:
        assert sum(start <= one < start + 60 for one in passed) <= 6


async def test_usage_is_counted_by_key_whether_it_is_limited_or_not(
    tmp_path: Path, served: ServedModels, recorded: Recorded
) -> None:
    endpoint = Endpoint(tmp_path, served, recorded, ten_tokens(), requests_per_minute=1)
    statuses = [(await endpoint.ask(key=key)).status_code for key in (None, None, endpoint.free)]
    assert statuses == [200, 429, 200]
    assert (await endpoint.client.http.get("/v1/models")).status_code == 200
    assert (await endpoint.ask(key="unknown-key-of-nobody")).status_code == 401
    requests, tokens = "heliostat_key_requests_total", "heliostat_key_tokens_total"
    counted = [(key, n) for key, n in zip(recorded.labels_of(requests, "key"), recorded.of(requests), strict=True) if n]
    assert counted == [("shop", 1), ("shop", 1), ("free", 1)]
    counted = [(key, n) for key, n in zip(recorded.labels_of(tokens, "key"), recorded.of(tokens), strict=True) if n]
    assert counted == [("shop", 10), ("free", 10)]
    assert endpoint.counter.used(("free", TOKENS)) == 0, "no limit, no window that would grow"


def chats(engine: Parrot, served: ServedModels, recorded: Recorded) -> APIRouter:
    return OpenAIApi(engine, served, ServeConfig(max_tokens=64), recorded.metrics).router


async def test_tokens_of_a_stream_are_charged_before_they_are_written_and_those_unused_given_back(
    tmp_path: Path, served: ServedModels, recorded: Recorded
) -> None:
    engine = Parrot()
    endpoint = Endpoint(tmp_path, served, recorded, chats(engine, served, recorded), tokens_per_minute=100)
    engine.pause_seconds = 0.01
    asked = {**COMPLETION, "max_tokens": 50, "stream": True}  # two tokens are read
    streams = [asyncio.ensure_future(endpoint.ask("/v1/completions", asked)) for _ in range(5)]
    while not engine.open:
        await asyncio.sleep(0)
    assert endpoint.tokens == 52
    answers = await asyncio.gather(*streams)
    assert sorted(answer.status_code for answer in answers) == [200, 429, 429, 429, 429]
    assert endpoint.tokens == 52
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.headers["retry-after"] == "60"
    assert "100 tokens in 60 s are allowed, and 52 more asked for" in error_of(refused)["message"]


class Short(Parrot):
    """Says three words, whatever it may."""

    async def generate(self, prompt: Any, sampling: Any, model: str) -> Any:
        async for delta in super().generate(prompt, sampling, model):
            done = delta.completion_tokens == 3
            yield type(delta)(delta.text, delta.completion_tokens, "stop" if done else None)
            if done:
                return


@pytest.mark.parametrize("stream", [True, False])
async def test_what_an_answer_does_not_use_is_given_back(
    tmp_path: Path, served: ServedModels, recorded: Recorded, stream: bool
) -> None:
    endpoint = Endpoint(tmp_path, served, recorded, chats(Short(), served, recorded), tokens_per_minute=100)
    for used in (5, 10, 15):
        response = await endpoint.ask("/v1/completions", {**COMPLETION, "max_tokens": 50, "stream": stream})
        assert response.status_code == 200
        assert endpoint.tokens == used
    endpoint.now += 60
    assert endpoint.tokens == 0, "what was given back is not counted against what comes later"


async def test_a_request_that_fails_uses_what_it_read(tmp_path: Path, served: ServedModels, recorded: Recorded) -> None:
    engine = Parrot()
    engine.fault_at = 1
    endpoint = Endpoint(tmp_path, served, recorded, chats(engine, served, recorded), tokens_per_minute=100)
    assert (await endpoint.ask("/v1/completions", COMPLETION)).status_code == 500
    assert endpoint.tokens == 2


async def test_more_than_a_key_may_ever_use_is_not_worth_waiting_for(
    tmp_path: Path, served: ServedModels, recorded: Recorded
) -> None:
    endpoint = Endpoint(tmp_path, served, recorded, chats(Parrot(), served, recorded), tokens_per_minute=51)
    response = await endpoint.ask("/v1/completions", {**COMPLETION, "max_tokens": 50})
    assert (response.status_code, error_of(response)["param"]) == (400, "max_tokens")
    assert "up to 52 tokens asked for; key 'shop' may use 51 a minute" in error_of(response)["message"]
    assert endpoint.tokens == 0


@pytest.mark.parametrize(
    ("path", "asked", "reserved"),
    [
        ("/v1/completions", {"prompt": ["a", "b"], "n": 3, "max_tokens": "5"}, 30),
        ("/v1/chat/completions", {"messages": [{}, {}], "max_completion_tokens": 7}, 7),
        ("/v1/responses", {"input": "a"}, 64),
        ("/v1/embeddings", {"input": ["a", "b"]}, 0),
        ("/tokenize", {"prompt": "a"}, 0),
    ],
)
async def test_tokens_that_vllm_may_write_are_reserved_too(
    tmp_path: Path, served: ServedModels, recorded: Recorded, path: str, asked: dict[str, Any], reserved: int
) -> None:
    seen = []

    async def engine(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(endpoint.tokens)
        count_tokens(4)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    app: App = guarded(engine, ServeConfig(max_tokens=64), served)
    router = APIRouter()
    endpoint = Endpoint(tmp_path, served, recorded, router, tokens_per_minute=1000)
    router.mount("", app)
    assert (await endpoint.ask(path, asked)).status_code == 200
    assert (seen, endpoint.tokens) == ([reserved], 4)
