"""The tracer of a process: None, with nothing of OpenTelemetry imported, where no endpoint is set."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from heliostat.infra import log
from heliostat.infra.tracing.settings import is_on, unknown_protocol
from heliostat.infra.tracing.span import Span, inside

if TYPE_CHECKING:
    from heliostat.infra.tracing.recording import Tracer

_MISSING = "traces: an endpoint is set, and %s is not installed: pip install 'heliostat[tracing]'; none are recorded"
_log = log.get(__name__)


@cache
def tracer() -> Tracer | None:
    """The tracer that the environment asks for. Call it first where the process starts: importing takes a while.

    What stands in its way is told in one line, and traces are off: they never fail a command or a replica.
    """
    if not is_on(os.environ):
        return None
    if problem := unknown_protocol(os.environ):
        _log.warning("%s; no traces are recorded", problem)
        return None
    try:
        found = _opened()
    except ModuleNotFoundError as error:
        _log.warning(_MISSING, error.name)
        return None
    except (ValueError, OSError) as error:  # a variable of the SDK, or a certificate, that it does not take
        _log.warning("traces: none are recorded: %s", error)
        return None
    atexit.register(found.flush)
    return found


@contextmanager
def traced(name: str, attributes: Mapping[str, Any], parent: str = "") -> Iterator[Span | None]:
    """The block as a span, a part of `parent` (a `traceparent`) if that is valid; None where traces go nowhere.

    What has ended is sent before the block is left.
    """
    found = tracer()
    if found is None:
        yield None
        return
    try:
        with inside(found.begin(name, headers={"traceparent": parent}, attributes=attributes)) as span:
            yield span
    finally:
        found.flush()


def _opened() -> Tracer:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    from heliostat.infra.tracing.recording import Tracer

    return Tracer(OTLPSpanExporter())
