"""Limits around vLLM's own OpenAI application: allowed paths, size of requests and responses, and time."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable
from typing import Any

from starlette.requests import ClientDisconnect, Request

from heliostat.serve.config import ServeConfig
from heliostat.serve.errors import App, Message, Receive, RequestError, Scope, Send, invalid, send_error, send_event
from heliostat.serve.http.body import replayed
from heliostat.serve.http.limits import parse_json, read_body, timed_out
from heliostat.serve.models.served_models import ServedModels

ALLOWED = re.compile(
    r"/v1/(chat/completions|completions|responses|messages|embeddings|classify|score|rerank|pooling)(/.*)?"
    r"|/(tokenize|detokenize|version|openapi\.json)"
)
"""Routes for clients; engines also have routes for operators, which are blocked."""
TOKEN_FIELDS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
MOST_AT_ONCE = ("n", "best_of")


def guarded(app: App, config: ServeConfig, served: ServedModels, late: Callable[[float], None] = lambda _: None) -> App:
    """Wraps `app` in the spec's limits, for the models in `served`; refused requests never reach `app`.

    `late` is called with the time (monotonic, in seconds) at which a request began that was not answered in time.
    """

    async def limited(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            path = scope["path"].removeprefix(scope.get("root_path", ""))
            if not ALLOWED.fullmatch(path):
                raise RequestError(404, f"{path}: no such route", code="not_found")
            body = await read_body(Request(scope, receive), config.max_body_bytes)
            if scope["method"] == "POST" and body:
                body = addressed(check_amounts(parse_json(body), config), body, scope, served)
        except RequestError as error:
            await send_error(send, error)
            return
        except ClientDisconnect:
            return
        began = time.monotonic()
        if not await within_time(app, scope, replayed(body, receive), send, config.timeout_seconds):
            late(began)

    return limited


def addressed(asked: dict[str, Any], body: bytes, scope: Scope, served: ServedModels) -> bytes:
    """The body with a model name in it; raises what `ServedModels.pick` raises.

    A missing name is filled in: the engine would use its base model, but the served model may be an adapter.
    """
    model = served.pick(asked.get("model"), scope)
    return body if asked.get("model") else json.dumps({**asked, "model": model.name}).encode()


def check_amounts(asked: Any, config: ServeConfig) -> dict[str, Any]:
    """Returns the request; raises RequestError 422 if it asks for more tokens or choices than the spec allows."""
    if not isinstance(asked, dict):
        raise RequestError(422, "body: a JSON object is needed", code="invalid_value")
    for fields, most, key in (
        (TOKEN_FIELDS, config.max_tokens, "serve.max_tokens"),
        (MOST_AT_ONCE, config.max_batch_size, "serve.max_batch_size"),
    ):
        for field in fields:
            value = asked.get(field)
            if isinstance(value, (int, float)) and value > most:
                raise invalid(field, f"{field}: {value} given; {most} are allowed ({key})")
    return asked


async def within_time(app: App, scope: Scope, receive: Receive, send: Send, seconds: float) -> bool:
    """Handles one request, and returns True; on a timeout sends 504, or an error event if a stream has begun."""
    begun = False

    async def watched(message: Message) -> None:
        nonlocal begun
        begun = True
        await send(message)

    try:
        await asyncio.wait_for(app(scope, receive, watched), seconds)
    except asyncio.TimeoutError:
        await (send_event if begun else send_error)(send, timed_out(seconds))
        return False
    return True
