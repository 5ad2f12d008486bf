"""Two thousand requests that are wrong in all ways: none is answered with a fault of ours, and the model stays well."""

from __future__ import annotations

import copy
import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from heliostat.serve.access.control import AccessControl
from heliostat.serve.config import ServeConfig
from heliostat.serve.engines.attention import register
from heliostat.serve.engines.openai_api import OpenAIApi
from heliostat.serve.engines.transformers import TransformersEngine
from heliostat.serve.http.app import create_app
from heliostat.serve.models.bundles import FetchedModel
from heliostat.serve.models.served_models import ServedModels
from heliostat.serve.predictors.programs import program_service
from tests.tiny_programs import ROW, WRITERS, description
from tests.unit.serve.conftest import Client, Recorded, service_of
from tests.unit.serve.predictors.test_classification_api import WordCounter, text_api

pytestmark = pytest.mark.anyio
COUNT = 2000
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "model": "tiny",
        "messages": [
            {"role": "user", "content": "the quick"},
            {"role": "assistant", "content": [{"type": "text", "text": "x"}]},
        ],
        "max_tokens": 2,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 1,
        "stop": ["dog"],
        "stream": True,
        "stream_options": {"include_usage": True},
    },
    "/v1/completions": {"model": "tiny", "prompt": "the quick", "max_tokens": 2, "stop": "x", "n": 1},
    "/v1/predict": {"texts": ["a joy", "dull"], "top_k": 1, "truncate": True, "model": "tiny"},
}  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**40, 0.5, 1e308, -0.0, "", " ", "\x00", "a" * 1500, "é你🙂",
    [], [[]], [None], [1, "a"], ["a"] * 300, {}, {"": {}}, {"a": [{}]}, "1", "true", "null", "<|im_start|>", "{{7*7}}",
]  # fmt: skip
PROGRAMS: dict[str, dict[str, Any]] = {
    "table": {"rows": [ROW, ROW], "top_k": 1, "model": "tiny"},
    "image": {"images": ["iVBORw0KGgo=", "data:image/png;base64,"], "top_k": 1},
    "text": BODIES["/v1/predict"],
    "noise": {"seed": 1, "count": 2, "model": "tiny"},
}
RAW = [
    b"", b"{", b"null", b"[]", b"0", b'"text"', b"\xff\xfe", b"\xef\xbb\xbf{}", b'{"text": "\\ud800"}',
    b'{"text": NaN}',
    b'{"max_tokens": 1e999}', b"[" * 1000, b'{"a":' * 200, b"\x00" * 50, b'{"text": "a", "text": 1}', b"{'text': 'a'}",
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """All paths in a value of JSON."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def malformed(draw: random.Random, body: dict[str, Any]) -> bytes:
    """The body with one to three of its values, keys or bytes changed; or no body of this kind at all."""
    if draw.random() < 0.1:
        return draw.choice(RAW)
    body = copy.deepcopy(body)
    for _ in range(draw.randint(1, 3)):
        *path, last = draw.choice(list(places(body)) or [("model",)])
        inner: Any = body
        for step in path:
            inner = inner[step]
        change = draw.random()
        if change < 0.15 and isinstance(inner, dict):
            inner.pop(last, None)
        elif change < 0.3 and isinstance(inner, dict):
            inner[draw.choice(["modle", "", "__proto__", "n", "logprobs", "tools"])] = draw.choice(VALUES)
        else:
            inner[last] = copy.deepcopy(draw.choice(VALUES))
    data = json.dumps(body).encode()
    if draw.random() < 0.15:
        at = draw.randrange(len(data))
        data = data[:at] + draw.choice([b"", b"\xff", b"}", b'"', data[at : at + 5] * 2]) + data[at + 1 :]
    return data[: draw.randrange(len(data))] if draw.random() < 0.05 else data


@pytest.fixture
def client(
    llama: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    served: ServedModels,
    access: AccessControl,
    recorded: Recorded,
) -> Iterator[Client]:
    """The real engine, and a classifier, behind one application."""
    config = ServeConfig(max_body_bytes=2000, timeout_seconds=20, max_tokens=16, max_batch_size=4, precision="fp32")
    model = copy.deepcopy(llama)
    model.set_attn_implementation(register())
    words = copy.deepcopy(tokenizer)
    words.chat_template = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    engine = TransformersEngine(model, words, config, recorded.metrics)
    router = APIRouter()
    router.include_router(OpenAIApi(engine, served, config, recorded.metrics).router)
    router.include_router(text_api(WordCounter(), served, config, recorded.metrics).router)
    yield Client(create_app(served, service_of(router), config, access, recorded.metrics))
    engine.check_health()
    engine.close()


async def test_malformed_bodies_are_refused_and_harm_nothing(client: Client) -> None:
    draw, found = random.Random(0), Counter[int]()
    greedy = {"model": "tiny", "prompt": "the quick", "max_tokens": 8, "temperature": 0}
    before = (await client.post("/v1/completions", greedy)).json()["choices"]
    for at in range(COUNT):
        path = list(BODIES)[at % len(BODIES)]
        body = malformed(draw, BODIES[path])
        response = await client.http.post(path, content=body, headers={"content-type": "application/json"})
        found[response.status_code] += 1
        assert response.status_code < 500, (path, body, response.text)
        assert "server_error" not in response.text, (path, body, response.text)
        if response.status_code >= 400:
            assert set(response.json()["error"]) == {"message", "type", "param", "code"}, (path, body)
    assert (await client.post("/v1/completions", greedy)).json()["choices"] == before
    assert min(found[400], found[422], found[404], found[413], found[200]) > 0, found


@pytest.mark.parametrize("kind", list(WRITERS))
async def test_so_are_those_to_a_program(tmp_path: Path, kind: str, served: ServedModels, recorded: Recorded) -> None:
    config = ServeConfig(max_body_bytes=2000, timeout_seconds=20)
    described = description(kind, WRITERS[kind](tmp_path))
    service = program_service(FetchedModel(tmp_path, described), config, served, recorded.metrics)
    client = Client(create_app(served, service, config, None, recorded.metrics))
    draw, found = random.Random(0), Counter[int]()
    for _ in range(500):
        body = malformed(draw, {**PROGRAMS[kind], **(described.probe["input"] if draw.random() < 0.1 else {})})
        response = await client.http.post("/v1/predict", content=body)
        found[response.status_code] += 1
        assert response.status_code < 500, (body, response.text)
        if response.status_code >= 400:
            assert set(response.json()["error"]) == {"message", "type", "param", "code"}, body
    await service.check_probe(described.probe, "tiny")
    service.close()
    assert min(found[400], found[422]) > 0, found
