from __future__ import annotations

import asyncio
from typing import Any

import pytest

from heliostat.serve.errors import Receive, Scope, Send
from heliostat.serve.metrics import MetricsMiddleware
from heliostat.serve.objectives import Objectives
from tests.unit.serve.conftest import Recorded

pytestmark = pytest.mark.anyio


async def nothing() -> Any:
    return {"type": "http.disconnect"}


async def ask(
    recorded: Recorded, status: int, *, parts: int = 1, fail: bool = False, path: str = "/v1/predict"
) -> list[Any]:
    sent: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": [(b"a", b"b")]})
        for left in range(parts, 0, -1):
            await asyncio.sleep(0.01)
            await send({"type": "http.response.body", "body": b"x", "more_body": left > 1})
            if fail:
                raise RuntimeError("half-way")

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "path": f"/tiny{path}", "root_path": "/tiny", "headers": []}
    await MetricsMiddleware(app, recorded.metrics)(scope, nothing, send)
    return sent


async def test_a_request_is_counted_with_its_status_until_its_last_byte(recorded: Recorded) -> None:
    sent = await ask(recorded, 201, parts=3)
    assert recorded.labels_of("heliostat_requests_total", "status") == ["201"]
    assert recorded.of("heliostat_request_seconds")[0] >= 0.03
    assert sent[0]["headers"] == [(b"a", b"b"), (b"x-model-version", b"tiny@7")]


def test_tokens_that_come_together_share_the_time_since_those_before(recorded: Recorded) -> None:
    recorded.metrics.inter_token(0.3, tokens=3)
    assert recorded.of("heliostat_inter_token_seconds") == [pytest.approx(0.1)] * 3


def test_what_the_spec_promises_is_reported(recorded: Recorded) -> None:
    recorded.metrics.objectives(Objectives(availability=0.99, latency_seconds={"p50": 0.1, "p95": 0.3}))
    assert recorded.of("heliostat_objective_availability_ratio") == [0.99]
    name = "heliostat_objective_seconds"
    assert recorded.labels_of(name, "objective") == ["latency", "latency"]
    assert dict(zip(recorded.labels_of(name, "quantile"), recorded.of(name), strict=True)) == {"p50": 0.1, "p95": 0.3}


async def test_a_client_that_leaves_is_counted_as_such(recorded: Recorded) -> None:
    task = asyncio.ensure_future(ask(recorded, 200, parts=100))
    await asyncio.sleep(0.03)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert recorded.labels_of("heliostat_requests_total", "status") == ["499"]


async def test_health_is_not_counted(recorded: Recorded) -> None:
    await ask(recorded, 200, path="/health")
    assert recorded.values == []


async def test_a_fault_is_not_a_client_that_left(recorded: Recorded) -> None:
    with pytest.raises(RuntimeError):
        await ask(recorded, 200, parts=2, fail=True)
    assert recorded.labels_of("heliostat_requests_total", "status") == ["500"]
