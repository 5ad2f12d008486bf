"""A text's logits are the same alone and beside longer ones: in training, in evaluation, and where it is served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedTokenizerFast

from heliostat.infra.registry.published import PublishedModel
from heliostat.serve.config import ServeConfig
from heliostat.serve.predictors.text_classification import load
from heliostat.train.data.rows import Rows
from heliostat.train.evaluation.evaluate import evaluate
from heliostat.train.parallel.distributed import World
from heliostat.train.tasks.classifier import logits
from heliostat.train.tasks.text_classification import TASK
from tests.unit.serve.conftest import Recorded

WORDS = 40
END = 3
"""The token that ends each text, and that decoders are padded with."""
SIZES: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "initializer_range": 0.3, "max_position_embeddings": 64,
}  # fmt: skip
GPT: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.3}
ENCODERS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "electra", "deberta-v2", "mpnet"), SIZES),
    "albert": {**SIZES, "embedding_size": 16},
    "distilbert": {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4, "initializer_range": 0.3},
    "modernbert": {**SIZES, "global_attn_every_n_layers": 1},
}
GROUPED: dict[str, Any] = {**SIZES, "num_key_value_heads": 2, "head_dim": 8}
DECODERS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma", "olmo2"), GROUPED),
    **dict.fromkeys(("gpt2", "openai-gpt"), GPT),
    "ctrl": {"n_embd": 32, "n_layer": 2, "n_head": 4, "dff": 64, "initializer_range": 0.3},
    "gpt_neox": SIZES,
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3},
    "falcon": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.3},
    "opt": {**SIZES, "ffn_dim": 64, "word_embed_proj_dim": 32, "init_std": 0.3},
}
PADDINGS = (0, END, None)
CASES = [(name, values, 0) for name, values in ENCODERS.items()] + [
    (name, values, padding) for name, values in DECODERS.items() for padding in PADDINGS
]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}, padding {case[2]}")
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random base model of a family, with its padding token or without one."""
    name, values, padding = request.param
    path = tmp_path_factory.mktemp("family")
    torch.manual_seed(0)
    tokens = {"pad_token_id": padding, "eos_token_id": END, "bos_token_id": 1}
    config = AutoConfig.for_model(name, vocab_size=WORDS, num_labels=2, **values, **tokens)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(path)
    inner = Tokenizer(models.WordLevel({f"w{index}": index for index in range(WORDS)}, unk_token="w4"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="w4", eos_token=f"w{END}").save_pretrained(path)
    return path


@pytest.fixture
def recorded() -> Recorded:
    return Recorded()


@pytest.fixture
def rows() -> Rows:
    """Texts of 5, 13 and 9 tokens, each with the ending token at its end."""
    draw = np.random.default_rng(0)
    texts = [[*draw.integers(5, WORDS, length - 1).tolist(), END] for length in (5, 13, 9)]
    columns = {"input_ids": pa.array(texts, pa.list_(pa.int32())), "label": ["a", "b", "a"]}
    return Rows(pa.table({**columns, "length": pa.array([5, 13, 9], pa.int32())}), ("a", "b"))


def alone(folder: Path, rows: Rows) -> list[list[float]]:
    """The logits of each text by itself, through transformers: of a decoder, its head's at the last token."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    found = []
    for row in rows.lists("input_ids", np.arange(len(rows))):
        inputs = {"input_ids": torch.tensor(row)[None].long(), "attention_mask": torch.ones(1, len(row)).long()}
        with torch.no_grad():
            if model.config.model_type in DECODERS:
                head = model.classifier if model.config.model_type == "ctrl" else model.score
                found.append(head(model.base_model(**inputs).last_hidden_state[0, -1]).tolist())
            else:
                found.append(model(**inputs).logits[0].tolist())
    return found


def test_a_text_is_scored_the_same_alone_and_in_a_batch(folder: Path, rows: Rows, recorded: Recorded) -> None:
    expected = alone(folder, rows)
    assert max(abs(one[0] - expected[0][0]) for one in expected[1:]) > 1e-3
    same = [pytest.approx(one, abs=1e-4) for one in expected]
    model = TASK.load_model(folder, ("a", "b"), 0.0)
    assert logits(model.train(), TASK.collate(rows, np.arange(3))).tolist() == same
    assert evaluate(TASK, model, rows, World(0, 1, "cpu")).outputs.tolist() == same

    values = {"name": "tiny", "task": "text-classification", "base_model": "tiny", "run_id": "r", "metrics": {}}
    values |= {"data_fingerprint": "0", "heliostat_version": "0", "created": "2026-01-01T00:00:00Z"}
    described = PublishedModel.model_validate({**values, "labels": ("a", "b"), "max_length": 32})
    served = load(folder, described, ServeConfig(precision="fp32"), recorded.metrics)
    found = served.scores([row.tolist() for row in rows.lists("input_ids", np.arange(3))])
    served.close()
    assert found == [pytest.approx(torch.tensor(one).softmax(-1).tolist(), abs=1e-4) for one in expected]
