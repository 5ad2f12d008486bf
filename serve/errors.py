"""Errors of requests, with the error body of the OpenAI API."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from pydantic import BaseModel

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


ERROR_CODE = "heliostat.error_code"
"""Key in a request's scope: the `error.code` with which it was refused."""


class ErrorDetail(BaseModel):
    """What was wrong."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(BaseModel):
    """The body of every answer that is none."""

    error: ErrorDetail


ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": description}
    for status, description in {
        400: "The body is not JSON, or no form where it says it is one. On the OpenAI API's routes, as 422 elsewhere.",
        401: "No API key, or none that is known or valid any more.",
        403: "The API key is for other models.",
        404: "Another model, or another version, is served here.",
        405: "The route has other methods.",
        408: "The body took too long to arrive.",
        413: "The body is too long.",
        422: "A field is missing, unknown or wrong; `param` names it.",
        429: "Too much at once, or in this minute; `Retry-After` says for how long.",
        500: "The server failed.",
        502: "The replica that was asked is gone.",
        503: "The model cannot answer.",
        504: "The model did not answer in time.",
    }.items()
}
"""Error responses in the OpenAPI description."""


class RequestError(Exception):
    """A request that is refused or fails, with the HTTP status and a one-line reason."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = headers or {}

    @property
    def body(self) -> dict[str, Any]:
        """`{"error": {message, type, param, code}}`, which the openai client turns into its own exceptions."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        if self.status == 429:
            kind = "rate_limit_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def invalid(param: str, message: str, code: str = "invalid_value") -> RequestError:
    """The error 422: the field `param` has a value that is not allowed."""
    return RequestError(422, message, code=code, param=param)


def openai_error(error: RequestError) -> RequestError:
    """The error as the OpenAI API has it: what is wrong in a body is 400, which its clients act upon, and not 422."""
    if error.status == 422:
        error.status = 400
    return error


async def send_error(scope: Scope, send: Send, error: RequestError) -> None:
    """Sends the error as a complete response, for middlewares outside FastAPI."""
    scope[ERROR_CODE] = error.code
    body = json.dumps(error.body, ensure_ascii=False).encode()
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        **error.headers,
    }
    raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


def sse_event(body: dict[str, Any]) -> bytes:
    """Encodes a chunk of a stream as a server-sent event."""
    return b"data: " + json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


async def send_event(send: Send, error: RequestError) -> None:
    """Sends the error as the last event of a stream whose status is out already."""
    await send({"type": "http.response.body", "body": sse_event(error.body)})
