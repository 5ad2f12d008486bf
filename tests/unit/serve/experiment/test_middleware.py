"""Requests that are split between two applications, over real connections."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from heliostat.serve.config import ServeConfig
from heliostat.serve.errors import App
from heliostat.serve.experiment import middleware as module
from heliostat.serve.experiment.config import Experiment
from heliostat.serve.experiment.coordinator import BASELINE, CANDIDATE, Arms, new_arms
from heliostat.serve.experiment.feedback import feedback_route
from heliostat.serve.experiment.middleware import ExperimentMiddleware, Reporter, goes_to_candidate
from heliostat.serve.http import tracing
from heliostat.serve.http.app import create_app
from heliostat.serve.models.served_models import ServedModels
from tests.spans import Kept, id_of, parent_of, trace_of
from tests.unit.serve.conftest import Client, Recorded, error_of, service_of
from tests.waiting import until

pytestmark = pytest.mark.anyio
TEXT = {"text": "fine"}


@contextmanager
def listening(app: App) -> Iterator[str]:
    """A real server for the application; its URL."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started, "the server listens", 10)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


LEFT = threading.Event()
"""A client has gone away from the candidate's stream."""


def model(version: str) -> APIRouter:
    """Says its version and what it was asked; `fault` in a request tells version 4 what to do wrong."""
    router = APIRouter()

    @router.post("/v1/predict")
    async def predict(request: Request) -> Response:
        asked = await request.json()
        fault = asked.get("fault", "") if version == "4" else ""
        if isinstance(fault, int):
            return JSONResponse({"error": fault}, fault)
        if fault in ("cut", "cut json"):
            kind = "text/event-stream" if fault == "cut" else "application/json"
            return StreamingResponse(cut(), media_type=kind)
        if fault == "slow":
            return StreamingResponse(slow(), media_type="text/event-stream")
        headers = {"x-model-version": f"tiny@{version}", "x-seen-parent": request.headers.get("traceparent", "")}
        key, query = request.headers.get("authorization"), request.url.query
        return JSONResponse({"version": version, "asked": asked, "key": key, "query": query}, 200, headers)

    async def cut() -> AsyncIterator[bytes]:
        yield b"data: one\n\n"
        await asyncio.sleep(0.05)
        raise RuntimeError("half-way")

    async def slow() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"data: one\n\n"
                await asyncio.sleep(0.02)
        finally:
            LEFT.set()

    return router


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    app = FastAPI()
    app.include_router(model("4"))
    with listening(app) as url:
        yield url


class Heard:
    """In place of the board."""

    def __init__(self) -> None:
        self.arms = new_arms()
        self.answer: Callable[[], bool | None] = lambda: True

    def report(self, reported: Arms) -> bool | None:
        for which, arm in reported.items():
            self.arms[which].merge(arm)
        return self.answer()

    def count(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """(requests, errors) of baseline and candidate."""
        return tuple((self.arms[one].requests, self.arms[one].errors) for one in (BASELINE, CANDIDATE))  # type: ignore[return-value]


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Heard:
    found = Heard()
    monkeypatch.setattr(module, "REPORT_SECONDS", 0.05)
    monkeypatch.setattr(Reporter, "_report_to_coordinator", lambda self, reported: found.report(reported))
    return found


def experiment(url: str, **settings: Any) -> Experiment:
    return Experiment.model_validate({"share": 0.999999, "baseline": "7", "candidate": "4", "url": url, **settings})


@pytest.fixture
def middleware(url: str, heard: Heard, served: ServedModels, recorded: Recorded) -> Iterator[ExperimentMiddleware]:
    """An application whose requests go to the candidate, all but one in a million."""
    config = ServeConfig(max_body_bytes=2000, timeout_seconds=2)
    made, service = ExperimentMiddleware("tiny", config, recorded.metrics), service_of(model("7"))
    service.router.include_router(feedback_route(made))
    made.around(create_app(served, service, config, None, recorded.metrics))
    made.configure(experiment(url))
    until(lambda: made.reporter is not None and made.reporter.is_trusted, "the board has answered", 10)
    yield made
    made.close()


async def ask(
    middleware: ExperimentMiddleware, body: Any = TEXT, headers: dict[str, str] | None = None
) -> httpx.Response:
    return await Client(middleware).http.post("/v1/predict", json=body, headers=headers)


async def test_the_candidate_gets_the_request_as_it_came_and_its_answer_comes_back(
    middleware: ExperimentMiddleware, heard: Heard
) -> None:
    key = "Bearer key-of-a-client"
    response = await Client(middleware).http.post("/v1/predict?a=1&b", json=TEXT, headers={"authorization": key})
    assert response.json() == {"version": "4", "asked": TEXT, "key": key, "query": "a=1&b"}
    assert response.headers["x-model-version"] == "tiny@4"
    until(lambda: heard.count() == ((0, 0), (1, 0)), "it is counted", 10)
    assert heard.arms[CANDIDATE].quantile(0.5)


async def test_the_candidates_part_of_a_trace_is_below_the_hop(
    middleware: ExperimentMiddleware, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Kept()
    monkeypatch.setattr(tracing, "tracer", lambda: kept.tracer)
    app = tracing.traced(middleware, recorded.metrics.labels)
    response = await Client(app).http.post("/v1/predict", json=TEXT, headers={"tracestate": "a=1"})
    assert response.json()["version"] == "4"
    request, hop = (next(one for one in kept.all() if one.kind.name == kind) for kind in ("SERVER", "CLIENT"))
    assert (parent_of(hop), trace_of(hop)) == (id_of(request), trace_of(request))
    _, trace, parent, _ = response.headers["x-seen-parent"].split("-")
    assert (trace, parent) == (trace_of(hop), f"{id_of(hop):016x}")


@pytest.mark.parametrize(("fault", "errors"), [(500, 1), (503, 1), (429, 0)])
async def test_what_the_candidate_fails_at_the_baseline_answers(
    middleware: ExperimentMiddleware, heard: Heard, fault: int, errors: int
) -> None:
    response = await ask(middleware, {"fault": fault})
    assert (response.status_code, response.json()["version"]) == (200, "7")
    assert response.json()["asked"] == {"fault": fault}
    until(lambda: heard.count() == ((1, 0), (errors, errors)), "both are counted", 10)


async def test_a_candidate_that_is_gone_costs_no_request(middleware: ExperimentMiddleware, heard: Heard) -> None:
    middleware.configure(experiment("http://127.0.0.1:9"))
    until(lambda: middleware.reporter is not None and middleware.reporter.is_trusted, "the board has answered", 10)
    assert (await ask(middleware)).json()["version"] == "7"
    until(lambda: heard.count() == ((1, 0), (1, 1)), "both are counted", 10)


async def test_a_clients_own_fault_is_nobodys(middleware: ExperimentMiddleware, heard: Heard) -> None:
    assert (await ask(middleware, {"fault": 422})).status_code == 422
    assert (await ask(middleware)).status_code == 200
    until(lambda: heard.count() == ((0, 0), (1, 0)), "the good one is counted", 10)


async def test_a_stream_that_breaks_ends_with_an_error_event(middleware: ExperimentMiddleware, heard: Heard) -> None:
    response = await ask(middleware, {"fault": "cut"})
    assert response.status_code == 200
    first, last = response.text.strip().split("\n\n")
    assert first == "data: one"
    assert "half-way" in last
    until(lambda: heard.count() == ((0, 0), (1, 1)), "it is counted", 10)


async def test_an_answer_that_breaks_and_is_no_stream_ends_the_connection(middleware: ExperimentMiddleware) -> None:
    with listening(middleware) as url:
        async with httpx.AsyncClient() as http:
            with pytest.raises(httpx.RemoteProtocolError):
                await http.post(f"{url}/v1/predict", json={"fault": "cut json"})


async def test_a_client_that_leaves_ends_the_candidates_work(middleware: ExperimentMiddleware) -> None:
    LEFT.clear()
    with listening(middleware) as url:
        ask = httpx.AsyncClient().stream("POST", f"{url}/v1/predict", json={"fault": "slow"})
        async with ask as response:
            await anext(response.aiter_bytes())
        await asyncio.to_thread(until, LEFT.is_set, "the candidate's work has ended", 10)


async def test_what_is_no_question_to_a_model_stays(middleware: ExperimentMiddleware, heard: Heard) -> None:
    response = await Client(middleware).http.get("/v1/predict")
    assert response.status_code == 405

    async def of_unknown_length() -> AsyncIterator[bytes]:
        yield b"{}"

    response = await Client(middleware).http.post("/v1/predict", content=of_unknown_length())
    assert response.json()["version"] == "7"
    until(lambda: heard.count() == ((1, 0), (0, 0)), "the one of unknown length is counted", 10)


async def test_a_body_for_the_candidate_that_stalls_is_refused_in_time(
    middleware: ExperimentMiddleware, heard: Heard
) -> None:
    middleware.config = middleware.config.model_copy(update={"body_timeout_seconds": 0.05})
    with listening(middleware) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(b"POST /v1/predict HTTP/1.1\r\nhost: test\r\ncontent-length: 9\r\n\r\n{")
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"request_timeout" in answer
    assert heard.count() == ((0, 0), (0, 0))


async def test_all_goes_to_the_baseline_once_the_board_says_so_or_nothing(
    middleware: ExperimentMiddleware, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard.answer = lambda: False
    until(lambda: middleware.reporter is not None and not middleware.reporter.is_trusted, "the board is heard", 10)
    assert (await ask(middleware)).json()["version"] == "7"
    heard.answer = lambda: True
    until(lambda: middleware.reporter is not None and middleware.reporter.is_trusted, "the board is heard", 10)
    monkeypatch.setattr(module, "TRUST_SECONDS", 0.0)

    def silent() -> bool:
        raise RuntimeError("no board")

    heard.answer = silent
    until(lambda: middleware.reporter is not None and not middleware.reporter.is_trusted, "trust has run out", 10)
    assert (await ask(middleware)).json()["version"] == "7"


async def test_outcomes_and_ratings_are_counted_by_version(
    middleware: ExperimentMiddleware, recorded: Recorded
) -> None:
    await ask(middleware)
    await ask(middleware, {"fault": 500})  # the candidate fails, the baseline answers
    for version, value in (("7", 0.25), ("7", 0.5), ("tiny@4", 1.0)):
        rating = {"version": version, "value": value}
        assert (await Client(middleware).http.post("/v1/feedback", json=rating)).status_code == 204
    name = "heliostat_experiment_requests_total"
    counted = zip(recorded.labels_of(name, "arm"), recorded.labels_of(name, "result"), strict=True)
    assert list(counted) == [(CANDIDATE, "answered"), (CANDIDATE, "failed"), (BASELINE, "answered")]
    assert recorded.labels_of("heliostat_feedback_total", "arm") == [BASELINE, BASELINE, CANDIDATE]
    assert recorded.of("heliostat_feedback_value_total") == [0.25, 0.5, 1.0]


async def test_a_candidate_that_is_taken_away_is_counted_once_and_an_experiment_that_ends_is_not(
    middleware: ExperimentMiddleware, heard: Heard, recorded: Recorded
) -> None:
    reports: list[bool | None] = []

    def answer(told: bool | None) -> None:
        def once_more() -> bool | None:
            reports.append(told)
            return told

        heard.answer = once_more
        until(lambda: reports.count(told) >= 3, "the board has answered again", 10)

    answer(None)  # there is no coordinator
    assert recorded.of("heliostat_experiment_rollbacks_total") == []
    answer(False)
    assert recorded.of("heliostat_experiment_rollbacks_total") == [1]


async def test_what_was_not_told_is_told_later(middleware: ExperimentMiddleware, heard: Heard) -> None:
    calls: list[float] = []

    def sometimes() -> bool:
        calls.append(time.monotonic())
        return True

    def broken(reported: Arms) -> bool:
        raise RuntimeError("no board")

    assert middleware.reporter
    middleware.reporter._report = broken
    await ask(middleware)
    await asyncio.sleep(0.2)
    assert heard.count() == ((0, 0), (0, 0))
    middleware.reporter._report = heard.report
    until(lambda: heard.count() == ((0, 0), (1, 0)), "it is told", 10)


async def test_feedback_is_counted_for_the_version_that_answered(
    middleware: ExperimentMiddleware, heard: Heard
) -> None:
    client = Client(middleware)
    version = (await ask(middleware)).headers["x-model-version"]
    assert (await client.post("/v1/feedback", {"version": version, "value": 1})).status_code == 204
    assert (await client.post("/v1/feedback", {"version": "7", "value": 0.5})).status_code == 204
    until(lambda: heard.arms[BASELINE].feedback.n == heard.arms[CANDIDATE].feedback.n == 1, "both are counted", 10)
    assert (heard.arms[BASELINE].feedback.mean, heard.arms[CANDIDATE].feedback.mean) == (0.5, 1.0)
    middleware.configure(None)
    for body, status in (({"version": "4", "value": 1}, 404), ({"version": "4", "value": 2}, 422), ({}, 422)):
        response = await client.post("/v1/feedback", body)
        assert response.status_code == status
        assert "version" in error_of(response)["message"] or "value" in error_of(response)["message"]


def test_shares_are_kept_and_a_header_always_goes_the_same_way() -> None:
    def scope(user: str | None) -> dict[str, Any]:
        return {"headers": [(b"x-user", user.encode())] if user else []}

    drawn = experiment("http://x", share=0.3)
    assert sum(goes_to_candidate(drawn, scope(None)) for _ in range(3000)) == pytest.approx(900, abs=120)
    sticky = experiment("http://x", share=0.3, by="X-User")
    ways = {user: goes_to_candidate(sticky, scope(user)) for user in map(str, range(3000))}
    assert sum(ways.values()) == pytest.approx(900, abs=120)
    assert all(goes_to_candidate(sticky, scope(user)) is way for user, way in ways.items())
    assert not any(goes_to_candidate(sticky, scope(None)) for _ in range(100))
    other = experiment("http://x", share=0.3, by="x-user", candidate="5")
    assert sum(goes_to_candidate(other, scope(user)) != way for user, way in ways.items()) > 500
