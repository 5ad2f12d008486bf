"""What a worker builds again and again from the same inputs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from heliostat.train import tasks
from heliostat.train.build import RunInputs
from heliostat.train.config import TrainConfig
from heliostat.train.data.prepared import Prepared

LABELS = ("bad", "fair", "good")


@pytest.fixture
def inputs(tmp_path: Path) -> RunInputs:
    """A base model of two layers, with a head for fewer labels than the data have."""
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(1)
    BertForSequenceClassification(BertConfig(vocab_size=20, **sizes)).save_pretrained(tmp_path)
    return RunInputs(tasks.get("text-classification"), tmp_path, Prepared("f", "u", tmp_path, LABELS, {}))


def weights(inputs: RunInputs, **train: int) -> dict[str, torch.Tensor]:
    """Those that a run starts from, by name; not copied."""
    return inputs.model(TrainConfig(**train)).state_dict()  # type: ignore[arg-type]


def test_a_trial_starts_from_the_weights_of_the_first_whatever_came_between(inputs: RunInputs) -> None:
    first = {name: value.clone() for name, value in weights(inputs, seed=7).items()}
    trained = weights(inputs, seed=7)
    for value in trained.values():
        value.copy_(torch.rand_like(value, dtype=torch.float32))  # files may be mapped: this must not reach them
    torch.rand(3)
    again = weights(inputs, seed=7)
    assert all(torch.equal(again[name], value) for name, value in first.items())
    assert any(not torch.equal(trained[name], value) for name, value in first.items())


def test_a_new_head_follows_from_the_seed_and_the_rest_does_not(inputs: RunInputs) -> None:
    one, other = weights(inputs, seed=7), weights(inputs, seed=8)
    differing = {name for name, value in one.items() if not torch.equal(value, other[name])}
    assert differing == {"classifier.weight"}
    assert one["classifier.weight"].shape == (len(LABELS), 16)
