"""A job's spans are parts of the submit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from heliostat.cluster import jobs
from heliostat.infra.tracing import semconv
from heliostat.infra.tracing import tracer as tracing
from heliostat.operations.submit import submit_command
from heliostat.spec import load_spec
from tests.spans import Kept, id_of, trace_of


def test_a_job_is_told_that_its_spans_are_parts_of_the_submit(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept()
    passed: dict[str, str] = {}

    @contextmanager
    def environment(_: Sequence[Path], variables: Mapping[str, str]) -> Iterator[dict[str, str]]:
        passed.update(variables)
        yield {}

    monkeypatch.setattr(tracing, "tracer", lambda: kept.tracer)
    monkeypatch.setattr(jobs, "environment", environment)
    monkeypatch.setattr(jobs, "submit", lambda *_, **__: "raysubmit_1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=secret")
    submit_command("train", load_spec("digits"), "http://head:8265", wait=False)
    span = kept.one("submit")
    assert passed["TRACEPARENT"].split("-")[1:3] == [trace_of(span), f"{id_of(span):016x}"]
    assert dict(span.attributes or {}) == {semconv.COMMAND: "train", semconv.MODEL: "digits"}
    assert passed["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://collector:4318"
    assert "OTEL_EXPORTER_OTLP_HEADERS" not in passed
