"""`POST /v1/feedback`: clients rate a response; the rating counts for the version that gave it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import Field

from heliostat.infra.config.strict import StrictModel
from heliostat.serve.experiment.middleware import FEEDBACK_PATH, ExperimentMiddleware
from heliostat.serve.http.limits import parse_body, read_body
from heliostat.serve.http.openapi import body_of

MAX_BYTES = 1000


class Feedback(StrictModel):
    """One opinion, or one outcome."""

    version: str
    """The version that answered, as its header `x-model-version` says: `sentiment@4`, or `4`."""
    value: Annotated[float, Field(ge=0, le=1)]
    """0 for bad, 1 for good."""


def feedback_route(middleware: ExperimentMiddleware) -> APIRouter:
    """A route that answers 204, or 404 if no experiment compares this version."""
    router = APIRouter()

    @router.post(FEEDBACK_PATH, status_code=204, openapi_extra=body_of(Feedback))
    async def feedback(request: Request) -> Response:
        given = parse_body(Feedback, await read_body(request, MAX_BYTES))
        middleware.feedback(given.version.rpartition("@")[2], given.value)
        return Response(status_code=204)

    return router
