"""Which label a text has: a Hugging Face encoder with a classification head."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from heliostat.infra.errors import ModelError
from heliostat.infra.registry.published import PublishedModel
from heliostat.serve.compute.devices import device_of, dtype_of
from heliostat.serve.config import ServeConfig
from heliostat.serve.metrics import ServeMetrics
from heliostat.serve.predictors.batcher import Batcher, Limits
from heliostat.serve.predictors.texts import Encoded, TextEncoder

if TYPE_CHECKING:
    import torch

PROBE_TOLERANCE = 0.05
"""How far a probability may be from the trained model's: bfloat16 keeps eight bits."""
TOKENS = {"cpu": 4096, "cuda": 131_072}
"""Tokens of one pass, padding included. A CPU gains nothing from more, and its caches lose."""
PADDING_SHARE = {"cpu": 0.1, "cuda": 0.5}
"""A GPU is faster with few large passes, a CPU with little padding where the model computes it at all."""
LENGTH_STEP = 16
"""On a CPU, oneDNN prepares its kernels anew for each shape, which takes as long as a text: so there are few shapes."""


class TextClassifier:
    """Answers with the probability of each label."""

    tolerance = PROBE_TOLERANCE

    def __init__(
        self,
        model: torch.nn.Module,
        encoder: TextEncoder,
        labels: tuple[str, ...],
        config: ServeConfig,
        metrics: ServeMetrics,
    ) -> None:
        from heliostat.serve.compute.unpadded import unpad

        self.model = model
        self.labels = labels
        self.encoder = encoder
        self.device = next(model.parameters()).device
        padding = None if unpad(model) else PADDING_SHARE[self.device.type]
        limits = Limits(config.max_batch_size, TOKENS[self.device.type], padding)
        self.batcher: Batcher[list[int], list[float]] = Batcher(self.scores, len, limits, metrics.batch)

    async def predict(self, encoded: Sequence[Encoded]) -> list[dict[str, float]]:
        """The probability of each label, for each text."""
        scores = await self.batcher.submit([one.ids for one in encoded])
        return [dict(zip(self.labels, row, strict=True)) for row in scores]

    def scores(self, batch: Sequence[Sequence[int]]) -> list[list[float]]:
        """One pass: token ids of any lengths in, a probability for each label out."""
        import torch

        step = LENGTH_STEP if self.device.type == "cpu" else 1
        ids, mask = padded(batch, getattr(self.model.config, "pad_token_id", None) or 0, step, self.encoder.max_length)
        with torch.inference_mode():
            logits = self.model(
                input_ids=ids.to(self.device), attention_mask=None if mask is None else mask.to(self.device)
            ).logits
            return logits.float().softmax(dim=-1).tolist()

    def check_health(self) -> None:
        """Raises where the model can answer no more."""
        if not self.batcher.alive:
            raise RuntimeError("the thread that runs the model has ended")

    def close(self) -> None:
        """Ends the thread."""
        self.batcher.close()


def padded(
    batch: Sequence[Sequence[int]], pad_id: int, step: int = 1, limit: int = 0
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Ids [texts, width] and their mask, which is None where nothing is padded: attention is faster without.

    The width is the longest text's, rounded up to a multiple of `step`, but for this not above `limit`.
    """
    import torch

    longest = max(len(ids) for ids in batch)
    width = max(longest, min(-(-longest // step) * step, limit))
    ids = torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in batch])
    lengths = torch.tensor([len(row) for row in batch])
    if bool((lengths == width).all()):
        return ids, None
    return ids, (torch.arange(width) < lengths[:, None]).long()


def load(folder: Path, description: PublishedModel, config: ServeConfig, metrics: ServeMetrics) -> TextClassifier:
    """The classifier in the model folder `folder`; ModelError where its files do not fit its description."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from heliostat.serve.compute.cpu import pack

    device = device_of(config)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=dtype_of(config, device))
    if model.config.num_labels != len(description.labels):
        raise ModelError(
            f"{description.name}: heliostat.json names {len(description.labels)} labels, "
            f"the model has {model.config.num_labels} outputs"
        )
    limit = min(description.max_length, getattr(model.config, "max_position_embeddings", description.max_length))
    encoder = TextEncoder(AutoTokenizer.from_pretrained(folder).backend_tokenizer, limit)
    return TextClassifier(pack(model.eval().to(device)), encoder, description.labels, config, metrics)
