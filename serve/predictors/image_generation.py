"""`POST /v1/predict` of a generator: a seed and optionally a class in, images out."""

from __future__ import annotations

import asyncio
import base64
import secrets
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model

from heliostat.infra.errors import ModelError
from heliostat.infra.images import decode, grid, png
from heliostat.infra.registry.inputs import NoiseInputs, image_bytes, same_word
from heliostat.serve.access.quota import count_tokens
from heliostat.serve.config import ServeConfig
from heliostat.serve.http.app import Service
from heliostat.serve.http.limits import parse_body, read_body, with_timeout
from heliostat.serve.http.openapi import body_of
from heliostat.serve.metrics import ServeMetrics
from heliostat.serve.models.served_models import ServedModels
from heliostat.serve.predictors.batcher import Batcher
from heliostat.serve.predictors.passes import TRIED, batches, run, tried

if TYPE_CHECKING:
    import torch

    from heliostat.infra.registry.programs import Program

MOST_IMAGES = 64
"""Per request."""
SEEDS = 2**32
"""PyTorch's CPU generator uses 32 bits of a seed."""
PROBE_TOLERANCE = 2.0
"""Largest mean pixel difference (of 255) from the trained model: float32 rounds differently on other processors."""
PNG = "image/png"


class GenerateRequest(BaseModel):
    """How many images, and of which noise."""

    model_config = ConfigDict(extra="forbid", strict=True)

    seed: Annotated[int, Field(ge=0, lt=SEEDS)] | None = Field(
        default=None, description="The same seed gives the same images; drawn where left out."
    )
    count: Annotated[int, Field(ge=1, le=MOST_IMAGES)] = 1
    model: str | None = None


def request_of(labels: Sequence[str]) -> type[GenerateRequest]:
    """The request model, with a `label` field if the model has classes."""
    if not labels:
        return GenerateRequest

    def as_known(given: Any) -> Any:
        return (same_word(given, labels) or given) if isinstance(given, str) else given

    allowed: Any = Annotated[Literal[tuple(labels)], BeforeValidator(as_known)]
    label = (allowed | None, Field(default=None, description="The class of all images; any for each where left out."))
    return create_model("GenerateRequest", __base__=GenerateRequest, label=label)


class GenerateResponse(BaseModel):
    """The images; with `Accept: image/png` they come as one picture instead."""

    model: str
    version: str
    seed: int
    count: int
    labels: list[str] = Field(description="The class of each image; empty where the model knows of none.")
    images: list[str] = Field(description="PNG files in base64.")
    latency_ms: float


class Generator(Protocol):
    """What the route needs of a generator."""

    labels: Sequence[str]
    """The classes that it knows."""

    async def generate(self, seed: int, count: int, label: str | None) -> tuple[list[np.ndarray], list[str]]:
        """`count` images, uint8 [height, width, 1 or 3], and their classes; `label` is one of `labels`."""
        ...


class ImageGenerator:
    """Generates images from noise, in float32."""

    def __init__(
        self,
        program: Program,
        inputs: NoiseInputs,
        labels: Sequence[str],
        device: torch.device,
        config: ServeConfig,
        metrics: ServeMetrics,
    ) -> None:
        self.program = program
        self.inputs = inputs
        self.labels = labels
        self.device = device
        self.batcher: Batcher[torch.Tensor, np.ndarray] = batches(self.images, inputs.noise(0, 1)[0], config, metrics)

    def check_outputs(self, name: str) -> None:
        """Raises ModelError if the program of model `name` does not turn noise into images."""
        for count in TRIED:
            found = tried(self.program, {"noise": self.inputs.noise(0, count)}, self.device, name)
            kind = str(found.dtype).removeprefix("torch.")
            if kind != "uint8" or found.ndim != 4 or len(found) != count or found.shape[3] not in (1, 3):
                raise ModelError(
                    f"{name}: the model makes {kind} {list(found.shape)} of {count} vectors of noise; "
                    f"images are uint8 [{count}, height, width, 1 or 3]"
                )

    async def generate(self, seed: int, count: int, label: str | None) -> tuple[list[np.ndarray], list[str]]:
        """`count` images for a seed, uint8 [height, width, 1 or 3], and their classes.

        With the same seed, a smaller `count` gives the first images of a larger one.
        """
        noise = self.inputs.noise(seed, count, None if label is None else self.labels.index(label))
        labels = [self.labels[index] for index in self.inputs.classes_of(noise).tolist()] if self.labels else []
        return await self.batcher.submit(list(noise)), labels

    def images(self, batch: Sequence[torch.Tensor]) -> list[np.ndarray]:
        """One forward pass: noise in, images out."""
        import torch

        return list(run(self.program, {"noise": torch.stack(list(batch))}, self.device).cpu().numpy())

    async def check_probe(self, probe: dict[str, Any]) -> None:
        """Raises ModelError if the loaded model's image for its probe differs from the trained model's."""
        (image,), _ = await self.generate(probe["input"]["seed"], 1, None)
        expected = decode(image_bytes(probe["output"]["image"], "probe"), "own", "probe")
        if image.shape != expected.shape:
            raise ModelError(f"the loaded model makes images of {image.shape}, the trained one of {expected.shape}")
        gap = float(np.abs(image.astype(float) - expected).mean())
        if gap > PROBE_TOLERANCE:
            raise ModelError(
                f"the loaded model makes another image of its probe than the trained one: pixels differ by {gap:.1f} "
                f"of 255 on average, {PROBE_TOLERANCE} is allowed"
            )

    def check_health(self) -> None:
        """Raises if the model can no longer answer."""
        self.batcher.check_health()

    def close(self) -> None:
        """Stops the model's thread."""
        self.batcher.close()


class GenerationApi:
    """The route `/v1/predict` of a generator."""

    def __init__(self, generator: Generator, served: ServedModels, config: ServeConfig) -> None:
        self.generator = generator
        self.served = served
        self.config = config
        self.request = request_of(generator.labels)
        self.router = APIRouter()
        describe = self.router.post(
            "/v1/predict",
            response_model=GenerateResponse,
            responses={200: {"content": {PNG: {"schema": {"type": "string", "format": "binary"}}}}},
            openapi_extra=body_of(self.request),
        )
        describe(self.predict)

    async def predict(self, request: Request) -> Response:
        """Images of a seed."""
        started = time.perf_counter()
        asked = parse_body(self.request, await read_body(request, self.config.max_body_bytes))
        self.served.pick(asked.model, request.scope)
        seed = secrets.randbelow(SEEDS) if asked.seed is None else asked.seed
        count_tokens(asked.count)
        made = self.generator.generate(seed, asked.count, getattr(asked, "label", None))
        images, labels = await with_timeout(made, self.config.timeout_seconds)
        if wants_png(request):
            picture = await asyncio.to_thread(lambda: png(grid(images)))
            return Response(picture, media_type=PNG, headers={"X-Seed": str(seed)})
        answer = {
            "model": self.served.name,
            "version": self.served.version,
            "seed": seed,
            "count": asked.count,
            "labels": labels,
            "images": await asyncio.to_thread(_in_base64, images),
            "latency_ms": round((time.perf_counter() - started) * 1000, 3),
        }
        return JSONResponse(answer)


def generator_service(generator: ImageGenerator, served: ServedModels, config: ServeConfig) -> Service:
    """A generator with its route."""
    api = GenerationApi(generator, served, config)
    return Service(lambda probe, _: generator.check_probe(probe), generator.check_health, generator.close, api.router)


def wants_png(request: Request) -> bool:
    """Whether the Accept header names PNG, and before JSON."""
    kinds = [kind.partition(";")[0].strip().lower() for kind in request.headers.get("accept", "").split(",")]
    return next((kind for kind in kinds if kind in (PNG, "application/json")), "") == PNG


def _in_base64(images: Sequence[np.ndarray]) -> list[str]:
    return [base64.b64encode(png(image)).decode() for image in images]
