"""Tiny random models, published as training does it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from heliostat.infra.config.strict import build
from heliostat.infra.registry import bundle
from heliostat.infra.registry.published import PublishedModel, write_description
from heliostat.infra.storage.config import StorageConfig
from heliostat.infra.storage.store import open_store
from heliostat.serve.args import AppArgs
from heliostat.serve.config import ServeConfig

LABELS = ("negative", "positive")
MAX_LENGTH = 16
CHAT_TEMPLATE = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}assistant: "
WORDS = "the film was a joy from start to end and nobody in it was dull é 你好 🙂 user assistant system"


def tokenizer(form: str = "<s> $A") -> PreTrainedTokenizerFast:
    """Byte-level, so that any text has tokens and a character may be split between two of them."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
    inner.train_from_iterator([WORDS], trainer)
    inner.post_processor = processors.TemplateProcessing(single=form, special_tokens=[("<s>", 0), ("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="</s>")


def classifier(folder: Path) -> dict[str, Any]:
    """Writes a tiny random classifier; returns its probe."""
    torch.manual_seed(0)
    words = tokenizer("<s> $A </s>")
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
    text = greedy(model, words("the film", add_special_tokens=False).input_ids, 12)
    return {"input": {"prompt": "the film", "max_tokens": 12}, "output": {"text": text}}


def greedy(model: LlamaForCausalLM, ids: list[int], tokens: int) -> str:
    """What `generate` of transformers says."""
    with torch.inference_mode():
        out = model.generate(torch.tensor([ids]), max_new_tokens=tokens, do_sample=False)
    return str(tokenizer().decode(out[0, len(ids) :], skip_special_tokens=True))


def publish(
    storage: Path, name: str, task: str, write: Callable[[Path], dict[str, Any]], run: str = "r1"
) -> tuple[str, str]:
    """Publishes a model as training does; returns the url of its bundle and its digest."""

    def describe(probe: dict[str, Any]) -> PublishedModel:
        return PublishedModel(
            name=name, task=task, labels=LABELS if task == "text-classification" else (), max_length=MAX_LENGTH,
            base_model="tiny", run_id=run, data_fingerprint="0", metrics={}, heliostat_version="0",
            created=datetime.now(timezone.utc), probe=probe,
        )  # fmt: skip

    return publish_described(storage, f"{name}/{run}", write, describe)


def publish_described(
    storage: Path,
    place: str,
    write: Callable[[Path], dict[str, Any]],
    describe: Callable[[dict[str, Any]], PublishedModel],
) -> tuple[str, str]:
    """The same with a description of one's own, made of the probe."""
    folder = storage.parent / place.replace("/", "-")
    (folder / "model").mkdir(parents=True)
    write_description(folder, describe(write(folder / "model")))
    prefix = f"models/{place}"
    manifest = bundle.publish_directory(open_store(str(storage)), prefix, folder)
    return f"{storage}/{prefix}", manifest.digest


def app_args(name: str, published: tuple[str, str], storage: Path, version: str, settings: dict[str, Any]) -> AppArgs:
    """How a published model is served, with these keys of the `serve` section."""
    url, digest = published
    config, kept = build(ServeConfig, settings), StorageConfig(url=str(storage))
    return AppArgs(name=name, url=url, digest=digest, version=version, config=config, storage=kept)
