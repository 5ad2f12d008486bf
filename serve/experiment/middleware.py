"""The replica's part in an experiment: it answers itself, or passes a request on to the candidate, and counts both."""

from __future__ import annotations

import asyncio
import hashlib
import random
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from heliostat.infra import log
from heliostat.serve.config import ServeConfig
from heliostat.serve.errors import App, Message, Receive, RequestError, Scope, Send, send_event
from heliostat.serve.experiment.config import Experiment
from heliostat.serve.experiment.coordinator import BASELINE, CANDIDATE, Arms, find_coordinator, new_arms

if TYPE_CHECKING:
    import aiohttp

REPORT_SECONDS = 1.0
TRUST_SECONDS = 5.0
"""Without an answer from the coordinator for so long, the candidate gets nothing."""
FEEDBACK_PATH = "/v1/feedback"
OWN_HEADERS = frozenset({b"connection", b"expect", b"host", b"keep-alive", b"transfer-encoding"})
"""Of one connection, not of the request or the answer that goes over it."""
_log = log.get(__name__)


class ExperimentMiddleware:
    """Sends a share of the requests to the candidate; all of them to `app` where there is no experiment.

    What the candidate fails to answer, `app` answers: no client sees the failure, and it counts.
    """

    app: App

    def __init__(self, name: str, config: ServeConfig) -> None:
        self.name = name
        self.config = config
        self.experiment: Experiment | None = None
        self.reporter: Reporter | None = None
        self._session: aiohttp.ClientSession | None = None

    def around(self, app: App) -> ExperimentMiddleware:
        """Puts it before the application that answers for the baseline."""
        self.app = app
        return self

    def configure(self, experiment: Experiment | None) -> None:
        """Begins an experiment, or ends the one that runs."""
        if self.reporter:
            self.reporter.close()
        self.experiment = experiment
        self.reporter = Reporter(self.name) if experiment else None

    def close(self) -> None:
        """Ends the thread of a running experiment."""
        self.configure(None)

    def feedback(self, version: str, value: float) -> None:
        """What a client said of an answer, from 0 to 1; RequestError 404 where no experiment has this version."""
        experiment, reporter = self.experiment, self.reporter
        arms = {experiment.baseline: BASELINE, experiment.candidate: CANDIDATE} if experiment else {}
        if reporter is None or version not in arms:
            known = " and ".join(arms) or "none, as there is no experiment"
            raise RequestError(404, f"version: {version!r} given; compared are {known}", code="not_found")
        reporter.feedback(arms[version], value)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; those that ask nothing of a model (health, models, the page) are not part of the experiment."""
        experiment, reporter = self.experiment, self.reporter
        asks = scope.get("method") == "POST" and not scope["path"].endswith(FEEDBACK_PATH)
        if experiment is None or reporter is None or not asks:
            await self.app(scope, receive, send)
            return
        if reporter.is_trusted and self._fits(scope) and goes_to_candidate(experiment, scope):
            body = await _body(receive)
            if body is None or await self._relay(experiment, reporter, scope, body, receive, send):
                return
            receive = _again(body, receive)
        await self._answer(reporter, scope, receive, send)

    def _fits(self, scope: Scope) -> bool:
        length = _header(scope, b"content-length") or b""
        return length.isdigit() and int(length) <= self.config.max_body_bytes

    async def _answer(self, reporter: Reporter, scope: Scope, receive: Receive, send: Send) -> None:
        """By the model in this replica."""
        watched = TimedSend(send)
        try:
            await self.app(scope, receive, watched)
        finally:
            if watched.status is not None and watched.status >= 500:
                reporter.add(BASELINE, None)
            elif watched.status == 200 and watched.seconds is not None:
                reporter.add(BASELINE, watched.seconds)

    async def _relay(
        self, experiment: Experiment, reporter: Reporter, scope: Scope, body: bytes, receive: Receive, send: Send
    ) -> bool:
        """By the candidate; False where it did not and nothing was sent to the client."""
        work = asyncio.ensure_future(self._ask(experiment, scope, body, TimedSend(send), reporter))
        left = asyncio.ensure_future(receive())  # all that can come after the body is that the client has gone
        try:
            await asyncio.wait((work, left), return_when=asyncio.FIRST_COMPLETED)
            return work.result() if work.done() else True
        finally:
            work.cancel()
            left.cancel()

    async def _ask(
        self, experiment: Experiment, scope: Scope, body: bytes, client: TimedSend, reporter: Reporter
    ) -> bool:
        import aiohttp

        query = scope.get("query_string", b"").decode("latin-1")
        url = experiment.url + scope["path"].removeprefix(scope.get("root_path", "")) + (f"?{query}" if query else "")
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in _passed(scope["headers"])]
        try:
            async with self._client().post(url, data=body, headers=headers) as response:
                if response.status >= 500:
                    raise aiohttp.ClientError(f"status {response.status}")
                if response.status == 429:
                    return False  # it has enough to do, which is no fault
                raw = [(name.lower(), value) for name, value in _passed(response.raw_headers)]
                await client({"type": "http.response.start", "status": response.status, "headers": raw})
                async for part in response.content.iter_any():
                    await client({"type": "http.response.body", "body": part, "more_body": True})
                await client({"type": "http.response.body", "body": b""})
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as error:
            reporter.add(CANDIDATE, None)
            _log.warning("%s: version %s did not answer: %r", self.name, experiment.candidate, error)
            if client.status is None:
                return False
            if not client.is_stream:
                raise  # the server closes the connection, which is the only sign left
            await send_event(client, RequestError(502, "the answer failed half-way", code="internal_error"))
            return True
        if client.status == 200 and client.seconds is not None:
            reporter.add(CANDIDATE, client.seconds)
        return True

    def _client(self) -> aiohttp.ClientSession:
        import aiohttp

        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession(
                auto_decompress=False,
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(self.config.timeout_seconds),
            )
        return self._session


class TimedSend:
    """A `send` that remembers the status and the seconds to the first byte of the body."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._started = time.perf_counter()
        self.status: int | None = None
        self.is_stream = False
        self.seconds: float | None = None

    async def __call__(self, message: Message) -> None:
        """One message of an answer."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.is_stream = any(value.startswith(b"text/event-stream") for _, value in message["headers"])
        elif self.seconds is None and message.get("body"):
            self.seconds = time.perf_counter() - self._started
        await self._send(message)


class Reporter:
    """The thread that reports to the coordinator each second what this replica saw, and learns whether to go on."""

    def __init__(self, name: str, report: Callable[[Arms], bool] | None = None) -> None:
        self._name = name
        self._report = report or self._report_to_coordinator
        self._lock = threading.Lock()
        self._arms = new_arms()
        self._trusted_until = 0.0
        self._closed = threading.Event()
        threading.Thread(target=self._run, name="heliostat-experiment", daemon=True).start()

    @property
    def is_trusted(self) -> bool:
        """Whether the candidate may have requests."""
        return time.monotonic() < self._trusted_until

    def add(self, which: str, seconds: float | None) -> None:
        """One request, with the time to its first byte; None where it failed."""
        with self._lock:
            self._arms[which].add(seconds)

    def feedback(self, which: str, value: float) -> None:
        """What a client said of an answer."""
        with self._lock:
            self._arms[which].feedback.add(value)

    def close(self) -> None:
        """Tells once more and ends."""
        self._closed.set()

    def _run(self) -> None:
        closed = False
        while not closed:
            self._report_once()
            closed = self._closed.wait(REPORT_SECONDS)
        self._report_once()

    def _report_once(self) -> None:
        with self._lock:
            reported, self._arms = self._arms, new_arms()
        try:
            self._trusted_until = time.monotonic() + TRUST_SECONDS if self._report(reported) else 0.0
        except Exception as error:
            self._keep(reported)
            _log.warning("%s: the experiment's coordinator does not answer: %s", self._name, error)

    def _keep(self, reported: Arms) -> None:
        with self._lock:
            for which, arm in reported.items():
                self._arms[which].merge(arm)

    def _report_to_coordinator(self, reported: Arms) -> bool:
        import ray

        coordinator = find_coordinator(self._name)
        return bool(coordinator and ray.get(coordinator.report.remote(reported), timeout=TRUST_SECONDS))


def goes_to_candidate(experiment: Experiment, scope: Scope) -> bool:
    """Whether the candidate answers this request: by its header where the experiment goes by one, else drawn."""
    if experiment.by is None:
        return random.random() < experiment.share
    value = _header(scope, experiment.by.lower().encode("latin-1"))
    if value is None:
        return False
    digest = hashlib.sha256(f"{experiment.baseline} {experiment.candidate} ".encode() + value).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < experiment.share


def _header(scope: Scope, name: bytes) -> bytes | None:
    return next((value for key, value in scope["headers"] if key == name), None)


def _passed(headers: Any) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in headers if name.lower() not in OWN_HEADERS]


async def _body(receive: Receive) -> bytes | None:
    """The whole body; None where the client went away before its end."""
    parts = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body once more."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
