"""Request ids, and what metrics and the log say of requests: never what users sent."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, StreamingResponse

from heliostat.infra import log, log_fields
from heliostat.serve.access.control import AccessControl
from heliostat.serve.config import ServeConfig
from heliostat.serve.errors import Receive, Scope, Send
from heliostat.serve.http.app import create_app
from heliostat.serve.http.limits import parse_body
from heliostat.serve.http.outcome import AnswerFailedError, OutcomeMiddleware
from heliostat.serve.http.request_id import RequestIdMiddleware
from heliostat.serve.models.served_models import ServedModels
from heliostat.serve.predictors.batcher import Batcher, Limits
from tests.unit.serve.conftest import KEY, Client, Recorded, service_of

pytestmark = pytest.mark.anyio
MARKER = "my-secret-text"


@pytest.fixture(params=["json", "text"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A process that has not logged yet, and logs in this way."""
    root = logging.getLogger("heliostat")
    before = root.handlers[:], root.level, root.propagate
    root.handlers.clear()
    for name in log.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HELIOSTAT_LOG", request.param)
    log_fields.identify(model="tiny", version="7")
    log.get("heliostat")
    yield request.param
    log_fields.identify()
    root.handlers[:], root.propagate = before[0], before[2]
    root.setLevel(before[1])


def run(batch: list[str]) -> Sequence[str]:
    """A model that fails at some texts, and says at which."""
    for text in batch:
        if text.endswith("fails"):
            raise ValueError(f"no answer to {text}")
    return batch


def routes(batcher: Batcher[str, str]) -> APIRouter:
    """Routes that answer, fail in the model, and fail."""
    router = APIRouter()

    @router.post("/model")
    async def model(request: Request) -> JSONResponse:
        return JSONResponse(await batcher.submit([(await request.body()).decode()]))

    @router.post("/fault")
    async def fault(request: Request) -> JSONResponse:
        raise RuntimeError((await request.body()).decode())

    @router.post("/field")
    async def field(request: Request) -> JSONResponse:
        return JSONResponse(parse_body(ServeConfig, await request.body()).port)

    @router.post("/stream")
    async def stream(request: Request) -> StreamingResponse:
        async def parts() -> Any:
            yield b"data: 1\n\n"
            if b"fails" in await request.body():
                raise RuntimeError((await request.body()).decode())

        await request.body()
        return StreamingResponse(parts(), media_type="text/event-stream")

    return router


@pytest.fixture
def client(
    kind: str, served: ServedModels, config: ServeConfig, access: AccessControl, recorded: Recorded
) -> Iterator[Client]:
    """An application around such routes."""
    batcher = Batcher[str, str](run, len, Limits(4, 1000), recorded.metrics, blank="", pass_seconds=60)
    yield Client(create_app(served, service_of(routes(batcher)), config, access, recorded.metrics))
    batcher.close()


ASKED = {
    200: ("/model", MARKER), 422: ("/field", json.dumps({"port": MARKER})), 400: ("/field", MARKER),
    500: ("/fault", MARKER), 413: ("/model", MARKER * 200), 404: ("/nothing", MARKER),
}  # fmt: skip


@pytest.mark.parametrize(("status", "asked"), ASKED.items())
async def test_every_response_has_the_id_that_was_given(
    client: Client, capsys: pytest.CaptureFixture[str], status: int, asked: tuple[str, str]
) -> None:
    path, text = asked
    answer = await client.http.post(path, content=text, headers={"x-request-id": "abc"})
    assert (answer.status_code, answer.headers.get_list("x-request-id")) == (status, ["abc"])
    unknown = await client.http.post(path, content=text, headers={"authorization": f"Bearer {MARKER}"})
    assert (unknown.status_code, len(unknown.headers["x-request-id"])) == (401, 32)
    written = capsys.readouterr().err
    assert MARKER not in written
    assert KEY not in written


async def test_what_fails_is_logged_by_its_request_without_its_text(
    kind: str, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in ("/model", "/fault"):
        answer = await client.http.post(path, content=f"{MARKER} fails", headers={"x-request-id": "abc-1"})
        assert answer.status_code == 500
    with suppress(httpx.HTTPError):
        await client.http.post("/stream", content=f"{MARKER} fails", headers={"x-request-id": "abc-1"})
    written = capsys.readouterr().err
    assert MARKER not in written
    assert "ValueError" in written
    assert "a pass over 1 inputs failed" in written
    assert written.count("a request failed") == 3
    if kind == "json":
        lines = [json.loads(line) for line in written.splitlines()]
        assert {line["request_id"] for line in lines} == {"abc-1"}
        assert {(line["model"], line["version"]) for line in lines} == {("tiny", "7")}
        assert sum("exception" in line for line in lines) == 4
    else:
        assert written.count("[request abc-1]") == 4


async def test_a_pass_over_several_requests_names_them_all(
    kind: str, recorded: Recorded, capsys: pytest.CaptureFixture[str]
) -> None:
    batcher = Batcher[str, str](run, len, Limits(4, 1000), recorded.metrics, blank="", pass_seconds=60)

    async def ask(name: str) -> None:
        with log_fields.about(request_id=name):
            await asyncio.gather(batcher.submit([f"{MARKER} fails", f"{MARKER} fails"]), return_exceptions=True)

    await asyncio.gather(ask("abc"), ask("def"))
    batcher.close()
    written = capsys.readouterr().err
    assert MARKER not in written
    assert all(re.search(rf"\b{name}\b", written) for name in ("abc", "def"))


async def test_json_has_one_line_for_each_request_with_the_name_of_its_key(
    kind: str, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    await client.http.post("/model?q=query", content=MARKER, headers={"x-request-id": "abc"})
    await client.http.post("/nothing", content=MARKER, headers={"x-request-id": "def", "authorization": ""})
    await client.http.get("/health")
    written = capsys.readouterr().err
    if kind == "text":
        assert written == ""
        return
    first, second = map(json.loads, written.splitlines())
    assert first.pop("seconds") > 0
    del first["time"]
    assert first == {
        "level": "INFO", "event": "request", "logger": "heliostat.serve.http.outcome", "method": "POST",
        "path": "/model", "status": 200, "key": "tests", "model": "tiny", "version": "7", "request_id": "abc",
    }  # fmt: skip
    assert (second["status"], second["request_id"], second.get("key")) == (401, "def", None)


@pytest.mark.parametrize(
    "sent", [[], [b""], [b"x" * 129], [b"a b"], [b"a\r\nset-cookie: x"], [b"\xff"], [b"a\x00"], [b"abc", b"def"]]
)
async def test_an_id_that_is_none_is_replaced_for_all_that_is_inside(sent: list[bytes]) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend(value for name, value in scope["headers"] if name == b"x-request-id")
        seen.append(log_fields.request_id())
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"X-Request-ID", b"other"), (b"a", b"b")]}
        )

    async def send(message: Any) -> None:
        seen.append(message["headers"])

    scope = {"type": "http", "headers": [(b"x-request-id", one) for one in sent]}
    await RequestIdMiddleware(app)(scope, None, send)  # type: ignore[arg-type]
    inside, logged, headers = seen
    assert re.fullmatch("[0-9a-f]{32}", logged)
    assert (inside, headers) == (logged.encode(), [(b"a", b"b"), (b"x-request-id", logged.encode())])


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
    await OutcomeMiddleware(app, recorded.metrics)(scope, nothing, send)
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
    with pytest.raises(AnswerFailedError):
        await ask(recorded, 200, parts=2, fail=True)
    assert recorded.labels_of("heliostat_requests_total", "status") == ["500"]
