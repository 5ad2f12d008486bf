"""Text classification with a Hugging Face model, an encoder or a decoder, and a classification head."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from heliostat.infra.errors import ModelError
from heliostat.infra.registry.published import PublishedModel
from heliostat.infra.texts import unknown_id
from heliostat.serve.compute.devices import device_of, dtype_of
from heliostat.serve.config import ServeConfig
from heliostat.serve.metrics import ServeMetrics
from heliostat.serve.predictors.batcher import Batcher, Limits
from heliostat.serve.predictors.texts import Encoded, TextEncoder

if TYPE_CHECKING:
    import torch

PROBE_TOLERANCE = 0.05
"""Largest allowed difference from the trained model's probability: bfloat16 has eight bits of precision."""
TOKENS = {"cpu": 4096, "cuda": 131_072}
"""Tokens per forward pass, padding included. Larger passes are no faster on a CPU and exceed its caches."""
PADDING_SHARE = {"cpu": 0.1, "cuda": 0.5}
"""Largest share of padding: a GPU prefers few large passes, a CPU little padding (if the model computes padding at
all)."""
LENGTH_STEP = 16
"""Pads to multiples of this on a CPU: oneDNN prepares kernels for each new shape, which takes as long as a text."""


class TextClassifier:
    """Returns the probability of each label."""

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
        self.batcher: Batcher[list[int], list[float]] = Batcher(
            self.scores, len, limits, metrics, blank=[0], pass_seconds=config.timeout_seconds
        )

    async def predict(self, encoded: Sequence[Encoded]) -> list[dict[str, float]]:
        """The probability of each label, for each text."""
        scores = await self.batcher.submit([one.ids for one in encoded])
        return [dict(zip(self.labels, row, strict=True)) for row in scores]

    def scores(self, batch: Sequence[Sequence[int]]) -> list[list[float]]:
        """One forward pass: token ids of any lengths in, a probability for each label out."""
        import torch

        step = LENGTH_STEP if self.device.type == "cpu" else 1
        ids, mask = padded(batch, getattr(self.model.config, "pad_token_id", None) or 0, step, self.encoder.max_length)
        with torch.inference_mode():
            logits = self.model(
                input_ids=ids.to(self.device), attention_mask=None if mask is None else mask.to(self.device)
            ).logits
            return logits.float().softmax(dim=-1).tolist()

    def check_health(self) -> None:
        """Raises if the model can no longer answer."""
        self.batcher.check_health()

    def close(self) -> None:
        """Stops the model's thread."""
        self.batcher.close()


def padded(
    batch: Sequence[Sequence[int]], pad_id: int, step: int = 1, limit: int = 0
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Ids [texts, width] and the attention mask; None if nothing is padded, as attention is faster without a mask.

    The width is that of the longest text, rounded up to a multiple of `step` but not beyond `limit`.
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
    """The classifier in the model folder `folder`; raises ModelError if its files do not fit its description."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from heliostat.infra.last_token import read_last_token
    from heliostat.serve.compute.cpu import pack

    device = device_of(config)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=dtype_of(config, device))
    if model.config.num_labels != len(description.labels):
        raise ModelError(
            f"{description.name}: heliostat.json names {len(description.labels)} labels, "
            f"the model has {model.config.num_labels} outputs"
        )
    limit = min(description.max_length, getattr(model.config, "max_position_embeddings", description.max_length))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoder = TextEncoder(tokenizer.backend_tokenizer, limit, unknown_id(tokenizer))
    model = pack(model.eval().to(device))
    read_last_token(model)
    return TextClassifier(model, encoder, description.labels, config, metrics)
