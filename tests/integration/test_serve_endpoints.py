"""Two tiny published models on a real Ray, through HAProxy, with the clients that users have."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import ray
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from transformers import LlamaForCausalLM

from heliostat.cluster.config import ClusterConfig
from heliostat.cluster.session.session import session
from heliostat.infra.errors import ConfigError, IntegrityError, ModelError, ResourceError
from heliostat.infra.storage.local import LocalStore
from heliostat.operations.bench import bench
from heliostat.serve.access.auth import ENVIRONMENT
from heliostat.serve.access.keys import add_key, generate_key, remove_key
from heliostat.serve.access.sync import UsageSync
from heliostat.serve.access.usage import REQUESTS, UsageCounter, UsageLedger
from heliostat.serve.args import AppArgs
from heliostat.serve.deploy.launch import Endpoint, deploy, status, undeploy
from heliostat.serve.drift.window import DriftLedger, slot_of
from heliostat.serve.ledger import LedgerActor, LedgerClient, end_ledger, ledger_name
from tests.browser import chromium, give, screenshot, text_of, visit
from tests.integration.observed import alive_actors, named_actors, placement_groups, samples
from tests.integration.tiny_models import LABELS, app_args, classifier, generator, greedy, publish, tokenizer
from tests.ports import free_port
from tests.waiting import until

KEY = generate_key()
PORT = free_port()


def arguments(name: str, published: tuple[str, str], storage: Path, **config: Any) -> AppArgs:
    """How a tiny model is served in these tests, unless `config` says otherwise."""
    settings = {"port": PORT, "cpus_per_replica": 0.5, "max_body_bytes": 20_000, "timeout_seconds": 20, **config}
    return app_args(name, published, storage, "3", settings)


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("serve") / "storage"


@pytest.fixture(scope="module")
def ray_session() -> Iterator[None]:
    before = os.environ.get(ENVIRONMENT)
    os.environ[ENVIRONMENT] = KEY
    with session(ClusterConfig(num_cpus=4), cpus=1):
        yield
    os.environ.pop(ENVIRONMENT)
    if before is not None:
        os.environ[ENVIRONMENT] = before


@pytest.fixture(scope="module")
def sentiment(ray_session: None, storage: Path) -> Endpoint:
    published = publish(storage, "sentiment", "text-classification", classifier)
    return deploy(arguments("sentiment", published, storage, max_ongoing_requests=4))


@pytest.fixture(scope="module")
def chat(sentiment: Endpoint, storage: Path) -> Endpoint:
    """A language model in float32, which scales to a second replica when it has more than one request."""
    scaling = {"upscale_delay_seconds": 0.5, "downscale_delay_seconds": 1, "target_ongoing_requests": 1}
    settings = {"precision": "fp32", "max_tokens": 1900, "max_batch_size": 4, "replicas": {"min": 1, "max": 2}}
    published = publish(storage, "chat", "causal-lm", generator)
    return deploy(arguments("chat", published, storage, **settings, **scaling))


@pytest.fixture
def client(chat: Endpoint) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{chat.url}/v1", api_key=KEY, max_retries=0)


def ask(endpoint: Endpoint, body: Any = None, *, key: str = KEY, **options: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}"}
    if body is not None:
        options["json"] = body
    return httpx.post(f"{endpoint.url}/v1/predict", headers=headers, timeout=30, **options)


def code(response: httpx.Response) -> tuple[int, str]:
    """Status and code of an error, whose form must be that of OpenAI."""
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return response.status_code, error["code"]


def test_a_connection_from_before_reaches_an_endpoint_that_is_new(
    request: pytest.FixtureRequest, sentiment: Endpoint
) -> None:
    with httpx.Client(limits=httpx.Limits(keepalive_expiry=600)) as client:
        assert client.get(f"{sentiment.url}/health").status_code == 200
        new: Endpoint = request.getfixturevalue("chat")
        assert client.get(f"{new.url}/health").json()["model"] == "chat"


@pytest.mark.parametrize(("name", "kind"), [("sentiment", "predict"), ("chat", "chat"), ("chat", "completions")])
def test_bench_drives_either_kind_of_endpoint(
    request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, kind: str
) -> None:
    url, out = request.getfixturevalue(name).url, tmp_path / "bench.json"
    asked = [f"kind={kind}"] if kind == "completions" else []
    bench(url, [*asked, "requests=12", "concurrency=3", "words=8", "max_tokens=5"], KEY, None, out)
    found = json.loads(out.read_text())
    assert found["target"].endswith({"chat": "chat/completions"}.get(kind, kind))
    assert found["model"] == name
    assert (found["requests"], found["errors"]) == (12, {})
    assert found["latency"]["p50"] > 0
    assert (found["first_token"] is None) == (kind == "predict")
    said = capsys.readouterr().out
    assert "good answers/s" in said
    assert "percentile" in said


def test_a_text_gets_its_label_with_the_version_that_answered(sentiment: Endpoint) -> None:
    response = ask(sentiment, {"text": "a joy"})
    body = response.json()
    assert response.status_code == 200
    assert (body["model"], body["version"]) == ("sentiment", "3")
    (prediction,) = body["predictions"]
    assert set(prediction["scores"]) == set(LABELS)
    assert prediction["score"] == pytest.approx(max(prediction["scores"].values()))
    assert sum(prediction["scores"].values()) == pytest.approx(1, abs=1e-4)
    assert response.headers["x-model-version"] == "sentiment@3"


def test_bad_requests_have_openai_shaped_errors(sentiment: Endpoint) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(50):
            yield b" " * 1000

    assert code(ask(sentiment, {"text": "a"}, key="wrong")) == (401, "invalid_api_key")
    assert code(ask(sentiment, {"text": "a", "model": "other"})) == (404, "model_not_found")
    assert code(ask(sentiment, content=b"{")) == (400, "invalid_json")
    assert code(ask(sentiment, content=b" " * 20_001)) == (413, "request_too_large")
    assert code(ask(sentiment, content=chunks())) == (413, "request_too_large")
    assert code(ask(sentiment, {"text": 1})) == (422, "invalid_value")
    assert code(ask(sentiment, {"text": "joy " * 100})) == (422, "context_length_exceeded")
    assert code(httpx.get(f"{sentiment.url}/v1/predict", headers={"authorization": f"Bearer {KEY}"}))[0] == 405
    assert code(httpx.get(f"{sentiment.url}/nope", headers={"authorization": f"Bearer {KEY}"}))[0] == 404


def test_requests_above_the_limit_get_429_and_none_fails_otherwise(sentiment: Endpoint) -> None:
    texts = ["joy " * 3] * 256

    def one(_: int) -> httpx.Response:
        return ask(sentiment, {"texts": texts})

    with ThreadPoolExecutor(24) as pool:
        responses = list(pool.map(one, range(96)))
    statuses = {response.status_code for response in responses}
    assert statuses == {200, 429}
    refused = next(response for response in responses if response.status_code == 429)
    assert code(refused) == (429, "rate_limit_exceeded")
    assert refused.headers["retry-after"] == "1"
    assert all(len(response.headers.get_list("x-request-id")) == 1 for response in responses)


def test_the_openai_client_gets_the_text_of_generate(client: openai.OpenAI, storage: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(storage / "models" / "chat" / "r1" / "model")
    ids = tokenizer()("the film was").input_ids
    request: dict[str, Any] = {"model": "chat", "prompt": "the film was", "max_tokens": 24, "temperature": 0}
    done = client.completions.create(**request)
    assert done.choices[0].text == greedy(model, ids, 24)
    assert done.usage is not None
    assert (done.usage.prompt_tokens, done.usage.completion_tokens) == (len(ids), 24)
    with client.completions.create(**request, stream=True) as stream:
        assert "".join(event.choices[0].text for event in stream) == done.choices[0].text


def test_the_openai_client_streams_a_chat(client: openai.OpenAI) -> None:
    request: dict[str, Any] = {"model": "chat", "messages": [{"role": "user", "content": "was it a joy?"}]}
    request |= {"max_tokens": 40, "temperature": 0.8, "top_p": 0.9, "seed": 11}
    events = list(client.chat.completions.create(**request, stream=True, stream_options={"include_usage": True}))
    text = "".join(event.choices[0].delta.content or "" for event in events if event.choices)
    assert events[0].choices[0].delta.role == "assistant"
    assert events[-1].usage.completion_tokens == 40
    assert events[-2].choices[0].finish_reason == "length"
    assert len(events) > 5
    again = client.chat.completions.create(**request)
    assert again.choices[0].message.content == text
    assert again.system_fingerprint == "chat@3"
    assert [model.id for model in client.models.list()] == ["chat"]


def test_the_openai_client_raises_its_own_errors(client: openai.OpenAI, chat: Endpoint) -> None:
    with pytest.raises(openai.BadRequestError, match="max_tokens: 5000 given; 1900 are allowed"):
        client.completions.create(model="chat", prompt="a", max_tokens=5000)
    with pytest.raises(openai.NotFoundError, match="'gpt-4' is not served here"):
        client.completions.create(model="gpt-4", prompt="a")
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{chat.url}/v1", api_key="wrong", max_retries=0).models.list()


def test_a_client_that_leaves_ends_the_work(client: openai.OpenAI) -> None:
    before = samples("heliostat_requests_total", model="chat", status="499")
    with client.completions.create(model="chat", prompt="the film", max_tokens=1900, stream=True) as stream:
        next(iter(stream))
    until(lambda: samples("heliostat_requests_total", model="chat", status="499") > before, "499 is not counted", 40)


def test_every_metric_is_exported(client: openai.OpenAI, sentiment: Endpoint) -> None:
    ask(sentiment, {"text": "a joy"})
    client.completions.create(model="chat", prompt="the film", max_tokens=4)

    def exported() -> bool:
        return all(
            [
                samples("heliostat_requests_total", model="sentiment", version="3", status="200") >= 1,
                samples("heliostat_request_seconds_count", model="chat") >= 1,
                samples("heliostat_batch_size_count", model="sentiment") >= 1,
                samples("heliostat_batch_size_count", model="chat") >= 1,
                samples("heliostat_tokens_total", model="chat", kind="completion") >= 4,
                samples("heliostat_tokens_total", model="sentiment", kind="prompt") >= 1,
                samples("heliostat_time_to_first_token_seconds_count", model="chat") >= 1,
                samples("heliostat_requests_total", model="sentiment", status="401") >= 1,
            ]
        )

    until(exported, "a metric is missing", 40)


def test_replicas_follow_the_load_and_no_stream_is_cut(client: openai.OpenAI) -> None:
    stop, texts, lock = threading.Event(), [], threading.Lock()

    def load() -> None:
        while not stop.is_set():
            stream = client.completions.create(model="chat", prompt="a", max_tokens=300, temperature=0, stream=True)
            text = "".join(event.choices[0].text for event in stream)
            with lock:
                texts.append(text)

    def replicas() -> int:
        return next(one.replicas for one in status() if one.name == "chat")

    with ThreadPoolExecutor(6) as pool:
        loads = [pool.submit(load) for _ in range(6)]
        try:
            until(lambda: replicas() == 2, "no second replica under load", 90)
        finally:
            stop.set()
        for one in loads:
            one.result(timeout=60)
    assert len(set(texts)) == 1
    with client.completions.create(model="chat", prompt="a", max_tokens=1900, temperature=0, stream=True) as stream:
        open_stream = sum(1 for event in stream if event.choices[0].text)
    assert open_stream > 100
    until(lambda: replicas() == 1, "the second replica stays without load", 40)
    assert client.completions.create(model="chat", prompt="a", max_tokens=3).usage is not None


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    with chromium() as opened:
        yield opened


def test_a_person_classifies_a_text_on_the_page(browser: Chrome, sentiment: Endpoint) -> None:
    visit(browser, sentiment.url)
    give(browser, "text", "a joy")
    browser.find_element(By.ID, "send").click()
    until(lambda: "no key was given" in text_of(browser, "#error"), "the page says what is wrong", seconds=20)
    give(browser, "key", KEY)
    browser.find_element(By.ID, "send").click()
    until(lambda: text_of(browser, "#scores"), "the page shows scores", seconds=20)
    assert all(label in text_of(browser, "#scores") for label in LABELS)
    assert "ms" in text_of(browser, "#figures")
    assert text_of(browser, "#version") == "version 3"
    browser.find_element(By.TAG_NAME, "summary").click()
    assert f"{sentiment.url}/v1/predict" in text_of(browser, "#curl")
    browser.find_element(By.ID, "why").click()
    until(lambda: text_of(browser, "#reasons"), "the page says why", seconds=40)
    assert text_of(browser, "#reasons") == "a joy"
    assert browser.find_elements(By.CSS_SELECTOR, "#reasons mark")
    screenshot(browser, "classify")
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map(one => one.name)")
    assert all(one.startswith(sentiment.url) for one in loaded)
    assert not [line for line in browser.get_log("browser") if "Content Security Policy" in line["message"]]  # type: ignore[no-untyped-call]


def test_a_person_chats_on_the_page_and_stops_an_answer(browser: Chrome, chat: Endpoint) -> None:
    visit(browser, chat.url)
    give(browser, "key", KEY)
    give(browser, "text", "a film")
    browser.find_element(By.ID, "send").click()
    until(lambda: text_of(browser, ".assistant"), "the answer begins", seconds=30)
    seen, stop = text_of(browser, ".assistant"), browser.find_element(By.ID, "stop")
    place = stop.location
    until(lambda: len(text_of(browser, ".assistant")) > len(seen), "the answer goes on", seconds=30)
    assert stop.location == place, "it does not run away from the pointer"
    stop.click()
    until(lambda: "stopped" in text_of(browser, "#figures"), "the answer is stopped", seconds=10)
    stopped = text_of(browser, ".assistant")
    assert text_of(browser, ".user") == "a film"
    assert "tokens/s" in text_of(browser, "#figures")
    screenshot(browser, "chat")
    time.sleep(0.5)
    assert text_of(browser, ".assistant") == stopped
    assert browser.find_element(By.ID, "send").is_enabled()


def test_keys_in_storage_open_limit_and_close_a_running_endpoint(sentiment: Endpoint, storage: Path) -> None:
    store = LocalStore(str(storage))
    key = add_key(store, "shop", models=("sentiment",), requests_per_minute=1000, tokens_per_minute=5)
    until(lambda: ask(sentiment, {"text": "a joy"}, key=key).status_code == 200, "the key is known", seconds=20)
    until(lambda: ask(sentiment, {"text": "a joy"}, key=key).status_code == 429, "its tokens are used up", seconds=20)
    assert ask(sentiment, {"text": "a joy"}).status_code == 200
    remove_key(store, "shop")
    until(lambda: ask(sentiment, {"text": "a joy"}, key=key).status_code == 401, "the key is gone", seconds=20)
    assert ledger_name(UsageLedger, "sentiment") in named_actors()


class FakeReplica:
    """Counts five requests of a key."""

    def __init__(self) -> None:
        self.counter = UsageCounter()
        self.counter.add(("shop", REQUESTS), 5)
        UsageSync(self.counter, "elsewhere").start()

    def used(self) -> int:
        return self.counter.used(("shop", REQUESTS))


def test_what_replicas_counted_outlives_them_and_their_ledger_ends_with_nobody_left(ray_session: None) -> None:
    replicas = [ray.remote(num_cpus=0)(FakeReplica).remote() for _ in range(2)]
    until(lambda: ray.get([one.used.remote() for one in replicas]) == [10, 10], "both know", seconds=60)
    for one in replicas:
        ray.kill(one)
    counter = UsageCounter()
    sync = UsageSync(counter, "elsewhere")
    sync.start()
    until(lambda: counter.used(("shop", REQUESTS)) == 10, "a new one knows", seconds=30)
    sync.close()
    end_ledger(UsageLedger, "elsewhere")
    until(lambda: ledger_name(UsageLedger, "elsewhere") not in named_actors(), "it has ended", seconds=60)
    before = alive_actors().count("LedgerActor")
    ray.remote(num_cpus=0, lifetime="detached", name="idle", max_restarts=-1)(LedgerActor).remote(UsageLedger, 0.5)
    until(lambda: "idle" not in named_actors(), "one that nobody reports to has ended", seconds=60)
    until(lambda: alive_actors().count("LedgerActor") == before, "it is not started again", seconds=60)


def test_counts_for_drift_meet_in_a_ledger_that_ends_with_its_endpoint(ray_session: None) -> None:
    slot, counts = slot_of(time.time()), np.array([3, 4])
    assert LedgerClient(DriftLedger, "elsewhere")("1", "a", 1, {slot: counts}) is None
    others = LedgerClient(DriftLedger, "elsewhere")("1", "b", 1, {slot: np.array([1, 1])})
    assert others is not None
    assert others.tolist() == [3, 4]
    end_ledger(DriftLedger, "elsewhere")
    until(lambda: ledger_name(DriftLedger, "elsewhere") not in named_actors(), "it has ended", seconds=60)


def test_an_altered_model_is_refused_and_the_one_before_still_answers(sentiment: Endpoint, storage: Path) -> None:
    url, digest = publish(storage, "sentiment", "text-classification", classifier, run="r2")
    weights = Path(url) / "model" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    started = time.monotonic()
    with pytest.raises(IntegrityError, match=r"model/model\.safetensors") as caught:
        deploy(arguments("sentiment", (url, digest), storage).model_copy(update={"version": "4"}))
    assert "\n" not in str(caught.value)
    assert time.monotonic() - started < 30
    assert ask(sentiment, {"text": "a"}).json()["version"] == "3"
    assert [(one.status, one.version) for one in status() if one.name == "sentiment"] == [("RUNNING", "3")]


def test_a_refused_model_leaves_nothing(sentiment: Endpoint, storage: Path) -> None:
    url, digest = publish(storage, "refused", "text-classification", classifier)
    (Path(url) / "heliostat.json").write_text("{}")
    with pytest.raises(IntegrityError, match=r"heliostat\.json"):
        deploy(arguments("refused", (url, digest), storage))
    assert [one.name for one in status() if one.name == "refused"] == []


def test_what_cannot_be_deployed_is_said_in_one_line(sentiment: Endpoint, storage: Path) -> None:
    published = f"{storage}/models/sentiment/r1", "0" * 64
    with pytest.raises(IntegrityError, match="is expected"):
        deploy(arguments("sentiment", published, storage))
    with pytest.raises(ModelError, match="no published model here"):
        deploy(arguments("other", (f"{storage}/models/other/r1", "0"), storage))
    whole = publish(storage, "third", "text-classification", classifier)
    with pytest.raises(ResourceError, match=f"serve.port: .*already listens on 127.0.0.1:{PORT}"):
        deploy(arguments("third", whole, storage, port=free_port()))
    with pytest.raises(ConfigError, match="sentiment"):
        deploy(arguments("third", whole, storage, route="/sentiment"))
    with pytest.raises(ResourceError, match=r"serve.replicas: 0 of 1 are up in time; a replica takes 64 CPU"):
        deploy(arguments("third", whole, storage, cpus_per_replica=64), deadline_seconds=3)
    with pytest.raises(ConfigError, match=r"nothing: no such endpoint; running: .*sentiment"):
        undeploy("nothing")


def test_endpoints_are_listed(chat: Endpoint, sentiment: Endpoint) -> None:
    found = {one.name: (one.url, one.status, one.version) for one in status()}
    assert found == {
        "chat": (chat.url, "RUNNING", "3"),
        "sentiment": (sentiment.url, "RUNNING", "3"),
    }


def test_the_ingress_listens_on_the_loopback_only(chat: Endpoint) -> None:
    import ray

    own = {info["NodeManagerAddress"] for info in ray.nodes()}
    assert own == {"127.0.0.1"}
    listening = Path("/proc/net/tcp").read_text().splitlines()[1:]
    addresses = [line.split()[1].split(":") for line in listening if line.split()[3] == "0A"]
    assert [address for address, port in addresses if int(port, 16) == PORT] == ["0100007F"]


def test_open_answers_finish_and_then_nothing_is_left(chat: Endpoint, client: openai.OpenAI) -> None:
    """Comes last: it takes the endpoints away, one of them while it answers."""
    request: dict[str, Any] = {"model": "chat", "prompt": "the film", "max_tokens": 1500, "temperature": 0}
    expected = client.completions.create(**request).choices[0].text
    with ThreadPoolExecutor(1) as pool, client.completions.create(**request, stream=True) as stream:
        events = iter(stream)
        first = next(events)
        gone = pool.submit(undeploy, "chat")
        answer = [first, *events]
        gone.result(timeout=60)
    assert answer[-1].choices[0].finish_reason == "length"
    assert "".join(event.choices[0].text for event in answer) == expected
    for name in [one.name for one in status()]:
        undeploy(name)
    assert status() == []
    until(lambda: alive_actors() == [], "actors are left", 40)
    assert placement_groups() == []
    with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
        probe.connect(("127.0.0.1", PORT))
