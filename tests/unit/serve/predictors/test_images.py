from __future__ import annotations

import base64
import io
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from heliostat.infra.images import data_url, png
from heliostat.serve.access.control import AccessControl
from heliostat.serve.config import ServeConfig
from heliostat.serve.http.app import create_app
from heliostat.serve.models.served_models import ServedModels
from heliostat.serve.predictors.classification_api import ClassificationApi
from heliostat.serve.predictors.images import Images
from tests.tiny_programs import IMAGE
from tests.unit.serve.conftest import Client, Recorded, error_of, service_of

pytestmark = pytest.mark.anyio


class Brightness:
    """The brighter, the more it is day."""

    tolerance = 0.0

    async def predict(self, items: Sequence[np.ndarray]) -> list[dict[str, float]]:
        assert all(one.shape == IMAGE.shape and one.dtype == np.uint8 for one in items)
        shares = [float(one.mean()) / 255 for one in items]
        return [{"night": 1 - share, "day": share} for share in shares]

    def check_health(self) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture
def processor() -> Iterator[Images]:
    made = Images(IMAGE)
    yield made
    made.close()


@pytest.fixture
def client(
    processor: Images, served: ServedModels, config: ServeConfig, access: AccessControl, recorded: Recorded
) -> Client:
    wide = config.model_copy(update={"max_body_bytes": 100_000})
    api = ClassificationApi(processor, Brightness(), served, wide, recorded.metrics)
    return Client(create_app(served, service_of(api.router), wide, access, recorded.metrics))


def shade(tone: int, height: int = 4, width: int = 3) -> np.ndarray:
    return np.full((height, width, 3), tone, dtype=np.uint8)


def text(pixels: np.ndarray) -> str:
    return base64.b64encode(png(pixels)).decode()


def bomb() -> bytes:
    """A PNG of a few bytes that says it has 40,000 x 40,000 pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\x00" * 1000)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def scores(body: dict[str, Any]) -> list[float]:
    return [one["scores"]["day"] for one in body["predictions"]]


async def test_base64_data_urls_and_files_are_the_same(client: Client) -> None:
    pixels = shade(51)
    asked: list[dict[str, Any]] = [{"json": {"image": text(pixels)}}, {"json": {"image": data_url(pixels)}}]
    asked.append({"files": {"image": ("a.png", png(pixels), "image/png")}})
    asked.append({"content": png(pixels), "headers": {"content-type": "image/png"}})
    for one in asked:
        body = (await client.http.post("/v1/predict", **one)).json()
        assert body["predictions"] == [{"label": "night", "score": 0.8, "scores": {"night": 0.8, "day": 0.2}}]
        assert body["usage"] == {"inputs": 1}


async def test_several_images_answer_in_their_order(client: Client) -> None:
    tones = [0, 255, 51]
    body = (await client.post("/v1/predict", {"images": [text(shade(tone)) for tone in tones]})).json()
    assert scores(body) == [0, 1, 0.2]
    files = [("image", png(shade(tone))) for tone in tones]
    form = {"files": files, "data": {"top_k": "1", "model": "tiny"}}
    body = (await client.http.post("/v1/predict", **form)).json()  # type: ignore[arg-type]
    assert [one["scores"] for one in body["predictions"]] == [{"night": 1}, {"day": 1}, {"night": 0.8}]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"hello", "no image; PNG, JPEG, BMP, WebP or GIF is needed"),
        (png(shade(1))[:50], "damaged image"),
        (png(shade(1, height=5)), "3 x 5 pixels; 3 x 4 are needed"),
        (bomb(), "far too many pixels|40000 x 40000 pixels"),
        (b"", "no image; PNG"),
    ],
    ids=["text", "cut", "size", "bomb", "empty"],
)
async def test_an_image_that_cannot_be_used_is_named(client: Client, data: bytes, message: str) -> None:
    good = text(shade(1))
    response = await client.post(
        "/v1/predict", {"images": [good, good, f"data:;base64,{base64.b64encode(data).decode()}"]}
    )
    assert (response.status_code, error_of(response)["param"]) == (422, "images.2")
    assert re.match(f"images.2: ({message})", error_of(response)["message"])
    response = await client.http.post("/v1/predict", files=[("image", png(shade(1))), ("image", data)])
    assert (response.status_code, error_of(response)["param"]) == (422, "image.1")
    assert re.match(f"image.1: ({message})", error_of(response)["message"])


@pytest.mark.parametrize(
    ("asked", "status", "param", "words"),
    [
        ({"json": {"image": "not base64"}}, 422, "image", "image: not base64"),
        ({"json": {"image": ""}}, 422, "image", "image: '' given"),
        ({"json": {"image": "http://test/a.png"}}, 422, "image", "image: not base64"),
        ({"json": {}}, 422, None, "image, images: exactly one"),
        ({"json": {"images": []}}, 422, "images", "images: [] given"),
        ({"json": {"images": ["a"] * 257}}, 422, "images", "images: "),
        ({"files": {"img": b"a"}}, 422, "image", "image: missing"),
        ({"content": b"x", "headers": {"content-type": "image/png"}}, 422, "image", "image: no image"),
        ({"content": b"", "headers": {"content-type": "image/png"}}, 422, "image", "image: no image"),
        ({"content": b"x" * 100_001, "headers": {"content-type": "image/png"}}, 413, None, "body: "),
        ({"files": {"image": png(shade(1))}, "data": {"top_k": "0"}}, 422, "top_k", "top_k: '0' given"),
        ({"files": {"image": png(shade(1))}, "data": {"truncate": "1"}}, 422, "truncate", "truncate: unknown key"),
        ({"files": {"image": png(shade(1))}, "data": {"model": "other"}}, 404, "model", "model: 'other' is not"),
        ({"files": {"image": b"a" * 100_000}}, 413, None, "body: "),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, None, "body: no valid form"),
    ],
)
async def test_a_request_that_cannot_be_used_is_refused(
    client: Client, asked: dict[str, Any], status: int, param: str | None, words: str
) -> None:
    response = await client.http.post("/v1/predict", **asked)
    assert (response.status_code, error_of(response)["param"]) == (status, param)
    assert error_of(response)["message"].startswith(words)


async def test_an_image_of_another_size_is_resized_where_the_model_wants_it() -> None:
    processor = Images(IMAGE.model_copy(update={"resize": True}))
    file = io.BytesIO()
    Image.new("L", (30, 20), 77).save(file, "JPEG", quality=95)
    asked = processor.asked.model_validate({"image": base64.b64encode(file.getvalue()).decode()})
    (given,) = await processor.items(asked)
    processor.close()
    assert given.item.shape == IMAGE.shape
    assert given.item == pytest.approx(77, abs=2)
    assert processor.collate([given.item, given.item])["pixels"].shape == (2, *IMAGE.shape)
