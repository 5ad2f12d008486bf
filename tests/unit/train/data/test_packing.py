from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from heliostat.train.data.packing import IGNORED, MODEL_TYPES, MULTIPLE, can_pack, pack, records_of, unpack
from heliostat.train.models.kernels import cross_entropy
from heliostat.train.tasks.causal_lm import TASK

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
RECORDS = [
    ([2, 5, 6, 4, 3, 10, 4], [IGNORED] * 5 + [10, 4]),
    ([7, 5, 3, 12], [7, 5, 3, 12]),
    ([9, 9, 8], [IGNORED, IGNORED, IGNORED]),
    ([2, 11], [IGNORED, 11]),
]


def packed(records: list[tuple[list[int], list[int]]]) -> dict[str, torch.Tensor]:
    return pack([np.array(ids) for ids, _ in records], [np.array(labels) for _, labels in records])


def decoder(model_type: str, folder: Path) -> Any:
    """As a run loads it."""
    torch.manual_seed(0)
    heads = {} if model_type == "gpt2" else {"num_key_value_heads": 2}
    config = AutoConfig.for_model(
        model_type,
        vocab_size=20,
        max_position_embeddings=64,
        initializer_range=0.3,
        sliding_window=None,
        **SIZES,
        **heads,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return TASK.load_model(folder, (), 0.0).eval()


def plain(model: Any) -> Any:
    """The same model as transformers has it, in its own attention."""
    twin = AutoModelForCausalLM.from_config(copy.deepcopy(model.config), attn_implementation="eager").eval()
    twin.load_state_dict(model.state_dict())
    return twin


def test_records_lie_one_after_the_other_and_know_what_follows() -> None:
    row = packed(RECORDS)
    assert {tuple(values.shape) for values in row.values()} == {(1, MULTIPLE)}
    assert row["input_ids"][0, :16].tolist() == [id for ids, _ in RECORDS for id in ids]
    assert row["position_ids"][0, :18].tolist() == [*range(7), *range(4), *range(3), *range(4)]
    assert row["records"][0, :18].tolist() == [0] * 7 + [1] * 4 + [2] * 3 + [3] * 4
    followed = [IGNORED] * 4 + [10, 4, IGNORED, 5, 3, 12, IGNORED] + [IGNORED] * 3 + [11]
    assert row["targets"][0].tolist() == followed + [IGNORED] * (MULTIPLE - len(followed))
    records = records_of(row["position_ids"])
    assert records.lengths == [7, 4, 3, MULTIPLE - 14]
    assert records.edges.tolist() == [0, 7, 11, 14, MULTIPLE]
    assert records.edges.dtype is torch.int32


def test_a_row_of_the_right_size_is_not_filled() -> None:
    assert packed([([1] * MULTIPLE, [1] * MULTIPLE)])["input_ids"].shape == (1, MULTIPLE)


@pytest.mark.parametrize("positions", [[0, 1, 2, 3], [4], [4, 5]])
def test_positions_that_do_not_restart_are_one_record(positions: list[int]) -> None:
    records = records_of(torch.tensor([positions]))
    assert (records.edges.tolist(), records.lengths) == ([0, len(positions)], [len(positions)])


def test_a_row_is_padded_for_models_that_need_it() -> None:
    padded = unpack(packed([([1, 2, 3], [0, 0, 0]), ([4], [0])]))
    assert padded["input_ids"].tolist() == [[1, 2], [4, 0]], "the last token is nobody's input"
    assert padded["attention_mask"][0].tolist() == [1, 1]


@pytest.mark.parametrize("model_type", [*sorted(MODEL_TYPES), "gpt2"])
def test_records_in_a_row_train_and_score_as_each_alone(
    model_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cross_entropy, "CHUNK", 3)
    model = decoder(model_type, tmp_path)
    assert can_pack(model.config) is (model_type in MODEL_TYPES)
    twin = plain(model)
    batch = packed(RECORDS)
    loss = TASK.loss(model, batch)
    torch.autograd.backward(loss)
    alone: list[torch.Tensor] = []
    for ids, labels in RECORDS:
        targets = sum(label != IGNORED for label in labels[1:])
        found = twin(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss if targets else torch.zeros(())
        alone.append(found * targets)
    torch.autograd.backward(torch.stack(alone).sum())
    assert loss.item() == pytest.approx(sum(one.item() for one in alone), rel=1e-5)
    gradients = {name: parameter.grad for name, parameter in twin.named_parameters()}
    for name, parameter in model.named_parameters():
        assert torch.allclose(parameter.grad, gradients[name], atol=1e-5), name
    with torch.no_grad():
        outputs = TASK.outputs(model, batch)
    assert outputs[:, 0] == pytest.approx([one.item() for one in alone], abs=1e-4)
    assert outputs[:, 1].tolist() == [2, 3, 0, 1]


def test_bfloat16_trains_as_float32_does(tmp_path: Path) -> None:
    model = decoder("llama", tmp_path)
    half = copy.deepcopy(model).bfloat16()
    batch = packed(RECORDS)
    for one in (model, half):
        torch.autograd.backward(TASK.loss(one, batch))
    for whole, rounded in zip(model.parameters(), half.parameters(), strict=True):
        assert torch.nn.functional.cosine_similarity(whole.grad.flatten(), rounded.grad.float().flatten(), dim=0) > 0.99


@pytest.mark.parametrize("count", [0, 1, 7, 8])
def test_the_loss_and_its_gradients_are_those_of_whole_logits(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_entropy, "CHUNK", 4)
    torch.manual_seed(0)
    hidden, weight = torch.randn(count, 6, requires_grad=True), torch.randn(11, 6, requires_grad=True)
    targets = torch.randint(0, 11, (count,))
    whole = torch.nn.functional.cross_entropy(hidden @ weight.T, targets, reduction="sum")
    chunked = cross_entropy.linear_cross_entropy(hidden, weight, targets)
    assert torch.allclose(chunked, whole)
    expected = torch.autograd.grad(whole * 3, (hidden, weight))
    found = torch.autograd.grad(chunked * 3, (hidden, weight))
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_a_frozen_head_takes_no_gradient() -> None:
    hidden, weight = torch.randn(3, 6, requires_grad=True), torch.randn(11, 6)
    torch.autograd.backward(cross_entropy.linear_cross_entropy(hidden, weight, torch.tensor([1, 2, 3])))
    assert hidden.grad is not None
    assert weight.grad is None


def test_padding_of_a_row_does_not_exceed_the_positions_of_a_model_without_packing() -> None:
    longest = MULTIPLE - 1
    row = packed([([5] * 4, [5] * 4), ([6] * longest, [6] * longest)])
    assert int(row["position_ids"].max()) > longest
    found = unpack(row)
    assert found["input_ids"].shape == (2, longest - 1)
    assert found["attention_mask"].sum(dim=1).tolist() == [4, longest - 1]
