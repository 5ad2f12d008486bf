"""The classifier's HTTP application with a model of a few lines behind it."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from fastapi import APIRouter

from heliostat.serve.access.control import AccessControl
from heliostat.serve.config import ServeConfig
from heliostat.serve.http.app import create_app
from heliostat.serve.metrics import ServeMetrics
from heliostat.serve.models.served_models import ServedModels
from heliostat.serve.predictors.classification_api import ClassificationApi
from heliostat.serve.predictors.texts import Encoded, Texts
from tests.unit.serve.conftest import Client, Recorded, error_of, service_of

pytestmark = pytest.mark.anyio
PREFIX = "/tiny"


class WordCounter:
    """A word is a token, five at most; the more words, the more positive."""

    max_length = 5
    tolerance = 0.05

    def __init__(self) -> None:
        self.fault: Exception | None = None
        self.delay_seconds = 0.0

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        words = [text.split() for text in texts]
        return [Encoded(list(range(min(len(one), 5))), len(one)) for one in words]

    def check_health(self) -> None:
        pass

    def close(self) -> None:
        pass

    async def predict(self, encoded: Sequence[Encoded]) -> list[dict[str, float]]:
        await asyncio.sleep(self.delay_seconds)
        if self.fault:
            raise self.fault
        positive = [len(one.ids) / 5 for one in encoded]
        return [{"negative": (1 - p) * 0.75, "neutral": (1 - p) * 0.25, "positive": p} for p in positive]


def text_api(model: WordCounter, served: ServedModels, config: ServeConfig, metrics: ServeMetrics) -> ClassificationApi:
    return ClassificationApi(Texts(model), model, served, config, metrics)


@pytest.fixture
def model() -> WordCounter:
    return WordCounter()


@pytest.fixture
def client(
    model: WordCounter, served: ServedModels, config: ServeConfig, access: AccessControl, recorded: Recorded
) -> Client:
    api = text_api(model, served, config, recorded.metrics)
    return Client(create_app(served, service_of(api.router), config, access, recorded.metrics), PREFIX)


async def test_one_text_gives_one_prediction(client: Client) -> None:
    response = await client.post("/v1/predict", {"text": "a b c d"})
    body = response.json()
    assert response.status_code == 200
    assert response.headers["x-model-version"] == "tiny@7"
    assert body.pop("latency_ms") >= 0
    assert body == {
        "model": "tiny",
        "version": "7",
        "predictions": [
            {
                "label": "positive",
                "score": 0.8,
                "scores": {"positive": 0.8, "negative": 0.15, "neutral": 0.05},
                "truncated": False,
            }
        ],
        "usage": {"prompt_tokens": 4, "total_tokens": 4},
    }


async def test_texts_give_predictions_in_their_order(client: Client) -> None:
    response = await client.post("/v1/predict", {"texts": ["a", "a b c d e", "a b"], "top_k": 1, "model": "tiny"})
    found = [(one["label"], one["scores"]) for one in response.json()["predictions"]]
    assert found == [("negative", {"negative": 0.6}), ("positive", {"positive": 1.0}), ("negative", {"negative": 0.45})]
    assert response.json()["usage"]["prompt_tokens"] == 8


async def test_a_text_that_is_too_long_is_refused_unless_it_may_be_cut(client: Client) -> None:
    long = "a b c d e f g"
    response = await client.post("/v1/predict", {"texts": ["a", long]})
    error = error_of(response)
    assert response.status_code == 422
    assert (error["param"], error["code"]) == ("texts.1", "context_length_exceeded")
    assert error["message"].startswith('texts.1: 7 tokens given; 5 are allowed; send "truncate": true')
    response = await client.post("/v1/predict", {"texts": ["a", long], "truncate": True})
    assert [one["truncated"] for one in response.json()["predictions"]] == [False, True]


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({}, None, "text, texts: exactly one"),
        ({"text": "a", "texts": ["b"]}, None, "text, texts: exactly one"),
        ({"text": ""}, "text", "text: '' given"),
        ({"text": " \n"}, "text", "a character that is no white space is needed"),
        ({"texts": []}, "texts", r"texts: \[\] given"),
        ({"texts": ["a", 5]}, "texts.1", "texts.1: 5 given"),
        ({"texts": "a"}, "texts", "texts: 'a' given"),
        ({"text": "a", "top_k": 0}, "top_k", "top_k: 0 given"),
        ({"text": "a", "truncate": "yes"}, "truncate", "truncate: 'yes' given"),
        ({"txt": "a"}, "txt", "txt: unknown key; did you mean 'text'"),
    ],
)
async def test_a_wrong_field_is_named(client: Client, body: Any, param: str | None, words: str) -> None:
    response = await client.post("/v1/predict", body)
    error = error_of(response)
    assert (response.status_code, error["param"], error["type"]) == (422, param, "invalid_request_error")
    assert re.search(words, error["message"])


async def test_too_many_texts_are_refused(client: Client) -> None:
    response = await client.post("/v1/predict", {"texts": ["a"] * 257})
    assert (response.status_code, error_of(response)["param"]) == (422, "texts")


async def test_a_body_that_is_no_json(client: Client) -> None:
    response = await client.http.post("/v1/predict", content=b'{"text": ')
    assert (response.status_code, error_of(response)["code"]) == (400, "invalid_json")


async def test_a_body_that_is_too_long_announced_or_not(client: Client) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b" " * 1000

    announced = await client.http.post("/v1/predict", content=b" " * 2001)
    chunked = await client.http.post("/v1/predict", content=chunks())
    for response in (announced, chunked):
        assert (response.status_code, error_of(response)["code"]) == (413, "request_too_large")


async def test_another_model_an_unknown_route_and_a_wrong_method(client: Client) -> None:
    other = await client.post("/v1/predict", {"text": "a", "model": "gpt"})
    assert (other.status_code, error_of(other)["code"]) == (404, "model_not_found")
    assert error_of(other)["message"] == "model: 'gpt' is not served here; 'tiny' is"
    unknown = await client.post("/v1/predicts", {"text": "a"})
    assert (unknown.status_code, error_of(unknown)["code"]) == (404, "not_found")
    wrong = await client.http.get("/v1/predict")
    assert (wrong.status_code, error_of(wrong)["code"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "POST"


async def test_no_key_or_an_unknown_one(client: Client) -> None:
    for headers in ({"authorization": ""}, {"authorization": "Bearer wrong"}):
        response = await client.http.post("/v1/predict", json={"text": "a"}, headers=headers)
        assert (response.status_code, error_of(response)["code"]) == (401, "invalid_api_key")
        assert response.headers["www-authenticate"].startswith("Bearer")


async def test_health_and_models(client: Client) -> None:
    health = await client.http.get("/health", headers={"authorization": ""})
    deadlines = {"timeout_seconds": 5.0, "body_timeout_seconds": 30.0}
    assert health.json() == {"status": "ok", "model": "tiny", "version": "7", **deadlines}
    listed = (await client.http.get("/v1/models")).json()
    assert [(card["id"], card["version"], card["object"]) for card in listed["data"]] == [("tiny", "7", "model")]
    assert (await client.http.get("/v1/models/tiny")).json() == listed["data"][0]
    assert (await client.http.get("/v1/models/other")).status_code == 404
    assert (await client.http.get("/v1/models", headers={"authorization": ""})).status_code == 401


async def test_health_fails_with_the_model(served: ServedModels, config: ServeConfig, recorded: Recorded) -> None:
    def ended() -> None:
        raise RuntimeError("the thread has ended")

    service = dataclasses.replace(service_of(APIRouter()), check_health=ended)
    response = await Client(create_app(served, service, config, None, recorded.metrics)).http.get("/health")
    assert (response.status_code, error_of(response)["code"]) == (503, "unhealthy")


async def test_the_openapi_description_has_the_request(client: Client) -> None:
    description = (await client.http.get("/openapi.json")).json()
    schema = description["paths"]["/v1/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert {"text", "texts", "top_k", "truncate", "model"} == set(schema["properties"])


async def test_a_fault_of_ours_is_a_500_that_tells_nothing(client: Client, model: WordCounter) -> None:
    model.fault = RuntimeError("secret path /srv/models")
    response = await client.post("/v1/predict", {"text": "a"})
    error = error_of(response)
    assert (response.status_code, error["type"]) == (500, "server_error")
    assert "secret" not in response.text
    model.fault = None
    assert (await client.post("/v1/predict", {"text": "a"})).status_code == 200


async def test_an_answer_that_takes_too_long_is_a_504(
    model: WordCounter, served: ServedModels, config: ServeConfig, access: AccessControl, recorded: Recorded
) -> None:
    hasty = config.model_copy(update={"timeout_seconds": 0.05})
    api = text_api(model, served, hasty, recorded.metrics)
    client = Client(create_app(served, service_of(api.router), hasty, access, recorded.metrics))
    model.delay_seconds = 5
    response = await client.post("/v1/predict", {"text": "a"})
    assert (response.status_code, error_of(response)["code"]) == (504, "timeout")
    assert recorded.of("heliostat_ongoing_requests")[-1] == 0


async def test_requests_above_the_limit_get_429_and_all_are_counted(
    model: WordCounter, served: ServedModels, config: ServeConfig, access: AccessControl, recorded: Recorded
) -> None:
    narrow = config.model_copy(update={"max_ongoing_requests": 3})  # of which one key gets two
    api = text_api(model, served, narrow, recorded.metrics)
    client = Client(create_app(served, service_of(api.router), narrow, access, recorded.metrics))
    model.delay_seconds = 0.05
    responses = await asyncio.gather(*(client.post("/v1/predict", {"text": "a"}) for _ in range(3)))
    assert sorted(response.status_code for response in responses) == [200, 200, 429]
    refused = next(response for response in responses if response.status_code == 429)
    assert error_of(refused)["code"] == "rate_limit_exceeded"
    assert refused.headers["retry-after"] == "1"
    assert sorted(recorded.labels_of("heliostat_requests_total", "status")) == ["200", "200", "429"]
    assert max(recorded.of("heliostat_ongoing_requests")) == 2
    assert recorded.of("heliostat_tokens_total") == [1, 1]
    assert len(recorded.of("heliostat_request_seconds")) == 3


async def test_without_authentication_no_key_is_needed(
    model: WordCounter, served: ServedModels, config: ServeConfig, recorded: Recorded
) -> None:
    open_to_all = config.model_copy(update={"auth": "none"})
    api = text_api(model, served, open_to_all, recorded.metrics)
    client = Client(create_app(served, service_of(api.router), open_to_all, None, recorded.metrics))
    response = await client.http.post("/v1/predict", json={"text": "a"}, headers={"authorization": ""})
    assert response.status_code == 200
