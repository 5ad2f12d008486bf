"""The table of the OpenAI API's fields in docs/serving.md, and the `openai` client, against the API."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import httpx2
import openai
import pytest
import torch
from openai.types.chat import ChatCompletionAssistantMessageParam, ChatCompletionToolMessageParam
from openai.types.chat.chat_completion_stream_options_param import ChatCompletionStreamOptionsParam
from openai.types.chat.completion_create_params import CompletionCreateParamsBase as ChatParams
from openai.types.completion_create_params import CompletionCreateParamsBase as CompletionParams
from pydantic import BaseModel

from heliostat.serve.access.control import AccessControl
from heliostat.serve.config import ServeConfig
from heliostat.serve.engines.openai_types import ChatMessage, ChatRequest, CompletionRequest, StreamOptions
from heliostat.serve.engines.sampling import generator_of
from heliostat.serve.errors import App
from heliostat.serve.models.served_models import ServedModels
from tests.guides import ROOT
from tests.unit.serve.conftest import KEY, Client, Recorded, error_of
from tests.unit.serve.engines.test_openai_api import CHAT, COMPLETION, Parrot, app_of

pytestmark = pytest.mark.anyio
ROW = re.compile(r"\| (`[^|]*`) \| (both|chat|completions|message) \| (works|only|no effect|refused)(.*?) \|\n")
SCHEMAS: dict[str, type[BaseModel]] = {"chat": ChatRequest, "completions": CompletionRequest, "message": ChatMessage}
PATHS = {"chat": "/v1/chat/completions", "completions": "/v1/completions", "message": "/v1/chat/completions"}
WORKING: dict[str, list[Any]] = {
    "model": ["tiny"],
    "messages": [CHAT["messages"]],
    "prompt": ["one", ["one"]],
    "max_tokens": [1, 2.0],
    "max_completion_tokens": [1],
    "stream": [True, False],
    "stream_options": [],
    "temperature": [0, 1.5],
    "top_p": [0.5, 1],
    "seed": [0, -1, 2**63 - 1, -(2**63)],
    "stop": ["x", ["x", "y"], []],
    "logprobs": [],
    "top_logprobs": [],
    "role": ["system", "developer", "user", "assistant"],
    "content": ["a", [{"type": "text", "text": "a"}]],
    "name": ["Ada"],
}
"""Values that each field which works takes, alone; those that need another field are in test_openai_api.py."""
REQUIRED = {"messages", "prompt", "role", "content"}
OTHER_THAN: dict[str, Any] = {
    '{"type": "text"}': {"type": "json_object"},
    '["text"]': ["text", "audio"],
    '"none"': "auto",
    "1": 2,
    "false": True,
    '""': "end",
    "0": 0.5,
    "{}": {"5": 1},
    "[]": [{}],
}
"""A value that is refused, by the only one that is allowed."""


class Field(NamedTuple):
    """A line of the table, for one field and one kind of object."""

    kind: str
    name: str
    status: str
    only: str | None


def read_table() -> list[Field]:
    """The fields in the table of the guide."""
    text = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    section = text.partition("### The OpenAI API, field by field\n")[2].partition("\n### ")[0]
    fields = []
    for names, of, status, rest in ROW.findall(section):
        only = rest.strip(" `") if status == "only" else None
        for kind in ("chat", "completions") if of == "both" else (of,):
            fields += [Field(kind, name, status, only) for name in re.findall("`([^`]*)`", names)]
    return fields


FIELDS = read_table()
each_field = pytest.mark.parametrize("field", FIELDS, ids=lambda field: f"{field.kind}-{field.name}")


def body_with(field: Field, value: Any) -> dict[str, Any]:
    """A request with this value in the field."""
    if field.kind == "message":
        return {**CHAT, "messages": [{**CHAT["messages"][0], field.name: value}]}  # type: ignore[dict-item]
    return {**(CHAT if field.kind == "chat" else COMPLETION), field.name: value}


def param_of(field: Field) -> str:
    """What an error calls it."""
    return f"messages.0.{field.name}" if field.kind == "message" else field.name


def values_of(field: Field) -> tuple[list[Any], list[Any]]:
    """Values of a field that are allowed by the table, and values that are not."""
    if field.only:
        return [json.loads(field.only)], [OTHER_THAN[field.only]]
    if field.status == "refused":
        return [], ["anything", {"a": "b"}, [], 0, False]
    return WORKING[field.name] if field.status == "works" else ["anything", {"a": "b"}], []


class Named(Parrot):
    """One whose chat template shows the names of users, and of nobody else."""

    async def encode_chat(self, messages: Sequence[dict[str, Any]]) -> list[int]:
        self.messages = messages
        names = sum("name" in message for message in messages if message["role"] == "user")
        return [0] * (1 + names + len(messages))


@pytest.fixture
def engine() -> Named:
    return Named()


@pytest.fixture
def app(engine: Named, served: ServedModels, config: ServeConfig, access: AccessControl, recorded: Recorded) -> App:
    return app_of(engine, served, config, access, recorded)


@pytest.fixture
def client(app: App) -> Client:
    return Client(app)


@pytest.fixture
async def sdk(app: App) -> AsyncIterator[openai.AsyncOpenAI]:
    """The client that users have."""
    http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app))  # type: ignore[arg-type]
    async with openai.AsyncOpenAI(base_url="http://test/v1", api_key=KEY, http_client=http, max_retries=0) as made:
        yield made


@pytest.mark.parametrize("kind", SCHEMAS)
def test_the_table_has_each_field_that_is_known_here_once(kind: str) -> None:
    named = [field.name for field in FIELDS if field.kind == kind]
    assert sorted(named) == sorted(SCHEMAS[kind].model_fields)


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        ("chat", ChatParams),
        ("completions", CompletionParams),
        ("message", ChatCompletionAssistantMessageParam),
        ("message", ChatCompletionToolMessageParam),
    ],
)
def test_the_table_has_each_field_of_the_openai_client(kind: str, params: type) -> None:
    assert len(params.__annotations__) >= 3
    assert set(params.__annotations__) <= {field.name for field in FIELDS if field.kind == kind}
    assert set(ChatCompletionStreamOptionsParam.__annotations__) == set(StreamOptions.model_fields)


@each_field
async def test_each_field_does_what_the_table_says(client: Client, field: Field) -> None:
    allowed, refused = values_of(field)
    for value in allowed:
        response = await client.post(PATHS[field.kind], body_with(field, value))
        assert response.status_code == 200, response.text
    for value in refused:
        response = await client.post(PATHS[field.kind], body_with(field, value))
        error = error_of(response)
        assert (response.status_code, error["type"]) == (400, "invalid_request_error")
        assert error["param"].startswith(param_of(field))
        assert error["code"] == ("invalid_value" if field.only else "unsupported_parameter")


@each_field
async def test_null_is_not_given_in_every_field(client: Client, field: Field) -> None:
    response = await client.post(PATHS[field.kind], body_with(field, None))
    assert response.status_code == (400 if field.name in REQUIRED else 200), response.text
    nested = await client.post(
        PATHS["chat"],
        {**CHAT, "stream": True, "stream_options": {"include_usage": None, "include_obfuscation": None}},
    )
    assert nested.status_code == 200


async def test_an_answer_goes_back_as_the_openai_client_dumps_it(sdk: openai.AsyncOpenAI, engine: Named) -> None:
    messages: list[Any] = [{"role": "user", "content": "one"}]
    for _ in range(2):
        answer = await sdk.chat.completions.create(model="tiny", messages=messages, max_tokens=2, stream=None)  # type: ignore[call-overload]
        messages += [answer.choices[0].message.model_dump(), {"role": "user", "content": "two"}]
    assert [turn["role"] for turn in engine.messages] == ["user", "assistant", "user"]
    assert engine.messages[1] == {"role": "assistant", "content": "wörd wörd "}


async def test_the_openai_client_raises_what_its_users_catch(sdk: openai.AsyncOpenAI) -> None:
    long = "word " * 200
    for options, code, param in (
        ({"prompt": long}, "context_length_exceeded", "prompt"),
        ({"prompt": "a", "n": 2}, "invalid_value", "n"),
        ({"prompt": "a", "max_tokens": 65}, "invalid_value", "max_tokens"),
        ({"prompt": "a", "max_tokens": 1.5}, "invalid_value", "max_tokens"),
        ({"prompt": "a", "temperature": True}, "invalid_value", "temperature"),
        ({"prompt": "a", "echo": 0}, "invalid_value", "echo"),
        ({"prompt": "a", "n": True}, "invalid_value", "n"),
        ({"prompt": "a", "extra_body": {"tok_k": 5}}, "unknown_parameter", "tok_k"),
        ({"prompt": [1, 2]}, "invalid_value", "prompt"),
        ({"prompt": ["a", "b"]}, "invalid_value", "prompt"),
        ({"prompt": openai.omit}, "missing_required_parameter", "prompt"),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            await sdk.completions.create(model="tiny", **options)  # type: ignore[call-overload]
        assert (caught.value.code, caught.value.param) == (code, param)
    with pytest.raises(openai.BadRequestError, match="maximum context length is 100 tokens"):
        await sdk.completions.create(model="tiny", prompt=long)


async def test_a_name_goes_through_the_chat_template_or_is_refused(client: Client, engine: Named) -> None:
    user = {"role": "user", "content": "one", "name": "Ada"}
    response = await client.post("/v1/chat/completions", {**CHAT, "messages": [user]})
    assert response.status_code == 200
    answer = {"role": "assistant", "content": "two", "name": "Bob"}
    response = await client.post("/v1/chat/completions", {**CHAT, "messages": [user, answer, user]})
    assert (response.status_code, error_of(response)["code"]) == (400, "unsupported_parameter")
    assert error_of(response)["param"] == "messages.1.name"
    assert "no names for the role 'assistant'" in error_of(response)["message"]


async def test_a_negative_seed_reaches_the_engine(client: Client, engine: Named) -> None:
    await client.post("/v1/completions", {**COMPLETION, "seed": -5})
    sampling = engine.asked[0][1]
    assert sampling.seed == -5
    for seed in (-5, -(2**63), 2**63 - 1):
        assert generator_of(replace(sampling, seed=seed), torch.device("cpu"))


async def test_a_body_that_is_no_object_is_a_400_as_well(client: Client) -> None:
    bodies: list[Any] = [[], "a", None, 5]
    for body in bodies:
        response = await client.post("/v1/completions", body)
        assert response.status_code == 400
