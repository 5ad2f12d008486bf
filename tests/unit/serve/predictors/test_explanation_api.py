"""`POST /v1/explain` beside `/v1/predict`: the same requests, keys and limits; reasons in the answer."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from heliostat.infra.images import decode
from heliostat.serve.access.control import AccessControl
from heliostat.serve.access.quota import Spending, _spending
from heliostat.serve.config import ServeConfig
from heliostat.serve.explain.answers import TableExplanation
from heliostat.serve.http.app import Service, create_app
from heliostat.serve.models.bundles import FetchedModel
from heliostat.serve.models.served_models import ServedModels
from heliostat.serve.predictors.programs import program_service
from tests.tiny_programs import LABELS, ROW, WRITERS, description, in_base64
from tests.unit.serve.conftest import Client, Recorded, error_of

pytestmark = pytest.mark.anyio
Ask = Callable[..., Client]
IMAGE = in_base64(torch.full((4, 3, 3), 200, dtype=torch.uint8))
ASKED: dict[str, dict[str, Any]] = {"table": {"row": ROW}, "image": {"image": IMAGE}, "text": {"text": "a joy !"}}


@pytest.fixture
def ask(tmp_path: Path, served: ServedModels, config: ServeConfig, recorded: Recorded) -> Iterator[Ask]:
    """A client of an endpoint with the program of a kind."""
    services: list[Service] = []

    def client(kind: str, access: AccessControl | None = None, **more: Any) -> Client:
        found = FetchedModel(tmp_path, description(kind, WRITERS[kind](tmp_path)))
        settings = config.model_copy(update={"timeout_seconds": 60, **more})
        services.append(program_service(found, settings, served, recorded.metrics))
        return Client(create_app(served, services[-1], settings, access, recorded.metrics))

    yield client
    for service in services:
        service.close()


@pytest.mark.parametrize("kind", list(ASKED))
async def test_the_label_is_that_of_the_prediction(ask: Ask, kind: str) -> None:
    client = ask(kind)
    predicted = (await client.post("/v1/predict", ASKED[kind])).json()
    answer = await client.post("/v1/explain", ASKED[kind])
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert set(body) == {"model", "version", "explanations", "usage", "latency_ms"}
    (found,) = body["explanations"]
    assert found["label"] == found["predicted"] == predicted["predictions"][0]["label"]
    assert found["score"] == pytest.approx(predicted["predictions"][0]["score"], abs=1e-4)
    assert body["usage"] == {**predicted["usage"], "passes": found["passes"]}


async def test_columns_words_and_cells_have_their_places(ask: Ask) -> None:
    row = (await ask("table").post("/v1/explain", {"row": ROW})).json()["explanations"][0]
    assert [one["column"] for one in row["columns"]] == list(ROW)
    text = (await ask("text").post("/v1/explain", {"text": "a joy !"})).json()["explanations"][0]
    assert [(one["word"], one["start"], one["end"]) for one in text["words"]] == [
        ("a", 0, 1),
        ("joy", 2, 5),
        ("!", 6, 7),
    ]
    image = (await ask("image").post("/v1/explain", {"image": IMAGE, "method": "saliency"})).json()["explanations"][0]
    assert [len(cells) for cells in image["grid"]] == [3] * 4
    assert decode(base64.b64decode(image["heat_map"]), "rgb", "heat map").shape == (4, 3, 3)


async def test_lists_are_explained_in_their_order(ask: Ask) -> None:
    body = {"rows": [ROW, {**ROW, "age": 60}], "label": LABELS[1]}
    answer = (await ask("table").post("/v1/explain", body)).json()
    assert [one["columns"][0]["value"] for one in answer["explanations"]] == [38, 60]
    assert {one["label"] for one in answer["explanations"]} == {LABELS[1]}


async def test_a_file_in_a_form_is_explained(ask: Ask) -> None:
    client = ask("image")
    files, data = {"image": base64.b64decode(IMAGE)}, {"label": LABELS[0], "method": "occlusion"}
    answer = await client.http.post("/v1/explain", files=files, data=data)
    assert answer.json()["explanations"][0]["method"] == "occlusion"
    refused = await client.http.post("/v1/explain", files=files, data={"label": "bird"})
    assert error_of(refused)["param"] == "label"


@pytest.mark.parametrize(
    ("kind", "more", "param", "words"),
    [
        ("table", {"label": "bird"}, "label", ["'bird'", *LABELS]),
        ("table", {"method": "occlusion"}, "method", ["'occlusion'", "integrated_gradients"]),
        ("image", {"method": "integrated_gradients"}, "method", ["occlusion or saliency"]),
        ("table", {"row": {**ROW, "shoe": 1}}, "row.shoe", ["'shoe'"]),
        ("text", {"text": " "}, "text", ["no white space is needed"]),
        ("text", {"text": "a " * 9}, "text", ["9 tokens", "6 are allowed"]),
        ("table", {"why": 1}, "why", ["unknown key"]),
    ],
)
async def test_what_cannot_be_explained_is_422(
    ask: Ask, kind: str, more: dict[str, Any], param: str, words: list[str]
) -> None:
    answer = await ask(kind).post("/v1/explain", {**ASKED[kind], **more})
    assert answer.status_code == 422
    error = error_of(answer)
    assert error["param"] == param
    assert all(word in error["message"] for word in words), error


async def test_a_text_is_cut_where_that_is_asked_for(ask: Ask) -> None:
    answer = await ask("text").post("/v1/explain", {"text": "joy " * 9, "truncate": True})
    (found,) = answer.json()["explanations"]
    assert found["truncated"]
    assert len(found["words"]) == 6


async def test_it_needs_a_key_as_predictions_do(ask: Ask, access: AccessControl) -> None:
    client = ask("table", access)
    client.http.headers["authorization"] = "Bearer wrong"
    assert (await client.post("/v1/explain", ASKED["table"])).status_code == 401


async def test_what_takes_too_long_is_given_up(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heliostat.serve.explain.base.Explainer.explain", lambda *_: time.sleep(0.5))
    answer = await ask("table", timeout_seconds=0.05).post("/v1/explain", ASKED["table"])
    assert answer.status_code == 504
    assert error_of(answer)["code"] == "timeout"


class Charged(Spending):
    """Remembers what a key is charged."""

    def __init__(self) -> None:
        self.tokens: list[int] = []

    def count(self, tokens: int) -> None:
        self.tokens.append(tokens)


@pytest.mark.parametrize(
    ("kind", "more", "passes"),
    [
        ("table", {}, 3 + 2 * 32),
        ("text", {}, 3 + 2 * 32),
        ("image", {"method": "saliency"}, 3),
        ("image", {}, 2 + 3 * 2),  # a window of two by two pixels, which moves by one
    ],
)
async def test_a_key_is_charged_by_the_passes_that_an_explanation_takes(
    ask: Ask, kind: str, more: dict[str, Any], passes: int
) -> None:
    charged = Charged()
    token = _spending.set(charged)
    usage = (await ask(kind).post("/v1/explain", {**ASKED[kind], **more})).json()["usage"]
    _spending.reset(token)
    assert usage["passes"] == passes
    assert charged.tokens == [passes * usage.get("prompt_tokens", 1)]


async def test_more_inputs_than_can_be_explained_in_time_are_refused_after_the_first(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = slowly_explained(monkeypatch)
    client = ask("table", timeout_seconds=2, max_body_bytes=100_000)
    for _ in range(2):
        answer = await client.post("/v1/explain", {"rows": [ROW] * 256})
        assert answer.status_code == 422, answer.text
        assert error_of(answer)["param"] == "rows"
        assert "serve.timeout_seconds" in error_of(answer)["message"]
    assert len(calls) == 1, "the second time they are refused at once"
    assert (await client.post("/v1/explain", {"rows": [ROW] * 2})).status_code == 200


async def test_one_input_is_explained_however_slow_the_last_ones_were(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heliostat.serve.predictors.explanation_api.median", lambda _: 100.0)
    client = ask("table")
    for _ in range(2):
        assert (await client.post("/v1/explain", ASKED["table"])).status_code == 200
    assert (await client.post("/v1/explain", {"rows": [ROW] * 2})).status_code == 422


async def test_each_explanation_is_counted(ask: Ask, recorded: Recorded) -> None:
    assert (await ask("table").post("/v1/explain", {"rows": [ROW] * 2})).status_code == 200
    assert recorded.of("heliostat_explanations_total") == [1, 1]


def slowly_explained(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Makes each explanation take a while; returns those that were asked for."""
    calls: list[Any] = []

    def explain(_: Any, item: Any, *__: Any) -> TableExplanation:
        calls.append(item)
        time.sleep(0.05)
        return TableExplanation(
            method="integrated_gradients", label="cat", score=1, predicted="cat", passes=67, columns=[]
        )

    monkeypatch.setattr("heliostat.serve.explain.base.Explainer.explain", explain)
    return calls


async def test_a_generator_has_no_such_route(ask: Ask) -> None:
    assert (await ask("noise").post("/v1/explain", {})).status_code == 404


async def test_without_captum_there_is_no_such_route(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heliostat.serve.explain.loading.find_spec", lambda name: None)
    client = ask("table")
    assert (await client.post("/v1/explain", ASKED["table"])).status_code == 404
    assert (await client.post("/v1/predict", ASKED["table"])).status_code == 200
