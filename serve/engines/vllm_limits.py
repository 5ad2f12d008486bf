"""Limits around vLLM's own OpenAI application: allowed paths, size of requests and responses, and time."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable
from typing import Any

from pydantic import TypeAdapter, ValidationError
from starlette.requests import ClientDisconnect, Request

from heliostat.serve.access.quota import reserve_tokens
from heliostat.serve.config import ServeConfig
from heliostat.serve.errors import (
    App,
    Message,
    Receive,
    RequestError,
    Scope,
    Send,
    invalid,
    openai_error,
    send_error,
    send_event,
)
from heliostat.serve.http.body import replayed
from heliostat.serve.http.limits import parse_json, read_body, timed_out
from heliostat.serve.models.served_models import ServedModels

ALLOWED = re.compile(
    r"/v1/(chat/completions|completions|responses|messages|embeddings|classify|score|rerank|pooling)(/.*)?"
    r"|/(tokenize|detokenize|version|openapi\.json)"
)
"""Routes for clients; engines also have routes for operators, which are blocked."""
GENERATES = re.compile(r"/v1/(chat/completions|completions|responses|messages)(/batch)?")
TOKEN_FIELDS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
MOST_AT_ONCE = ("n", "best_of")
GENERATION_INPUTS = ("prompt", "prompt_embeds", "messages")
"""Fields with inputs that are answered by generated text, each `n` times."""
POOLING_INPUTS = ("input", "texts", "text_1", "text_2", "data_1", "data_2", "queries", "documents", "items")
"""Fields with inputs of embeddings, scores and their like."""
MOST_POOLING_INPUTS = 256
"""As many as `/v1/predict` takes."""
CONVERSATIONS = ("messages", "input")
"""Fields in which a list of objects is one conversation."""
_AMOUNT: TypeAdapter[int | None] = TypeAdapter(int | None)


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
                asked = check_amounts(parse_json(body), config)
                body = addressed(asked, body, scope, served)
                if GENERATES.fullmatch(path):
                    reserve_tokens(tokens_of(asked, config), "max_tokens")
        except RequestError as error:
            await send_error(scope, send, openai_error(error))
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
    """Returns the request; raises RequestError 422 if it asks for more tokens, choices or inputs than are allowed."""
    if not isinstance(asked, dict):
        raise RequestError(422, "body: a JSON object is needed", code="invalid_value")
    for field in TOKEN_FIELDS:
        _check(field, asked.get(field), amount_of(asked, field), config.max_tokens, "serve.max_tokens")
    most, key = config.max_batch_size, "serve.max_batch_size"
    for field in MOST_AT_ONCE:
        _check(field, asked.get(field), amount_of(asked, field), most, key)
    choices = choices_of(asked)
    for field in GENERATION_INPUTS:
        count = inputs_of(asked, field)
        if count * choices > most:
            times = f", {choices} choices of each" if choices > 1 else ""
            raise invalid(field, f"{field}: {count} given{times}; {most} are allowed in all ({key})")
    for field in POOLING_INPUTS:
        count = inputs_of(asked, field)
        _check(field, count, count, MOST_POOLING_INPUTS, "in one request")
    return asked


def choices_of(asked: dict[str, Any]) -> int:
    """How many answers each input gets."""
    return max(amount_of(asked, field) or 1 for field in MOST_AT_ONCE)


def tokens_of(asked: dict[str, Any], config: ServeConfig) -> int:
    """How many tokens may be written in answer."""
    given = [amount for field in TOKEN_FIELDS if (amount := amount_of(asked, field)) is not None]
    inputs = max(inputs_of(asked, field) for field in GENERATION_INPUTS)
    return max(0, max(given, default=config.max_tokens)) * choices_of(asked) * inputs


def amount_of(asked: dict[str, Any], field: str) -> int | None:
    """A whole number as the engine reads it, which takes one in a string too; None if it is not given.

    Raises RequestError 422 for what the engine would refuse.
    """
    try:
        return _AMOUNT.validate_python(asked.get(field))
    except ValidationError:
        raise invalid(field, f"{field}: {_short(asked[field])} given; a whole number is needed") from None


def inputs_of(asked: dict[str, Any], field: str) -> int:
    """How many inputs a field holds; a list of token ids is one, as is a conversation, a list of objects."""
    value = asked.get(field)
    if not isinstance(value, list):
        return 1
    counted = (str, list) if field in CONVERSATIONS else (str, list, dict)
    return max(1, sum(isinstance(one, counted) for one in value))


def _check(field: str, given: Any, amount: int | None, most: int, key: str) -> None:
    if amount is not None and amount > most:
        raise invalid(field, f"{field}: {_short(given)} given; {most} are allowed ({key})")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


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
        error = timed_out(seconds)
        await (send_event(send, error) if begun else send_error(scope, send, error))
        return False
    return True
