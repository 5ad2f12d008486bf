from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from heliostat.infra.errors import ModelError
from heliostat.infra.images import decode
from heliostat.infra.registry import programs
from heliostat.infra.registry.inputs import NoiseInputs
from heliostat.serve.access.control import AccessControl
from heliostat.serve.config import ServeConfig
from heliostat.serve.http.app import create_app
from heliostat.serve.models.served_models import ServedModels
from heliostat.serve.predictors.image_generation import SEEDS, GenerationApi, ImageGenerator
from tests.tiny_programs import LABELS, NOISE, OfNoise, in_base64, noise_program
from tests.unit.serve.conftest import Client, Recorded, error_of, service_of

pytestmark = pytest.mark.anyio
CPU = torch.device("cpu")


@pytest.fixture
def generator(tmp_path: Path, config: ServeConfig, recorded: Recorded) -> Iterator[ImageGenerator]:
    noise_program(tmp_path)
    made = ImageGenerator(programs.load(tmp_path), NOISE, LABELS, CPU, config, recorded.metrics)
    yield made
    made.check_health()
    made.close()


@pytest.fixture
def client(
    generator: ImageGenerator, served: ServedModels, config: ServeConfig, access: AccessControl, recorded: Recorded
) -> Client:
    api = GenerationApi(generator, served, config)
    return Client(create_app(served, service_of(api.router), config, access, recorded.metrics))


def pixels(image: str) -> np.ndarray:
    return decode(base64.b64decode(image), "own", "x")


async def test_a_seed_gives_the_same_images_and_the_first_ones_for_any_count(
    client: Client, recorded: Recorded
) -> None:
    body = (await client.post("/v1/predict", {"seed": 5, "count": 6})).json()
    assert {key: body[key] for key in ("model", "version", "seed", "count")} == {
        "model": "tiny", "version": "7", "seed": 5, "count": 6,
    }  # fmt: skip
    assert body["latency_ms"] >= 0
    assert len(set(body["images"])) == 6
    assert set(body["labels"]) == {"cat", "dog"}
    assert len(body["labels"]) == 6
    assert {pixels(image).shape for image in body["images"]} == {(4, 3, 3)}
    again = (await client.post("/v1/predict", {"seed": 5, "count": 2, "model": "tiny"})).json()
    for one, other in zip(again["images"], body["images"][:2], strict=True):
        assert np.abs(pixels(one).astype(int) - pixels(other)).max() <= 1
    assert max(recorded.of("heliostat_batch_size")) <= 4


async def test_a_class_is_given_where_it_is_asked_for(client: Client) -> None:
    free = (await client.post("/v1/predict", {"seed": 5, "count": 6})).json()
    asked = (await client.post("/v1/predict", {"seed": 5, "count": 6, "label": "dog"})).json()
    assert asked["labels"] == ["dog"] * 6
    assert (await client.post("/v1/predict", {"seed": 5, "count": 6, "label": " dog"})).json()["labels"] == ["dog"] * 6
    same = [one == other for one, other in zip(free["images"], asked["images"], strict=True)]
    assert same == [label == "dog" for label in free["labels"]], "the others are drawn anew, and those stay"


async def test_a_class_must_be_known(
    client: Client, served: ServedModels, config: ServeConfig, recorded: Recorded
) -> None:
    response = await client.post("/v1/predict", {"label": "cow"})
    assert error_of(response)["message"] == "label: 'cow' given; must be 'cat' or 'dog'"
    schema = (await client.http.get("/openapi.json")).json()["paths"]["/v1/predict"]["post"]["requestBody"]
    label = schema["content"]["application/json"]["schema"]["properties"]["label"]
    assert label["anyOf"][0]["enum"] == ["cat", "dog"]
    api = GenerationApi(Slow(), served, config)
    client = Client(create_app(served, service_of(api.router), config, None, recorded.metrics))
    response = await client.post("/v1/predict", {"label": "cat"})
    assert error_of(response)["message"] == "label: unknown key (allowed: seed, count, model)"


class Slow:
    """A generator without classes, which never has an image."""

    labels: Sequence[str] = ()

    async def generate(self, seed: int, count: int, label: str | None) -> tuple[list[np.ndarray], list[str]]:
        """Sleeps."""
        await asyncio.sleep(5)
        return [], []


async def test_without_a_seed_one_is_drawn_and_told(client: Client) -> None:
    first, second = [(await client.post("/v1/predict", {})).json() for _ in range(2)]
    assert first["seed"] != second["seed"]
    again = (await client.post("/v1/predict", {"seed": first["seed"]})).json()
    assert (again["images"], again["count"]) == (first["images"], 1)


async def test_a_picture_for_those_who_accept_one(client: Client) -> None:
    asked = {"seed": 5, "count": 3}
    response = await client.http.post("/v1/predict", json=asked, headers={"accept": "image/png"})
    assert (response.headers["content-type"], response.headers["x-seed"]) == ("image/png", "5")
    picture = decode(response.content, "own", "x")
    assert picture.shape == (8, 6, 3)
    images = (await client.post("/v1/predict", asked)).json()["images"]
    assert picture[:4, 3:].tolist() == pixels(images[1]).tolist()
    assert picture[4:, :3].tolist() == pixels(images[2]).tolist()
    assert picture[4:, 3:].max() == 0


@pytest.mark.parametrize("accept", ["*/*", "application/json, image/png", "image/*", "text/html", ""])
async def test_json_for_all_others(client: Client, accept: str) -> None:
    response = await client.http.post("/v1/predict", json={}, headers={"accept": accept})
    assert response.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"count": 0}, "count"),
        ({"count": 65}, "count"),
        ({"count": "2"}, "count"),
        ({"count": True}, "count"),
        ({"seed": -1}, "seed"),
        ({"seed": SEEDS}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"text": "a"}, "text"),
    ],
)
async def test_a_wrong_field_is_named(client: Client, body: dict[str, Any], param: str) -> None:
    response = await client.post("/v1/predict", body)
    assert (response.status_code, error_of(response)["param"]) == (422, param)


def test_each_seed_that_is_allowed_has_images_of_its_own() -> None:
    largest, *others = (NoiseInputs(size=4).noise(seed, 1) for seed in (SEEDS - 1, 0, SEEDS // 2 - 1, SEEDS // 2))
    assert not any(torch.equal(largest, other) for other in others)


async def test_an_answer_that_takes_too_long_is_a_504(
    served: ServedModels, config: ServeConfig, recorded: Recorded
) -> None:
    hasty = config.model_copy(update={"timeout_seconds": 0.05})
    api = GenerationApi(Slow(), served, hasty)
    client = Client(create_app(served, service_of(api.router), hasty, None, recorded.metrics))
    response = await client.post("/v1/predict", {})
    assert (response.status_code, error_of(response)["code"]) == (504, "timeout")


async def test_the_probe_must_be_the_image_of_training_but_for_rounding(
    generator: ImageGenerator, tmp_path: Path
) -> None:
    probe = noise_program(tmp_path)
    image = torch.from_numpy(pixels(probe["output"]["image"]))
    await generator.check_probe(probe)
    near = torch.where(image < 255, image + 1, image)
    await generator.check_probe({**probe, "output": {"image": in_base64(near)}})
    far = torch.where(image < 128, image + 20, image - 20)
    with pytest.raises(ModelError, match=r"pixels differ by 20\.0 of 255 on average, 2\.0 is allowed"):
        await generator.check_probe({**probe, "output": {"image": in_base64(far)}})
    with pytest.raises(ModelError, match=r"makes images of \(4, 3, 3\), the trained one of \(3, 3, 3\)"):
        await generator.check_probe({**probe, "output": {"image": in_base64(image[:3])}})


def test_a_program_that_makes_no_images_is_refused(tmp_path: Path, config: ServeConfig, recorded: Recorded) -> None:
    class Floats(OfNoise):
        def forward(self, noise: torch.Tensor) -> torch.Tensor:
            return super().forward(noise).float()

    programs.save(Floats(), {"noise": NOISE.noise(0, 2)}, tmp_path)
    made = ImageGenerator(programs.load(tmp_path), NOISE, LABELS, CPU, config, recorded.metrics)
    with pytest.raises(
        ModelError, match=r"^tiny: the model makes float32 \[1, 4, 3, 3\] of 1 vectors of noise; images"
    ):
        made.check_outputs("tiny")
    wider = NOISE.model_copy(update={"size": 7})
    other = ImageGenerator(made.program, wider, LABELS, CPU, config, recorded.metrics)
    with pytest.raises(ModelError, match=r"^tiny: the program does not take what heliostat.json says"):
        other.check_outputs("tiny")
    made.close()
    other.close()
