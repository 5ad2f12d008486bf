"""Begins spans, with OpenTelemetry's SDK."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from queue import SimpleQueue
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, Sampler, SamplingResult
from opentelemetry.trace import SpanKind
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
        attributes: Mapping[str, Any] | None = None,
    ) -> Span:
        """Begins a span of OpenTelemetry's SpanKind `kind`.

        It is a part of what `headers` say, `traceparent` and `tracestate` of W3C's Trace Context, and begins a trace
        if they say nothing valid.
        """
        within = TraceContextTextMapPropagator().extract(headers, Context()) if headers else Context()
        return Span(self._tracer, self._tracer.start_span(name, within, SpanKind[kind.upper()], attributes))

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


_OF_PARTS = ParentBased(ALWAYS_ON)


class _Sampler(Sampler):
    """The environment's sampler for requests; parts go by what they are a part of, and all else is recorded.

    Runs and submits are few: a sampler that is right for requests would leave most of them out.
    """

    def __init__(self, of_requests: Sampler) -> None:
        self._of_requests = of_requests

    def should_sample(
        self, parent_context: Context | None, trace_id: int, name: str, kind: SpanKind | None = None, *rest: Any
    ) -> SamplingResult:
        sampler = self._of_requests if kind is SpanKind.SERVER else _OF_PARTS
        return sampler.should_sample(parent_context, trace_id, name, kind, *rest)

    def get_description(self) -> str:
        return f"heliostat({self._of_requests.get_description()})"


def _resource() -> Resource:
    """What the environment says of this service; `heliostat` unless it says a name."""
    found = Resource({SERVICE_VERSION: __version__}).merge(Resource.create())
    is_named = not str(found.attributes[SERVICE_NAME]).startswith("unknown_service")
    return found if is_named else found.merge(Resource({SERVICE_NAME: "heliostat"}))
