from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from threading import Event

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv.attributes import error_attributes, http_attributes, service_attributes
from opentelemetry.semconv.schemas import Schemas

from heliostat.infra import log_fields
from heliostat.infra.tracing import semconv, sending, settings
from heliostat.infra.tracing import tracer as module
from heliostat.infra.tracing.recording import Tracer
from heliostat.infra.tracing.span import current, entered, inside, part, traceparent
from heliostat.infra.tracing.tracer import traced, tracer
from tests.silent import silent_server
from tests.spans import Kept, id_of, parent_of, receiver, trace_of

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NOT_SAMPLED = PARENT[:-1] + "0"
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
OFF = """
import sys
from heliostat.infra.tracing.tracer import tracer
import heliostat.serve.predictors.batcher, heliostat.serve.engines.scheduler
assert tracer() is None
loaded = [name for name in sys.modules if name.startswith("opentelemetry")]
assert not loaded, loaded
import heliostat.serve.http.app  # FastAPI imports the API, and none of what records and sends
loaded = [name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))]
assert not loaded, loaded
"""
ENDS = """
from heliostat.infra.tracing.tracer import tracer
tracer().begin("run").end()
"""


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A process in which no tracer was asked for, and no variable is set."""
    for name in settings.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    tracer.cache_clear()
    yield monkeypatch
    tracer.cache_clear()


class Stuck(SpanExporter):
    """Takes nothing until it is let go, and then fails."""

    def __init__(self) -> None:
        self.go = Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.go.wait(60)
        return SpanExportResult.FAILURE


@pytest.mark.parametrize(
    "more", [{}, {ENDPOINT: ""}, {ENDPOINT: "http://x", "OTEL_SDK_DISABLED": "true"}], ids=["none", "empty", "disabled"]
)
def test_where_no_endpoint_is_set_nothing_of_opentelemetry_is_imported(
    fresh: pytest.MonkeyPatch, more: dict[str, str]
) -> None:
    for name, value in more.items():
        fresh.setenv(name, value)
    done = subprocess.run([sys.executable, "-c", OFF], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc' given; allowed: http/protobuf"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "9999", "max_export_batch_size"),
    ],
)
def test_a_variable_that_is_not_allowed_is_told_in_one_line_and_stops_nothing(
    fresh: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str, told: str
) -> None:
    fresh.setenv(ENDPOINT, "http://127.0.0.1:1")
    fresh.setenv(name, value)
    assert tracer() is None
    [line] = capsys.readouterr().err.splitlines()
    assert told in line


def test_an_extra_that_is_missing_is_told_in_one_line(
    fresh: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fresh.setenv(ENDPOINT, "http://127.0.0.1:1")
    fresh.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    assert tracer() is None
    [line] = capsys.readouterr().err.splitlines()
    assert "pip install 'heliostat[tracing]'" in line


def test_a_part_has_its_parent_its_time_and_its_attributes() -> None:
    kept = Kept()
    with inside(kept.tracer.begin("run", attributes={semconv.RUN: "run-1"})) as run:
        assert current() is run
        assert log_fields.fields()["trace_id"] == run.trace_id
        run.add("step", 2.5, {semconv.STEP: 7})
    assert current() is None
    assert "trace_id" not in log_fields.fields()
    step, whole = kept.one("step"), kept.one("run")
    assert (parent_of(step), trace_of(step)) == (id_of(whole), trace_of(whole))
    assert whole.parent is None
    assert step.end_time
    assert step.start_time == step.end_time - 2_500_000_000
    assert dict(step.attributes or {}) == {semconv.STEP: 7}
    assert whole.resource.attributes["service.name"] == "heliostat"


def test_a_block_is_a_span_below_its_parent_and_nothing_where_traces_go_nowhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @part("load")
    def load() -> str:
        return traceparent()

    monkeypatch.setattr(module, "tracer", lambda: None)
    with traced("train", {}) as nothing:
        assert (nothing, load()) == (None, "")
    kept = Kept()
    monkeypatch.setattr(module, "tracer", lambda: kept.tracer)
    with traced("worker", {semconv.RANK: 1}, PARENT):
        inner = load()
    worker, loading = kept.one("worker"), kept.one("load")
    assert (parent_of(worker), parent_of(loading)) == (0xB7AD6B7169203331, id_of(worker))
    assert inner.split("-")[2] == f"{id_of(loading):016x}"


def test_what_fails_says_the_kind_of_error_and_not_its_text() -> None:
    kept = Kept()
    with pytest.raises(ValueError, match="secret"), inside(kept.tracer.begin("run")):
        raise ValueError("a secret")
    assert "secret" not in kept.one("run").to_json()
    assert dict(kept.one("run").attributes or {}) == {semconv.ERROR_TYPE: "ValueError"}
    assert not kept.one("run").status.is_ok


def test_a_parent_is_taken_over_and_passed_on_if_it_is_valid() -> None:
    kept = Kept()
    headers = {"traceparent": PARENT, "tracestate": "vendor=1"}
    span = kept.tracer.begin("POST", "server", headers=headers)
    assert span.traceparent.split("-")[1] == PARENT.split("-")[1]
    assert span.traceparent.split("-")[2] != PARENT.split("-")[2]
    span.end()
    found = kept.one("POST")
    assert found.context
    assert found.parent
    assert (found.parent.span_id, found.context.trace_state.get("vendor")) == (0xB7AD6B7169203331, "1")
    for wrong in ("", "nonsense", PARENT.replace("00-", "ff-"), "00-" + "0" * 32 + PARENT[35:]):
        assert kept.tracer.begin("POST", "server", headers={"traceparent": wrong}).trace_id != PARENT.split("-")[1]


def test_requests_are_sampled_and_runs_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
    kept = Kept()
    for headers in ({}, {"traceparent": NOT_SAMPLED}):
        assert not kept.tracer.begin("POST", "server", headers=headers).is_recorded
    assert kept.tracer.begin("POST", "server", headers={"traceparent": PARENT}).is_recorded
    run = kept.tracer.begin("run")
    assert run.is_recorded
    assert run.begin("validate").is_recorded
    run.add_linked("step", 1)
    [link] = kept.one("step").links
    assert (link.context.span_id, kept.one("step").parent) == (int(run.traceparent.split("-")[2], 16), None)
    assert trace_of(kept.one("step")) != run.trace_id


def test_a_request_that_is_not_sampled_is_nobodys_current_span_and_has_a_trace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    span = Kept().tracer.begin("POST", "server")
    with entered(span):
        assert current() is None
        assert log_fields.fields()["trace_id"] == span.trace_id


def test_an_endpoint_that_is_stuck_holds_a_bounded_number_of_spans_and_the_others_are_counted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stuck = Stuck()
    kept = Tracer(stuck)
    for _ in range(sending.MOST_WAITING + 100):
        kept.begin("POST", "server").end()
    assert kept.sender.lost == 100
    assert not kept.flush(0.01)
    stuck.go.set()
    assert kept.flush(60)
    assert kept.sender.lost == sending.MOST_WAITING + 100
    [line] = capsys.readouterr().err.splitlines()
    assert "spans are lost, which slows nothing" in line


def test_an_endpoint_that_is_not_there_is_told_in_one_line(
    fresh: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fresh.setenv(ENDPOINT, "http://127.0.0.1:1")
    fresh.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.1")
    found = tracer()
    assert found
    for _ in range(2):
        found.begin("run").end()
        assert found.flush(60)
    assert found.sender.lost == 2
    [line] = capsys.readouterr().err.splitlines()
    assert ENDPOINT in line


def test_an_endpoint_is_sent_spans_at_the_end_of_a_process(fresh: pytest.MonkeyPatch) -> None:
    with receiver() as (url, received):
        fresh.setenv(ENDPOINT, url)
        fresh.setenv("OTEL_SERVICE_NAME", "shop")
        subprocess.run([sys.executable, "-c", ENDS], timeout=200, check=True)
    [sent] = received
    assert [one.value.string_value for one in sent.resource.attributes if one.key == "service.name"] == ["shop"]
    [of_scope] = sent.scope_spans
    assert [span.name for span in of_scope.spans] == ["run"]
    assert of_scope.schema_url == semconv.SCHEMA_URL


def test_a_process_ends_although_its_endpoint_never_answers(fresh: pytest.MonkeyPatch) -> None:
    with silent_server() as url:
        fresh.setenv(ENDPOINT, url)
        fresh.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "3600")
        done = subprocess.run([sys.executable, "-c", ENDS], capture_output=True, text=True, timeout=200, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_names_are_those_of_the_conventions() -> None:
    assert Schemas.V1_44_0.value == semconv.SCHEMA_URL
    known = {
        value
        for module in (gen_ai_attributes, error_attributes, http_attributes, service_attributes)
        for value in vars(module).values()
        if isinstance(value, str)
    }
    ours = {value for name, value in vars(semconv).items() if name.isupper() and isinstance(value, str)}
    names = ours - {semconv.SCHEMA_URL} | set(semconv.TOKENS.values())
    assert {name for name in names if not name.startswith("heliostat.")} <= known
    assert set(semconv.OPERATIONS.values()) <= {one.value for one in gen_ai_attributes.GenAiOperationNameValues}
