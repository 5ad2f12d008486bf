"""`POST /v1/predict`: texts in, labels with their probabilities out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, model_validator

from heliostat.serve.config import ServeConfig
from heliostat.serve.description import body_of
from heliostat.serve.errors import invalid
from heliostat.serve.limits import parse_body, read_body, timed_out
from heliostat.serve.metrics import ServeMetrics
from heliostat.serve.predictors.text_classification import Encoded
from heliostat.serve.quota import spend
from heliostat.serve.served import Served

Text = Annotated[str, Field(min_length=1)]
MOST_TEXTS = 256


class PredictRequest(BaseModel):
    """One text, or a list of texts."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: Text | None = None
    texts: Annotated[list[Text], Field(min_length=1, max_length=MOST_TEXTS)] | None = None
    top_k: Annotated[int, Field(ge=1)] | None = Field(
        None, description="How many labels `scores` has; all where left out."
    )
    truncate: bool = Field(False, description="Cut texts that are too long for the model instead of refusing them.")
    model: str | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> PredictRequest:
        if (self.text is None) == (self.texts is None):
            raise ValueError("text, texts: exactly one of the two is needed")
        return self

    @property
    def inputs(self) -> list[tuple[str, str]]:
        """Field name and text of each input."""
        if self.text is not None:
            return [("text", self.text)]
        return [(f"texts.{at}", text) for at, text in enumerate(self.texts or ())]


class Prediction(BaseModel):
    """What the model says of one text."""

    label: str
    score: float = Field(description="Probability of the label.")
    scores: dict[str, float] = Field(description="Probability of each label, or of the `top_k` likeliest.")
    truncated: bool = Field(description="Whether the text was cut.")


class Usage(BaseModel):
    """What was read."""

    prompt_tokens: int
    total_tokens: int


class PredictResponse(BaseModel):
    """A prediction for each text, in their order."""

    model: str
    version: str
    predictions: list[Prediction]
    usage: Usage
    latency_ms: float


class Classifier(Protocol):
    """What the route needs of a model."""

    max_length: int

    async def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """The texts as token ids, cut to `max_length`."""

    async def predict(self, encoded: Sequence[Encoded]) -> list[dict[str, float]]:
        """The probability of each label, for each text."""


class ClassificationApi:
    """The routes of a classifier."""

    def __init__(self, classifier: Classifier, served: Served, config: ServeConfig, metrics: ServeMetrics) -> None:
        self.classifier = classifier
        self.served = served
        self.config = config
        self.metrics = metrics
        self.router = APIRouter()
        describe = self.router.post(
            "/v1/predict", response_model=PredictResponse, openapi_extra=body_of(PredictRequest)
        )
        describe(self.predict)

    async def predict(self, request: Request) -> JSONResponse:
        """Labels for one or more texts."""
        started = time.perf_counter()
        asked = parse_body(PredictRequest, await read_body(request, self.config.max_body_bytes))
        self.served.pick(asked.model, request.scope)
        try:
            answer = await asyncio.wait_for(self.answer(asked), self.config.timeout_seconds)
        except asyncio.TimeoutError:
            raise timed_out(self.config.timeout_seconds) from None
        answer["latency_ms"] = round((time.perf_counter() - started) * 1000, 3)
        return JSONResponse(answer)

    async def answer(self, asked: PredictRequest) -> dict[str, Any]:
        """The body of the response, all but its latency."""
        inputs = asked.inputs
        encoded = await self.classifier.encode([text for _, text in inputs])
        if not asked.truncate:
            for (field, _), one in zip(inputs, encoded, strict=True):
                self.check_length(field, one)
        scores = await self.classifier.predict(encoded)
        tokens = sum(len(one.ids) for one in encoded)
        self.metrics.tokens("prompt", tokens)
        spend(tokens)
        return {
            "model": self.served.name,
            "version": self.served.version,
            "predictions": [_prediction(row, one, asked.top_k) for row, one in zip(scores, encoded, strict=True)],
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }

    def check_length(self, field: str, encoded: Encoded) -> None:
        """Raises RequestError 422 where tokens would be cut off."""
        if encoded.truncated:
            raise invalid(
                field,
                f"{field}: {encoded.total_tokens} tokens given; {self.classifier.max_length} are allowed; "
                'send "truncate": true to have the rest cut off',
                code="context_length_exceeded",
            )


def _prediction(scores: dict[str, float], encoded: Encoded, top_k: int | None) -> dict[str, Any]:
    ranked = sorted(scores.items(), key=lambda item: -item[1])
    label, score = ranked[0]
    kept = {name: round(value, 6) for name, value in ranked[:top_k]}
    return {"label": label, "score": round(score, 6), "scores": kept, "truncated": encoded.truncated}
