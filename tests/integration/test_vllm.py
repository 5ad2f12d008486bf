"""SmolLM2 in vLLM behind a real endpoint, with the openai client. Run by `make vllm`, in an environment that has it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest

from heliostat.cluster.config import ClusterConfig
from heliostat.cluster.session.session import session
from heliostat.infra.config.strict import build
from heliostat.infra.errors import ConfigError
from heliostat.serve.access.auth import ENVIRONMENT
from heliostat.serve.access.keys import generate_key
from heliostat.serve.args import AdapterArgs, AppArgs
from heliostat.serve.config import ServeConfig
from heliostat.serve.deploy.launch import Endpoint, deploy, undeploy
from tests.benchmarks.chat_servers import write_model
from tests.integration.tiny_models import app_args, publish
from tests.ports import free_port
from tests.tiny_adapters import greedy, publish_adapter
from tests.waiting import until

pytestmark = pytest.mark.vllm
KEY = generate_key()
PORT = free_port()
VLLM = {"max_model_len": 1024, "kv_cache_memory_bytes": 1 << 30}
SETTINGS = {"port": PORT, "precision": "fp32", "max_tokens": 256, "timeout_seconds": 120}
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}, "continent": {"enum": ["Europe", "Asia"]}},
    "required": ["city", "continent"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vllm") / "storage"


@pytest.fixture(scope="module")
def args(storage: Path) -> AppArgs:
    """SmolLM2 and two adapters of it."""
    published = publish(storage, "chat", "causal-lm", write_model)
    made = app_args("chat", published, storage, "7", {**SETTINGS, "engine": "auto", "vllm": VLLM})
    return made.model_copy(update={"adapters": {name: adapter(storage, name) for name in ("legal", "support")}})


def adapter(storage: Path, name: str) -> AdapterArgs:
    """Of a rank that is none of those that vLLM lays out."""
    base, seed = storage.parent / "chat-r1" / "model", len(name)
    url, digest = publish_adapter(storage, name, base, seed, rank=12, size=0.25)
    return AdapterArgs(url=url, digest=digest, version="3")


@pytest.fixture(scope="module")
def endpoint(args: AppArgs) -> Iterator[Endpoint]:
    os.environ[ENVIRONMENT] = KEY
    with session(ClusterConfig(num_cpus=2), cpus=1):
        yield deploy(args)
        undeploy("chat")
    os.environ.pop(ENVIRONMENT)


@pytest.fixture(scope="module")
def client(endpoint: Endpoint) -> openai.OpenAI:
    return openai.OpenAI(base_url=endpoint.url + "/v1", api_key=KEY, max_retries=0)


def said(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def chat(client: openai.OpenAI, messages: list[Any], **options: Any) -> Any:
    return client.chat.completions.create(model="chat", messages=messages, **{"temperature": 0, **options})


def engine_processes() -> list[psutil.Process]:
    return [one for one in psutil.process_iter(["name", "cmdline"]) if "VLLM::" in " ".join(one.info["cmdline"] or [])]


def test_a_conversation_goes_on_and_names_who_answered(client: openai.OpenAI, endpoint: Endpoint) -> None:
    messages: list[Any] = [said("What is the capital of France?")]
    first = chat(client, messages)
    assert "Paris" in first.choices[0].message.content
    messages += [{"role": "assistant", "content": first.choices[0].message.content}, said("And of Italy?")]
    second = chat(client, messages)
    assert "Rome" in second.choices[0].message.content
    assert second.usage.prompt_tokens > first.usage.prompt_tokens
    response = httpx.get(endpoint.url + "/v1/models", headers={"Authorization": f"Bearer {KEY}"})
    assert response.headers["x-model-version"] == "chat@7"
    assert response.json()["data"][0]["version"] == "7"


def test_a_stream_says_what_the_whole_answer_says(client: openai.OpenAI) -> None:
    whole = chat(client, [said("Name three colours.")], max_tokens=24).choices[0].message.content
    chunks = list(chat(client, [said("Name three colours.")], max_tokens=24, stream=True))
    assert len(chunks) > 5
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == whole


def test_greedy_answers_do_not_change_with_what_else_is_asked(client: openai.OpenAI) -> None:
    alone = chat(client, [said("Name three colours.")], max_tokens=24).choices[0].message.content

    def ask(at: int) -> str:
        return chat(client, [said("Name three colours.")], max_tokens=24).choices[0].message.content

    with ThreadPoolExecutor(16) as pool:
        others = [pool.submit(chat, client, [said(f"Count to {at}.")], max_tokens=24) for at in range(8)]
        assert set(pool.map(ask, range(8))) == {alone}
        assert all(other.result().usage.completion_tokens for other in others)


def test_adapters_answer_by_name_beside_the_model(client: openai.OpenAI, storage: Path) -> None:
    base, prompt = storage.parent / "chat-r1" / "model", "The capital of France is"

    def ask(model: str) -> tuple[str, str]:
        raw = client.completions.with_raw_response.create(model=model, prompt=prompt, max_tokens=16, temperature=0)
        return raw.parse().choices[0].text, raw.headers["x-model-version"]

    models = ["chat", "legal", "support"] * 3
    with ThreadPoolExecutor(len(models)) as pool:
        found = list(pool.map(ask, models))
    for model, (text, version) in zip(models, found, strict=True):
        folder = None if model == "chat" else storage.parent / f"{model}-r1" / "adapter"
        assert (text, version) == (greedy(base, folder, prompt, 16), "chat@7" if model == "chat" else f"{model}@3")
    assert len({text for text, _ in found}) == 3
    assert [one.id for one in client.models.list()] == ["chat", "legal", "support"]


def test_a_tool_is_called_with_arguments_that_fit_its_schema(client: openai.OpenAI) -> None:
    weather = {
        "name": "get_weather",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}, "unit": {"enum": ["C", "F"]}},
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    }
    tools = [{"type": "function", "function": weather}]
    named = {"type": "function", "function": {"name": "get_weather"}}
    answer = chat(client, [said("What is the weather in Paris?")], tools=tools, tool_choice=named, max_tokens=200)
    assert answer.choices[0].message.tool_calls, answer.choices[0]
    (call,) = answer.choices[0].message.tool_calls
    given = json.loads(call.function.arguments)
    assert call.function.name == "get_weather"
    assert set(given) == {"city", "unit"}
    assert given["unit"] in ("C", "F")


def test_structured_output_fits_its_schema(client: openai.OpenAI) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY, "strict": True}}
    answer = chat(client, [said("Describe Paris as JSON.")], response_format=form, max_tokens=64)
    given = json.loads(answer.choices[0].message.content)
    assert set(given) == {"city", "continent"}
    assert given["continent"] in ("Europe", "Asia")


def test_log_probabilities_are_told(client: openai.OpenAI) -> None:
    answer = chat(client, [said("Say yes.")], logprobs=True, top_logprobs=3, max_tokens=4)
    tokens = answer.choices[0].logprobs.content
    assert all(token.logprob <= 0 and len(token.top_logprobs) == 3 for token in tokens)


def test_what_is_too_much_or_for_operators_is_refused(client: openai.OpenAI, endpoint: Endpoint) -> None:
    with pytest.raises(openai.BadRequestError, match="256 are allowed"):
        chat(client, [said("Hi")], max_tokens=257)
    with pytest.raises(openai.NotFoundError, match="nobody"):
        client.chat.completions.create(model="nobody", messages=[said("Hi")])  # type: ignore[list-item]
    with pytest.raises(openai.BadRequestError):
        client.post("/chat/completions", body={"model": "chat", "messages": 3}, cast_to=object)
    assert httpx.post(endpoint.url + "/v1/chat/completions", json={}).status_code == 401
    headers = {"Authorization": f"Bearer {KEY}"}
    assert httpx.post(endpoint.url + "/scale_elastic_ep", json={}, headers=headers).status_code == 404
    assert "/v1/chat/completions" in httpx.get(endpoint.url + "/openapi.json", headers=headers).json()["paths"]


def test_an_option_that_vllm_does_not_have_leaves_the_endpoint_as_it_was(args: AppArgs, client: openai.OpenAI) -> None:
    for options, line in [
        ({"max_modle_len": 8}, "max-modle-len"),
        ({"host": "x"}, "serve.vllm.host"),
        ({"lora_modules": []}, "lora_modules"),
        ({"max_loras": 2}, "serve.vllm.max_loras: 2 given; 3 is allowed on a CPU"),
    ]:
        wrong = build(ServeConfig, {**SETTINGS, "vllm": options})
        with pytest.raises(ConfigError, match=line):
            deploy(args.model_copy(update={"config": wrong, "version": "8"}), deadline_seconds=120)
    assert chat(client, [said("Hi")], max_tokens=4).usage.completion_tokens == 4


def test_a_replica_whose_engine_dies_is_replaced_and_leaves_no_process(client: openai.OpenAI) -> None:
    before = {one.pid for one in engine_processes()}
    assert before
    for pid in before:
        os.kill(pid, signal.SIGKILL)

    def answers() -> bool:
        try:
            return bool(chat(client, [said("Hi")], max_tokens=4, timeout=10).usage.completion_tokens)
        except openai.OpenAIError:
            return False

    until(answers, "the endpoint answers again", seconds=180)
    assert before.isdisjoint(one.pid for one in engine_processes())


def test_a_model_that_is_an_adapter_itself_answers_under_its_own_name(
    client: openai.OpenAI, endpoint: Endpoint, args: AppArgs, storage: Path
) -> None:
    legal, support = args.adapters["legal"], args.adapters["support"]
    own = {"url": legal.url, "digest": legal.digest, "version": "8", "adapters": {"support": support}}
    deploy(args.model_copy(update=own), deadline_seconds=240)
    base, prompt = storage.parent / "chat-r1" / "model", "The capital of France is"
    for model, stored in (("chat", "legal"), ("support", "support"), ("chat", "legal")):
        answer = client.completions.create(model=model, prompt=prompt, max_tokens=16, temperature=0)
        assert answer.choices[0].text == greedy(base, storage.parent / f"{stored}-r1" / "adapter", prompt, 16)
    headers = {"Authorization": f"Bearer {KEY}"}
    unnamed = httpx.post(endpoint.url + "/v1/completions", json={"prompt": prompt, "max_tokens": 1}, headers=headers)
    assert unnamed.json()["model"] == "chat"
    with pytest.raises(openai.NotFoundError, match="'chat:base' is not served here"):
        client.completions.create(model="chat:base", prompt=prompt)


def test_with_its_endpoint_the_engine_ends(args: AppArgs, endpoint: Endpoint) -> None:
    undeploy("chat")
    until(lambda: not engine_processes(), "vLLM's processes end", seconds=60)
    deploy(args)  # for the fixture, which takes it away


def test_without_a_gpu_a_replica_has_threads_for_its_cpus_only(endpoint: Endpoint) -> None:
    workers = [one for one in engine_processes() if "Worker" in " ".join(one.cmdline())]
    assert workers
    assert all(one.environ()["OMP_NUM_THREADS"] == "1" for one in workers)
