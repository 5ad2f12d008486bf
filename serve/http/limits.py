"""Limits and validation of requests: body size, JSON and forms, time, and the number of ongoing requests."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.requests import Request

from heliostat.cluster.haproxy.rules import FULL_HEADER
from heliostat.infra.config.messages import locate
from heliostat.infra.config.strict import build
from heliostat.infra.errors import ConfigError
from heliostat.infra.json_objects import RepeatedKeyError, refuse_repeated
from heliostat.serve.access.keys import holder_of
from heliostat.serve.errors import App, Receive, RequestError, Scope, Send, invalid, send_error

Body = TypeVar("Body", bound=BaseModel)
Answer = TypeVar("Answer")
FAIR_SHARE = 3
"""A key may hold this many times as many places as are free."""


class OngoingLimitMiddleware:
    """Answers 429 at once when `limit` requests are ongoing, or a key has its fair share of them.

    `changed` is called with the number of ongoing requests, first with 0.
    """

    def __init__(self, app: App, limit: int, changed: Callable[[int], None]) -> None:
        self.app = app
        self.limit = limit
        self.changed = changed
        self.held: Counter[str] = Counter()
        """Ongoing requests by `holder_of`."""
        changed(0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request; only POST counts (not health or models)."""
        if scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        holder = holder_of(scope)
        if not self._has_place(holder):
            await send_error(scope, send, _too_many(self.limit, self.held[holder]))
            return
        self._count(holder, 1)
        try:
            await self.app(scope, receive, send)
        finally:
            self._count(holder, -1)

    def _has_place(self, holder: str) -> bool:
        """Whether a key may have one more request ongoing: up to FAIR_SHARE times as many as there are free places.

        So a key alone gets 48 of 64, two get 27 each, and one that comes later always finds a place; the last one is
        for a key that has none. Dynamic thresholds, Choudhury and Hahne 1998 (https://doi.org/10.1109/90.664262).
        Without keys, all are one client and share all places.
        """
        free = self.limit - self.held.total()
        shares = not holder or not self.held[holder]
        return free > 0 and (shares or self.held[holder] < FAIR_SHARE * (free - 1))

    def _count(self, holder: str, change: int) -> None:
        self.held[holder] += change
        if not self.held[holder]:
            del self.held[holder]
        self.changed(self.held.total())


def _too_many(limit: int, held: int) -> RequestError:
    return RequestError(
        429,
        f"this replica takes {limit} requests at once, of which this client has {held}, and has no place for one "
        "more; try again in a second",
        code="rate_limit_exceeded",
        headers={"Retry-After": "1", FULL_HEADER: "1"},
    )


async def with_timeout(answer: Awaitable[Answer], seconds: float) -> Answer:
    """Awaits `answer`; cancels it and raises RequestError 504 if it takes longer than `seconds`."""
    try:
        return await asyncio.wait_for(answer, seconds)
    except asyncio.TimeoutError:
        raise timed_out(seconds) from None


def timed_out(seconds: float) -> RequestError:
    """The error 504: the model did not answer in time."""
    return RequestError(504, f"no answer within {seconds:g} s (serve.timeout_seconds)", code="timeout")


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """The whole body; raises RequestError 413 as soon as it exceeds the limit, with or without a Content-Length."""
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > limit_bytes:
        raise _too_long(announced, limit_bytes)
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit_bytes:
            raise _too_long(f"more than {limit_bytes}", limit_bytes)
        parts.append(part)
    return b"".join(parts)


def _too_long(size: str, limit_bytes: int) -> RequestError:
    return RequestError(
        413,
        f"body: {size} bytes given; {limit_bytes} bytes are allowed",
        code="request_too_large",
        headers={"Connection": "close"},
    )


def parse_json(body: bytes) -> Any:
    """The body parsed as JSON; raises RequestError 400 if it is not valid."""
    try:
        return from_json(body)
    except ValueError as error:
        raise RequestError(400, f"body: not valid JSON: {error}", code="invalid_json") from None


def parse_body(schema: type[Body], body: bytes) -> Body:
    """Parses and validates the body; raises RequestError 400 for invalid JSON and 422 for the first invalid field."""
    try:
        found = schema.model_validate_json(body)
        refuse_repeated(body)
    except RepeatedKeyError as error:
        raise invalid(error.key[:60], str(error)) from None
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        if detail["type"] == "json_invalid":
            reason = detail["ctx"]["error"] if "ctx" in detail else detail["msg"]
            raise RequestError(400, f"body: not valid JSON: {reason}", code="invalid_json") from None
        raise _unfit(schema, error, from_json(body)) from None
    return found


def parse_form(schema: type[Body], values: Mapping[str, Any]) -> Body:
    """Validates form fields; raises RequestError 422 for the first invalid one."""
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise _unfit(schema, error, values) from None


CODES = {
    "extra_forbidden": "unknown_parameter",
    "missing": "missing_required_parameter",
    "unsupported_parameter": "unsupported_parameter",
}
"""The OpenAI API's codes, by pydantic's type of error; `invalid_value` for any other."""


def _unfit(schema: type[BaseModel], error: ValidationError, value: Any) -> RequestError:
    """The error 422 for the first invalid field."""
    detail = error.errors(include_url=False)[0]
    param = ".".join(locate(schema, detail["loc"])[0]) or None
    return RequestError(422, _explained(schema, value), code=CODES.get(detail["type"], "invalid_value"), param=param)


def _explained(schema: type[BaseModel], value: Any) -> str:
    """One line in the style of config errors: field, value, what is allowed."""
    if not isinstance(value, dict):
        return f"body: a JSON object is needed, and {type(value).__name__} was given"
    try:
        build(schema, value)
    except ConfigError as error:
        return str(error)
    return "body: does not fit the schema"
