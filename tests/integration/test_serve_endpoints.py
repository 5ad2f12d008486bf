"""Two tiny published models on a real Ray, through HAProxy, with the clients that users have."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from heliostat.cluster.config import ClusterConfig
from heliostat.cluster.scrape import metrics_targets
from heliostat.cluster.session import session
from heliostat.infra import bundle
from heliostat.infra.config import build
from heliostat.infra.errors import ConfigError, IntegrityError, ModelError, ResourceError
from heliostat.infra.published import PublishedModel, write_description
from heliostat.infra.storage import StorageConfig, open_store
from heliostat.serve.app import AppArgs
from heliostat.serve.auth import ENVIRONMENT, generate_key
from heliostat.serve.config import ServeConfig
from heliostat.serve.launch import Endpoint, deploy, status, undeploy

LABELS = ("negative", "positive")
MAX_LENGTH = 16
KEY = generate_key()
CHAT_TEMPLATE = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}assistant: "
WORDS = "the film was a joy from start to end and nobody in it was dull é 你好 🙂 user assistant system"


def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level, so that any text has tokens and a character may be split between two of them."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
    inner.train_from_iterator([WORDS], trainer)
    inner.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="</s>")


def classifier(folder: Path) -> dict[str, Any]:
    """Writes a tiny random classifier; returns its probe."""
    torch.manual_seed(0)
    words = tokenizer()
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BertConfig(vocab_size=len(words), max_position_embeddings=64, num_labels=2, initializer_range=0.5, **sizes)
    model = BertForSequenceClassification(config).eval()
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    with torch.inference_mode():
        logits = model(**words("a joy", return_tensors="pt", return_token_type_ids=False)).logits
    scores = dict(zip(LABELS, logits[0].softmax(-1).tolist(), strict=True))
    return {"input": {"text": "a joy"}, "output": {"label": max(scores, key=scores.__getitem__), "scores": scores}}


def generator(folder: Path) -> dict[str, Any]:
    """Writes a tiny random language model; returns its probe."""
    torch.manual_seed(1)
    words = tokenizer()
    words.chat_template = CHAT_TEMPLATE
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(
        vocab_size=len(words), num_key_value_heads=2, max_position_embeddings=2048, initializer_range=0.5,
        bos_token_id=0, eos_token_id=None, pad_token_id=1, **sizes,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return {"input": {"prompt": "the film", "max_tokens": 12}, "output": {"text": greedy(model, words, "the film", 12)}}


def greedy(model: LlamaForCausalLM, words: PreTrainedTokenizerFast, prompt: str, tokens: int) -> str:
    """What `generate` of transformers says."""
    ids = torch.tensor([words(prompt, add_special_tokens=False).input_ids])
    with torch.inference_mode():
        out = model.generate(ids, max_new_tokens=tokens, do_sample=False)
    return str(words.decode(out[0, ids.shape[1] :], skip_special_tokens=True))


def publish(
    storage: Path, name: str, task: str, write: Callable[[Path], dict[str, Any]], run: str = "r1"
) -> tuple[str, str]:
    """Publishes a model as training does; returns the url of its bundle and its digest."""
    folder = storage.parent / f"{name}-{run}"
    (folder / "model").mkdir(parents=True)
    probe = write(folder / "model")
    description = PublishedModel(
        name=name, task=task, labels=LABELS if task == "text-classification" else (), max_length=MAX_LENGTH,
        base_model="tiny", run_id=run, data_fingerprint="0", metrics={}, heliostat_version="0",
        created=datetime.now(timezone.utc), probe=probe,
    )  # fmt: skip
    write_description(folder, description)
    prefix = f"models/{name}/{run}"
    manifest = bundle.publish_directory(open_store(str(storage)), prefix, folder)
    return f"{storage}/{prefix}", manifest.digest


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


PORT = free_port()


def arguments(name: str, published: tuple[str, str], storage: Path, **config: Any) -> AppArgs:
    """How a tiny model is served in these tests, unless `config` says otherwise."""
    url, digest = published
    settings = {"port": PORT, "cpus_per_replica": 0.5, "max_body_bytes": 20_000, "timeout_seconds": 20, **config}
    return AppArgs(
        name=name, url=url, digest=digest, version="3",
        config=build(ServeConfig, settings), storage=StorageConfig(url=str(storage)),
    )  # fmt: skip


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
def endpoints(ray_session: None, storage: Path) -> Iterator[dict[str, Endpoint]]:
    sentiment = publish(storage, "sentiment", "text-classification", classifier)
    chat = publish(storage, "chat", "causal-lm", generator)
    found = {
        "sentiment": deploy(arguments("sentiment", sentiment, storage, max_ongoing_requests=4)),
        "chat": deploy(arguments("chat", chat, storage, precision="fp32", max_tokens=1000, replicas={"min": 1, "max": 2},
                                 target_ongoing_requests=1, upscale_delay_seconds=0.5, downscale_delay_seconds=1)),
    }  # fmt: skip
    yield found
    for name in found:
        undeploy(name)
    assert serve_actors() == []
    assert placement_groups() == []


def serve_actors() -> list[str]:
    from ray.util.state import list_actors

    return [actor.class_name for actor in list_actors(filters=[("state", "=", "ALIVE")]) if "Serve" in actor.class_name]


def placement_groups() -> list[Mapping[str, Any]]:
    import ray

    return [group for group in ray.util.placement_group_table().values() if group["state"] != "REMOVED"]
