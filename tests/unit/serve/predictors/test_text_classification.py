"""The predictor with a tiny random encoder of transformers."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from heliostat.infra.errors import ModelError
from heliostat.infra.registry.published import PublishedModel
from heliostat.serve.config import ServeConfig
from heliostat.serve.models.served_models import ServedModels
from heliostat.serve.predictors.classification_api import ClassificationApi
from heliostat.serve.predictors.text_classification import TextClassifier, load, padded
from heliostat.serve.predictors.texts import Texts
from tests.unit.serve.conftest import Recorded

pytestmark = pytest.mark.anyio
LABELS = ("negative", "positive")
TEXTS = ["fox", "the quick brown fox jumps over", "dog dog", "lazy", "é 你好", "the the the the"]
LIMIT = 24


@pytest.fixture(scope="module")
def folder(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, initializer_range=0.5, **sizes)
    words = copy.deepcopy(tokenizer)
    words.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    folder = tmp_path_factory.mktemp("classifier")
    BertForSequenceClassification(config).eval().save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def description(labels: tuple[str, ...] = LABELS, max_length: int = LIMIT) -> PublishedModel:
    values = {"name": "tiny", "task": "text-classification", "base_model": "tiny", "run_id": "r", "metrics": {}}
    values |= {"data_fingerprint": "0", "heliostat_version": "0", "created": "2026-01-01T00:00:00Z"}
    return PublishedModel.model_validate({**values, "labels": labels, "max_length": max_length})


@pytest.fixture
def classifier(folder: Path, config: ServeConfig, recorded: Recorded) -> Iterator[TextClassifier]:
    classifier = load(folder, description(), config, recorded.metrics)
    yield classifier
    classifier.close()
    with pytest.raises(RuntimeError, match="ended"):
        classifier.check_health()


def alone(folder: Path, text: str) -> list[float]:
    """What the model says to a text of its own, through transformers and nothing else."""
    model = BertForSequenceClassification.from_pretrained(folder)
    words = PreTrainedTokenizerFast.from_pretrained(folder)
    ids = words(text, truncation=True, max_length=LIMIT, return_tensors="pt", return_token_type_ids=False)
    with torch.inference_mode():
        return list(model(**ids).logits[0].softmax(-1).tolist())


async def test_answers_in_a_batch_are_those_of_each_text_alone(
    classifier: TextClassifier, folder: Path, recorded: Recorded
) -> None:
    encoded = [classifier.encoder.encode([text]) for text in TEXTS]
    answers = await asyncio.gather(*(classifier.predict(one) for one in encoded))
    for text, (answer,) in zip(TEXTS, answers, strict=True):
        assert list(answer) == list(LABELS)
        assert list(answer.values()) == pytest.approx(alone(folder, text), abs=1e-5)
    assert sum(recorded.of("heliostat_batch_size")) == len(TEXTS)
    assert len(recorded.of("heliostat_batch_size")) < len(TEXTS)


async def test_bfloat16_is_close(folder: Path, config: ServeConfig, recorded: Recorded) -> None:
    fast = config.model_copy(update={"precision": "bf16"})
    classifier = load(folder, description(), fast, recorded.metrics)
    (answer,) = await classifier.predict(classifier.encoder.encode(["the quick brown fox"]))
    classifier.close()
    assert list(answer.values()) == pytest.approx(alone(folder, "the quick brown fox"), abs=0.05)


async def test_a_long_text_is_cut_and_its_whole_length_known(classifier: TextClassifier, folder: Path) -> None:
    text = "dog " * 50
    short, long = classifier.encoder.encode(["fox", text])
    words = PreTrainedTokenizerFast.from_pretrained(folder)
    assert (short.truncated, long.truncated) == (False, True)
    assert (len(long.ids), long.ids[0], long.ids[-1]) == (LIMIT, 0, 1)
    assert long.total_tokens == len(words(text).input_ids)
    assert short.total_tokens == len(short.ids)
    (answer,) = await classifier.predict([long])
    assert list(answer.values()) == pytest.approx(alone(folder, text), abs=1e-5)


async def test_the_probe_must_be_answered_as_before(
    classifier: TextClassifier, folder: Path, served: ServedModels, config: ServeConfig, recorded: Recorded
) -> None:
    api = ClassificationApi(Texts(classifier.encoder), classifier, served, config, recorded.metrics)
    scores = dict(zip(LABELS, alone(folder, "fox"), strict=True))
    label = max(scores, key=scores.__getitem__)
    other = next(name for name in LABELS if name != label)
    await api.check_probe({"input": {"text": "fox"}, "output": {"label": label, "scores": scores}})
    with pytest.raises(ModelError, match=f"answers its probe with '{label}', the trained one with '{other}'"):
        await api.check_probe({"input": {"text": "fox"}, "output": {"label": other, "scores": scores}})
    shifted = {name: score + 0.06 * (1 if name == label else -1) for name, score in scores.items()}
    with pytest.raises(ModelError, match=r"probabilities differ by 0\.060, 0\.05 is allowed"):
        await api.check_probe({"input": {"text": "fox"}, "output": {"label": label, "scores": shifted}})


def test_labels_that_do_not_fit_the_model_are_refused(folder: Path, config: ServeConfig, recorded: Recorded) -> None:
    with pytest.raises(ModelError, match=r"tiny: heliostat.json names 3 labels, the model has 2 outputs"):
        load(folder, description(labels=("a", "b", "c")), config, recorded.metrics)


def test_padding_has_a_mask_only_where_there_is_some() -> None:
    ids, mask = padded([[1, 2], [3, 4]], 9)
    assert (ids.tolist(), mask) == ([[1, 2], [3, 4]], None)
    ids, mask = padded([[1, 2, 3]], 9, step=8, limit=6)
    assert (ids.shape[1], mask is None) == (6, False)
    ids, mask = padded([[1] * 6], 9, step=8, limit=6)
    assert (ids.shape[1], mask is None) == (6, True)
    ids, mask = padded([[1, 2, 3], [4]], 9)
    assert ids.tolist() == [[1, 2, 3], [4, 9, 9]]
    assert mask is not None
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
