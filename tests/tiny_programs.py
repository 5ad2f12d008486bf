"""Tiny random models of our own making, exported as training does it."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from torch import nn

from heliostat.infra.images import png
from heliostat.infra.registry import programs
from heliostat.infra.registry.inputs import (
    CategoryColumn,
    ImageInputs,
    Inputs,
    NoiseInputs,
    NumberColumn,
    TableInputs,
    TextInputs,
)
from heliostat.infra.registry.published import PublishedModel

LABELS = ("cat", "dog")
TABLE = TableInputs(
    columns=(
        NumberColumn(name="age", mean=40.5, std=10.0),
        NumberColumn(name="weight in kg", mean=70.0, std=5.0, fill=70.0),
        CategoryColumn(name="size", values=("1", "2", "large")),
        CategoryColumn(name="colour", values=("black", "white"), fill="white"),
    )
)
ROW: dict[str, Any] = {"age": 38, "weight in kg": 71.5, "size": "large", "colour": "black"}
IMAGE = ImageInputs(height=4, width=3, mode="rgb", mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
TEXT = TextInputs(length=6, pad_id=0, unknown_id=1, vocabulary=6)
NOISE = NoiseInputs(size=5, classes=2)
TASKS = {
    "table": "tabular-classification",
    "image": "image-classification",
    "text": "text-classification",
    "noise": "image-generation",
}
KINDS: dict[str, Inputs] = {"table": TABLE, "image": IMAGE, "text": TEXT, "noise": NOISE}


class OfTable(nn.Module):
    """A linear model."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(TABLE.width, len(LABELS))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.linear(features)
        return found


class OfImage(nn.Module):
    """A linear model of the pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(36, len(LABELS))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.linear(pixels.flatten(1).float() / 255)
        return found


class OfText(nn.Module):
    """A linear model of the mean of the words; a text without any has no mean."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(TEXT.vocabulary, 8)
        self.linear = nn.Linear(8, len(LABELS))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        mask = attention_mask[:, :, None].float()
        found: torch.Tensor = self.linear((self.words(input_ids) * mask).sum(1) / mask.sum(1))
        return found


class OfNoise(nn.Module):
    """Images of 4 x 3 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(NOISE.size, 36)

    def forward(self, noise: torch.Tensor) -> torch.Tensor:
        return (self.linear(noise).sigmoid() * 255).to(torch.uint8).reshape(-1, 4, 3, 3)


def table_program(folder: Path) -> dict[str, Any]:
    """Writes it; returns its probe."""
    model = _saved(OfTable(), {"features": torch.zeros(2, TABLE.width)}, folder)
    return {"input": {"row": ROW}, "output": _answer(model(torch.tensor([TABLE.features(ROW)])))}


def image_program(folder: Path) -> dict[str, Any]:
    """Writes it; returns its probe."""
    model = _saved(OfImage(), {"pixels": torch.zeros(2, 4, 3, 3, dtype=torch.uint8)}, folder)
    pixels = torch.arange(36, dtype=torch.uint8).reshape(1, 4, 3, 3) * 7
    return {"input": {"image": in_base64(pixels[0])}, "output": _answer(model(pixels))}


def text_program(folder: Path) -> dict[str, Any]:
    """Writes it and its tokenizer; returns its probe."""
    words = tokenizer()
    words.save(str(folder / "tokenizer.json"))
    model = _saved(OfText(), TEXT.padded([[1], [2]]), folder)
    return {"input": {"text": "a joy"}, "output": _answer(model(**TEXT.padded([words.encode("a joy").ids])))}


def noise_program(folder: Path) -> dict[str, Any]:
    """Writes it; returns its probe."""
    model = _saved(OfNoise(), {"noise": NOISE.noise(0, 2)}, folder)
    with torch.inference_mode():
        image = model(NOISE.noise(3, 1))[0]
    return {"input": {"seed": 3}, "output": {"image": in_base64(image)}}


WRITERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "table": table_program,
    "image": image_program,
    "text": text_program,
    "noise": noise_program,
}


def tokenizer() -> Tokenizer:
    """Knows four words."""
    words = ["[PAD]", "[UNK]", "a", "joy", "dull", "film"]
    made = Tokenizer(WordLevel({word: at for at, word in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return made


def description(kind: str, probe: dict[str, Any], **more: Any) -> PublishedModel:
    """What a published model of this kind says of itself."""
    values: dict[str, Any] = {"name": "tiny", "task": TASKS[kind], "base_model": "mlp", "run_id": "r1", "metrics": {}}
    values |= {"data_fingerprint": "0", "heliostat_version": "0", "created": "2026-01-01T00:00:00Z", "max_length": 6}
    values |= {"labels": LABELS, "inputs": KINDS[kind], "probe": probe}
    return PublishedModel.model_validate({**values, **more})


def in_base64(pixels: torch.Tensor) -> str:
    """An image, uint8 [height, width, channels], as a PNG file in base64."""
    return base64.b64encode(png(pixels.numpy())).decode()


def _saved(model: nn.Module, example: dict[str, torch.Tensor], folder: Path) -> nn.Module:
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    programs.save(model, example, folder)
    return model


def _answer(logits: torch.Tensor) -> dict[str, Any]:
    scores = dict(zip(LABELS, logits[0].softmax(0).tolist(), strict=True))
    return {"label": max(scores, key=scores.__getitem__), "scores": scores}
