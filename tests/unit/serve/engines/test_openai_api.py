"""The OpenAI API with an engine of a few lines behind it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from heliostat.serve.access.control import AccessControl
from heliostat.serve.config import ServeConfig
from heliostat.serve.engines.base import Delta, Engine, Sampling, TokenScore
from heliostat.serve.engines.openai_api import OpenAIApi
from heliostat.serve.errors import App, invalid
from heliostat.serve.http.app import create_app
from heliostat.serve.models.served_models import ServedModels
from tests.unit.serve.conftest import KEY, Client, Recorded, error_of, service_of

pytestmark = pytest.mark.anyio
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "one two"}]}
COMPLETION = {"model": "tiny", "prompt": "one two"}


class Parrot:
    """A word is a token; says `word word …` until it may say no more."""

    context_tokens = 100
    defaults = Sampling(1)

    def __init__(self) -> None:
        self.asked: list[tuple[list[int], Sampling]] = []
        self.messages: Sequence[dict[str, Any]] = []
        self.fault_at: int | None = None
        self.pause_seconds = 0.0
        self.open = 0

    async def encode_prompt(self, prompt: str, *, add_special_tokens: bool = True) -> list[int]:
        return list(range(len(prompt.split())))

    async def encode_chat(self, messages: Sequence[dict[str, Any]]) -> list[int]:
        self.messages = messages
        if messages[0]["role"] == "system":
            raise invalid("messages", "messages: no system turn")
        return [0, *await self.encode_prompt(" ".join(message["content"] for message in messages))]

    async def generate(self, prompt: Sequence[int], sampling: Sampling, model: str) -> AsyncIterator[Delta]:
        self.asked.append((list(prompt), sampling))
        self.open += 1
        try:
            for count in range(1, sampling.max_tokens + 1):
                await asyncio.sleep(self.pause_seconds)
                if count == self.fault_at:
                    raise RuntimeError("secret reason")
                likeliest = (("wörd ", -0.5), ("\ufffd", -1.5))[: sampling.top_logprobs or 0]
                scores = () if sampling.top_logprobs is None else (TokenScore("wörd ", -0.5, likeliest),)
                yield Delta("wörd ", count, "length" if count == sampling.max_tokens else None, scores)
        finally:
            self.open -= 1

    def check_health(self) -> None: ...

    def close(self) -> None: ...


def app_of(
    engine: Engine, served: ServedModels, config: ServeConfig, access: AccessControl | None, recorded: Recorded
) -> App:
    """A replica's app around an engine."""
    api = OpenAIApi(engine, served, config, recorded.metrics)
    return create_app(served, service_of(api.router), config, access, recorded.metrics)


@pytest.fixture
def engine() -> Parrot:
    return Parrot()


@pytest.fixture
def app(engine: Parrot, served: ServedModels, config: ServeConfig, access: AccessControl, recorded: Recorded) -> App:
    return app_of(engine, served, config, access, recorded)


@pytest.fixture
def client(app: App) -> Client:
    return Client(app, "/tiny")


def events(text: str) -> list[Any]:
    lines = [line for line in text.split("\n\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


async def test_a_chat_answer(client: Client, engine: Parrot, recorded: Recorded) -> None:
    response = await client.post("/v1/chat/completions", {**CHAT, "max_tokens": 3, "temperature": 0, "stop": "x"})
    body = response.json()
    assert response.status_code == 200
    assert body.pop("id").startswith("chatcmpl-")
    assert body.pop("created") > 1.7e9
    message = {"role": "assistant", "content": "wörd wörd wörd "}
    assert body == {
        "object": "chat.completion",
        "model": "tiny",
        "system_fingerprint": "tiny@7",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6},
    }
    assert engine.asked == [([0, 0, 1], Sampling(3, temperature=0, stop=("x",)))]
    assert recorded.labels_of("heliostat_tokens_total", "kind") == ["prompt", "completion"]
    assert recorded.of("heliostat_tokens_total") == [3, 3]
    assert len(recorded.of("heliostat_time_to_first_token_seconds")) == 1
    assert len(recorded.of("heliostat_inter_token_seconds")) == 2


async def test_a_completion(client: Client, engine: Parrot) -> None:
    response = await client.post("/v1/completions", {**COMPLETION, "max_tokens": 2, "seed": 5, "top_p": 0.5})
    body = response.json()
    assert body["object"] == "text_completion"
    assert body["choices"] == [{"index": 0, "text": "wörd wörd ", "logprobs": None, "finish_reason": "length"}]
    assert engine.asked == [([0, 1], Sampling(2, temperature=1.0, top_p=0.5, seed=5))]


async def test_what_a_request_leaves_out_is_as_the_model_says(client: Client, engine: Parrot) -> None:
    says = {"temperature": 0.6, "top_p": 0.9, "top_k": 20, "min_p": 0.1, "repetition_penalty": 1.05}
    engine.defaults = Sampling(1, **says)  # type: ignore[arg-type]
    await client.post("/v1/completions", {**COMPLETION, "max_tokens": 2})
    await client.post("/v1/completions", {**COMPLETION, "max_tokens": 2, "temperature": 0, "top_p": 1})
    asked = [sampling for _, sampling in engine.asked]
    assert asked == [Sampling(2, **says), Sampling(2, **{**says, "temperature": 0, "top_p": 1})]  # type: ignore[arg-type]


@pytest.mark.parametrize("chats", [True, False])
async def test_conversations_are_described_where_the_model_takes_them(
    engine: Parrot, served: ServedModels, config: ServeConfig, recorded: Recorded, chats: bool
) -> None:
    model = replace(served, chats=chats)
    client = Client(app_of(engine, model, config, None, recorded))
    paths = (await client.http.get("/openapi.json")).json()["paths"]
    assert ("/v1/chat/completions" in paths) == chats
    assert "/v1/completions" in paths


async def test_a_chat_stream(client: Client) -> None:
    options = {"stream": True, "stream_options": {"include_usage": True}}
    response = await client.post("/v1/chat/completions", {**CHAT, **options, "max_completion_tokens": 2})
    assert response.headers["content-type"].startswith("text/event-stream")
    found = events(response.text)
    assert {event["object"] for event in found} == {"chat.completion.chunk"}
    assert len({event["id"] for event in found}) == 1
    deltas = [event["choices"][0]["delta"] for event in found[:-1]]
    assert deltas == [{"role": "assistant", "content": ""}, {"content": "wörd "}, {"content": "wörd "}]
    assert [event["choices"][0]["finish_reason"] for event in found[:-1]] == [None, None, "length"]
    assert [event["usage"] for event in found[:-1]] == [None, None, None]
    assert found[-1]["choices"] == []
    assert found[-1]["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


async def test_a_completion_stream_without_usage(client: Client) -> None:
    response = await client.post("/v1/completions", {**COMPLETION, "stream": True, "max_tokens": 2})
    found = events(response.text)
    assert [event["choices"][0]["text"] for event in found] == ["wörd ", "wörd "]
    assert "usage" not in found[0]


async def test_message_parts_and_developer_turns(client: Client, engine: Parrot) -> None:
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    turns = [{"role": "user", "content": parts}, {"role": "developer", "content": "be kind"}]
    response = await client.post("/v1/chat/completions", {"model": "tiny", "messages": turns, "max_tokens": 1})
    assert response.status_code == 200
    assert engine.messages == [{"role": "user", "content": "one two"}, {"role": "system", "content": "be kind"}]


async def test_without_max_tokens_the_spec_and_the_context_decide(client: Client, engine: Parrot) -> None:
    await client.post("/v1/completions", {"model": "tiny", "prompt": "word"})
    await client.post("/v1/completions", {"model": "tiny", "prompt": "word " * 90})
    assert [sampling.max_tokens for _, sampling in engine.asked] == [64, 10]


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        ({"max_tokens": 65}, "max_tokens", r"max_tokens: 65 given; 64 are allowed \(serve.max_tokens\)"),
        ({"max_tokens": 0}, "max_tokens", "max_tokens: 0 given"),
        (
            {"prompt": "w " * 99, "max_tokens": 2},
            "prompt",
            "prompt: this model's maximum context length is 100 tokens; 99 tokens were given, and 2 asked",
        ),
        ({"prompt": ""}, "prompt", "prompt: '' given"),
        ({"prompt": ["a", "b"]}, "prompt", "prompt: "),
        ({"temperature": 2.5}, "temperature", "temperature: 2.5 given; .*2"),
        ({"top_p": 0}, "top_p", "top_p: 0 given"),
        ({"n": 2}, "n", "n: 2 given; .*1"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "stop"),
        ({"seed": 2**63}, "seed", "seed: 9223372036854775808 given"),
        ({"logit_bias": {"5": 1}}, "logit_bias", "logit_bias: "),
        ({"stream_options": {"include_usage": True}}, None, 'stream_options: allowed only with "stream": true'),
    ],
)
async def test_a_wrong_field_is_named(client: Client, change: Any, param: str | None, words: str) -> None:
    response = await client.post("/v1/completions", {**COMPLETION, **change})
    error = error_of(response)
    assert response.status_code == 400
    assert (error["param"] or "").split(".")[0] == (param or "")
    assert re.search(words, error["message"])


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "a"}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"tools": []}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format.type"),
        ({"messages": [{"role": "system", "content": "a"}]}, "messages"),
    ],
)
async def test_a_wrong_chat_is_named(client: Client, change: Any, param: str) -> None:
    response = await client.post("/v1/chat/completions", {**CHAT, **change})
    assert (response.status_code, error_of(response)["param"]) == (400, param)


@pytest.mark.parametrize(
    ("change", "key", "reason"),
    [
        ({"max_tokens": 0}, KEY, "invalid_value"),
        ({"model": "other"}, KEY, "model_not_found"),
        ({}, "unknown", "invalid_api_key"),
    ],
)
async def test_a_refusal_is_counted_by_its_code(
    app: App, recorded: Recorded, change: dict[str, Any], key: str, reason: str
) -> None:
    client = Client(app, "/tiny")
    client.http.headers["authorization"] = f"Bearer {key}"
    response = await client.post("/v1/completions", {**COMPLETION, **change})
    assert response.status_code >= 400
    assert recorded.labels_of("heliostat_rejected_requests_total", "reason") == [reason]


async def test_another_model_is_not_found(client: Client) -> None:
    response = await client.post("/v1/chat/completions", {**CHAT, "model": "gpt-4"})
    assert (response.status_code, error_of(response)["code"]) == (404, "model_not_found")


async def test_a_failure_before_the_first_piece_has_its_status(client: Client, engine: Parrot) -> None:
    engine.fault_at = 1
    response = await client.post("/v1/completions", {**COMPLETION, "stream": True})
    assert (response.status_code, error_of(response)["type"]) == (500, "server_error")
    assert "secret" not in response.text


async def test_a_failure_half_way_is_an_event_and_no_done(client: Client, engine: Parrot) -> None:
    engine.fault_at = 2
    response = await client.post("/v1/completions", {**COMPLETION, "stream": True})
    last = json.loads(response.text.strip().split("\n\n")[-1].removeprefix("data: "))
    assert last["error"]["type"] == "server_error"
    assert "secret" not in response.text
    assert engine.open == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_the_time_limit_ends_an_answer(
    engine: Parrot, served: ServedModels, config: ServeConfig, access: AccessControl, recorded: Recorded, stream: bool
) -> None:
    hasty = config.model_copy(update={"timeout_seconds": 0.1})
    client = Client(app_of(engine, served, hasty, access, recorded))
    engine.pause_seconds = 0.04
    response = await client.post("/v1/completions", {**COMPLETION, "stream": stream})
    if stream:  # the status is out with the first piece
        error = json.loads(response.text.strip().split("\n\n")[-1].removeprefix("data: "))["error"]
        assert response.text.count("wörd") >= 1
    else:
        assert response.status_code == 504
        error = error_of(response)
    assert error["code"] == "timeout"
    assert engine.open == 0


async def test_the_time_limit_holds_for_a_tokenizer_that_does_not_end(
    engine: Parrot, served: ServedModels, config: ServeConfig, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def encode(prompt: str, *, add_special_tokens: bool = True) -> list[int]:
        await asyncio.sleep(60)
        return []

    monkeypatch.setattr(engine, "encode_prompt", encode)
    hasty = config.model_copy(update={"timeout_seconds": 0.1})
    client = Client(app_of(engine, served, hasty, None, recorded))
    response = await client.post("/v1/completions", COMPLETION)
    assert (response.status_code, error_of(response)["code"]) == (504, "timeout")


async def test_a_client_that_leaves_ends_the_work(app: App, engine: Parrot, recorded: Recorded) -> None:
    engine.pause_seconds = 0.02
    body = json.dumps({**COMPLETION, "stream": True}).encode()
    gone = asyncio.Event()
    sent: list[Any] = []
    messages: list[Any] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)
        if b"w" in message.get("body", b""):
            gone.set()

    headers = [(b"authorization", f"Bearer {KEY}".encode())]
    scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": headers, "query_string": b""}
    await asyncio.wait_for(app(scope, receive, send), timeout=5)
    for _ in range(20):
        await asyncio.sleep(0.01)
        if not engine.open:
            break
    assert engine.open == 0
    assert len(sent) < 10
    assert recorded.labels_of("heliostat_requests_total", "status") == ["499"]
    assert recorded.of("heliostat_ongoing_requests")[-1] == 0


async def test_a_chat_tells_log_probabilities_where_asked(client: Client) -> None:
    asked = {**CHAT, "max_tokens": 2, "logprobs": True, "top_logprobs": 2}
    choice = (await client.post("/v1/chat/completions", asked)).json()["choices"][0]
    word = {"token": "wörd ", "bytes": list("wörd ".encode()), "logprob": -0.5}
    part = {"token": "\ufffd", "bytes": None, "logprob": -1.5}
    assert choice["logprobs"] == {"content": [{**word, "top_logprobs": [word, part]}] * 2, "refusal": None}
    events = (await client.post("/v1/chat/completions", {**asked, "stream": True})).text.split("\n\n")
    told = [json.loads(event[6:])["choices"][0]["logprobs"] for event in events if event.startswith("data: {")]
    assert [one["content"] for one in told if one] == [choice["logprobs"]["content"][:1]] * 2


async def test_a_completion_tells_log_probabilities_in_its_older_form(client: Client) -> None:
    choice = (await client.post("/v1/completions", {**COMPLETION, "max_tokens": 2, "logprobs": 1})).json()["choices"][0]
    assert choice["logprobs"] == {
        "tokens": ["wörd ", "wörd "],
        "token_logprobs": [-0.5, -0.5],
        "top_logprobs": [{"wörd ": -0.5}] * 2,
        "text_offset": [0, 5],
    }
    plain = (await client.post("/v1/completions", COMPLETION)).json()["choices"][0]
    assert plain["logprobs"] is None


@pytest.mark.parametrize(
    ("path", "body", "line"),
    [
        ("/v1/chat/completions", {**CHAT, "top_logprobs": 2}, 'top_logprobs: allowed only with "logprobs": true'),
        ("/v1/chat/completions", {**CHAT, "logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ("/v1/completions", {**COMPLETION, "logprobs": 6}, "logprobs"),
    ],
)
async def test_more_log_probabilities_than_there_are_to_have_are_refused(
    client: Client, path: str, body: dict[str, Any], line: str
) -> None:
    response = await client.post(path, body)
    assert response.status_code == 400
    assert line in error_of(response)["message"]
