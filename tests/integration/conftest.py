"""Real components for integration tests."""

from __future__ import annotations

import csv
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import boto3
import pytest
import torch
from botocore.exceptions import BotoCoreError, ClientError

from heliostat.cluster.compiler import operators_folder
from heliostat.cluster.folders import free_ports

S3_KEYS = {"AWS_ACCESS_KEY_ID": "heliostat-test", "AWS_SECRET_ACCESS_KEY": "heliostat-test-secret"}
S3_BUCKET = "heliostat"


@pytest.fixture(scope="session", autouse=True)
def operators() -> Iterator[None]:
    """Tests have homes and caches of their own; what DeepSpeed compiles, a minute's work, they share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_EXTENSIONS_DIR", str(operators_folder()))
        yield


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a SeaweedFS on this machine that has an empty bucket; about 0.5 GB of memory."""
    folder = tmp_path_factory.mktemp("seaweedfs")
    port, *others = free_ports(9)
    with (folder / "weed.log").open("wb") as log:
        process = subprocess.Popen(_weed(folder, port, others), stdout=log, stderr=log, cwd=folder)
        try:
            _make_bucket(f"http://127.0.0.1:{port}", process, folder / "weed.log")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()  # a polite stop takes 15 s, and the data are thrown away
            process.wait()


@pytest.fixture
def s3_url(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty place of the test's own, `s3://bucket/prefix`, with the environment set for boto3."""
    for name, value in {**S3_KEYS, "AWS_ENDPOINT_URL_S3": s3_server, "AWS_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    return f"s3://{S3_BUCKET}/{uuid4().hex}"


def _weed(folder: Path, port: int, others: list[int]) -> list[str]:
    """The command that starts master, volume, filer and S3 in one process, on the loopback only."""
    keys = {"accessKey": S3_KEYS["AWS_ACCESS_KEY_ID"], "secretKey": S3_KEYS["AWS_SECRET_ACCESS_KEY"]}
    identities = [{"name": "test", "credentials": [keys], "actions": ["Admin", "Read", "Write", "List"]}]
    (folder / "s3.json").write_text(json.dumps({"identities": identities}))
    names = ["s3.port.grpc", "master.port", "master.port.grpc", "volume.port", "volume.port.grpc"]
    names += ["filer.port", "filer.port.grpc", "volume.port.public"]
    options = {
        **dict(zip(names, others, strict=True)),
        "s3.port": port,
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.config": folder / "s3.json",
        "s3.localSocket": folder / "s3.sock",
        "s3.autoCreateBucket": "false",
        "filer.localSocket": folder / "filer.sock",
        "master.volumeSizeLimitMB": 256,
        "master.telemetry": "false",
        "volume.max": 20,
        "volume.preStopSeconds": 0,
        "dir": folder,
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
    }
    program = Path(sys.executable).with_name("weed")
    return [str(program), "server", "-s3", "-filer", *(f"-{name}={value}" for name, value in options.items())]


def _make_bucket(endpoint_url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Makes the bucket as soon as the server takes it: seconds after its start."""
    key, secret = S3_KEYS.values()
    session = boto3.session.Session(key, secret, region_name="us-east-1")
    client = session.client("s3", endpoint_url=endpoint_url)
    until = time.monotonic() + 60
    while True:
        try:
            client.create_bucket(Bucket=S3_BUCKET)
            client.put_object(Bucket=S3_BUCKET, Key="ready", Body=b"x")  # makes the first volume
            client.delete_object(Bucket=S3_BUCKET, Key="ready")
            return
        except (BotoCoreError, ClientError) as error:
            if isinstance(error, ClientError) and error.response["Error"]["Code"] == "BucketAlreadyOwnedByYou":
                continue
            if process.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"SeaweedFS does not come up:\n{log.read_text()[-4000:]}") from error
            time.sleep(0.2)


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
