"""How requests to `POST /v1/predict` become what a classifier takes: an input processor for each kind of input."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Generic, TypeVar

from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, model_validator

from heliostat.serve.access.quota import spend
from heliostat.serve.config import ServeConfig
from heliostat.serve.http.limits import in_time, parse_body, read_body
from heliostat.serve.http.openapi import body_of
from heliostat.serve.metrics import ServeMetrics
from heliostat.serve.models.served_models import ServedModels

MOST_INPUTS = 256
"""Of one request."""


class Options(BaseModel):
    """What a request may say besides its inputs."""

    model_config = ConfigDict(extra="forbid", strict=True)

    top_k: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="How many labels `scores` has; all where left out."
    )
    model: str | None = None


class PredictRequest(Options):
    """One input, or a list of inputs."""

    one: ClassVar[str]
    """The field for one input; with an `s` it is the one for several."""

    @model_validator(mode="after")
    def _one_of_both(self) -> PredictRequest:
        if (getattr(self, self.one) is None) == (getattr(self, f"{self.one}s") is None):
            raise ValueError(f"{self.one}, {self.one}s: exactly one of the two is needed")
        return self

    @property
    def inputs(self) -> list[tuple[str, Any]]:
        """Field name and value of each input."""
        alone = getattr(self, self.one)
        if alone is not None:
            return [(self.one, alone)]
        return [(f"{self.one}s.{at}", value) for at, value in enumerate(getattr(self, f"{self.one}s"))]


class Prediction(BaseModel):
    """What the model says of one input."""

    label: str
    score: float = Field(description="Probability of the label.")
    scores: dict[str, float] = Field(description="Probability of each label, or of the `top_k` likeliest.")


class Usage(BaseModel):
    """What was read."""

    inputs: int


class PredictResponse(BaseModel):
    """A prediction for each input, in their order."""

    model: str
    version: str
    predictions: list[Prediction]
    usage: Usage
    latency_ms: float


Asked = TypeVar("Asked", bound=Options)
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class ModelInput(Generic[Item]):
    """An input as the model takes it."""

    field: str
    """Its name in the request."""
    item: Item
    units: int = 1
    """What it counts for in the limits of a key: the tokens of a text, 1 for any other input."""
    details: dict[str, Any] = dataclasses.field(default_factory=dict)
    """What its prediction says besides the labels."""


class InputProcessor(ABC, Generic[Asked, Item]):
    """Turns requests with one kind of input into what the model takes.

    Work that takes long is done in a thread of its own, beside the event loop.
    """

    def __init__(self, asked: type[Asked], answered: type[BaseModel] = PredictResponse) -> None:
        self.asked = asked
        self.answered = answered
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="heliostat-inputs")

    @property
    def body(self) -> dict[str, Any]:
        """For a route's `openapi_extra`: what is to be sent."""
        return body_of(self.asked)

    async def read(self, request: Request, limit_bytes: int) -> Asked:
        """The request; RequestError says what is wrong with it."""
        return parse_body(self.asked, await read_body(request, limit_bytes))

    def probe(self, values: dict[str, Any]) -> Asked:
        """The input of a probe as a request."""
        return self.asked.model_validate(values)

    async def respond(
        self,
        request: Request,
        served: ServedModels,
        config: ServeConfig,
        answer: Callable[[Asked], Awaitable[dict[str, Any]]],
    ) -> JSONResponse:
        """What `answer` makes of the request, in time, with how long all of it took."""
        started = time.perf_counter()
        asked = await self.read(request, config.max_body_bytes)
        served.pick(asked.model, request.scope)
        body = await in_time(answer(asked), config.timeout_seconds)
        body["latency_ms"] = round((time.perf_counter() - started) * 1000, 3)
        return JSONResponse(body)

    @abstractmethod
    async def items(self, asked: Asked) -> list[ModelInput[Item]]:
        """The inputs in their order; RequestError 422 names the first that cannot be used."""

    def usage(self, given: Sequence[ModelInput[Item]]) -> dict[str, int]:
        """What the answer says of how much was read."""
        return {"inputs": len(given)}

    def count(self, given: Sequence[ModelInput[Item]], metrics: ServeMetrics) -> dict[str, int]:
        """Counts what was read, for metrics and for the limits of the request's key; returns its usage."""
        usage = self.usage(given)
        metrics.tokens("prompt", usage.get("prompt_tokens", 0))
        spend(sum(one.units for one in given))
        return usage

    async def in_thread(self, work: Callable[..., Result], *given: Any) -> Result:
        """What `work` returns, called in the thread; nothing waits there for a request that was given up."""
        return await asyncio.get_running_loop().run_in_executor(self.thread, work, *given)

    def close(self) -> None:
        """Ends the thread."""
        self.thread.shutdown(wait=False)
