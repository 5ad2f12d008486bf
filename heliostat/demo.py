"""`heliostat demo`: one real job through every stage, small enough for a laptop."""

from __future__ import annotations

import json
import os
import secrets
import time
import urllib.request
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from heliostat.infra.errors import ResourceError
from heliostat.infra.installed import TRAINING, require
from heliostat.operations.endpoints import detached
from heliostat.pipeline import prepare, serve, sessions, train, tune
from heliostat.spec import Spec
from heliostat.view.terminal import View

if TYPE_CHECKING:
    from heliostat.serve.deploy.launch import Endpoint

T = TypeVar("T")

DEMOS = {
    "sentiment": (
        "data.limit=4000",
        "data.max_length=128",
        "train.epochs=1",
        "tune.trials=3",
        "tune.epochs=0.25",
        "tune.grace=0.5",
    ),
    "chat": ("data.limit=320", "data.max_length=128", "train.epochs=1", "tune.trials=2", "tune.epochs=0.5"),
}
"""Overrides that make each recipe small."""
REVIEWS = (
    "A quiet film that stays with you for days. The acting is superb.",
    "Two hours of my life that I will never get back. Dull, loud and badly written.",
    "The plot has holes, yet the cast is so charming that I enjoyed every minute.",
)
QUESTION = "Give me three tips for staying healthy."
SAMPLES = ("requests_total", "request_seconds_count", "batch_size_sum", "tokens_total", "train_steps_total")


def run_demo(spec: Spec, keep: bool) -> None:
    """Prepares, tunes (if the spec has a space), trains, evaluates, publishes, serves, queries, reads the metrics.

    Stops everything at the end, unless `keep`: then the endpoint keeps running, in a detached local Ray.
    """
    from heliostat.serve.deploy.launch import undeploy

    require(*TRAINING)
    view, clock = View(), Clock()

    key = os.environ.get("HELIOSTAT_API_KEYS") or secrets.token_urlsafe(24)
    os.environ["HELIOSTAT_API_KEYS"] = key
    with detached(spec, keep), sessions.session(spec):
        prepared = clock.time("prepare", lambda: prepare.run(spec, view))
        best, winner = spec, None
        if spec.tune.space:
            best, found = clock.time("tune", lambda: tune.run(spec, prepared, view))
            winner = found.winner
        trained = clock.time("train, evaluate, publish", lambda: train.run(best, prepared, view, search=winner))
        endpoint = clock.time("serve", lambda: serve.run(serve.app_args(best, trained.model), view))
        try:
            clock.time("ask", lambda: ask(spec, endpoint, key, view))
            samples(view)
        finally:
            if not keep:
                undeploy(spec.name)
    view.table("Time", ["stage", "seconds"], [[name, round(seconds, 1)] for name, seconds in clock.rows()])
    if keep:
        view.say(
            f"The endpoint stays up: {endpoint.url}, with the key {key}. Look: heliostat status. End: heliostat stop"
        )
        view.say(watching())


def watching() -> str:
    """Where the dashboards are: the page of a monitor that runs, else the command for it, and what it lacks here."""
    from heliostat.cluster.folders import LOOPBACK
    from heliostat.cluster.monitor import parts, programs
    from heliostat.cluster.monitor.settings import Settings

    if page := parts.running("page"):
        return f"Watch it on the dashboards: {page.url}/d/heliostat"
    command = f"heliostat monitor up, then http://{LOOPBACK}:{Settings().port('page')}/d/heliostat"
    try:
        for program in (programs.PROMETHEUS, programs.ALERTMANAGER):
            programs.find(program)
    except ResourceError as error:
        return f"Watch it on the dashboards: {command}. That needs {error}"
    return f"Watch it on the dashboards: {command}"


class Clock:
    """Measures how long each stage takes."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    def time(self, name: str, stage: Callable[[], T]) -> T:
        """Runs a stage and records its duration."""
        started = time.perf_counter()
        result = stage()
        self._seconds[name] = time.perf_counter() - started
        return result

    def rows(self) -> list[tuple[str, float]]:
        """Durations of the stages in order, and their sum."""
        return [*self._seconds.items(), ("total", sum(self._seconds.values()))]


def ask(spec: Spec, endpoint: Endpoint, key: str, view: View) -> None:
    """Sends the endpoint a request that fits the recipe's task."""
    {"text-classification": ask_reviews, "causal-lm": ask_chat}[spec.task](endpoint, key, view)


def ask_reviews(endpoint: Endpoint, key: str, view: View) -> None:
    """Sends three reviews and prints a table of the answers."""
    rows = []
    for text in REVIEWS:
        started = time.perf_counter()
        answer = post(f"{endpoint.url}/v1/predict", key, {"text": text})
        milliseconds = round((time.perf_counter() - started) * 1000, 1)
        first = answer["predictions"][0]
        rows.append([text, first["label"], first["score"], answer["version"], milliseconds])
    view.table(f"{endpoint.name} answers", ["review", "label", "score", "version", "ms"], rows)


def ask_chat(endpoint: Endpoint, key: str, view: View) -> None:
    """Sends a chat request with the OpenAI client and streams the answer to the terminal."""
    from openai import OpenAI

    client = OpenAI(base_url=f"{endpoint.url}/v1", api_key=key)
    view.console.print(QUESTION, style="bold", soft_wrap=True)
    turns: Any = [{"role": "user", "content": QUESTION}]
    asked = {"model": endpoint.name, "messages": turns, "max_tokens": 96, "temperature": 0}
    for chunk in client.chat.completions.create(**asked, stream=True):
        view.console.print(chunk.choices[0].delta.content or "" if chunk.choices else "", end="", markup=False)
    view.say("")


def post(url: str, key: str, body: dict[str, Any]) -> dict[str, Any]:
    """Sends a JSON request and returns the JSON response."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def samples(view: View, patience_seconds: float = 20) -> None:
    """Prints a few of Heliostat's Prometheus samples, scraped from Ray's metrics agents."""
    deadline = time.monotonic() + patience_seconds
    found: dict[str, float] = {}
    while not any("requests_total" in name for name in found) and time.monotonic() < deadline:
        found = scraped()
        time.sleep(0.5)
    view.table("Prometheus samples", ["sample", "value"], list(found.items()))


def ours(label: str, value: str) -> bool:
    """Whether a label is Heliostat's, not from Ray (such as `NodeAddress`) or its exporter (such as `otel_scope_name`).

    Prometheus treats a label without a value as absent.
    """
    return bool(value) and label.islower() and not label.startswith("otel_")


def scraped() -> dict[str, float]:
    """Samples of the metrics in SAMPLES from all metrics agents, summed over the labels that Ray adds."""
    from prometheus_client.parser import text_string_to_metric_families

    from heliostat.cluster.scrape import metrics_targets

    wanted = tuple(f"ray_heliostat_{name}" for name in SAMPLES)
    totals: dict[str, float] = {}
    for target in metrics_targets():
        with urllib.request.urlopen(f"http://{target}/metrics", timeout=10) as response:
            families = text_string_to_metric_families(response.read().decode())
        for sample in (sample for family in families for sample in family.samples if sample.name.startswith(wanted)):
            labels = ", ".join(f'{key}="{value}"' for key, value in sample.labels.items() if ours(key, value))
            name = f"{sample.name}{{{labels}}}"
            totals[name] = totals.get(name, 0.0) + sample.value
    return totals
