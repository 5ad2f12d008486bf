"""Bodies that stall, behind the whole application."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from fastapi import APIRouter, Request

from heliostat.serve.access.keys import digest_of
from heliostat.serve.config import ServeConfig
from heliostat.serve.errors import App
from heliostat.serve.http.app import create_app
from heliostat.serve.models.served_models import ServedModels
from tests.unit.serve.conftest import KEY, Recorded, doors_of, service_of

pytestmark = pytest.mark.anyio
OTHER = "another-key-of-the-tests-0123456789"
PLACES = 4


class Asked:
    """One request, whose client sends `parts` of its body and then waits; `leave` closes its connection."""

    def __init__(self, app: App, key: str | None, *parts: bytes, whole: bool = False) -> None:
        self.messages: list[dict[str, Any]] = [
            {"type": "http.request", "body": part, "more_body": not whole} for part in parts
        ]
        self.left = asyncio.Event()
        self.status: int | None = None
        self.body = b""
        self.headers: dict[bytes, bytes] = {}
        headers = [(b"authorization", f"Bearer {key}".encode())] if key else []
        scope = {"type": "http", "method": "POST", "path": "/v1/predict", "headers": headers, "query_string": b""}
        self.task = asyncio.ensure_future(app(scope, self.receive, self.send))

    async def receive(self) -> Any:
        if self.messages:
            return self.messages.pop(0)
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], dict(message["headers"])
        self.body += message.get("body", b"")

    async def answered(self) -> int | None:
        await asyncio.wait_for(self.task, 5)
        return self.status

    async def leave(self) -> None:
        self.left.set()
        await self.answered()


def endpoint(served: ServedModels, recorded: Recorded, auth: bool = True, **changes: Any) -> App:
    router = APIRouter()

    @router.post("/v1/predict")
    async def predict(request: Request) -> Any:
        return await request.json()

    config = ServeConfig(max_ongoing_requests=PLACES, max_body_bytes=100, **changes)
    keys = doors_of(*(f"{name}:{digest_of(key)}" for name, key in (("one", KEY), ("two", OTHER))))
    return create_app(served, service_of(router), config, keys if auth else None, recorded.metrics)


async def settled() -> None:
    """Lets all tasks go on until they wait for their clients."""
    for _ in range(50):
        await asyncio.sleep(0)


@pytest.mark.parametrize("auth", [True, False])
async def test_bodies_that_stall_take_no_place_from_another_client(
    served: ServedModels, recorded: Recorded, auth: bool
) -> None:
    app = endpoint(served, recorded, auth)
    stalled = [Asked(app, KEY if auth else None, b'{"a":') for _ in range(10 * PLACES)]
    await settled()
    for _ in range(3):
        asked = Asked(app, OTHER if auth else None, b"{}", whole=True)
        assert await asked.answered() == 200
    for one in stalled:
        await one.leave()
    assert max(recorded.of("heliostat_ongoing_requests")) == 1


async def test_a_key_sends_as_many_bodies_at_once_as_there_are_places(served: ServedModels, recorded: Recorded) -> None:
    app = endpoint(served, recorded)
    stalled = [Asked(app, KEY, b"{") for _ in range(PLACES)]
    await settled()
    one_more = Asked(app, KEY, b"{}", whole=True)
    assert await one_more.answered() == 429
    assert one_more.headers[b"retry-after"] == b"1"
    for one in stalled:
        await one.leave()
    assert await Asked(app, KEY, b"{}", whole=True).answered() == 200


async def test_a_body_that_is_not_here_in_time_is_a_408_and_its_connection_is_closed(
    served: ServedModels, recorded: Recorded
) -> None:
    app = endpoint(served, recorded, body_timeout_seconds=0.01)
    stalled = Asked(app, KEY, b"{")
    assert await stalled.answered() == 408
    assert stalled.headers[b"connection"] == b"close"
    error = json.loads(stalled.body)["error"]
    assert (error["code"], error["message"]) == (
        "request_timeout",
        "body: not here within 0.01 s (serve.body_timeout_seconds)",
    )


async def test_a_body_that_is_too_long_takes_no_place(served: ServedModels, recorded: Recorded) -> None:
    app = endpoint(served, recorded)
    assert await Asked(app, KEY, b"x" * 101).answered() == 413
    assert recorded.of("heliostat_ongoing_requests") == [0]


async def test_a_client_that_leaves_with_its_body_is_counted_as_such(served: ServedModels, recorded: Recorded) -> None:
    asked = Asked(endpoint(served, recorded), KEY, b"{")
    await settled()
    await asked.leave()
    assert asked.status is None
    assert recorded.labels_of("heliostat_requests_total", "status") == ["499"]
