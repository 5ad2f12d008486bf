"""`heliostat demo`: one real job through every stage, small enough for a laptop."""

from __future__ import annotations

import json
import os
import secrets
import time
import urllib.request
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

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
"""What each recipe is cut down to."""
REVIEWS = (
    "A quiet film that stays with you for days. The acting is superb.",
    "Two hours of my life that I will never get back. Dull, loud and badly written.",
    "The plot has holes, yet the cast is so charming that I enjoyed every minute.",
)
QUESTION = "Give me three tips for staying healthy."
SAMPLES = ("requests_total", "request_seconds_count", "batch_size_sum", "tokens_total", "train_steps_total")


def run_demo(spec: Spec, keep: bool) -> None:
    """Prepare, tune (where the spec has a space), train, evaluate, publish, serve, ask, read the metrics.

    Leaves nothing running, unless `keep`: then the endpoint stays up, in a local Ray of its own.
    """
    from heliostat.serve.deploy.launch import undeploy

    require(*TRAINING)
    view, clock = View(), Clock()

    key = os.environ.get("HELIOSTAT_API_KEYS") or secrets.token_urlsafe(24)
    os.environ["HELIOSTAT_API_KEYS"] = key
    with detached(spec, keep), sessions.session(spec):
        prepared = clock.time("prepare", lambda: prepare.run(spec, view))
        best = spec
        if spec.tune.space:
            best, _ = clock.time("tune", lambda: tune.run(spec, prepared, view))
        trained = clock.time("train, evaluate, publish", lambda: train.run(best, prepared, view))
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


class Clock:
    """How long each stage took."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    def time(self, name: str, stage: Callable[[], T]) -> T:
        """Runs a stage and keeps its time."""
        started = time.perf_counter()
        result = stage()
        self._seconds[name] = time.perf_counter() - started
        return result

    def rows(self) -> list[tuple[str, float]]:
        """Stages in their order, and their sum."""
        return [*self._seconds.items(), ("total", sum(self._seconds.values()))]


def ask(spec: Spec, endpoint: Endpoint, key: str, view: View) -> None:
    """Asks the live endpoint what a user of the recipe would."""
    {"text-classification": ask_reviews, "causal-lm": ask_chat}[spec.task](endpoint, key, view)


def ask_reviews(endpoint: Endpoint, key: str, view: View) -> None:
    """Three reviews, and a table of the answers."""
    rows = []
    for text in REVIEWS:
        started = time.perf_counter()
        answer = post(f"{endpoint.url}/v1/predict", key, {"text": text})
        milliseconds = round((time.perf_counter() - started) * 1000, 1)
        first = answer["predictions"][0]
        rows.append([text, first["label"], first["score"], answer["version"], milliseconds])
    view.table(f"{endpoint.name} answers", ["review", "label", "score", "version", "ms"], rows)


def ask_chat(endpoint: Endpoint, key: str, view: View) -> None:
    """A chat with the OpenAI client, streamed to the terminal."""
    from openai import OpenAI

    client = OpenAI(base_url=f"{endpoint.url}/v1", api_key=key)
    view.say(f"[bold]{QUESTION}[/bold]")
    turns: Any = [{"role": "user", "content": QUESTION}]
    asked = {"model": endpoint.name, "messages": turns, "max_tokens": 96, "temperature": 0}
    for chunk in client.chat.completions.create(**asked, stream=True):
        view.console.print(chunk.choices[0].delta.content or "" if chunk.choices else "", end="", markup=False)
    view.say("")


def post(url: str, key: str, body: dict[str, Any]) -> dict[str, Any]:
    """The JSON answer to a JSON request."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def samples(view: View, patience_seconds: float = 20) -> None:
    """A few Prometheus samples of ours, as a scrape of the metrics agents shows them."""
    deadline = time.monotonic() + patience_seconds
    found: dict[str, float] = {}
    while not any("requests_total" in name for name in found) and time.monotonic() < deadline:
        found = scraped()
        time.sleep(0.5)
    view.table("Prometheus samples", ["sample", "value"], list(found.items()))


def ours(label: str, value: str) -> bool:
    """Whether we gave this label, not Ray (as `NodeAddress`) or its exporter (as `otel_scope_name`).

    To Prometheus a label without a value is no label.
    """
    return bool(value) and label.islower() and not label.startswith("otel_")


def scraped() -> dict[str, float]:
    """Samples of the metrics agents that belong to SAMPLES, summed over the labels that Ray puts on all it exports."""
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
