"""Requests as spans: whose parts they are, what they hold, and an endpoint that does not answer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, StreamingResponse

from heliostat.infra import log_fields
from heliostat.infra.tracing import semconv, settings
from heliostat.infra.tracing.tracer import tracer
from heliostat.serve.access.control import AccessControl
from heliostat.serve.config import ServeConfig
from heliostat.serve.http import tracing
from heliostat.serve.http.app import create_app
from heliostat.serve.models.served_models import ServedModels
from heliostat.serve.predictors.batcher import Batcher, Limits
from tests.silent import silent_server
from tests.spans import Kept, id_of, parent_of, receiver, trace_of
from tests.unit.serve.conftest import KEY, Client, Recorded, service_of

pytestmark = pytest.mark.anyio
SECRET = "my-secret-text"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Kept:
    """Spans of this process, in memory."""
    found = Kept()
    monkeypatch.setattr(tracing, "tracer", lambda: found.tracer)
    return found


def run(batch: list[str]) -> Sequence[str]:
    """A model that fails at some texts, and says at which."""
    if batch[0].endswith("fails"):
        raise ValueError(f"no answer to {batch[0]}")
    return batch


def routes(batcher: Batcher[str, str], seen: list[str]) -> APIRouter:
    """Routes that answer, and what their requests said of their parent."""
    router = APIRouter()

    @router.post("/v1/predict")
    async def predict(request: Request) -> JSONResponse:
        seen.append(request.headers["traceparent"])
        return JSONResponse(await batcher.submit((await request.body()).decode().split()))

    @router.post("/stream")
    async def stream(request: Request) -> StreamingResponse:
        async def parts() -> Any:
            yield b"data: 1\n\n"
            yield b"data: 2\n\n"

        await request.body()
        return StreamingResponse(parts(), media_type="text/event-stream")

    return router


@pytest.fixture
def seen() -> list[str]:
    return []


@pytest.fixture
def batcher(recorded: Recorded) -> Iterator[Batcher[str, str]]:
    found = Batcher[str, str](run, len, Limits(4, 1000), recorded.metrics, blank="", pass_seconds=60)
    yield found
    found.close()


@pytest.fixture
def client(
    kept: Kept,
    batcher: Batcher[str, str],
    seen: list[str],
    served: ServedModels,
    config: ServeConfig,
    access: AccessControl,
    recorded: Recorded,
) -> Client:
    return Client(create_app(served, service_of(routes(batcher, seen)), config, access, recorded.metrics))


async def test_a_request_is_a_span_with_its_phases_as_parts(client: Client, kept: Kept, batcher: Any) -> None:
    answer = await client.http.post("/v1/predict?q=1", content="one two", headers={"x-request-id": "abc"})
    assert answer.status_code == 200
    batcher.close()
    request = kept.one("POST /v1/predict")
    assert request.parent is None
    assert request.kind.name == "SERVER"
    assert dict(request.attributes or {}) == {
        semconv.HTTP_METHOD: "POST", semconv.HTTP_ROUTE: "/v1/predict", semconv.HTTP_STATUS: 200,
        semconv.MODEL: "tiny", semconv.VERSION: "7", semconv.KEY_NAME: "tests", semconv.REQUEST_ID: "abc",
    }  # fmt: skip
    for phase in ("queue", "compute"):
        part = kept.one(phase)
        assert (parent_of(part), trace_of(part)) == (id_of(request), trace_of(request))


async def test_a_parent_is_taken_over_and_what_is_inside_sees_the_span_as_its_own(
    client: Client, kept: Kept, seen: list[str]
) -> None:
    await client.http.post("/v1/predict", content="one", headers={"traceparent": PARENT, "tracestate": "a=1"})
    request = kept.one("POST /v1/predict")
    assert (trace_of(request), parent_of(request)) == (PARENT.split("-")[1], 0xB7AD6B7169203331)
    assert seen == [f"00-{trace_of(request)}-{id_of(request):016x}-{seen[0][-2:]}"]


@pytest.mark.parametrize("headers", [[("traceparent", "nonsense")], [("traceparent", PARENT)] * 2])
async def test_a_parent_that_is_not_valid_begins_a_trace(
    client: Client, kept: Kept, headers: list[tuple[str, str]]
) -> None:
    await client.http.post("/v1/predict", content="one", headers=headers)
    assert kept.one("POST /v1/predict").parent is None


async def test_spans_hold_no_text_of_a_request(client: Client, kept: Kept, batcher: Any) -> None:
    asked = {
        "/v1/predict": (500, f"{SECRET}fails", {}),
        f"/{SECRET}": (404, SECRET, {}),
        f"/v1/predict?{SECRET}={SECRET}": (401, SECRET, {"authorization": f"Bearer {SECRET}"}),
        "/stream": (413, SECRET * 200, {"user-agent": SECRET}),
    }
    for path, (status, text, headers) in asked.items():
        answer = await client.http.post(path, content=text, headers=headers)
        assert answer.status_code == status
    assert (await client.http.request(SECRET, "/v1/predict")).status_code == 405
    batcher.close()
    found = kept.all()
    assert sorted(str((one.attributes or {}).get(semconv.HTTP_STATUS)) for one in found if not one.parent) == [
        "401", "404", "405", "413", "500",
    ]  # fmt: skip
    everything = json.dumps([one.to_json() for one in found])
    assert SECRET not in everything
    assert KEY not in everything


async def test_an_error_is_marked_by_its_code(client: Client, kept: Kept) -> None:
    await client.http.post("/v1/predict", content="fails")
    failed = kept.one("POST /v1/predict")
    assert not failed.status.is_ok
    assert (failed.attributes or {})[semconv.ERROR_TYPE] == "500"
    await client.http.post("/nothing", content="one")
    refused = kept.one("POST")
    assert refused.status.status_code.name == "UNSET"
    assert (refused.attributes or {})[semconv.ERROR_TYPE] == "not_found"


async def test_a_stream_ends_its_span_with_the_last_byte_and_health_has_none(client: Client, kept: Kept) -> None:
    async with client.http.stream("POST", "/stream", content="one") as answer:
        assert [part async for part in answer.aiter_bytes()]
    await client.http.get("/health")
    assert [(one.name, (one.attributes or {})[semconv.HTTP_STATUS]) for one in kept.all()] == [("POST /stream", 200)]


async def test_lines_of_the_log_about_a_request_carry_its_trace(kept: Kept, recorded: Recorded) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert log_fields.fields()["trace_id"] == PARENT.split("-")[1]

    headers = [(b"traceparent", PARENT.encode())]
    scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": headers}
    await tracing.traced(app, recorded.metrics.labels)(scope, None, None)  # type: ignore[arg-type]
    assert trace_of(kept.one("POST")) == PARENT.split("-")[1]


async def test_tokens_and_the_first_of_them_stand_in_the_span(kept: Kept, recorded: Recorded) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        recorded.metrics.tokens("prompt", 3)
        recorded.metrics.tokens("unknown", 1)
        for _ in range(2):
            recorded.metrics.tokens("completion", 2)
        recorded.metrics.first_token(0.5)

    scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": []}
    await tracing.traced(app, recorded.metrics.labels)(scope, None, None)  # type: ignore[arg-type]
    attributes = kept.one("POST").attributes or {}
    assert attributes["gen_ai.usage.input_tokens"] == 3
    assert attributes["gen_ai.usage.output_tokens"] == 4
    assert attributes["gen_ai.response.time_to_first_chunk"] == 0.5
    assert attributes[semconv.HTTP_STATUS] == 499


async def test_what_is_not_sampled_is_not_recorded_and_says_so_further_in(
    monkeypatch: pytest.MonkeyPatch, recorded: Recorded, batcher: Batcher[str, str], served: ServedModels,
    config: ServeConfig, seen: list[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
    kept = Kept()
    monkeypatch.setattr(tracing, "tracer", lambda: kept.tracer)
    client = Client(create_app(served, service_of(routes(batcher, seen)), config, None, recorded.metrics))
    await client.http.post("/v1/predict", content="one")
    batcher.close()
    assert kept.all() == []
    assert int(seen[0][-2:], 16) & 1 == 0


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Variables to set for the tracer of this process."""
    for name in settings.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    tracer.cache_clear()
    yield monkeypatch
    tracer.cache_clear()


async def test_an_endpoint_gets_what_a_replica_answered(
    endpoint: pytest.MonkeyPatch, recorded: Recorded, batcher: Batcher[str, str], served: ServedModels,
    config: ServeConfig, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    with receiver() as (url, received):
        endpoint.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        endpoint.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")  # FastAPI's own spans stay out
        client = Client(create_app(served, service_of(routes(batcher, [])), config, None, recorded.metrics))
        await client.http.post("/v1/predict", content="one", headers={"traceparent": PARENT})
        batcher.close()
        found = tracer()
        assert found
        assert found.flush(60)
    spans = {span.name: span for sent in received for scope in sent.scope_spans for span in scope.spans}
    assert set(spans) == {"POST /v1/predict", "queue", "compute"}
    request = spans["POST /v1/predict"]
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == tuple(PARENT.split("-")[1:3])
    assert {spans[name].parent_span_id for name in ("queue", "compute")} == {request.span_id}


async def test_an_endpoint_that_never_answers_is_in_nobodys_way(
    endpoint: pytest.MonkeyPatch, recorded: Recorded, batcher: Batcher[str, str], served: ServedModels,
    config: ServeConfig,
) -> None:  # fmt: skip
    with silent_server() as url:
        endpoint.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        endpoint.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "3600")
        endpoint.setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
        client = Client(create_app(served, service_of(routes(batcher, [])), config, None, recorded.metrics))
        for _ in range(1000):
            assert (await client.http.post("/v1/predict", content="one")).status_code == 200
        batcher.close()
        found = tracer()
        assert found
        assert not found.flush(0.1)
        assert found.sender.lost == 3000 - 2048
