"""What a replica counts, under the names of `heliostat.infra.metrics`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from heliostat.infra import metrics as catalogue
from heliostat.infra.metrics import Metric
from heliostat.serve.errors import App, Message, Receive, Scope, Send

Record = Callable[[Metric, float, Mapping[str, str]], None]


class ServeMetrics:
    """The metrics of one replica; each call costs a few microseconds, as Ray gathers the values in the process."""

    def __init__(self, model: str, version: str, record: Record = catalogue.record) -> None:
        self.labels = {"model": model, "version": version}
        self.record = record

    def request(self, status: int, seconds: float) -> None:
        """One answered request."""
        self.record(catalogue.REQUESTS, 1, {**self.labels, "status": str(status)})
        self.record(catalogue.REQUEST_SECONDS, seconds, self.labels)

    def ongoing(self, count: int) -> None:
        """How many requests the replica holds now."""
        self.record(catalogue.ONGOING_REQUESTS, count, self.labels)

    def batch(self, size: int) -> None:
        """How many inputs went through the model together."""
        self.record(catalogue.BATCH_SIZE, size, self.labels)

    def tokens(self, kind: str, count: int) -> None:
        """Tokens read (`prompt`) or written (`completion`)."""
        if count:
            self.record(catalogue.TOKENS, count, {**self.labels, "kind": kind})

    def first_token(self, seconds: float) -> None:
        """Seconds from a request to its first token."""
        self.record(catalogue.TIME_TO_FIRST_TOKEN_SECONDS, seconds, self.labels)


CLIENT_LEFT = 499
"""The status that is counted where the client went away before the answer was complete."""
UNCOUNTED_PATHS = frozenset({"/health"})


class Measure:
    """Counts each request with its status and its time to the last byte, and says which version answers."""

    def __init__(self, app: App, metrics: ServeMetrics) -> None:
        self.app = app
        self.metrics = metrics
        labels = metrics.labels
        self.version = (b"x-model-version", f"{labels['model']}@{labels['version']}".encode("latin-1"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if scope["type"] != "http" or path in UNCOUNTED_PATHS:
            await self.app(scope, receive, send)
            return
        started, status, complete = time.perf_counter(), 500, False

        async def watch(message: Message) -> None:
            nonlocal status, complete
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), self.version]
            await send(message)
            complete = message["type"] == "http.response.body" and not message.get("more_body", False)

        try:
            await self.app(scope, receive, watch)
        except Exception:
            status, complete = 500, True
            raise
        finally:
            self.metrics.request(status if complete else CLIENT_LEFT, time.perf_counter() - started)
