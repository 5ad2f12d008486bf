"""A tiny model and two adapters of it behind one endpoint on a real Ray, with the openai client."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from heliostat.cluster.config import ClusterConfig
from heliostat.cluster.scrape import metrics_targets
from heliostat.cluster.session.session import session
from heliostat.infra.errors import ModelError
from heliostat.infra.registry.published import ADAPTER
from heliostat.serve.access.auth import ENVIRONMENT
from heliostat.serve.access.keys import generate_key
from heliostat.serve.args import AdapterArgs, AppArgs
from heliostat.serve.deploy.launch import Endpoint, deploy, status, undeploy
from tests.browser import chromium, screenshot, text_of
from tests.integration.tiny_models import app_args, generator, publish
from tests.ports import free_port
from tests.tiny_adapters import greedy, publish_adapter
from tests.waiting import until

KEY = generate_key()
PORT = free_port()
PROMPTS = ["the film", "a joy from start to end", "nobody in it", "é 你好"]
SETTINGS = {"port": PORT, "cpus_per_replica": 0.5, "precision": "fp32", "timeout_seconds": 30, "engine": "transformers"}


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("adapters") / "storage"


@pytest.fixture(scope="module")
def args(storage: Path) -> AppArgs:
    """The base model as published, with two adapters."""
    made = app_args("chat", publish(storage, "chat", "causal-lm", generator), storage, "7", SETTINGS)
    return made.model_copy(update={"adapters": {name: adapter(storage, name) for name in ("legal", "support")}})


def adapter(storage: Path, name: str, run: str = "r1", version: str = "3") -> AdapterArgs:
    seed = sum(map(ord, name + run))
    url, digest = publish_adapter(storage, name, storage.parent / "chat-r1" / "model", seed, run=run)
    return AdapterArgs(url=url, digest=digest, version=version)


@pytest.fixture(scope="module")
def endpoint(args: AppArgs) -> Iterator[Endpoint]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ENVIRONMENT, KEY)
        with session(ClusterConfig(num_cpus=4), cpus=1):
            yield deploy(args)
            undeploy("chat")


@pytest.fixture
def client(endpoint: Endpoint) -> openai.OpenAI:
    return openai.OpenAI(base_url=endpoint.url + "/v1", api_key=KEY, max_retries=0)


def streamed(client: openai.OpenAI, model: str, prompt: str, tokens: int) -> tuple[str, str]:
    """The text of a streamed answer, and the version that answered."""
    with client.completions.with_streaming_response.create(
        model=model, prompt=prompt, max_tokens=tokens, temperature=0, stream=True
    ) as raw:
        text = "".join(chunk.choices[0].text for chunk in raw.parse())
        return text, raw.headers["x-model-version"]


def folder(storage: Path, model: str) -> Path | None:
    return None if model == "chat" else storage.parent / f"{model}-r1" / ADAPTER


def test_base_and_adapters_stream_side_by_side_each_as_itself(client: openai.OpenAI, storage: Path) -> None:
    base = storage.parent / "chat-r1" / "model"
    models = ("chat", "legal", "support")
    asked = [(model, prompt, 20 + 9 * at) for at, prompt in enumerate(PROMPTS) for model in models]
    with ThreadPoolExecutor(len(asked)) as pool:
        found = list(pool.map(lambda one: streamed(client, *one), asked))
    for (model, prompt, tokens), (text, version) in zip(asked, found, strict=True):
        assert text == greedy(base, folder(storage, model), prompt, tokens), (model, prompt)
        assert version == {"chat": "chat@7", "legal": "legal@3", "support": "support@3"}[model]
    assert len({text for (_, prompt, _), (text, _) in zip(asked, found, strict=True) if prompt == PROMPTS[0]}) == 3


def test_all_are_listed_and_others_are_404(client: openai.OpenAI) -> None:
    assert [one.id for one in client.models.list()] == ["chat", "legal", "support"]
    assert client.models.retrieve("legal").model_dump()["parent"] == "chat"
    messages: list[Any] = [{"role": "user", "content": "Hello"}]
    with pytest.raises(openai.NotFoundError, match="'chat', 'legal', 'support' are"):
        client.chat.completions.create(model="tax", messages=messages)
    answer = client.chat.completions.create(model="legal", messages=messages, max_tokens=4)
    assert (answer.model, answer.system_fingerprint) == ("legal", "legal@3")


def test_status_tells_the_versions_of_all(endpoint: Endpoint) -> None:
    (found,) = status()
    assert (found.version, found.adapters) == ("7", ("legal@3", "support@3"))


def test_a_person_picks_an_adapter_on_the_page(endpoint: Endpoint) -> None:
    with chromium() as browser:
        browser.get(endpoint.url)
        assert not browser.find_element(By.ID, "model").is_displayed()
        browser.find_element(By.ID, "key").send_keys(KEY + Keys.TAB)
        until(browser.find_element(By.ID, "model").is_displayed, "the page knows the models", seconds=20)
        Select(browser.find_element(By.ID, "model")).select_by_visible_text("legal")
        browser.find_element(By.ID, "text").send_keys("a film" + Keys.ENTER)
        until(lambda: text_of(browser, "#version") == "version 3", "the adapter answers", seconds=30)
        until(lambda: text_of(browser, ".assistant"), "the answer is shown", seconds=30)
        screenshot(browser, "adapters")


def test_metrics_say_which_adapter_answered(client: openai.OpenAI, endpoint: Endpoint) -> None:
    streamed(client, "support", "the film", 5)

    def counted() -> bool:
        text = "".join(httpx.get(f"http://{one}/metrics").text for one in metrics_targets())
        lines = [line for line in text.splitlines() if line.startswith("ray_heliostat_tokens_total{")]
        return all(any(f'adapter="{name}"' in line for line in lines) for name in ("support@3", ""))

    until(counted, "the adapter's tokens are counted", seconds=30)


def test_an_adapter_rolls_to_another_version_without_a_request_lost(
    client: openai.OpenAI, args: AppArgs, storage: Path
) -> None:
    newer = adapter(storage, "legal", run="r2", version="4")
    texts, wanted = [], greedy(storage.parent / "chat-r1" / "model", storage.parent / "legal-r2" / ADAPTER, "a joy", 12)
    with ThreadPoolExecutor(1) as pool:
        rolling = pool.submit(deploy, args.model_copy(update={"adapters": {**args.adapters, "legal": newer}}))
        while not rolling.done():
            texts.append(streamed(client, "legal", "a joy", 12))
            time.sleep(0.05)
        rolling.result()
    assert {version for _, version in texts} <= {"legal@3", "legal@4"}
    assert streamed(client, "legal", "a joy", 12) == (wanted, "legal@4")
    assert wanted not in {text for text, version in texts if version == "legal@3"}


def test_what_is_no_adapter_leaves_the_endpoint_as_it_was(client: openai.OpenAI, args: AppArgs) -> None:
    whole = AdapterArgs(url=args.url, digest=args.digest, version="7")
    with pytest.raises(ModelError, match=r"^serve.adapters.law: .*a whole model and no adapter"):
        deploy(args.model_copy(update={"adapters": {**args.adapters, "law": whole}}))
    assert [one.id for one in client.models.list()] == ["chat", "legal", "support"]


def test_a_model_that_is_an_adapter_itself_answers_beside_others(
    client: openai.OpenAI, endpoint: Endpoint, args: AppArgs, storage: Path
) -> None:
    own = adapter(storage, "own")
    deploy(args.model_copy(update={"url": own.url, "digest": own.digest, "version": "8"}))
    base = storage.parent / "chat-r1" / "model"
    for model, version in (("chat", "chat@8"), ("legal", "legal@3")):
        stored = folder(storage, "own" if model == "chat" else model)
        assert streamed(client, model, "a joy", 20) == (greedy(base, stored, "a joy", 20), version)
