"""What the tasks make of records, and what they say of outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from heliostat.infra.errors import ModelError
from heliostat.train import tasks
from heliostat.train.data.config import DataConfig
from heliostat.train.data.packing import IGNORED
from heliostat.train.data.rows import Rows
from heliostat.train.models.pretrained import as_folder, load
from heliostat.train.tasks.base import LONGEST_TEXT, shortened
from heliostat.train.tasks.causal_lm import TASK

TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }} {{ message['content'] }} end {% endfor %}"
    "{% if add_generation_prompt %}assistant {% endif %}"
)
WORDS = ["[PAD]", "[UNK]", "user", "assistant", "end", "hello", "there", "how", "are", "you", "fine", "thanks", "ok"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama with a chat template."""
    path = tmp_path_factory.mktemp("llama")
    inner = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    words = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", eos_token="end")
    words.chat_template = TEMPLATE
    words.save_pretrained(path)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(vocab_size=len(WORDS), max_position_embeddings=64, **sizes)).save_pretrained(path)
    return path


def data(**columns: str) -> DataConfig:
    return DataConfig.model_validate({"source": "x", "columns": columns})


def words_of(ids: list[int]) -> str:
    return " ".join(WORDS[index] for index in ids)


def test_the_loss_is_taken_on_the_answers_only(folder: Path) -> None:
    turns = [
        {"role": "user", "content": "hello there"},
        {"role": "assistant", "content": "fine thanks"},
        {"role": "user", "content": "how are you"},
        {"role": "assistant", "content": "ok"},
    ]
    made = TASK.encoder(data(), folder).encode({"turns": [turns]}, data(messages="turns"))
    ids, labels = made["input_ids"][0], made["labels"][0]
    assert words_of(ids) == "user hello there end assistant fine thanks end user how are you end assistant ok end"
    assert words_of([label for label in labels if label != IGNORED]) == "fine thanks end ok end"
    assert [index for index, label in zip(ids, labels, strict=True) if label != IGNORED] == [
        label for label in labels if label != IGNORED
    ]


def test_a_prompt_takes_its_context_along(folder: Path) -> None:
    columns = data(prompt="q", context="more", answer="a")
    made = TASK.encoder(data(), folder).encode(
        {"q": ["hello", "hello"], "more": ["there", None], "a": ["ok", "ok"]}, columns
    )
    assert [words_of(ids) for ids in made["input_ids"]] == [
        "user hello there end assistant ok end",
        "user hello end assistant ok end",
    ]


def test_plain_text_is_all_target_and_ends(folder: Path) -> None:
    made = TASK.encoder(data(), folder).encode({"text": ["hello there"]}, data())
    assert words_of(made["input_ids"][0]) == "hello there end"
    assert made["labels"] == made["input_ids"]


def rows(sequences: list[tuple[list[int], list[int]]]) -> Rows:
    lists = pa.list_(pa.int32())
    return Rows(
        pa.table(
            {
                "input_ids": pa.array([ids for ids, _ in sequences], lists),
                "labels": pa.array([labels for _, labels in sequences], lists),
                "length": pa.array([len(ids) for ids, _ in sequences], pa.int32()),
                "targets": pa.array([sum(one != IGNORED for one in labels[1:]) for _, labels in sequences], pa.int32()),
            }
        ),
        (),
    )


def test_causal_loss_is_that_of_transformers_and_padding_counts_nothing(folder: Path) -> None:
    model = TASK.load_model(folder, (), None).eval()
    first, second = ([2, 5, 6, 4, 3, 10, 4], [IGNORED] * 5 + [10, 4]), ([2, 5, 3, 12], [IGNORED, IGNORED, 3, 12])
    both = rows([first, second])
    batch = TASK.collate(both, np.array([0, 1]))
    summed = TASK.loss(model, batch).item()
    alone = [
        float(model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss)
        for ids, labels in (first, second)
    ]
    assert summed == pytest.approx(2 * alone[0] + 2 * alone[1], rel=1e-5)
    with torch.no_grad():
        outputs = TASK.outputs(model, batch)
    assert outputs[:, 0] == pytest.approx([2 * alone[0], 2 * alone[1]], rel=1e-4)
    assert outputs[:, 1].tolist() == [2, 2]
    metrics = TASK.metrics(outputs, both)
    assert metrics["loss"] == pytest.approx(summed / 4, rel=1e-5)
    assert metrics["perplexity"] == pytest.approx(np.exp(summed / 4), rel=1e-5)


def reviews() -> tuple[Rows, np.ndarray]:
    """Four texts and their logits; the second is taken for the other class."""
    texts = ["fine", "so " * 400, "dull", "<b>bad</b>"]
    table = pa.table({"label": ["a", "a", "b", "b"], "text": texts, "length": pa.array([1, 1, 1, 1], pa.int32())})
    return Rows(table, ("a", "b")), np.array([[2, 0], [0, 1], [0, 1], [0, 3]], dtype=np.float32)


def test_classification_metrics_of_a_known_table() -> None:
    known, outputs = reviews()
    task = tasks.get("text-classification")
    metrics = task.metrics(outputs, known)
    assert metrics["accuracy"] == 0.75
    assert metrics["precision"] == pytest.approx((1 + 2 / 3) / 2)
    assert metrics["recall"] == pytest.approx((0.5 + 1) / 2)
    assert task.confusion(outputs, known) == [[1, 1], [0, 2]]


def test_the_worst_texts_are_wrong_and_cut(folder: Path) -> None:
    known, outputs = reviews()
    worst = tasks.get("text-classification").worst(outputs, known, folder, 20)
    assert worst == [
        {
            "text": ("so " * 400)[:LONGEST_TEXT] + " …",
            "true label": "a",
            "predicted label": "b",
            "probability": pytest.approx(1 / (1 + np.exp(-1))),
        }
    ]


def test_the_worst_answers_have_the_highest_loss_for_each_target(folder: Path) -> None:
    first, second, none = (
        ([2, 5, 6, 4, 3, 10, 4], [IGNORED] * 5 + [10, 4]),
        ([2, 3, 12], [-100, -100, 12]),
        ([2], [-100]),
    )
    outputs = np.array([[3, 2, 1], [2, 1, 0], [0, 0, 0]], dtype=np.float32)
    worst = TASK.worst(outputs, rows([first, second, none]), folder, 20)
    assert worst == [
        {"prompt": "user assistant", "expected answer": "ok", "loss per target": 2.0, "targets": 1, "tokens": 3},
        {
            "prompt": "user hello there assistant",
            "expected answer": "fine",
            "loss per target": 1.5,
            "targets": 2,
            "tokens": 7,
        },
    ]
    assert TASK.worst(outputs, rows([first, second, none]), folder, 1) == worst[:1]


def test_plain_text_is_shown_as_it_is_and_a_loss_that_is_no_number_first(folder: Path) -> None:
    plain = rows([([5, 6], [5, 6]), ([7, 8, 9], [7, 8, 9])])
    worst = TASK.worst(np.array([[9, 1, 0], [np.nan, 2, 0]], dtype=np.float32), plain, folder, 20)
    assert [example["text"] for example in worst] == ["how are you", "hello there"]


def test_of_a_long_prompt_the_end_is_shown() -> None:
    assert shortened("a" * LONGEST_TEXT + "b", keep_end=True) == "… " + "a" * (LONGEST_TEXT - 1) + "b"
    assert shortened("a" * LONGEST_TEXT) == "a" * LONGEST_TEXT


def test_dropout_of_the_spec_replaces_the_models_own(folder: Path) -> None:
    assert load("AutoModelForCausalLM", folder, 0.25).config.attention_dropout == 0.25
    assert load("AutoModelForCausalLM", folder, None).config.attention_dropout == 0.0


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.source: .* holds no config\.json"):
        as_folder(tmp_path)


def test_a_model_of_another_kind_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "no-such-model"}')
    with pytest.raises(ModelError, match=r"model\.source") as raised:
        tasks.get("causal-lm").load_model(tmp_path, (), None)
    assert "\n" not in str(raised.value)


def attend(kind: str, values: list[torch.Tensor], mask: torch.Tensor) -> list[Any]:
    from heliostat.train.models.kernels.attention import attention

    query, key, value = (one.clone().requires_grad_() for one in values)
    if kind == "ours":
        out = attention(torch.nn.Module(), query, key, value, mask)[0]
    else:
        keys, answers = (one.repeat_interleave(2, dim=1) for one in (key, value))
        out = torch.nn.functional.scaled_dot_product_attention(query, keys, answers, attn_mask=mask).transpose(1, 2)
    torch.autograd.backward(out.float().square().sum())
    return [out.detach().float(), *(one.grad.float() for one in (query, key, value) if one.grad is not None)]


def test_our_bf16_attention_is_the_fused_one_forward_and_backward() -> None:
    torch.manual_seed(0)
    values = [torch.randn(2, heads, 8, 16, dtype=torch.bfloat16) for heads in (4, 2, 2)]
    mask = torch.full((2, 1, 8, 8), torch.finfo(torch.bfloat16).min, dtype=torch.bfloat16).triu(1)
    for ours, fused in zip(attend("ours", values, mask), attend("fused", values, mask), strict=True):
        assert torch.allclose(ours, fused, rtol=0.05, atol=0.08)
