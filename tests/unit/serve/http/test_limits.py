from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request

from heliostat.cluster.haproxy.rules import FULL_HEADER
from heliostat.serve.access.keys import ApiKey, digest_of
from heliostat.serve.errors import Receive, RequestError, Scope, Send
from heliostat.serve.http.limits import OngoingLimitMiddleware, parse_body, read_body

pytestmark = pytest.mark.anyio


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")

    text: str
    temperature: Annotated[float, Field(ge=0, le=2)] = 1


def request(parts: Sequence[bytes], announced: int | None = None) -> Request:
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    messages.append({"type": "http.request", "body": b"", "more_body": False})
    headers = [] if announced is None else [(b"content-length", str(announced).encode())]

    async def receive() -> Any:
        return messages.pop(0)

    return Request({"type": "http", "method": "POST", "path": "/", "headers": headers}, receive)


async def test_a_body_within_the_limit_is_read_whole() -> None:
    assert await read_body(request([b"abc", b"def"]), 6) == b"abcdef"


async def test_a_body_that_says_it_is_too_long_is_refused_unread() -> None:
    with pytest.raises(RequestError, match="body: 7 bytes given; 6 bytes are allowed") as caught:
        await read_body(request([], announced=7), 6)
    assert caught.value.status == 413


async def test_a_chunked_body_is_refused_as_soon_as_it_is_too_long() -> None:
    asked = request([b"abc", b"defg", b"never read"])
    with pytest.raises(RequestError) as caught:
        await read_body(asked, 6)
    assert caught.value.status == 413
    assert await asked.receive() == {"type": "http.request", "body": b"never read", "more_body": True}


def test_a_good_body_is_parsed() -> None:
    assert parse_body(Body, b'{"text": "a"}') == Body(text="a")


@pytest.mark.parametrize("body", [b"", b"{", b"not json", b'{"text": "a"} x', b'\xff"', b'{"text": "\xff"}'])
def test_what_is_no_json_is_a_400(body: bytes) -> None:
    with pytest.raises(RequestError, match="body: not valid JSON: ") as caught:
        parse_body(Body, body)
    assert (caught.value.status, caught.value.code) == (400, "invalid_json")


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        (b"{}", "text", "text: missing"),
        (b'{"text": 5}', "text", "text: 5 given; .*valid string"),
        (b'{"text": "a", "temperature": 3}', "temperature", "temperature: 3 given; .* less than or equal to 2"),
        (b'{"text": "a", "txt": 1}', "txt", "txt: unknown key; did you mean 'text'"),
        (b'{"text": "a", "temperature": 1, "text": "b"}', "text", "'text': given twice in one object"),
        (b"[]", None, "body: a JSON object is needed"),
        (b"null", None, "body: a JSON object is needed"),
    ],
)
def test_a_wrong_field_is_a_422_that_names_it(body: bytes, param: str | None, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        parse_body(Body, body)
    assert (caught.value.status, caught.value.param) == (422, param)
    assert "\n" not in caught.value.message


class InputProcessor:
    """An application that holds requests until told to answer."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.statuses: list[int] = []
        self.headers: dict[bytes, bytes] = {}
        self.counts: list[int] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.open.wait()
        if scope["path"] == "/fails":
            raise RuntimeError("a fault")
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.statuses.append(message["status"])
            self.headers = dict(message["headers"])

    async def receive(self) -> Any:
        raise AssertionError("nobody reads the body here")

    def ask(
        self, limit: OngoingLimitMiddleware, method: str = "POST", path: str = "/", key: str | None = None
    ) -> asyncio.Task[None]:
        scope: Scope = {"type": "http", "method": method, "path": path}
        if key:
            scope["heliostat.key"] = ApiKey(name=key, sha256=digest_of(key), created=datetime.now(timezone.utc))
        coroutine = limit(scope, self.receive, self.send)
        return asyncio.ensure_future(coroutine)


async def test_the_request_above_the_limit_is_refused_at_once_and_the_others_are_not() -> None:
    processor = InputProcessor()
    limit = OngoingLimitMiddleware(processor, 2, processor.counts.append)
    held = [processor.ask(limit), processor.ask(limit)]
    await asyncio.sleep(0)
    await processor.ask(limit)
    assert processor.statuses == [429]
    assert int(processor.headers[b"retry-after"]) >= 1
    assert FULL_HEADER.encode() in processor.headers, "the ingress goes by it"
    looked = processor.ask(limit, "GET")
    processor.open.set()
    await asyncio.gather(*held, looked)
    await processor.ask(limit)
    assert processor.statuses == [429, 200, 200, 200, 200]
    assert processor.counts == [0, 1, 2, 1, 0, 1, 0]


async def test_a_request_that_fails_or_is_cancelled_gives_its_place_back() -> None:
    processor = InputProcessor()
    limit = OngoingLimitMiddleware(processor, 1, processor.counts.append)
    cancelled = processor.ask(limit)
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    processor.open.set()
    (failure,) = await asyncio.gather(processor.ask(limit, path="/fails"), return_exceptions=True)
    assert isinstance(failure, RuntimeError)
    await processor.ask(limit)
    assert processor.statuses == [200]


async def places_taken(limit: OngoingLimitMiddleware, processor: InputProcessor, *keys: str, times: int) -> list[int]:
    """How many requests are ongoing for each key, once all have asked `times` times, by turns."""
    before = limit.held.copy()
    for _ in range(times):
        for key in keys:
            processor.ask(limit, key=key)
            await asyncio.sleep(0)
    return [(limit.held - before)[digest_of(key)] for key in keys]


async def test_no_key_gets_all_places_and_one_that_comes_later_finds_some() -> None:
    processor = InputProcessor()
    limit = OngoingLimitMiddleware(processor, 64, processor.counts.append)
    assert await places_taken(limit, processor, "greedy", times=100) == [48]
    (modest,) = await places_taken(limit, processor, "modest", times=8)
    assert modest == 8
    late = [f"late-{number}" for number in range(4)]
    assert all(await places_taken(limit, processor, *late, times=1))
    assert max(processor.counts) <= 64
    processor.open.set()


async def test_keys_that_ask_alike_get_alike() -> None:
    processor = InputProcessor()
    limit = OngoingLimitMiddleware(processor, 64, processor.counts.append)
    assert await places_taken(limit, processor, "one", "two", times=100) == [27, 27]
    processor.open.set()


@pytest.mark.parametrize(("places", "most"), [(1, 1), (2, 1), (3, 2), (4, 3)])
async def test_of_few_places_the_last_one_is_for_another_key(places: int, most: int) -> None:
    processor = InputProcessor()
    limit = OngoingLimitMiddleware(processor, places, processor.counts.append)
    assert await places_taken(limit, processor, "greedy", times=10) == [most]
    assert await places_taken(limit, processor, "other", times=1) == [min(1, places - most)]
    processor.open.set()


async def test_without_keys_all_places_are_there_for_all() -> None:
    processor = InputProcessor()
    limit = OngoingLimitMiddleware(processor, 8, processor.counts.append)
    held = [processor.ask(limit) for _ in range(9)]
    await asyncio.sleep(0)
    assert max(processor.counts) == 8
    processor.open.set()
    await asyncio.gather(*held)
    assert not limit.held
