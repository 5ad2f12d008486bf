from __future__ import annotations

import asyncio
from typing import Any

import pytest

from heliostat.infra.metrics import catalogue
from heliostat.serve.errors import Receive, Scope, Send
from heliostat.serve.metrics import Buffer, MetricsMiddleware, ServeMetrics
from tests.unit.serve.conftest import Recorded
from tests.waiting import until

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


def test_the_buffer_adds_counters_keeps_the_last_gauge_and_hands_over_all_at_the_end() -> None:
    found: list[tuple[str, float, dict[str, str]]] = []
    buffer = Buffer(lambda metric, value, labels: found.append((metric.name, value, dict(labels))), seconds=60)
    metrics = ServeMetrics("tiny", "7", buffer.add)
    for status, seconds in ((200, 0.1), (200, 0.2), (500, 0.3)):
        metrics.request(status, seconds)
    for count in (1, 2, 1):
        metrics.ongoing(count)
    assert found == []
    buffer.close()
    own = {"model": "tiny", "version": "7"}
    labels = {**own, "adapter": ""}
    assert [one for one in found if one[0] == catalogue.REQUEST_SECONDS.name] == [
        (catalogue.REQUEST_SECONDS.name, seconds, labels) for seconds in (0.1, 0.2, 0.3)
    ]
    assert (catalogue.REQUESTS.name, 2, {**labels, "status": "200"}) in found
    assert (catalogue.REQUESTS.name, 1, {**labels, "status": "500"}) in found
    assert [one for one in found if one[0] == catalogue.ONGOING_REQUESTS.name] == [
        (catalogue.ONGOING_REQUESTS.name, 1, own)
    ]
    assert len(found) == 6


def test_the_buffer_hands_over_while_it_runs() -> None:
    found: list[float] = []
    buffer = Buffer(lambda metric, value, labels: found.append(value), seconds=0.01)
    ServeMetrics("tiny", "7", buffer.add).batch(4)
    until(lambda: found == [4], "it is handed over", seconds=5)
    buffer.close()
    assert found == [4]


def test_a_value_that_cannot_be_recorded_stops_none_after_it() -> None:
    found: list[float] = []

    def record(metric: Any, value: float, labels: Any) -> None:
        if value == 1:
            raise RuntimeError("no agent")
        found.append(value)

    buffer = Buffer(record, seconds=0.01)
    metrics = ServeMetrics("tiny", "7", buffer.add)
    metrics.batch(1)
    until(lambda: not buffer._values, "the value is taken", seconds=5)
    metrics.batch(4)
    until(lambda: found == [4], "the next one is recorded", seconds=5)
    buffer.close()
