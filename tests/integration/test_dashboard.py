"""Every query of the dashboards, and every rule, asked of a Prometheus that watched a search, a run and two endpoints.

An OTLP endpoint got the spans of both.

The page draws all dashboards in Chromium too. The pictures of docs/monitoring.md are made here, with a minute more of
load: `HELIOSTAT_PICTURES=$PWD/docs/pictures make test ARGS="tests/integration/test_dashboard.py -k page" WORKERS=0`.
"""

from __future__ import annotations

import io
import math
import os
import re
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from rich.console import Console
from selenium.webdriver import Chrome

from heliostat.cluster.config import ClusterConfig
from heliostat.cluster.scrape import shipped_folder
from heliostat.cluster.session.session import session
from heliostat.infra.alerts import files, gpu
from heliostat.infra.alerts.ray_names import (
    ACTIVE_NODES,
    DISK_PERCENT,
    GPU_UTILIZATION,
    IDLE_NODES,
    INGRESS_REQUESTS,
    MEMORY_TOTAL,
    MEMORY_USED,
    OBJECT_STORE_MEMORY,
    REPLICAS_HEALTHY,
    REPLICAS_WANTED,
)
from heliostat.infra.alerts.rule import Alert, Recording
from heliostat.infra.config import strict
from heliostat.infra.dashboards import build, promql
from heliostat.infra.dashboards.grafana import Dashboard, Variable
from heliostat.infra.exporter.server import collector, serving
from heliostat.infra.registry import bundle
from heliostat.infra.registry.published import PublishedModel, write_description
from heliostat.infra.storage.config import StorageConfig
from heliostat.infra.storage.store import open_store
from heliostat.infra.tracing import semconv, settings
from heliostat.infra.tracing.tracer import tracer
from heliostat.pipeline import prepare, train, tune
from heliostat.serve.access.auth import ENVIRONMENT
from heliostat.serve.access.keys import generate_key
from heliostat.serve.args import AppArgs
from heliostat.serve.config import ServeConfig
from heliostat.serve.deploy.launch import Endpoint, deploy
from heliostat.spec import Spec
from heliostat.view.terminal import View
from tests.browser import chromium
from tests.certificates import write_certificate
from tests.page import open_dashboard, page_server, set_scheme, states, take_picture
from tests.ports import free_port
from tests.prometheus import Prometheus, prometheus
from tests.spans import receiver
from tests.waiting import until

GRAFANA = {"$__rate_interval": "10s", "$__interval": "1s", "$__range": "5m"}
"""What Grafana puts in place of its own variables."""
KEY = generate_key()
PICTURES = os.environ.get("HELIOSTAT_PICTURES")
"""A folder for pictures of the dashboards, where they are wanted."""
PICTURE_SECONDS = 60


def trained(spec: Spec) -> AppArgs:
    """A real search and a real run of the pipeline; returns how the run's model is served."""
    view = View(Console(file=io.StringIO()))
    prepared = prepare.run(spec, view)
    tune.run(spec, prepared, view)
    model = train.run(spec, prepared, view).model
    return AppArgs(
        name=spec.name, url=model.url, digest=model.digest, version=str(model.version),
        config=spec.serve, storage=spec.storage,
    )  # fmt: skip


def generator(storage: StorageConfig, config: ServeConfig, words: Path) -> AppArgs:
    """A tiny random language model, published by hand; returns how it is served."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = Path(storage.url).parent / "writer"
    tokenizer = AutoTokenizer.from_pretrained(words)
    tokenizer.save_pretrained(folder / "model")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    llama = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=64, eos_token_id=None, **sizes)
    LlamaForCausalLM(llama).save_pretrained(folder / "model")
    description = PublishedModel(
        name="writer", task="causal-lm", labels=(), max_length=16, base_model="tiny", run_id="r1",
        data_fingerprint="0", metrics={}, heliostat_version="0", created=datetime.now(timezone.utc),
    )  # fmt: skip
    write_description(folder, description)
    prefix = "models/writer/r1"
    manifest = bundle.publish_directory(open_store(storage), prefix, folder)
    url = f"{storage.url}/{prefix}"
    return AppArgs(name="writer", url=url, digest=manifest.digest, version="1", config=config, storage=storage)


def ask(endpoint: Endpoint, path: str, body: dict[str, Any]) -> None:
    headers = {"authorization": f"Bearer {KEY}"}
    answer = httpx.post(f"{endpoint.url}{path}", json=body, headers=headers, timeout=30, verify=False)
    assert answer.status_code == 200, answer.text


def ask_until_seen(server: Prometheus, classifier: Endpoint, writer: Endpoint) -> None:
    """Requests to both endpoints, for as long as it takes until Prometheus knows their rates."""
    wanted = [
        "sum(rate(ray_heliostat_request_seconds_count[10s])) > 0",
        "sum(rate(ray_heliostat_time_to_first_token_seconds_count[10s])) > 0",
        "sum(ray_serve_autoscaling_total_requests)",
    ]
    began = time.monotonic()
    while (unseen := [query for query in wanted if not server.now(query)]) or shows_too_little(began):
        assert not unseen or time.monotonic() < began + 90, f"not scraped in 90 s: {unseen}"
        ask(classifier, "/v1/predict", {"text": "the film was superb"})
        ask(writer, "/v1/completions", {"model": "writer", "prompt": "the film", "max_tokens": 8})
        time.sleep(0.3)
    time.sleep(2)  # so that the last step of a range has what this moment has


def shows_too_little(began: float) -> bool:
    return PICTURES is not None and time.monotonic() < began + PICTURE_SECONDS


@pytest.fixture(scope="module")
def sent() -> Iterator[list[Any]]:
    """What an OTLP endpoint is sent by this process and those that it starts."""
    with pytest.MonkeyPatch.context() as patch, receiver() as (url, received):
        for name in settings.VARIABLES:
            patch.delenv(name, raising=False)
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "500")
        tracer.cache_clear()
        yield received
        tracer.cache_clear()


@pytest.fixture(scope="module")
def watched(
    tmp_path_factory: pytest.TempPathFactory, tiny_values: dict[str, Any], tiny_encoder: Path, sent: list[Any]
) -> Iterator[Prometheus]:
    """A Prometheus that has seen a search, a training run, a classification endpoint and one that writes."""
    folder = tmp_path_factory.mktemp("dashboard")
    storage = {"url": str(folder / "storage")}
    # Long enough for several scrapes.
    values = {**tiny_values, "train": {**tiny_values["train"], "epochs": 6}, "storage": storage}
    values["tune"] = {**values["tune"], "trials": 2, "scheduler": "none"}
    promises = {"latency_seconds": {"p95": 30}, "first_token_seconds": {"p95": 30}}
    tls = {"certificate": str(write_certificate(folder / "server.pem", days=90)), "port": free_port()}
    values["serve"] = {**values["serve"], "port": free_port(), "objectives": promises, "tls": tls}
    spec = strict.build(Spec, values)
    # Rays that share a folder share the list of what to scrape. A short path: it becomes a part of sockets' names.
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="hs-", dir="/tmp") as ray_folder:
        patch.setenv("RAY_TMPDIR", ray_folder)
        patch.setenv(ENVIRONMENT, KEY)
        patch.setenv("RAY_metrics_report_interval_ms", "1000")
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        with (
            session(ClusterConfig(num_cpus=4), cpus=2),
            serving(collector(spec.storage, every_seconds=1), "127.0.0.1", 0) as exporter_port,
            prometheus(folder, exporter_port=exporter_port) as server,
        ):
            endpoint = deploy(trained(spec))
            writer = deploy(generator(spec.storage, spec.serve, tiny_encoder))
            ask_until_seen(server, endpoint, writer)
            yield server


QUERIES = {
    f"{panel.title}-{query.legend}": query.expression
    for dashboard in build.DASHBOARDS
    for _, panels in dashboard.rows
    for panel in panels
    for query in panel.queries
}
VARIABLES = [
    pytest.param(variable, id=f"{dashboard.uid}-{variable.label}")
    for dashboard in build.DASHBOARDS
    for variable in dashboard.variables
]


def filled_in(query: str) -> str:
    """The query as Grafana sends it where All is chosen everywhere."""
    for name, value in {**GRAFANA, **{f"${label}": ".*" for label in promql.VARIABLES}}.items():
        query = query.replace(name, value)
    assert "$" not in query
    return query


def spans(sent: list[Any]) -> list[Any]:
    return [span for one in list(sent) for scope in one.scope_spans for span in scope.spans]


def attributes(span: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


def test_the_run_is_a_trace_to_which_its_steps_link(watched: Prometheus, sent: list[Any]) -> None:
    [run] = [span for span in spans(sent) if span.name == "train"]
    below = [span for span in spans(sent) if span.trace_id == run.trace_id and span is not run]
    assert {span.name for span in below} == {"worker", "evaluate", "checkpoint", "upload", "publish"}
    workers = [span for span in below if span.name == "worker"]
    assert {span.parent_span_id for span in workers} == {run.span_id}
    assert sorted(attributes(span)[semconv.RANK] for span in workers) == list(range(len(workers)))
    steps = [span for span in spans(sent) if span.name == "step"]
    assert {link.span_id for span in steps for link in span.links} == {span.span_id for span in workers}
    assert {attributes(span)[semconv.RUN] for span in (run, *workers, *steps)} == {attributes(run)[semconv.RUN]}


@pytest.mark.parametrize(
    ("route", "phases"),
    [("/v1/predict", {"queue", "compute"}), ("/v1/completions", {"queue", "prefill", "decode"})],
)
def test_requests_of_both_endpoints_are_traces_with_their_phases(
    watched: Prometheus, sent: list[Any], route: str, phases: set[str]
) -> None:
    def found() -> bool:
        requests = [span for span in spans(sent) if span.name == f"POST {route}"]
        parts = [{one.name for one in spans(sent) if one.parent_span_id == span.span_id} for span in requests]
        return phases in parts

    until(found, f"a request of {route} with its parts", 20)


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_a_panel_shows_data(watched: Prometheus, query: str) -> None:
    """Asked again for a while: a range ends at a whole step, which may be just before the newest sample."""
    until(lambda: any(map(math.isfinite, watched.since_start(filled_in(query)))), f"data for {query}", 10)


@pytest.mark.parametrize(
    ("query", "least"),
    [
        ('ray_heliostat_requests_total{status="200"}', 2),
        ("ray_heliostat_train_steps_total", 100),
        ("ray_heliostat_train_learning_rate", 0.005),
        ('ray_heliostat_tokens_total{kind="completion"}', 8),
        ("ray_node_mem_used / ray_node_mem_total", 0.01),
    ],
)
def test_the_numbers_are_those_of_the_work(watched: Prometheus, query: str, least: float) -> None:
    assert max(watched.since_start(query)) >= least


@pytest.mark.parametrize("variable", VARIABLES)
def test_a_variable_has_values(watched: Prometheus, variable: Variable) -> None:
    window = {"start": watched.started, "end": time.time()}
    values = watched.get(f"label/{variable.label}/values", **{"match[]": filled_in(variable.selector)}, **window)
    assert values
    assert variable.label != "model" or "tiny" in values


RULES: tuple[Alert | Recording, ...] = (*files.alerts(), *files.recordings())
NOT_HERE = {
    ACTIVE_NODES, f'{ACTIVE_NODES}{{namespace!=""}}', IDLE_NODES, GPU_UTILIZATION, gpu.TAKEN,
    f'{INGRESS_REQUESTS}{{application!="", status_code=~"5.."}}',
}  # fmt: skip
"""A Ray that lives in a command, as here, has no autoscaler; a detached one has. Nor are there GPUs, or errors, which
`test_alerts.py` makes."""
ASKED = {
    one
    for rule in RULES
    for one in re.findall(r"\b(?:(?:ray|up|scrape|prometheus)_?\w*|heliostat_\w+)(?:\{[^}]*\})?", rule.expr)
}
LABELLED = (
    f'{MEMORY_USED}{{ip!=""}} / {MEMORY_TOTAL}',
    f'{DISK_PERCENT}{{ip!=""}}',
    f'{OBJECT_STORE_MEMORY}{{NodeAddress!="", job="ray"}}',
    f'{REPLICAS_HEALTHY}{{application!="", deployment!=""}}',
    f'{REPLICAS_WANTED}{{application!="", deployment!=""}}',
)
"""Labels by which alerts name things."""


@pytest.mark.parametrize("selector", [*sorted(ASKED - NOT_HERE), *LABELLED])
def test_what_rules_ask_for_is_there(watched: Prometheus, selector: str) -> None:
    until(lambda: bool(watched.since_start(selector)), f"data for {selector}", 5)


@pytest.mark.parametrize("recording", files.recordings(), ids=lambda recording: recording.name)
def test_a_recorded_query_has_numbers(watched: Prometheus, recording: Recording) -> None:
    found = watched.since_start(recording.name)
    assert found
    assert all(map(math.isfinite, found))


def test_prometheus_evaluates_every_rule(watched: Prometheus) -> None:
    def health() -> dict[str, str]:
        groups = watched.get("rules")["groups"]
        return {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}

    until(lambda: "unknown" not in health().values(), "each rule is evaluated", 30)
    assert health() == {rule.name: "ok" for rule in RULES}


def test_nothing_fires_but_the_watchdog(watched: Prometheus) -> None:
    firing = {alert["labels"]["alertname"] for alert in watched.get("alerts")["alerts"] if alert["state"] == "firing"}
    assert firing == {"HeliostatWatchdog"}


@pytest.fixture(scope="module")
def page(watched: Prometheus) -> Iterator[str]:
    with page_server(watched.url, shipped_folder("grafana") / "dashboards", scrape_seconds=2) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    with chromium() as browser:
        yield browser


@pytest.mark.parametrize("dashboard", build.DASHBOARDS, ids=lambda dashboard: dashboard.uid)
def test_the_page_draws_every_panel(watched: Prometheus, page: str, browser: Chrome, dashboard: Dashboard) -> None:
    set_scheme(browser, "light")
    window = f"from={watched.started * 1000:.0f}&to={time.time() * 1000:.0f}"
    open_dashboard(browser, f"{page}/d/{dashboard.uid}?{window}&refresh=")
    found = states(browser)
    assert len(found) == sum(len(panels) for _, panels in dashboard.rows)
    assert [(title, says) for title, state, says, _ in found if state != "drawn"] == []
    assert [(title, unknown) for title, _, _, unknown in found if unknown] == []
    if PICTURES:
        take_picture(browser, Path(PICTURES) / f"{dashboard.uid}.png")


def test_a_metric_that_does_not_exist_has_no_data(watched: Prometheus) -> None:
    assert not watched.since_start("ray_heliostat_no_such_metric")
