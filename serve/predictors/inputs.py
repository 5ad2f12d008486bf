"""Input processors: turn requests to `POST /v1/predict` into model inputs, one class per kind of input."""

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

from heliostat.serve.access.quota import count_tokens
from heliostat.serve.config import ServeConfig
from heliostat.serve.http.limits import parse_body, read_body, with_timeout
from heliostat.serve.http.openapi import body_of
from heliostat.serve.metrics import ServeMetrics
from heliostat.serve.models.served_models import ServedModels

MAX_INPUTS = 256
"""Per request."""


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
    """An input in the form that the model takes."""

    field: str
    """Its field name in the request."""
    item: Item
    units: int = 1
    """Tokens that it costs towards a key's limits: those of a text, 1 for any other input."""
    details: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Further fields of its prediction, besides the labels."""
    missing: tuple[str, ...] = ()
    """Columns of a row that were empty and have been filled."""


class InputProcessor(ABC, Generic[Asked, Item]):
    """Turns requests with one kind of input into model inputs.

    Slow work runs in a background thread, so that the event loop is not blocked.
    """

    def __init__(self, asked: type[Asked], answered: type[BaseModel] = PredictResponse) -> None:
        self.asked = asked
        self.answered = answered
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="heliostat-inputs")

    @property
    def body(self) -> dict[str, Any]:
        """The route's `openapi_extra`, which describes the request body."""
        return body_of(self.asked)

    async def read(self, request: Request, limit_bytes: int) -> Asked:
        """The parsed request; raises RequestError if it is not valid."""
        return parse_body(self.asked, await read_body(request, limit_bytes))

    def probe(self, values: dict[str, Any]) -> Asked:
        """A request with the input of a probe."""
        return self.asked.model_validate(values)

    async def respond(
        self,
        request: Request,
        served: ServedModels,
        config: ServeConfig,
        answer: Callable[[Asked], Awaitable[dict[str, Any]]],
    ) -> JSONResponse:
        """Parses the request and responds with what `answer` returns plus `latency_ms`; 504 on timeout."""
        started = time.perf_counter()
        asked = await self.read(request, config.max_body_bytes)
        served.pick(asked.model, request.scope)
        body = await with_timeout(answer(asked), config.timeout_seconds)
        body["latency_ms"] = round((time.perf_counter() - started) * 1000, 3)
        return JSONResponse(body)

    @abstractmethod
    async def items(self, asked: Asked) -> list[ModelInput[Item]]:
        """The model inputs in order; raises RequestError 422 for the first invalid one."""

    def observed(self, given: ModelInput[Item]) -> Any:
        """What drift is measured by: the input as training has it."""
        return given.item

    def usage(self, given: Sequence[ModelInput[Item]]) -> dict[str, int]:
        """The `usage` object of the response."""
        return {"inputs": len(given)}

    def count(self, given: Sequence[ModelInput[Item]], metrics: ServeMetrics, passes: int = 1) -> dict[str, int]:
        """Records the usage in metrics and towards the key's limits, which `passes` of the inputs cost; returns it."""
        usage = self.usage(given)
        metrics.tokens("prompt", usage.get("prompt_tokens", 0))
        count_tokens(passes * sum(one.units for one in given))
        return usage

    async def in_thread(self, work: Callable[..., Result], *given: Any) -> Result:
        """Runs `work` in the background thread; a queued call is dropped if its request is cancelled."""
        return await asyncio.get_running_loop().run_in_executor(self.thread, work, *given)

    def close(self) -> None:
        """Stops the thread."""
        self.thread.shutdown(wait=False)
