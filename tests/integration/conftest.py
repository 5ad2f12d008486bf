"""Real components for integration tests."""

from __future__ import annotations

import csv
import os
import random
import secrets
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import pytest
import torch
import yaml
from ray.cluster_utils import Cluster

from heliostat.cluster.doctor.compiler import operators_folder
from heliostat.cluster.environment import applied, local_environment
from tests.nodes import NODE
from tests.seaweedfs import BUCKET, seaweedfs


@pytest.fixture(scope="module", autouse=True)
def surroundings() -> Iterator[None]:
    """A token and folders of their own for the Rays of a file, so that it joins, and disturbs, none of the user's or of
    another worker's. What DeepSpeed compiles, a minute's work, all share."""
    with TemporaryDirectory(dir="/tmp", prefix="hs-", ignore_cleanup_errors=True) as folder:
        (Path(folder) / "token").write_text(secrets.token_hex(32))
        (Path(folder) / "token").chmod(0o600)
        own = {"RAY_AUTH_TOKEN_PATH": f"{folder}/token", "RAY_TMPDIR": folder, "HELIOSTAT_HOME": folder}
        with applied({**own, "TORCH_EXTENSIONS_DIR": str(operators_folder())}):  # Ray reads its token anew
            yield


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A SeaweedFS on this machine: the environment that boto3 needs for it."""
    with seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as environment:
        yield environment


@pytest.fixture
def s3_url(s3_server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty place of the test's own, `s3://bucket/prefix`, with the environment set for boto3."""
    for name, value in s3_server.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{uuid4().hex}"


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A home without a token, and a folder for Ray; its path is short because sockets lie below it."""
    with TemporaryDirectory(dir="/tmp", prefix="hs-") as folder, pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("RAY_")]:
            patch.delenv(name)
        for name in ("HOME", "HELIOSTAT_HOME", "RAY_TMPDIR"):
            patch.setenv(name, folder)
        patch.setenv("RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S", "0.5")  # Serve keeps a replica for 30 s
        yield Path(folder)


WORDS = {
    "positive": "superb charming moving brilliant funny warm clever fresh",
    "negative": "dull awful boring loud stale clumsy tired hollow",
}


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random BERT of two small layers, with a tokenizer that knows the words of `reviews`."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny-encoder")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "film", "was", *" ".join(WORDS.values()).split()]
    inner = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=inner, **names).save_pretrained(folder)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(words), max_position_embeddings=64, initializer_range=0.2, **sizes)
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV of 600 different made-up reviews, of 3 to 13 words, half of them positive."""
    file = tmp_path_factory.mktemp("reviews") / "reviews.csv"
    draw = random.Random(0)
    rows: set[tuple[str, str]] = set()
    while len(rows) < 600:
        label = ("negative", "positive")[len(rows) % 2]
        picked = draw.choices(WORDS[label].split(), k=draw.randint(1, 10))
        rows.add((" ".join(["the film was", *picked]), label))
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows([("text", "label"), *sorted(rows)])
    return file


@pytest.fixture(scope="session")
def tiny_values(tiny_encoder: Path, reviews: Path) -> dict[str, Any]:
    """A spec, as plain values, that trains in seconds; its storage is for the test to say."""
    return {
        "name": "tiny",
        "task": "text-classification",
        "model": {"source": str(tiny_encoder)},
        "data": {"source": str(reviews), "max_length": 16},
        "train": {
            "workers": 2, "global_batch_size": 24, "learning_rate": 0.01, "epochs": 2, "zero_stage": 3,
            "dropout": 0.0,
        },
        "tune": {"space": {"learning_rate": {"choice": [1e-5, 1e-2]}, "global_batch_size": {"choice": [12, 24]}},
                 "trials": 4, "epochs": 1},
        "serve": {"cpus_per_replica": 0.5},
    }  # fmt: skip


@pytest.fixture
def cluster(home: Path) -> Iterator[Cluster]:
    """A head without CPUs, which misses a node after 5 seconds."""
    with applied({**local_environment(), "RAY_health_check_period_ms": "1000"}):
        made = Cluster(
            initialize_head=True,
            shutdown_at_exit=False,
            head_node_args={**NODE, "num_cpus": 0, "include_dashboard": False},
        )
        yield made
        made.shutdown()


@pytest.fixture
def spec_file(tmp_path: Path, tiny_values: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HELIOSTAT_STORAGE", str(tmp_path / "storage"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(tiny_values))
    return file
