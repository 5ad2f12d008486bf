"""`POST /v1/explain`: the inputs of `/v1/predict` in, feature attributions for a label out."""

from __future__ import annotations

import asyncio
import copy
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, create_model

from heliostat.infra.errors import ConfigError, DataError
from heliostat.serve.config import ServeConfig
from heliostat.serve.errors import invalid
from heliostat.serve.explain.answers import Explanation, ImageExplanation, TableExplanation, TextExplanation
from heliostat.serve.http.multipart import FORM
from heliostat.serve.metrics import ServeMetrics
from heliostat.serve.models.served_models import ServedModels
from heliostat.serve.predictors.images import Images
from heliostat.serve.predictors.inputs import InputProcessor, ModelInput, Options
from heliostat.serve.predictors.tables import Tables

if TYPE_CHECKING:
    from heliostat.serve.explain.base import Explainer

_LABEL = "The label to explain; the likeliest where left out."
_METHOD = "How; the first that the model has where left out: integrated_gradients, or occlusion, saliency for images."


class ExplainResponse(BaseModel):
    """An explanation for each input, in their order."""

    model: str
    version: str
    explanations: list[TableExplanation] | list[TextExplanation] | list[ImageExplanation]
    usage: dict[str, int]
    latency_ms: float


class ExplainApi:
    """The route; explanations are computed one at a time in a background thread.

    A request is charged by the passes through the model that it takes, and is refused with 422 if it has more inputs
    than can be explained before its deadline.
    """

    def __init__(
        self,
        processor: InputProcessor[Any, Any],
        explainer: Explainer[Any],
        served: ServedModels,
        config: ServeConfig,
        metrics: ServeMetrics,
    ) -> None:
        self.processor = explain_processor(processor)
        self.explainer = explainer
        self.served = served
        self.config = config
        self.metrics = metrics
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="heliostat-explain")
        self.took: deque[float] = deque(maxlen=16)
        """Seconds that the latest explanations took."""
        self.router = APIRouter()
        body = body_of(self.processor, explainer)
        self.router.post("/v1/explain", response_model=ExplainResponse, openapi_extra=body)(self.explain)

    async def explain(self, request: Request) -> JSONResponse:
        """Why one or more inputs have a label."""
        return await self.processor.respond(request, self.served, self.config, self.answer)

    async def answer(self, asked: Any) -> dict[str, Any]:
        """The response body without the latency.

        Inputs are explained one by one, so that work stops when the request is cancelled.
        """
        try:
            self.explainer.check(asked.label, asked.method)
        except ConfigError as error:
            raise invalid(str(error).partition(":")[0], str(error)) from None
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.config.timeout_seconds
        given = await self.processor.items(asked)
        found: list[Explanation] = []
        for one, (_, raw) in zip(given, asked.inputs, strict=True):
            self._check_time(given, len(found), deadline - loop.time())
            found.append(await loop.run_in_executor(self.thread, self._explain, one, raw, asked))
            self.processor.count([one], self.metrics, found[-1].passes)
            self.metrics.explained()
        return {
            "model": self.served.name,
            "version": self.served.version,
            "explanations": [one.model_dump() for one in found],
            "usage": {**self.processor.usage(given), "passes": sum(one.passes for one in found)},
        }

    def _check_time(self, given: Sequence[ModelInput[Any]], done: int, seconds_left: float) -> None:
        """Raises RequestError 422 if the inputs after the first `done` take longer, at the pace of the latest ones.

        One input is always tried; nothing is refused before the first explanation, which tells the pace.
        """
        if len(given) == 1 or not self.took:
            return
        pace, limit = median(self.took), self.config.timeout_seconds
        if pace * (len(given) - done) > seconds_left:
            field, allowed = given[0].field.partition(".")[0], max(1, int(limit / pace))
            raise invalid(
                field,
                f"{field}: {len(given)} given; about {allowed} can be explained within {limit:g} s "
                f"(serve.timeout_seconds), at {pace:.2g} s for each",
            )

    def _explain(self, given: ModelInput[Any], raw: Any, asked: Any) -> Explanation:
        """Explains one input. A text is passed raw, because words are reported by their position in it."""
        item = given.item if isinstance(self.processor, Tables | Images) else raw
        started = time.perf_counter()
        try:
            return self.explainer.explain(item, asked.label, asked.method)
        except DataError as error:
            raise invalid(given.field, f"{given.field}: {error}") from None
        finally:
            self.took.append(time.perf_counter() - started)

    def close(self) -> None:
        """Stops the thread after the current explanation."""
        self.thread.shutdown(wait=False, cancel_futures=True)


def explain_processor(processor: InputProcessor[Any, Any]) -> InputProcessor[Any, Any]:
    """A copy of the processor whose requests also take `label` and `method`."""
    found = copy.copy(processor)
    found.asked = with_explain_fields(processor.asked)
    if isinstance(found, Images):
        found.form = with_explain_fields(found.form)
    return found


def with_explain_fields(asked: type[Options]) -> Any:
    """The request model `asked` with the fields `label` and `method` added."""
    return create_model(
        f"Explain{asked.__name__}",
        __base__=asked,
        label=(str | None, Field(default=None, description=_LABEL)),
        method=(str | None, Field(default=None, description=_METHOD)),
    )


def body_of(processor: InputProcessor[Any, Any], explainer: Explainer[Any]) -> dict[str, Any]:
    """The route's `openapi_extra`: the processor's body, with the allowed labels and methods."""
    body = processor.body
    contents = body["requestBody"]["content"]
    known = {"label": explainer.labels, "method": explainer.methods}
    for kind, content in contents.items():
        for name, values in known.items() if "properties" in content["schema"] else ():
            allowed = list(values) if kind == FORM else [*values, None]
            content["schema"]["properties"][name] = {"enum": allowed}
    return body
