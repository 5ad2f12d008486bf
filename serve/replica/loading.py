"""Startup of a replica: fetches, verifies and loads a model and its adapters, and checks their probes."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from heliostat.infra.lean_imports import import_transformers

if TYPE_CHECKING:
    from heliostat.infra.registry.published import PublishedModel
    from heliostat.serve.access.control import AccessControl
    from heliostat.serve.args import AppArgs
    from heliostat.serve.config import ServeConfig
    from heliostat.serve.errors import App
    from heliostat.serve.experiment.middleware import ExperimentMiddleware
    from heliostat.serve.http.app import Service
    from heliostat.serve.metrics import ServeMetrics
    from heliostat.serve.models.bundles import FetchedModel
    from heliostat.serve.models.served_models import ServedModels


async def start(
    args: AppArgs, access: AccessControl | None, metrics: ServeMetrics, experiment: ExperimentMiddleware
) -> tuple[Service, App]:
    """Fetches, verifies and loads the model and its adapters, checks their probes, and builds the ASGI app.

    The bundles' files are deleted when this returns.
    """
    from heliostat.serve.experiment.feedback import feedback_route
    from heliostat.serve.http.app import create_app
    from heliostat.serve.http.request_id import RequestIdMiddleware
    from heliostat.serve.http.tracing import traced
    from heliostat.serve.models.adapter_fetch import fetched_together
    from heliostat.serve.models.bundles import fetched

    alone = fetched(args.url, args.digest, args.storage.endpoint_url)
    with ExitStack() as stack:
        found = await asyncio.to_thread(stack.enter_context, fetched_together(args) if args.adapters else alone)
        served = served_by(args, found)
        service = await load(found, args.config, served, metrics)
    try:
        await check_probes(service, found, served)
    except Exception:
        service.close()
        raise
    service.router.include_router(feedback_route(experiment))
    app = experiment.around(create_app(served, service, args.config, access, metrics))
    # Also of what goes to the candidate, which gets the same id and is a part of the same trace.
    return service, RequestIdMiddleware(traced(app, metrics.labels))


def served_by(args: AppArgs, found: FetchedModel) -> ServedModels:
    """The model and its adapters, under their served names."""
    from heliostat.serve.models.served_models import ServedModels

    def one(name: str, version: str, described: PublishedModel, **more: Any) -> ServedModels:
        who = (name, version, described.task, described.run_id, described.created)
        return ServedModels(*who, chats=described.has_chat_template, **more)

    adapters = [
        one(name, args.adapters[name].version, it, parent=args.name) for name, it in found.adapter_descriptions.items()
    ]
    return one(args.name, args.version, found.description, adapters=tuple(adapters))


async def check_probes(service: Service, found: FetchedModel, served: ServedModels) -> None:
    """Sends the model and each adapter their published probes.

    Raises ModelError, with the spec's key for an adapter, if an answer differs.
    """
    from heliostat.serve.models.adapter_check import named

    if found.description.probe:
        await service.check_probe(found.description.probe, served.name)
    for name, described in found.adapter_descriptions.items():
        with named(name):
            if described.probe:
                await service.check_probe(described.probe, name)


async def load(found: FetchedModel, config: ServeConfig, served: ServedModels, metrics: ServeMetrics) -> Service:
    """The service for a model's files, by kind of input, task and the spec's engine."""
    if found.description.inputs:
        from heliostat.serve.predictors.programs import program_service

        return await asyncio.to_thread(program_service, found, config, served, metrics)
    import_transformers()  # only now: a bundle that is refused needs no seconds of imports
    if found.description.task != "causal-lm":
        return await asyncio.to_thread(_classification, found, config, served, metrics)
    from heliostat.serve.engines import vllm

    if config.engine == "vllm" or (config.engine == "auto" and vllm.installed() and vllm.knows(found.folder)):
        return await vllm.load(found, config, served, metrics)
    return await asyncio.to_thread(_generation, found, config, served, metrics)


def _classification(found: FetchedModel, config: ServeConfig, served: ServedModels, metrics: ServeMetrics) -> Service:
    from heliostat.infra.drift.statistics import TextStatistics
    from heliostat.serve.drift.loading import watch_of
    from heliostat.serve.explain.loading import available, encoder
    from heliostat.serve.predictors import text_classification
    from heliostat.serve.predictors.classification_api import classifier_service
    from heliostat.serve.predictors.texts import Texts

    model = text_classification.load(found.folder, found.description, config, metrics)
    explainer = available(lambda: encoder(found.folder, found.description, model.device))
    common = found.reference.common_tokens if found.reference else ()
    drift = watch_of(found, TextStatistics(model.encoder.unknown_id, common), served, metrics)
    return classifier_service(Texts(model.encoder), model, served, config, metrics, explainer, drift)


def _generation(found: FetchedModel, config: ServeConfig, served: ServedModels, metrics: ServeMetrics) -> Service:
    from heliostat.serve.engines import transformers
    from heliostat.serve.engines.base import check_probe
    from heliostat.serve.engines.openai_api import OpenAIApi
    from heliostat.serve.http.app import Service

    engine = transformers.load(found.folder, config, metrics, found.adapters)
    api = OpenAIApi(engine, served, config, metrics)
    probe = partial(check_probe, engine, exact=engine.is_exact)
    return Service(probe, engine.check_health, engine.close, api.router)
