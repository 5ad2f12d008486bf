"""What clients hear while Ray's own proxy holds their requests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from heliostat.cluster.haproxy.rules import REPLICA_UP_HEADER
from heliostat.cluster.haproxy.settings import REPLAYED_BYTES
from heliostat.serve.deploy.fallback import ATTEMPTS, PROBES, FallbackMiddleware
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
        self.probes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        read = b""
        while (message := await receive()).get("more_body"):
            read += message["body"]
        if scope["method"] == "GET":
            self.probes += 1
        else:
            self.asked.append(read + message["body"])
        scope["path"] = "changed"
        for part in self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]:
            if isinstance(part, Exception):
                raise part
            await send(part)


def ask(app: App, *parts: bytes, path: str = "/sentiment/v1/predict", sent_before: bool = False) -> list[Message]:
    sent: list[Message] = []
    told = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    told[-1]["more_body"] = False

    async def receive() -> Message:
        return told.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(REPLICA_UP_HEADER.encode(), b"1")] if sent_before else []
    asyncio.run(app({"type": "http", "method": "POST", "path": path, "headers": headers}, receive, send))  # type: ignore[arg-type]
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
    proxy = Proxy(lost, GOOD)
    status, found, _ = answer(ask(FallbackMiddleware(proxy), b"a", b" joy"))
    assert (status, found) == (200, {"label": "positive"})
    assert proxy.asked == [b"a joy"] * 2


@pytest.mark.parametrize("lost", LOST)
def test_it_gives_up_after_one_retry_and_says_no_more_than_it_must(lost: list[Message | Exception]) -> None:
    proxy = Proxy(lost)
    status, found, _ = answer(ask(FallbackMiddleware(proxy), b"a joy"))
    assert (status, found["error"]["code"], len(proxy.asked)) == (502, "replica_lost", ATTEMPTS)
    assert "Traceback" not in found["error"]["message"]


@pytest.mark.parametrize("lost", LOST)
def test_what_haproxy_sent_to_a_replica_before_is_sent_once_more_after_one_is_found(
    lost: list[Message | Exception],
) -> None:
    proxy = Proxy(lost, lost, [start(405, JSON), body(b"{}")], GOOD)
    status, found, _ = answer(ask(FallbackMiddleware(proxy), b"a", b" joy", sent_before=True))
    assert (status, found) == (200, {"label": "positive"})
    assert (proxy.probes, proxy.asked) == (3, [b"a joy"])
    proxy = Proxy([start(405, JSON), body(b"{}")], lost)
    assert answer(ask(FallbackMiddleware(proxy), b"a joy", sent_before=True))[0] == 502
    assert (proxy.probes, proxy.asked) == (1, [b"a joy"])


def test_without_a_replica_it_is_not_sent_and_the_error_is_rays() -> None:
    gone, full = Proxy(LOST[0]), Proxy([start(429, TEXT), body(b"Request dropped due to backpressure")])
    assert answer(ask(FallbackMiddleware(gone), b"a joy", sent_before=True))[0] == 502
    assert answer(ask(FallbackMiddleware(full), b"a joy", sent_before=True))[0] == 429
    assert (gone.probes, gone.asked, full.probes, full.asked) == (PROBES, [], 1, [])


def test_a_body_that_is_not_kept_is_sent_once() -> None:
    long = [b"x" * REPLAYED_BYTES, b"y", b"z"]
    proxy = Proxy(LOST[0])
    assert answer(ask(FallbackMiddleware(proxy), *long))[0] == 502
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
