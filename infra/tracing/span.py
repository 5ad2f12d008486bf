"""A part of a trace, and the one that the work of this thread or task belongs to. Imports nothing of OpenTelemetry."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from heliostat.infra.log_fields import about
from heliostat.infra.tracing.semconv import ERROR_TYPE

if TYPE_CHECKING:
    from opentelemetry import trace

_current: ContextVar[Span | None] = ContextVar("heliostat_span", default=None)


class Span:
    """A span that has begun. Its methods may be called in any thread, and do nothing once it has ended."""

    def __init__(self, tracer: trace.Tracer, inner: trace.Span) -> None:
        self._tracer = tracer
        self._inner = inner
        context = inner.get_span_context()
        self.trace_id = f"{context.trace_id:032x}"
        """32 hexadecimal digits."""
        self.traceparent = f"00-{self.trace_id}-{context.span_id:016x}-{context.trace_flags:02x}"
        """Itself as a parent, as W3C's Trace Context has it."""

    @property
    def is_recorded(self) -> bool:
        """Whether it was sampled, and has not ended."""
        return self._inner.is_recording()

    def begin(self, name: str, kind: str = "internal", **options: Any) -> Span:
        """A part of it, of OpenTelemetry's SpanKind `kind`."""
        from opentelemetry.context import Context
        from opentelemetry.trace import SpanKind, set_span_in_context

        within = set_span_in_context(self._inner, Context())
        return Span(self._tracer, self._tracer.start_span(name, within, SpanKind[kind.upper()], **options))

    def add(self, name: str, seconds: float, attributes: Mapping[str, Any] | None = None) -> Span:
        """Adds a part that took so long and ends now; returns it, for parts of its own."""
        now = time.time_ns()
        part = self.begin(name, start_time=now - int(seconds * 1e9), attributes=attributes)
        part.end(now)
        return part

    def add_linked(self, name: str, seconds: float, attributes: Mapping[str, Any] | None = None) -> None:
        """Adds a trace of its own, which links to this one, of what took so long and ends now."""
        from opentelemetry.context import Context
        from opentelemetry.trace import Link

        now = time.time_ns()
        links = [Link(self._inner.get_span_context())]
        self._tracer.start_span(
            name, Context(), attributes=attributes, links=links, start_time=now - int(seconds * 1e9)
        ).end(now)

    def rename(self, name: str) -> None:
        """Changes its name."""
        if self.is_recorded:
            self._inner.update_name(name)

    def set(self, attributes: Mapping[str, Any]) -> None:
        """Sets attributes; leaves out those that are None."""
        if self.is_recorded:
            self._inner.set_attributes({name: value for name, value in attributes.items() if value is not None})

    def count(self, name: str, amount: int) -> None:
        """Adds to an attribute that is a number."""
        if self.is_recorded:
            self._inner.set_attribute(name, amount + self._inner.attributes.get(name, 0))  # type: ignore[attr-defined]

    def fail(self, kind: str) -> None:
        """Marks it as failed, by the kind of error; its text may be a user's."""
        from opentelemetry.trace import StatusCode

        if self.is_recorded:
            self._inner.set_status(StatusCode.ERROR)
            self._inner.set_attribute(ERROR_TYPE, kind)

    def end(self, at: int | None = None) -> None:
        """Ends it, now or at this time (ns since 1970)."""
        self._inner.end(at)


def current() -> Span | None:
    """The span that what happens now is a part of; None if none is recorded."""
    return _current.get()


def traceparent() -> str:
    """The current span as a parent; empty without one."""
    span = current()
    return span.traceparent if span else ""


@contextmanager
def entered(span: Span) -> Iterator[None]:
    """Makes `span` the current one inside the block if it is recorded, and lines of the log carry its trace."""
    token = _current.set(span if span.is_recorded else None)
    try:
        with about(trace_id=span.trace_id):
            yield
    finally:
        _current.reset(token)


@contextmanager
def inside(span: Span) -> Iterator[Span]:
    """The current span inside the block, ended with it; an error marks it as failed."""
    try:
        with entered(span):
            yield span
    except BaseException as error:
        span.fail(type(error).__name__)
        raise
    finally:
        span.end()


@contextmanager
def part(name: str) -> Iterator[None]:
    """The block, or as a decorator the function, as a part of the current span; nothing without one."""
    span = current()
    if span is None:
        yield
        return
    with inside(span.begin(name)):
        yield
