"""The HTTP application of a replica: middlewares for metrics, keys and limits, the common routes, and error bodies."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from heliostat.serve.access.auth import ApiKeyMiddleware
from heliostat.serve.access.control import AccessControl
from heliostat.serve.access.quota import KeyLimitMiddleware
from heliostat.serve.config import ServeConfig
from heliostat.serve.errors import ERROR_CODE, ERROR_RESPONSES, App, RequestError
from heliostat.serve.http.body import BodyMiddleware
from heliostat.serve.http.limits import OngoingLimitMiddleware
from heliostat.serve.http.outcome import OutcomeMiddleware
from heliostat.serve.http.page import page
from heliostat.serve.http.request_id import RequestIdMiddleware
from heliostat.serve.http.tracing import traced
from heliostat.serve.metrics import ServeMetrics
from heliostat.serve.models.served_models import ServedModels

_NO_TELEMETRY: Any = dict.fromkeys(("tracing", "metrics", "logs", "operation_spans", "auto_configure"), False)
"""FastAPI's own spans and records hold texts of errors, which may quote a request; `http/tracing.py` has ours."""


@dataclass(frozen=True)
class Service:
    """What a task provides: the routes to its model, and hooks to check and close it."""

    check_probe: Callable[[dict[str, Any], str], Awaitable[None]]
    """Sends a named model its published probe; raises ModelError if the answer differs from the published one."""
    check_health: Callable[[], None]
    """Raises if the model can no longer answer, so that Ray Serve replaces the replica."""
    close: Callable[[], None]
    """Stops the threads and processes that the service started."""
    router: APIRouter = field(default_factory=APIRouter)
    application: App | None = None
    """ASGI app for all paths that neither `router` nor the common routes handle; it serves its own `/openapi.json`."""
    explains: bool = False
    """Whether the service has the route `POST /v1/explain`."""


def create_app(
    served: ServedModels,
    service: Service,
    config: ServeConfig,
    access: AccessControl | None,
    metrics: ServeMetrics,
) -> App:
    """The replica's ASGI app; middlewares from the outside in: request ids, traces, other origins, outcomes, API keys,
    key limits, bodies, ongoing requests.

    If `access` is None, no key is needed.
    """
    if config.has_page:
        service.router.include_router(page(served, needs_key=access is not None, explains=service.explains))
    app: App = _routes(served, service, config, access)
    app = BodyMiddleware(OngoingLimitMiddleware(app, config.max_ongoing_requests, metrics.ongoing), config)
    if access:
        app = KeyLimitMiddleware(app, access.counter, access.sync.start, metrics.used)
        app = ApiKeyMiddleware(app, access.keys, *(one.name for one in served.all_models))
    app = OutcomeMiddleware(app, metrics)
    if config.cors_origins:
        app = _cross_origin(app, config.cors_origins)
    return RequestIdMiddleware(traced(_LifespanMiddleware(app), metrics.labels))


def _cross_origin(app: App, origins: Sequence[str]) -> App:
    """Lets pages of these origins ask. What a browser asks beforehand has no key, so this stands outside the keys."""
    return CORSMiddleware(
        app,  # type: ignore[arg-type]
        allow_origins=origins,
        allow_methods=("GET", "POST"),
        allow_headers=("*",),
        expose_headers=("retry-after", "x-model-version", "x-request-id"),
    )


class _LifespanMiddleware:
    """Answers ASGI lifespan messages, which the inner middlewares do not handle."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await self.app(scope, receive, send)
            return
        for phase in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{phase}.complete"})


def _routes(served: ServedModels, service: Service, config: ServeConfig, access: AccessControl | None) -> App:
    app = FastAPI(
        title=served.name,
        version=served.version,
        openapi_url=None if service.application else "/openapi.json",
        docs_url=None,
        redoc_url=None,
        telemetry=_NO_TELEMETRY,  # a release without it takes any keyword
        responses=ERROR_RESPONSES,
        exception_handlers={
            RequestError: _refuse,
            HTTPException: _refuse_route,
            Exception: _fail,
        },
    )
    app.include_router(_common(served, service, config, access))
    app.include_router(service.router)
    if service.application:
        app.mount("", service.application)
    return app


def _common(served: ServedModels, service: Service, config: ServeConfig, access: AccessControl | None) -> APIRouter:
    router = APIRouter()
    # HAProxy goes by them, see cluster/haproxy/deadlines.py
    deadlines = config.model_dump(include={"timeout_seconds", "body_timeout_seconds"})
    adapters = {"adapters": {one.name: one.version for one in served.adapters}} if served.adapters else {}

    @router.get("/health")
    async def health() -> JSONResponse:
        try:
            service.check_health()
        except Exception as error:
            raise RequestError(503, f"unhealthy: {error}", code="unhealthy") from error
        keys = {"keys": access.keys.state} if access and access.keys.state else {}
        return JSONResponse(
            {"status": "ok", "model": served.name, "version": served.version, **deadlines, **adapters, **keys}
        )

    @router.get("/v1/models")
    async def models(request: Request) -> JSONResponse:
        return JSONResponse({"object": "list", "data": [one.card for one in served.allowed_to(request.scope)]})

    @router.get("/v1/models/{name}")
    async def model(name: str, request: Request) -> JSONResponse:
        return JSONResponse(served.pick(name, request.scope).card)

    return router


def _response(error: RequestError) -> JSONResponse:
    return JSONResponse(error.body, error.status, error.headers)


async def _refuse(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestError)
    request.scope[ERROR_CODE] = error.code
    return _response(error)


async def _refuse_route(request: Request, error: Exception) -> JSONResponse:
    """Handles 404, 405 and other routing errors, with the same error body as all others."""
    assert isinstance(error, HTTPException)
    path = request.url.path
    reasons = {
        404: (
            "not_found",
            f"{path}: no such route; GET {request.scope.get('root_path', '')}/openapi.json lists them",
        ),
        405: ("method_not_allowed", f"{path}: {request.method} is not allowed"),
    }
    code, message = reasons.get(error.status_code, (HTTPStatus(error.status_code).phrase, str(error.detail)))
    return await _refuse(
        request, RequestError(error.status_code, message, code=code, headers=dict(error.headers or {}))
    )


async def _fail(_: Request, __: Exception) -> JSONResponse:
    """Handles unexpected exceptions: the log has the traceback, the client does not see it."""
    return _response(RequestError(500, "the server failed to answer; its log says why", code="internal_error"))
