"""`POST /v1/predict` of a classifier: inputs in, labels with probabilities out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from heliostat.infra.errors import ModelError
from heliostat.serve.config import ServeConfig
from heliostat.serve.errors import RequestError, invalid
from heliostat.serve.http.app import Service
from heliostat.serve.metrics import ServeMetrics
from heliostat.serve.models.served_models import ServedModels
from heliostat.serve.predictors.explanation_api import ExplainApi
from heliostat.serve.predictors.inputs import InputProcessor, ModelInput, Options

if TYPE_CHECKING:
    from heliostat.serve.drift.watch import DriftWatch
    from heliostat.serve.explain.base import Explainer


class Classifier(Protocol):
    """What the route needs of a classifier."""

    tolerance: float
    """Largest allowed difference between a probability and the trained model's."""

    async def predict(self, items: Sequence[Any]) -> list[dict[str, float]]:
        """The probability of each label, for each input."""
        ...

    def check_health(self) -> None:
        """Raises if the model can no longer answer."""

    def close(self) -> None:
        """Stops its threads."""


class ClassificationApi:
    """The route `/v1/predict` of a classifier, for inputs that `processor` reads."""

    def __init__(
        self,
        processor: InputProcessor[Any, Any],
        classifier: Classifier,
        served: ServedModels,
        config: ServeConfig,
        metrics: ServeMetrics,
        drift: DriftWatch | None = None,
    ) -> None:
        self.drift = drift
        self.processor = processor
        self.classifier = classifier
        self.served = served
        self.config = config
        self.metrics = metrics
        self.router = APIRouter()
        describe = self.router.post("/v1/predict", response_model=processor.answered, openapi_extra=processor.body)
        describe(self.predict)

    async def predict(self, request: Request) -> JSONResponse:
        """Labels for one or more inputs."""
        return await self.processor.respond(request, self.served, self.config, self.answer)

    async def answer(self, asked: Options) -> dict[str, Any]:
        """The response body without the latency."""
        given = await self.processor.items(asked)
        usage = self.processor.count(given, self.metrics)
        scores = await self.classifier.predict([one.item for one in given])
        if self.drift:
            for one, row in zip(given, scores, strict=True):
                self.drift.add(self.processor.observed(one), one.missing, tuple(row.values()))
        return {
            "model": self.served.name,
            "version": self.served.version,
            "predictions": [_prediction(row, one, asked.top_k) for row, one in zip(scores, given, strict=True)],
            "usage": usage,
        }

    async def check_probe(self, probe: dict[str, Any]) -> None:
        """Raises ModelError if the loaded model's answer to its probe differs from the trained model's."""
        try:
            (given,) = await self.processor.items(self.processor.probe(probe["input"]))
        except RequestError as error:
            raise ModelError(f"the loaded model does not take its probe ({error.message})") from error
        (answer,) = await self.classifier.predict([given.item])
        check_answer(answer, probe["output"], self.classifier.tolerance)


def classifier_service(
    processor: InputProcessor[Any, Any],
    classifier: Classifier,
    served: ServedModels,
    config: ServeConfig,
    metrics: ServeMetrics,
    explainer: Explainer[Any] | None = None,
    drift: DriftWatch | None = None,
) -> Service:
    """A classifier with its routes; `processor` parses the requests. An explainer adds `/v1/explain`."""
    api = ClassificationApi(processor, classifier, served, config, metrics, drift)
    parts: list[Classifier | InputProcessor[Any, Any] | ExplainApi | DriftWatch] = [processor, classifier]
    if drift:
        drift.start()
        parts.append(drift)
    if explainer:
        why = ExplainApi(processor, explainer, served, config, metrics)
        api.router.include_router(why.router)
        parts.append(why)

    def close() -> None:
        for part in parts:
            part.close()

    return Service(
        lambda probe, _: api.check_probe(probe),
        classifier.check_health,
        close,
        api.router,
        explains=explainer is not None,
    )


def check_answer(answer: dict[str, float], expected: dict[str, Any], tolerance: float) -> None:
    """Raises ModelError if the label differs, or a probability is not finite or off by more than `tolerance`."""
    label = max(answer, key=answer.__getitem__)
    gap = max(abs(answer[name] - score) for name, score in expected["scores"].items())
    if label != expected["label"] or not gap <= tolerance:
        raise ModelError(
            f"the loaded model answers its probe with {label!r}, the trained one with {expected['label']!r}; "
            f"probabilities differ by {gap:.3f}, {tolerance} is allowed"
        )


def _prediction(scores: dict[str, float], given: ModelInput[Any], top_k: int | None) -> dict[str, Any]:
    if not all(map(math.isfinite, scores.values())):
        raise invalid(given.field, f"{given.field}: the model has no finite answer to it")
    ranked = sorted(scores.items(), key=lambda item: -item[1])
    label, score = ranked[0]
    kept = {name: round(value, 6) for name, value in ranked[:top_k]}
    return {"label": label, "score": round(score, 6), "scores": kept, **given.details}
