"""Spans on their way to an endpoint: a bounded number in memory, sent by a thread, lost rather than waited for."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from heliostat.infra import log
from heliostat.infra.tracing.settings import ENDPOINTS

MOST_WAITING = 2048
_EXPORTERS_LOGGER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
_log = log.get(__name__)


class Sender(BatchSpanProcessor):
    """Passes spans to `exporter` in batches, in the SDK's thread, and loses those that come while MOST_WAITING wait.

    Counts in `lost` those that were lost, then or by the exporter, and logs a line the first time.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self.lost = 0
        self._waiting = 0
        self._lock = threading.Lock()
        self._reason = _LastMessage()
        logging.getLogger(_EXPORTERS_LOGGER).addFilter(self._reason)
        super().__init__(_Counted(exporter, self._sent), max_queue_size=MOST_WAITING)

    def on_end(self, span: ReadableSpan) -> None:
        """Called in the thread whose work the span is."""
        if not (span.context and span.context.trace_flags.sampled):
            return
        with self._lock:
            has_room = self._waiting < MOST_WAITING
            self._waiting += has_room
        if has_room:
            super().on_end(span)
        else:
            self._lose(1, "the endpoint is too slow for them")

    def _sent(self, count: int, arrived: bool) -> None:
        with self._lock:
            self._waiting -= count
        if not arrived:
            self._lose(count, self._reason.text)

    def _lose(self, count: int, reason: str) -> None:
        with self._lock:
            is_first, self.lost = not self.lost, self.lost + count
        if is_first:
            _log.warning("traces: spans are lost, which slows nothing (%s): %s", " or ".join(ENDPOINTS), reason)


class _Counted(SpanExporter):
    """Tells `sent` of each batch how many spans it had, and whether they arrived."""

    def __init__(self, exporter: SpanExporter, sent: Callable[[int, bool], None]) -> None:
        self._exporter = exporter
        self._sent = sent

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            self._sent(len(spans), result is SpanExportResult.SUCCESS)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


class _LastMessage(logging.Filter):
    """Keeps the last message of a logger, and lets none through: the SDK writes one for each batch and attempt."""

    text = ""

    def filter(self, record: logging.LogRecord) -> bool:
        self.text = record.getMessage()
        return False
