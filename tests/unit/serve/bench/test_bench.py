"""Load is put on as asked, and what it shows is counted right, whatever the server does."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from heliostat.infra.config.strict import build
from heliostat.infra.errors import ConfigError, ResourceError
from heliostat.operations import bench as benching
from heliostat.serve.bench.config import BenchConfig
from heliostat.serve.bench.load import drive
from heliostat.serve.bench.summary import summarise
from heliostat.serve.bench.target import Sample

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
KEY = "a key"


class Server:
    """An endpoint that answers as it is told, and keeps what it was asked."""

    def __init__(self, path: str, answer: Handler) -> None:
        self.asked: list[dict[str, Any]] = []
        self.ongoing = self.most = 0
        self._path, self._answer = path, answer

    async def _describe(self, request: web.Request) -> web.Response:
        body = {"paths": {self._path: {}}, "data": [{"id": "tiny"}]}
        return web.json_response(body, status=200 if request.headers.get("Authorization") else 401)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(await request.json())
        self.ongoing += 1
        self.most = max(self.most, self.ongoing)
        try:
            return await self._answer(request)
        finally:
            self.ongoing -= 1

    async def run(self, work: Callable[[str], Awaitable[Any]]) -> Any:
        app = web.Application()
        app.router.add_post(self._path, self._handle)
        for path in ("/openapi.json", "/v1/models"):
            app.router.add_get(path, self._describe)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            return await work(f"http://127.0.0.1:{runner.addresses[0][1]}")
        finally:
            await runner.cleanup()


def bench(server: Server, key: str | None = KEY, **values: Any) -> Any:
    async def work(url: str) -> Any:
        config = build(BenchConfig, {"url": url, "requests": 12, **values})
        return await drive(config, key, ["one", "two"], lambda _: None)

    return asyncio.run(server.run(work))


async def predicted(_: web.Request) -> web.Response:
    await asyncio.sleep(0.02)
    return web.json_response({"predictions": []})


def streamed(*events: Any, pause: float = 0.01) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for event in events:
            await asyncio.sleep(pause)
            await response.write(f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n".encode())
        return response

    return answer


def piece(text: str) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": text}}], "usage": None}


USAGE = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}


def test_users_wait_for_their_answer_before_they_ask_again() -> None:
    server = Server("/v1/predict", predicted)
    target, samples, seconds = bench(server, concurrency=3)
    assert (target.kind, target.model) == ("predict", "tiny")
    assert server.most == 3
    assert len(server.asked) == 13, "one to warm up"
    assert server.asked[1] == {"text": "one", "truncate": True, "model": "tiny"}
    found = summarise(samples, seconds)
    assert (found.requests, found.errors) == (12, {})
    assert found.latency
    assert found.latency.p50 >= 20
    assert found.first_token is None


def test_rows_and_images_are_asked_as_they_are() -> None:
    from heliostat.serve.bench.target import Target

    target = Target("http://x/v1/predict", "predict", "tiny", {})
    assert target.body('{"row": {"age": 3}}', 1) == {"row": {"age": 3}, "model": "tiny"}
    assert target.body('{"image": "aGk="}', 1) == {"image": "aGk=", "model": "tiny"}
    for text in ("{a curly text}", '{"some": "JSON"}', '["row"]'):
        assert target.body(text, 1) == {"text": text, "truncate": True, "model": "tiny"}


def test_under_a_rate_requests_come_whether_others_are_answered_or_not() -> None:
    async def slow(_: web.Request) -> web.Response:
        await asyncio.sleep(0.5)
        return web.json_response({})

    server = Server("/v1/predict", slow)
    _, samples, _ = bench(server, rate=200, concurrency=1, warm_up=0)
    assert server.most > 3
    gaps = [later.due - sooner.due for sooner, later in pairwise(samples)]
    assert 0.001 < sum(gaps) / len(gaps) < 0.02


def test_a_request_counts_from_when_it_was_due(monkeypatch: pytest.MonkeyPatch) -> None:
    async def blocking(_: web.Request) -> web.Response:
        time.sleep(0.05)
        return web.json_response({})

    _, samples, _ = bench(Server("/v1/predict", blocking), rate=1000, requests=5, warm_up=0)
    assert samples[-1].ended - samples[-1].due > 0.2


def test_streams_tell_first_and_further_tokens() -> None:
    server = Server("/v1/chat/completions", streamed(piece(""), piece("a"), piece("b"), USAGE, "[DONE]"))
    target, samples, seconds = bench(server, max_tokens=2)
    assert server.asked[0] == {
        "messages": [{"role": "user", "content": "one"}], "max_tokens": 2, "temperature": 0,
        "stream": True, "stream_options": {"include_usage": True}, "model": "tiny",
    }  # fmt: skip
    assert target.kind == "chat"
    assert [(len(sample.pieces), sample.tokens, sample.error) for sample in samples] == [(2, 2, "")] * 12
    found = summarise(samples, seconds)
    assert found.first_token
    assert found.inter_token
    assert found.first_token.p50 >= 20
    assert found.inter_token.p50 >= 9
    assert found.tokens_per_second == pytest.approx(24 / seconds)


def test_a_stream_is_whole_once_its_answer_has_a_reason_to_end() -> None:
    """`transformers serve` says nothing after it."""
    last = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
    _, samples, _ = bench(Server("/v1/chat/completions", streamed(piece("a"), last)), requests=2)
    assert [(len(sample.pieces), sample.error) for sample in samples] == [(1, "")] * 2


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (streamed(piece("a")), "stream cut off"),
        (streamed(piece("a"), {"error": {"message": "lost"}}), "error event"),
        (streamed("no json"), "JSONDecodeError"),
        (streamed(piece("a"), "[DONE]", pause=0.6), "timed out"),
    ],
)
def test_answers_that_are_not_whole_are_errors(answer: Handler, error: str) -> None:
    _, samples, seconds = bench(Server("/v1/completions", answer), requests=2, timeout_seconds=0.5, warm_up=0)
    found = summarise(samples, seconds)
    assert found.errors == {error: 2}
    assert found.requests_per_second == 0
    assert found.latency is None


def test_refusals_are_counted_by_status_and_do_not_count_as_fast() -> None:
    served = 0

    async def every_other(_: web.Request) -> web.Response:
        nonlocal served
        served += 1
        return web.json_response({}, status=429 if served % 2 else 200)

    _, samples, seconds = bench(Server("/v1/predict", every_other), warm_up=0)
    found = summarise(samples, seconds)
    assert found.errors == {"HTTP 429": 6}
    assert found.requests_per_second == pytest.approx(6 / seconds)


def test_percentiles_are_those_of_the_times() -> None:
    samples = [Sample(0.0, ended=at / 1000) for at in range(101)]
    found = summarise(samples, 2.0).latency
    assert found
    assert (found.mean, found.p50, found.p90, found.p99, found.max) == pytest.approx((50, 50, 90, 99, 100))


def test_what_cannot_be_asked_is_refused_in_one_line() -> None:
    server = Server("/v1/predict", predicted)
    with pytest.raises(ResourceError, match=r"the key is refused \(401\); HELIOSTAT_API_KEY"):
        bench(server, key=None)
    with pytest.raises(ConfigError, match=r"model 'other' given; .* has tiny"):
        bench(server, model="other")
    with pytest.raises(ConfigError, match="names none of /v1/chat/completions"):
        bench(Server("/v2/else", predicted))
    with pytest.raises(ResourceError, match="no answer"):
        benching.bench("http://127.0.0.1:9", ["requests=1"], None, None, None)


@pytest.mark.parametrize(
    ("url", "overrides", "words"),
    [
        ("localhost:8000", [], r"url: .*https\?://"),
        ("http://x", ["concurrency=0"], "concurrency: .*greater than 0"),
        ("http://x", ["rates=3"], "rates: unknown key.*rate"),
        ("http://x", ["kind=image"], "kind: .*'image'"),
    ],
)
def test_wrong_options_name_themselves(url: str, overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        benching.bench(url, overrides, None, None, None)


def test_texts_come_from_a_file_or_are_drawn_alike(tmp_path: Path) -> None:
    file = tmp_path / "texts"
    file.write_text("one\n\n two \n")
    assert benching.read_texts(file) == ["one", " two "]
    config = build(BenchConfig, {"url": "http://x", "requests": 3, "words": 5})
    drawn = benching.drawn(config)
    assert [len(text.split()) for text in drawn] == [5, 5, 5]
    assert len(set(drawn)) == 3
    assert drawn == benching.drawn(config)
    file.write_text("\n")
    with pytest.raises(ConfigError, match=r"--texts: .* has no text"):
        benching.read_texts(file)
    with pytest.raises(ConfigError, match=r"--texts: .* cannot be read"):
        benching.read_texts(tmp_path / "none")
