"""An adapter published alone: what is stored, and that it answers as the model it was trained in."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from peft import PeftModel
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from heliostat.infra.config.strict import build
from heliostat.infra.errors import ConfigError, IntegrityError, ModelError, NotFoundError
from heliostat.infra.registry import bundle
from heliostat.infra.registry.fetching import fetch_model
from heliostat.infra.registry.published import CHAT_TEMPLATE, PublishedModel
from heliostat.infra.storage.base import Store
from heliostat.infra.storage.store import open_store
from heliostat.serve.args import AppArgs
from heliostat.serve.engines import lora
from heliostat.serve.models.adapter_fetch import fetched_together
from heliostat.spec import Spec
from heliostat.train import publish, tasks
from heliostat.train.config import TrainConfig
from heliostat.train.data.rows import Rows
from heliostat.train.loop import Run
from heliostat.train.models.adapters import attach
from heliostat.train.parallel.distributed import World
from tests.bare_engine import BareEngine

WORDS = ["[UNK]", "how", "are", "you", "fine", "awful"]
ALONE = build(TrainConfig, {"adapter": {"publish": "adapter"}})


@pytest.fixture
def base(tmp_path: Path) -> Path:
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]").save_pretrained(tmp_path / "base")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(WORDS), **sizes)).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "storage"))


def run_of(base: Path, seed: int = 0) -> Run:
    """A run whose adapter has learnt something."""
    rows = Rows(pa.table({"input_ids": [[1, 2, 3, 4]] * 3, "labels": [[-100, 2, 3, 4]] * 3, "length": [4] * 3}), ())
    task = tasks.get("causal-lm")
    model = task.load_model(base, (), 0.0)
    assert ALONE.adapter
    torch.manual_seed(seed)
    attach(model, ALONE.adapter)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return Run(task, BareEngine(model), ALONE, rows, rows, World(0, 1, "cpu"))


def described(run_id: str) -> PublishedModel:
    return PublishedModel(
        name="tiny", task="causal-lm", max_length=8, base_model="b", run_id=run_id, data_fingerprint="0",
        metrics={"loss": 0.5}, heliostat_version="0", created=datetime.now(timezone.utc),
    )  # fmt: skip


def published(base: Path, store: Store, run_id: str = "r1", seed: int = 0) -> publish.Published:
    return publish.publish(run_of(base, seed), base, described(run_id), "", store)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=torch.tensor([[1, 2, 3]])).logits
    return found


def test_two_adapters_share_one_base_and_answer_as_they_were_trained(base: Path, store: Store, tmp_path: Path) -> None:
    for seed, run_id in enumerate(("r1", "r2")):
        done = published(base, store, run_id, seed)
        names = set(bundle.read_manifest(store, f"models/tiny/{run_id}").files)
        assert {"adapter/adapter_model.safetensors", "adapter/adapter_config.json", "adapter/tokenizer.json"} <= names
        assert not any(name.startswith("model/") for name in names)
        described = fetch_model(store, f"models/tiny/{run_id}", tmp_path / run_id, done.digest, None)
        assert described.probe
        whole = AutoModelForCausalLM.from_pretrained(tmp_path / run_id / "model")
        assert torch.allclose(logits(whole), logits(run_of(base, seed).engine.module), atol=1e-5)
        assert not (tmp_path / run_id / "base").exists()
    assert len({entry.key.split("/")[1] for entry in store.list("bases")}) == 1


@pytest.mark.parametrize("chats", [True, False])
def test_a_version_says_whether_it_takes_conversations(base: Path, store: Store, tmp_path: Path, chats: bool) -> None:
    if chats:
        (base / CHAT_TEMPLATE).write_text("{{ messages }}")
    done = published(base, store)
    assert fetch_model(store, "models/tiny/r1", tmp_path / "r1", done.digest, None).has_chat_template == chats


def test_peft_itself_reads_what_is_published(base: Path, store: Store, tmp_path: Path) -> None:
    published(base, store)
    store_folder = tmp_path / "storage" / "models" / "tiny" / "r1" / "adapter"
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(store_folder))
    assert torch.allclose(logits(model), logits(run_of(base).engine.module), atol=1e-5)


def test_a_run_that_publishes_again_finds_its_adapter_and_another_is_refused(base: Path, store: Store) -> None:
    assert published(base, store).digest == published(base, store).digest
    with pytest.raises(ModelError, match="other weights of the same run"):
        published(base, store, seed=1)


def test_a_base_that_has_changed_or_gone_is_found(base: Path, store: Store, tmp_path: Path) -> None:
    done = published(base, store)
    file = next((tmp_path / "storage" / "bases").glob("*/model.safetensors"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"model\.safetensors: has SHA-256"):
        fetch_model(store, "models/tiny/r1", tmp_path / "one", done.digest, None)
    store.delete("bases")
    with pytest.raises(NotFoundError, match="no bundle here"):
        fetch_model(store, "models/tiny/r1", tmp_path / "two", done.digest, None)


@pytest.mark.parametrize(
    ("task", "adapter", "message"),
    [
        ("text-classification", {"publish": "adapter"}, r"train\.adapter\.publish: adapter is for task causal-lm"),
        ("causal-lm", {"publish": "adapter", "quantize": "nf4"}, r"train\.adapter\.publish: adapter given; .* merged"),
        ("causal-lm", {"publish": "both"}, r"train\.adapter\.publish: .*'merged' or 'adapter'"),
    ],
)
def test_where_an_adapter_cannot_be_published_alone(task: str, adapter: dict[str, Any], message: str) -> None:
    spec = {"name": "x", "task": task, "model": {"source": "b"}, "data": {"source": "d"}, "train": {"adapter": adapter}}
    with pytest.raises(ConfigError, match=message):
        build(Spec, spec)


def test_what_training_publishes_answers_beside_another_on_the_same_base(base: Path, store: Store) -> None:
    first, second = (published(base, store, run_id, seed) for seed, run_id in enumerate(("r1", "r2")))
    values = {"name": "tiny", "url": first.url, "digest": first.digest, "version": "1"}
    beside = {"other": {"url": second.url, "digest": second.digest, "version": "2"}}
    with fetched_together(build(AppArgs, {**values, "adapters": beside})) as found:
        model = AutoModelForCausalLM.from_pretrained(found.folder)
        adapters = lora.attach(model, found.adapters)
        for seed, name in enumerate(("tiny", "other")):
            adapters.choose([adapters.index[name]])
            trained = run_of(base, seed).engine.module
            torch.testing.assert_close(logits(model), logits(trained), rtol=1e-4, atol=1e-5)
