"""Begins spans, with OpenTelemetry's SDK."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from queue import SimpleQueue
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from heliostat import __version__
from heliostat.infra.tracing.semconv import SCHEMA_URL, SERVICE_NAME, SERVICE_VERSION
from heliostat.infra.tracing.sending import Sender
from heliostat.infra.tracing.span import Span

FLUSH_SECONDS = 2.0
"""How long the end of a process, a run or a replica waits for spans to be sent."""


class Tracer:
    """Begins spans and sends them to `exporter` in the background. Requests are sampled as OTEL_TRACES_SAMPLER says."""

    def __init__(self, exporter: SpanExporter) -> None:
        self.sender = Sender(exporter)
        self._provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        self._provider.sampler = _Sampler(self._provider.sampler)
        self._provider.add_span_processor(self.sender)
        self._tracer = self._provider.get_tracer("heliostat", __version__, SCHEMA_URL)
        self._flushes: SimpleQueue[threading.Event] = SimpleQueue()
        # Begun now, since a process that ends can start no thread, and what ends it must not wait for an endpoint.
        threading.Thread(target=self._flush_all, name="heliostat-traces", daemon=True).start()

    def begin(
        self,
        name: str,
        kind: str = "internal",
        *,
        headers: Mapping[str, str] | None = None,
        links: Sequence[str] = (),
        attributes: Mapping[str, Any] | None = None,
        start_time: int | None = None,
    ) -> Span:
        """Begins a span of OpenTelemetry's SpanKind `kind`, now or at `start_time` (ns since 1970).

        It is a part of what `headers` say, `traceparent` and `tracestate` of W3C's Trace Context, and begins a trace
        if they say nothing valid. `links` are values of `traceparent`.
        """
        inner = self._tracer.start_span(
            name,
            _context(headers or {}),
            SpanKind[kind.upper()],
            attributes,
            [Link(get_current_span(_context({"traceparent": one})).get_span_context()) for one in links],
            start_time,
        )
        return Span(self._tracer, inner)

    def flush(self, seconds: float = FLUSH_SECONDS) -> bool:
        """Sends what has ended; gives up after `seconds`, and returns whether all of it was sent or lost."""
        done = threading.Event()
        self._flushes.put(done)
        return done.wait(seconds)

    def close(self) -> None:
        """Sends what has ended, as far as there is time for it."""
        self.flush()

    def _flush_all(self) -> None:
        while True:
            done = self._flushes.get()
            self._provider.force_flush()
            done.set()


class _Sampler(Sampler):
    """The environment's sampler for requests and their parts; all of what has no parent and is no request.

    Runs and submits are few: a sampler that is right for requests would leave most of them out.
    """

    def __init__(self, of_requests: Sampler) -> None:
        self._of_requests = of_requests

    def should_sample(
        self, parent_context: Context | None, trace_id: int, name: str, kind: SpanKind | None = None, *rest: Any
    ) -> SamplingResult:
        is_request = kind is SpanKind.SERVER or get_current_span(parent_context).get_span_context().is_valid
        sampler = self._of_requests if is_request else ALWAYS_ON
        return sampler.should_sample(parent_context, trace_id, name, kind, *rest)

    def get_description(self) -> str:
        return f"heliostat({self._of_requests.get_description()})"


def _context(headers: Mapping[str, str]) -> Context:
    return TraceContextTextMapPropagator().extract(headers, Context())


def _resource() -> Resource:
    """What the environment says of this service; `heliostat` unless it says a name."""
    found = Resource.create({SERVICE_VERSION: __version__})
    is_named = not str(found.attributes[SERVICE_NAME]).startswith("unknown_service")
    return found if is_named else found.merge(Resource({SERVICE_NAME: "heliostat"}))
