"""What clients hear while Ray's own proxy holds their requests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from heliostat.serve.deploy.fallback import ATTEMPTS, REPLAYED_BYTES, FallbackMiddleware
from heliostat.serve.errors import App, Message, Receive, Scope, Send

TEXT = [(b"content-type", b"text/plain; charset=utf-8")]
JSON = [(b"content-type", b"application/json")]


def start(status: int, headers: list[tuple[bytes, bytes]]) -> Message:
    return {"type": "http.response.start", "status": status, "headers": headers}


def body(text: bytes, *, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": text, "more_body": more}


class Proxy:
    """Answers as told, one list of messages or failure after the other; the last one again and again."""

    def __init__(self, *answers: Sequence[Message | Exception]) -> None:
        self.answers = list(answers)
        self.asked: list[bytes] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        read = b""
        while (message := await receive()).get("more_body"):
            read += message["body"]
        self.asked.append(read + message["body"])
        scope["path"] = "changed"
        for part in self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]:
            if isinstance(part, Exception):
                raise part
            await send(part)


def ask(app: App, *parts: bytes, path: str = "/sentiment/v1/predict") -> list[Message]:
    sent: list[Message] = []
    told = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    told[-1]["more_body"] = False

    async def receive() -> Message:
        return told.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(app({"type": "http", "path": path}, receive, send))  # type: ignore[arg-type]
    return sent


def answer(sent: list[Message]) -> tuple[int, Any, dict[bytes, bytes]]:
    text = b"".join(message["body"] for message in sent[1:])
    return sent[0]["status"], json.loads(text), dict(sent[0]["headers"])


GOOD = [start(200, JSON), body(b'{"label": "positive"}')]
LOST: list[list[Message | Exception]] = [
    [],  # what Ray's proxy does where an actor dies
    [RuntimeError("the actor died")],
    [start(500, TEXT), body(b"ray.exceptions.ActorDiedError: Traceback ...")],
    [start(200, JSON), RuntimeError("the actor died after the head")],
]


@pytest.mark.parametrize("lost", LOST)
def test_a_request_whose_replica_is_lost_is_asked_again(lost: list[Message | Exception]) -> None:
    proxy = Proxy(lost, lost, GOOD)
    status, found, _ = answer(ask(FallbackMiddleware(proxy), b"a", b" joy"))
    assert (status, found) == (200, {"label": "positive"})
    assert proxy.asked == [b"a joy"] * 3


@pytest.mark.parametrize("lost", LOST)
def test_it_gives_up_after_a_few_attempts_and_says_no_more_than_it_must(lost: list[Message | Exception]) -> None:
    proxy = Proxy(lost)
    status, found, _ = answer(ask(FallbackMiddleware(proxy), b"a joy"))
    assert (status, found["error"]["code"], len(proxy.asked)) == (500, "replica_lost", ATTEMPTS)
    assert "Traceback" not in found["error"]["message"]


def test_a_body_that_is_not_kept_is_sent_once() -> None:
    long = [b"x" * REPLAYED_BYTES, b"y", b"z"]
    proxy = Proxy(LOST[0])
    assert answer(ask(FallbackMiddleware(proxy), *long))[0] == 500
    assert proxy.asked == [b"".join(long)]


def test_too_many_waiting_requests_hear_when_to_come_again() -> None:
    proxy = Proxy([start(429, [*TEXT, (b"retry-after", b"7")]), body(b"Request dropped due to backpressure")])
    status, found, headers = answer(ask(FallbackMiddleware(proxy), b"a joy"))
    assert (status, found["error"]["type"], headers[b"retry-after"]) == (429, "rate_limit_error", b"7")
    assert "serve.max_queued_requests" in found["error"]["message"]
    assert len(proxy.asked) == 1


@pytest.mark.parametrize(
    "messages",
    [
        [start(500, JSON), body(b'{"error": {"code": "internal_error"}}')],
        [start(200, [(b"content-type", b"text/event-stream")]), body(b"data: 1\n\n", more=True), body(b"")],
        [start(404, TEXT), body(b"Path not found")],
    ],
)
def test_what_a_replica_says_passes_as_it_is(messages: list[Message]) -> None:
    proxy = Proxy(messages)
    assert ask(FallbackMiddleware(proxy), b"a joy") == messages
    assert len(proxy.asked) == 1


def test_an_answer_that_breaks_after_it_began_is_not_begun_again() -> None:
    proxy = Proxy([start(200, JSON), body(b'{"label"', more=True), RuntimeError("the actor died")], GOOD)
    with pytest.raises(RuntimeError, match="died"):
        ask(FallbackMiddleware(proxy), b"a joy")


def test_rays_own_routes_are_left_alone() -> None:
    sick = [start(503, TEXT), body(b"unhealthy")]
    assert ask(FallbackMiddleware(Proxy(sick)), b"", path="/-/healthz") == sick
