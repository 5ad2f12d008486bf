from __future__ import annotations

import asyncio
import json
import time
from datetime import datetime, timezone
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse

from heliostat.serve.config import ServeConfig
from heliostat.serve.engines.vllm_limits import MOST_POOLING_INPUTS, POOLING_INPUTS, check_amounts, guarded
from heliostat.serve.errors import App, Receive, RequestError, Scope, Send
from heliostat.serve.models.served_models import ServedModels
from heliostat.serve.predictors.inputs import MAX_INPUTS

CONFIG = ServeConfig(max_body_bytes=200, max_tokens=50, max_batch_size=4, timeout_seconds=0.2)

LATE: list[float] = []
"""When the requests began that were not answered in time."""
CREATED = datetime(2026, 1, 1, tzinfo=timezone.utc)
LEGAL = ServedModels("legal", "2", "causal-lm", "run-2", CREATED, parent="chat")
CHAT = ServedModels("chat", "7", "causal-lm", "run-1", CREATED, adapters=(LEGAL,))


async def engine(scope: Scope, receive: Receive, send: Send) -> None:
    """Says what it was asked; with `slow` it takes too long, before its answer or after the first piece of it."""
    request = Request(scope, receive)
    asked = json.loads(await request.body() or "{}")
    if asked.get("slow") == "whole":
        await asyncio.sleep(5)

    async def pieces() -> Any:
        yield b'data: {"piece": 1}\n\n'
        await asyncio.sleep(5)

    response = StreamingResponse(pieces()) if asked.get("slow") == "stream" else JSONResponse({"asked": asked})
    await response(scope, receive, send)


def ask(method: str, path: str, app: App = engine, **request: Any) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(guarded(app, CONFIG, CHAT, LATE.append))  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, **request)

    return asyncio.run(send())


def test_a_request_within_the_limits_goes_through_whole() -> None:
    asked = {"model": "chat", "max_tokens": 50, "n": 4}
    assert ask("POST", "/v1/chat/completions", json=asked).json() == {"asked": asked}
    assert ask("GET", "/openapi.json").status_code == 200


def test_the_engine_hears_of_models_that_are_served_only() -> None:
    assert ask("POST", "/v1/completions", json={"model": "legal"}).json() == {"asked": {"model": "legal"}}
    assert ask("POST", "/v1/completions", json={"n": 1}).json() == {"asked": {"n": 1, "model": "chat"}}
    refused = ask("POST", "/v1/completions", json={"model": "chat:base"})
    assert refused.status_code == 404
    assert refused.json()["error"]["message"] == "model: 'chat:base' is not served here; 'chat', 'legal' are"


@pytest.mark.parametrize("path", ["/scale_elastic_ep", "/v1/load_lora_adapter", "/pause", "/invocations", "/metrics"])
def test_routes_for_operators_are_not_there(path: str) -> None:
    response = ask("POST", path, json={})
    assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("body", "status", "line"),
    [
        (b"{", 400, "not valid JSON"),
        (b"[1]", 400, "a JSON object is needed"),
        (b'{"max_tokens": 51}', 400, "max_tokens: 51 given; 50 are allowed (serve.max_tokens)"),
        (b'{"max_completion_tokens": 1e9}', 400, "max_completion_tokens: 1000000000.0 given; 50 are allowed"),
        (b'{"n": 5}', 400, "n: 5 given; 4 are allowed (serve.max_batch_size)"),
        (b'{"n": "64"}', 400, "n: '64' given; 4 are allowed (serve.max_batch_size)"),
        (b'{"n": " 6_4.0"}', 400, "n: ' 6_4.0' given; 4 are allowed"),
        (b'{"max_tokens": "51.0"}', 400, "max_tokens: '51.0' given; 50 are allowed"),
        (b'{"max_output_tokens": Infinity}', 400, "max_output_tokens: inf given; a whole number is needed"),
        (b'{"max_tokens": [9]}', 400, "max_tokens: [9] given; a whole number is needed"),
        (b'{"prompt": ["a","b","c","d","e"]}', 400, "prompt: 5 given; 4 are allowed in all (serve.max_batch_size)"),
        (b'{"prompt": [[1],[2],[3],[4],[5]]}', 400, "prompt: 5 given; 4 are allowed"),
        (b'{"prompt": ["a","b","c"], "n": "2"}', 400, "prompt: 3 given, 2 choices of each; 4 are allowed in all"),
        (b'{"messages": [[],[],[],[],[]]}', 400, "messages: 5 given; 4 are allowed"),
        (b" " * 201, 413, "201 bytes given; 200 bytes are allowed"),
    ],
)
def test_what_is_too_much_never_reaches_the_engine(body: bytes, status: int, line: str) -> None:
    async def unreachable(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError(scope)

    response = ask("POST", "/v1/completions", app=unreachable, content=body)
    assert response.status_code == status
    assert line in response.json()["error"]["message"]


def test_an_answer_that_takes_too_long_is_504() -> None:
    LATE.clear()
    ask("POST", "/v1/completions", json={"n": 1})
    assert LATE == []
    began = time.monotonic()
    response = ask("POST", "/v1/completions", json={"slow": "whole"})
    assert len(LATE) == 1
    assert began <= LATE[0] <= time.monotonic() - CONFIG.timeout_seconds
    assert (response.status_code, response.json()["error"]["code"]) == (504, "timeout")


def test_a_stream_that_takes_too_long_ends_with_an_error_event() -> None:
    response = ask("POST", "/v1/completions", json={"slow": "stream"})
    first, last = response.text.strip().split("\n\n")
    assert (response.status_code, first) == (200, 'data: {"piece": 1}')
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "timeout"


@pytest.mark.parametrize("field", POOLING_INPUTS)
def test_lists_of_inputs_are_as_long_as_those_of_predictions(field: str) -> None:
    config = ServeConfig()
    assert MOST_POOLING_INPUTS == MAX_INPUTS
    assert check_amounts({field: ["a"] * MAX_INPUTS}, config)
    with pytest.raises(RequestError, match=f"{field}: 5000 given; {MAX_INPUTS} are allowed") as caught:
        check_amounts({field: ["a"] * 5000}, config)
    assert caught.value.param == field


@pytest.mark.parametrize(
    "asked",
    [
        {"prompt": list(range(5000))},
        {"input": [1] * 5000},
        {"messages": [{"role": "user", "content": "a"}] * 5000},
        {"input": [{"role": "user", "content": "a"}] * 5000},
        {"prompt": ["a"] * 4, "n": None, "max_tokens": None},
        {"prompt": "a", "n": "4", "max_tokens": "50"},
    ],
    ids=["token ids", "token ids to embed", "conversation", "conversation of responses", "nulls", "strings"],
)
def test_what_is_within_the_limits_is_one_request(asked: dict[str, Any]) -> None:
    assert check_amounts(asked, CONFIG) is asked
