"""The experiment's middleware in a replica: answers or forwards each request to the candidate, and records both."""

from __future__ import annotations

import asyncio
import hashlib
import random
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect

from heliostat.infra import log
from heliostat.serve.config import ServeConfig
from heliostat.serve.errors import App, Message, Receive, RequestError, Scope, Send, send_error, send_event
from heliostat.serve.experiment.config import Experiment
from heliostat.serve.experiment.coordinator import BASELINE, CANDIDATE, Arms, find_coordinator, new_arms
from heliostat.serve.http.body import receive_body, replayed
from heliostat.serve.http.tracing import passed_on
from heliostat.serve.metrics import ServeMetrics

if TYPE_CHECKING:
    import aiohttp

REPORT_SECONDS = 1.0
TRUST_SECONDS = 5.0
"""The candidate gets no requests if the coordinator has not answered for this long."""
FEEDBACK_PATH = "/v1/feedback"
OWN_HEADERS = frozenset({b"connection", b"expect", b"host", b"keep-alive", b"transfer-encoding"})
"""Hop-by-hop headers, which are not forwarded."""
_log = log.get(__name__)


class ExperimentMiddleware:
    """Forwards a share of the requests to the candidate; without an experiment all go to `app`.

    If the candidate fails, `app` answers instead: the client does not see the failure, but it counts.
    """

    app: App

    def __init__(self, name: str, config: ServeConfig, metrics: ServeMetrics) -> None:
        self.name = name
        self.config = config
        self.metrics = metrics
        self.experiment: Experiment | None = None
        self.reporter: Reporter | None = None
        self._session: aiohttp.ClientSession | None = None

    def around(self, app: App) -> ExperimentMiddleware:
        """Wraps the application that answers for the baseline; returns itself."""
        self.app = app
        return self

    def configure(self, experiment: Experiment | None) -> None:
        """Starts an experiment, or ends the running one if None."""
        if self.reporter:
            self.reporter.close()
        self.experiment = experiment
        self.reporter = Reporter(self.name, self.metrics) if experiment else None

    def close(self) -> None:
        """Ends a running experiment and stops its thread."""
        self.configure(None)

    def feedback(self, version: str, value: float) -> None:
        """Records a client's rating, from 0 to 1; raises RequestError 404 if no experiment has this version."""
        experiment, reporter = self.experiment, self.reporter
        arms = {experiment.baseline: BASELINE, experiment.candidate: CANDIDATE} if experiment else {}
        if reporter is None or version not in arms:
            known = " and ".join(arms) or "none, as there is no experiment"
            raise RequestError(404, f"version: {version!r} given; compared are {known}", code="not_found")
        reporter.feedback(arms[version], value)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request; those that do not run the model (health, models, the page) are not part of it."""
        experiment, reporter = self.experiment, self.reporter
        asks = scope.get("method") == "POST" and not scope["path"].endswith(FEEDBACK_PATH)
        if experiment is None or reporter is None or not asks:
            await self.app(scope, receive, send)
            return
        if reporter.is_trusted and self._fits(scope) and goes_to_candidate(experiment, scope):
            try:
                body = await receive_body(scope, receive, self.config)
            except RequestError as error:
                await send_error(scope, send, error)
                return
            except ClientDisconnect:
                return
            if await self._relay(experiment, reporter, scope, body, receive, send):
                return
            receive = replayed(body, receive)
        await self._answer(reporter, scope, receive, send)

    def _fits(self, scope: Scope) -> bool:
        length = _header(scope, b"content-length") or b""
        return length.isdigit() and int(length) <= self.config.max_body_bytes

    async def _answer(self, reporter: Reporter, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers with this replica's model, and records the outcome for the baseline."""
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
        """Forwards to the candidate; False if it failed before anything was sent to the client."""
        work = asyncio.ensure_future(self._hop(experiment, scope, body, TimedSend(send), reporter))
        left = asyncio.ensure_future(receive())  # after the body, only a disconnect can come
        try:
            await asyncio.wait((work, left), return_when=asyncio.FIRST_COMPLETED)
            return work.result() if work.done() else True
        finally:
            work.cancel()
            left.cancel()

    async def _hop(
        self, experiment: Experiment, scope: Scope, body: bytes, client: TimedSend, reporter: Reporter
    ) -> bool:
        with passed_on(scope, experiment.candidate) as passed:
            return await self._ask(experiment, passed, body, client, reporter)

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
                    return False  # the candidate is at its limit, which does not count as a failure
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
                raise  # the server closes the connection: the only way left to signal the failure
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
    """A `send` that records the status and the seconds to the first byte of the body."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._started = time.perf_counter()
        self.status: int | None = None
        self.is_stream = False
        self.seconds: float | None = None

    async def __call__(self, message: Message) -> None:
        """Passes on one message."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.is_stream = any(value.startswith(b"text/event-stream") for _, value in message["headers"])
        elif self.seconds is None and message.get("body"):
            self.seconds = time.perf_counter() - self._started
        await self._send(message)


class Reporter:
    """A thread that reports this replica's statistics to the coordinator each second, and learns whether to go on."""

    def __init__(self, name: str, metrics: ServeMetrics) -> None:
        self._name = name
        self._metrics = metrics
        self._report: Callable[[Arms], bool | None] = self._report_to_coordinator
        self._is_rolled_back = False
        self._lock = threading.Lock()
        self._arms = new_arms()
        self._trusted_until = 0.0
        self._closed = threading.Event()
        threading.Thread(target=self._run, name="heliostat-experiment", daemon=True).start()

    @property
    def is_trusted(self) -> bool:
        """Whether the candidate may get requests: the coordinator said so within the last TRUST_SECONDS."""
        return time.monotonic() < self._trusted_until

    def add(self, which: str, seconds: float | None) -> None:
        """Records one request with its time to first byte; None if it failed."""
        self._metrics.compared(which, has_failed=seconds is None)
        with self._lock:
            self._arms[which].add(seconds)

    def feedback(self, which: str, value: float) -> None:
        """Records one rating."""
        self._metrics.rated(which, value)
        with self._lock:
            self._arms[which].feedback.add(value)

    def close(self) -> None:
        """Stops the thread after a last report."""
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
            goes_on = self._report(reported)
            self._trusted_until = time.monotonic() + TRUST_SECONDS if goes_on else 0.0
            if goes_on is False and not self._is_rolled_back:
                self._is_rolled_back = True
                self._metrics.rolled_back()
        except Exception as error:
            self._keep(reported)
            _log.warning("%s: the experiment's coordinator does not answer: %s", self._name, error)

    def _keep(self, reported: Arms) -> None:
        with self._lock:
            for which, arm in reported.items():
                self._arms[which].merge(arm)

    def _report_to_coordinator(self, reported: Arms) -> bool | None:
        """Whether the candidate should still get requests; None if there is no coordinator (any more)."""
        import ray

        coordinator = find_coordinator(self._name)
        return bool(ray.get(coordinator.report.remote(reported), timeout=TRUST_SECONDS)) if coordinator else None


def goes_to_candidate(experiment: Experiment, scope: Scope) -> bool:
    """Whether the candidate answers this request: by the header `experiment.by` if set, else at random."""
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
