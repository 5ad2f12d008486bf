"""Only a validated model is published."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import torch
from tokenizers import Tokenizer, models, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from heliostat.infra.drift.reference import LABEL, SCORE, read_reference
from heliostat.infra.errors import ModelError
from heliostat.infra.registry import bundle
from heliostat.infra.registry.published import PublishedModel
from heliostat.infra.storage.base import Store
from heliostat.infra.storage.store import open_store
from heliostat.train import publish, tasks
from heliostat.train.config import TrainConfig
from heliostat.train.data.rows import Rows
from heliostat.train.evaluation.evaluate import evaluate
from heliostat.train.loop import Run
from heliostat.train.parallel.distributed import World
from tests.bare_engine import BareEngine

LABELS = ("bad", "good")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    inner = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "fine": 2, "awful": 3}, unk_token="[UNK]"))
    inner.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(
        tmp_path / "b"
    )
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    BertForSequenceClassification(BertConfig(vocab_size=4, max_position_embeddings=8, **sizes)).save_pretrained(
        tmp_path / "b"
    )
    return tmp_path / "b"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "storage"))


def run_of(base: Path) -> Run:
    lists = pa.list_(pa.int32())
    table = pa.table(
        {
            "input_ids": pa.array([[2, 3], [3], [2]], lists),
            "label": ["good", "bad", "good"],
            "length": pa.array([2, 1, 1], pa.int32()),
            "targets": pa.array([1, 1, 1], pa.int32()),
        }
    )
    rows, task = Rows(table, LABELS), tasks.get("text-classification")
    engine = BareEngine(task.load_model(base, LABELS, None).to(torch.bfloat16))
    return Run(task, engine, TrainConfig(), rows, rows, World(0, 1, "cpu"))


def description(run_id: str = "r1") -> PublishedModel:
    return PublishedModel(
        name="tiny", task="text-classification", labels=LABELS, max_length=8, base_model="b", run_id=run_id,
        data_fingerprint="0", metrics={"accuracy": 0.5}, heliostat_version="0", created=datetime.now(timezone.utc),
    )  # fmt: skip


def test_a_published_model_has_all_that_serving_needs(base: Path, store: Store) -> None:
    done = publish.publish(run_of(base), base, description(), "name: tiny\n", store)
    manifest = bundle.read_manifest(store, "models/tiny/r1")
    assert done.digest == manifest.digest
    assert done.url.endswith("models/tiny/r1")
    assert {
        "heliostat.json",
        "spec.yaml",
        "model/config.json",
        "model/model.safetensors",
        "model/tokenizer.json",
    } <= set(manifest.files)
    assert not any(name.endswith((".bin", ".pt", ".pkl")) for name in manifest.files)


def test_a_classifier_is_published_with_the_reference_of_its_training_split(base: Path, store: Store) -> None:
    run = run_of(base)
    test = evaluate(run.task, run.engine, run.rows, run.world)
    publish.publish(run, base, description(), "", store, test)
    found = read_reference(Path(store.url) / "models/tiny/r1")
    assert found is not None
    assert [column.name for column in found.columns] == ["length", "unknown_share", "common_share", LABEL, SCORE]
    assert all(sum(column.counts) == 3 for column in found.columns)
    assert found.common_tokens == (2, 3)
    assert "drift.json" in bundle.read_manifest(store, "models/tiny/r1").files


def test_a_run_without_validation_records_is_checked_by_those_it_learned_from(base: Path, store: Store) -> None:
    run = run_of(base)
    none = Rows(run.rows.table.slice(0, 0), LABELS)
    publish.publish(replace(run, validation=none), base, description(), "", store)
    assert b'"probe"' in bundle.read_file(
        store, "models/tiny/r1", "heliostat.json", bundle.read_manifest(store, "models/tiny/r1")
    )


def test_a_run_that_publishes_again_finds_what_is_there_and_other_weights_are_refused(base: Path, store: Store) -> None:
    run = run_of(base)
    first = publish.publish(run, base, description(), "", store)
    assert publish.publish(run, base, description(), "", store).digest == first.digest
    with torch.no_grad():
        run.engine.module.classifier.bias += 1
    with pytest.raises(ModelError, match="other weights of the same run"):
        publish.publish(run, base, description(), "", store)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused_by_name(base: Path, store: Store, value: float) -> None:
    run = run_of(base)
    with torch.no_grad():
        run.engine.module.classifier.weight[0, 0] = value
    with pytest.raises(ModelError, match=r"classifier\.weight: holds values that are not finite"):
        publish.publish(run, base, description(), "", store)
    assert store.list() == []


def test_an_empty_tensor_is_refused_by_name(base: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(base)
    gather = publish.gather

    def empty(gathered: Any, world: World) -> dict[str, torch.Tensor]:
        return {**gather(gathered, world), "classifier.weight": torch.empty(0)}

    monkeypatch.setattr(publish, "gather", empty)
    with pytest.raises(ModelError, match=r"classifier\.weight: empty after gathering"):
        publish.publish(run, base, description(), "", store)
    assert store.list() == []


def test_other_answers_than_the_trained_models_are_refused(base: Path, store: Store) -> None:
    run = run_of(base)
    real = run.engine.module
    run.engine.module = real
    run.engine.forward = lambda **inputs: SimpleNamespace(logits=real(**inputs).logits + 3.0)
    with pytest.raises(ModelError, match="answer otherwise than the trained model"):
        publish.publish(run, base, description(), "", store)
    assert store.list() == []


def test_the_probe_is_a_text_of_which_the_model_knows_a_word(base: Path) -> None:
    def probe(texts: list[list[int]]) -> Any:
        table = pa.table({"input_ids": pa.array(texts, pa.list_(pa.int32())), "label": ["good"] * len(texts)})
        rows, task = Rows(table, LABELS), tasks.get("text-classification")
        return task.probe(task.load_model(base, LABELS, None).eval(), base, rows, 8)

    assert probe([[1], [1, 1], [2, 3]])["input"] == {"text": "fine awful"}
    with pytest.raises(ModelError, match="no validation record has a word that the model knows; nothing is published"):
        probe([[1], [1, 1]])
