"""A request as a span, from its arrival to the last byte, on both sides of an experiment's hop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from heliostat.infra.tracing import semconv
from heliostat.infra.tracing.span import Span, current, entered, inside
from heliostat.infra.tracing.tracer import tracer
from heliostat.serve.access.keys import ApiKey
from heliostat.serve.errors import ERROR_CODE, App, Receive, Scope, Send
from heliostat.serve.http.outcome import UNCOUNTED_PATHS, WatchedSend
from heliostat.serve.http.request_id import IDENTIFIED
from heliostat.serve.metrics import ADAPTER

if TYPE_CHECKING:
    from heliostat.infra.tracing.recording import Tracer

TRACED = "heliostat.traced"
"""Key in a request's scope: whether it has a span."""
_METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})
_HEADERS = (b"traceparent", b"tracestate")


def traced(app: App, labels: Mapping[str, str]) -> App:
    """`app` with a span for each request to the model of these `labels`; `app` itself where traces go nowhere."""
    found = tracer()
    return app if found is None else TracingMiddleware(app, found, labels)


class TracingMiddleware:
    """Begins a span for each request, a part of what its `traceparent` says, and ends it after the last byte.

    What it wraps sees its own `traceparent` in the headers, and so does the other side of an experiment's hop. Spans
    hold no text of a request: neither its path, which the route stands for, nor its query, body or key.
    """

    def __init__(self, app: App, tracer: Tracer, labels: Mapping[str, str]) -> None:
        self.app = app
        self.tracer = tracer
        self.labels = labels

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] != "http" or TRACED in scope or _path(scope) in UNCOUNTED_PATHS:
            await self.app(scope, receive, send)
            return
        method = scope["method"] if scope["method"] in _METHODS else "HTTP"
        span = self.tracer.begin(method, "server", headers=_parents(scope), attributes={semconv.HTTP_METHOD: method})
        scope[TRACED] = True
        scope["headers"] = _with_parent(scope, span)
        with entered(span):
            if span.is_recorded:
                await self._record(span, method, scope, receive, send)
            else:
                await self.app(scope, receive, send)

    async def _record(self, span: Span, method: str, scope: Scope, receive: Receive, send: Send) -> None:
        watched = WatchedSend(send)
        try:
            await self.app(scope, receive, watched)
        except Exception:
            watched.has_failed = True
            raise
        finally:
            ended = watched.status
            route = getattr(scope.get("route"), "path", None)
            span.rename(f"{method} {route}" if route else method)
            span.set(_attributes(scope, route, ended, self.labels))
            if ended >= 500:
                span.fail(scope.get(ERROR_CODE) or str(ended))
            span.end()


@contextmanager
def passed_on(scope: Scope, version: str) -> Iterator[Scope]:
    """The scope of a request that another version answers: a span of this side lasts as long as the block."""
    span = current()
    if span is None:
        yield scope
        return
    with inside(span.begin("POST", "client", attributes={semconv.VERSION: version})) as hop:
        yield {**scope, "headers": _with_parent(scope, hop)}


def _with_parent(scope: Scope, span: Span) -> list[tuple[bytes, bytes]]:
    others = [one for one in scope["headers"] if one[0] != b"traceparent"]
    return [*others, (b"traceparent", span.traceparent.encode())]


def _path(scope: Scope) -> str:
    return str(scope["path"].removeprefix(scope.get("root_path", "")))


def _parents(scope: Scope) -> dict[str, str]:
    """What the headers say of the caller's span; nothing if they say it twice."""
    found = [(name.decode(), value.decode("latin-1")) for name, value in scope["headers"] if name in _HEADERS]
    return dict(found) if len(found) == len(dict(found)) else {}


def _attributes(scope: Scope, route: str | None, status: int, labels: Mapping[str, str]) -> dict[str, Any]:
    """How the request ended. A value that is None does not apply."""
    key: ApiKey | None = scope.get("heliostat.key")
    operation, answered_by = semconv.OPERATIONS.get(route or ""), scope.get(ADAPTER)
    return {
        semconv.HTTP_ROUTE: route,
        semconv.HTTP_STATUS: status,
        semconv.ERROR_TYPE: scope.get(ERROR_CODE),
        semconv.MODEL: labels["model"],
        semconv.VERSION: labels["version"],
        semconv.ADAPTER: answered_by,
        semconv.KEY_NAME: key.name if key else None,
        semconv.REQUEST_ID: scope.get(IDENTIFIED),
        semconv.OPERATION: operation,
        semconv.PROVIDER: "heliostat" if operation else None,
        semconv.RESPONSE_MODEL: (answered_by or "{model}@{version}".format(**labels)) if operation else None,
    }
