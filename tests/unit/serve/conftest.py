"""Hand-made models and clients for the tests of serving; no Ray."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

import httpx
import pytest
import torch
from fastapi import APIRouter
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from heliostat.infra.metrics.metric import Metric
from heliostat.serve.access.control import AccessControl
from heliostat.serve.access.keyring import KeyRing
from heliostat.serve.access.keys import digest_of
from heliostat.serve.access.sync import UsageSync
from heliostat.serve.access.usage import UsageCounter
from heliostat.serve.config import ServeConfig
from heliostat.serve.errors import App
from heliostat.serve.http.app import Service
from heliostat.serve.metrics import ServeMetrics
from heliostat.serve.models.served_models import ServedModels

KEY = "a-key-of-the-tests-0123456789"


class Recorded:
    """Metrics as a list, in place of Ray."""

    def __init__(self) -> None:
        self.values: list[tuple[str, float, dict[str, str]]] = []
        self.metrics = ServeMetrics("tiny", "7", record=self.add)

    def add(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        assert set(labels) == set(metric.labels)
        self.values.append((metric.name, value, dict(labels)))

    def of(self, name: str) -> list[float]:
        return [value for found, value, _ in self.values if found == name]

    def labels_of(self, name: str, label: str) -> list[str]:
        return [labels[label] for found, _, labels in self.values if found == name]


@pytest.fixture
def anyio_backend() -> str:
    """The event loop of tests that are coroutines."""
    return "asyncio"


@pytest.fixture
def recorded() -> Recorded:
    return Recorded()


@pytest.fixture
def served() -> ServedModels:
    return ServedModels(
        "tiny", "7", "text-classification", "run-1", datetime(2026, 1, 1, tzinfo=timezone.utc), chats=True
    )


@pytest.fixture
def config() -> ServeConfig:
    return ServeConfig(max_body_bytes=2000, timeout_seconds=5, max_tokens=64, max_batch_size=4, precision="fp32")


def doors_of(*keys: str) -> AccessControl:
    """Keys of the environment, `name:sha256`, and nothing in storage."""
    counter = UsageCounter()
    return AccessControl(KeyRing(keys), counter, UsageSync(counter, "tiny"))


@pytest.fixture
def access() -> AccessControl:
    return doors_of(f"tests:{digest_of(KEY)}")


async def no_probe(probe: dict[str, Any], model: str) -> None:
    raise AssertionError("the probe is asked at the start, not by requests")


def service_of(router: APIRouter) -> Service:
    """Routes with a model that is always well."""
    return Service(no_probe, check_health=lambda: None, close=lambda: None, router=router)


class Client:
    """An HTTP client of an application, with a valid key unless told otherwise."""

    def __init__(self, app: App, prefix: str = "") -> None:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False, root_path=prefix)
        self.http = httpx.AsyncClient(transport=transport, base_url=f"http://test{prefix}")
        self.http.headers["authorization"] = f"Bearer {KEY}"

    async def post(self, path: str, body: Any) -> httpx.Response:
        return await self.http.post(path, json=body)


def error_of(response: httpx.Response) -> dict[str, Any]:
    """The error in a response, once its form is checked."""
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "\n" not in error["message"]
    return dict(error)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level: any text has tokens, and a character may be split between several."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
    inner.train_from_iterator(["the quick brown fox jumps over the lazy dog"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>")


@pytest.fixture(scope="session")
def llama(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A tiny random language model whose query heads share key heads, as in real ones."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # a model this small is slower with more
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.5,
        eos_token_id=1,
        pad_token_id=1,
        **sizes,
    )
    return LlamaForCausalLM(config).eval()
