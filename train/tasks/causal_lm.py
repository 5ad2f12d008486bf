"""Causal language modelling: a decoder on plain texts, or on chats with the loss on the answers only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from heliostat.infra.texts import unknown_id
from heliostat.train.data.config import DataConfig
from heliostat.train.data.packing import IGNORED, can_pack, pack, unpack
from heliostat.train.data.rows import Rows
from heliostat.train.encoders.chats import ChatEncoder
from heliostat.train.encoders.subwords import SubwordEncoder
from heliostat.train.models import pretrained
from heliostat.train.models.kernels.cross_entropy import patch_loss_head, score
from heliostat.train.tasks.base import Batch, Example, shortened

PROBE_TOKENS = 8


class CausalLM:
    """Chat models and plain language models."""

    name = "causal-lm"
    auto_class = "AutoModelForCausalLM"
    metric = "loss"
    mode = "min"

    def encoder(self, data: DataConfig, folder: Path | None) -> ChatEncoder | SubwordEncoder:
        """ChatEncoder for a base model; SubwordEncoder, for plain texts, for a model that is built here."""
        if folder is None:
            return SubwordEncoder()
        words = pretrained.tokenizer(folder)
        return ChatEncoder(words, pretrained.tokenizer_fingerprint(folder), unknown_id(words))

    def load_model(self, folder: Path, labels: tuple[str, ...], dropout: float | None) -> torch.nn.Module:
        """The decoder in `folder`; `labels` is empty."""
        model = pretrained.load(self.auto_class, folder, dropout, use_cache=False)
        if can_pack(model.config):
            patch_loss_head(model)
        return model

    def collate(self, rows: Rows, indices: np.ndarray) -> Batch:
        """The records as one packed row; see `packing.pack`."""
        return pack(rows.lists("input_ids", indices), rows.lists("labels", indices))

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Cross-entropy of each next token, summed over the target tokens."""
        if _packs(model):
            loss: torch.Tensor = model(**_inputs(batch), targets=batch["targets"])
            return loss
        logits, targets = self._logits(model, batch)
        return functional.cross_entropy(logits, targets, reduction="sum")

    def outputs(self, model: torch.nn.Module, batch: Batch) -> np.ndarray:
        """Per record: summed cross-entropy, number of targets, number predicted correctly. Without gradients."""
        if _packs(model):
            scores = model(**_inputs(batch), targets=batch["targets"])
        else:
            scores = score(*self._logits(model, batch))
        record = batch["records"][batch["targets"] != IGNORED]
        sums = scores.new_zeros(int(batch["records"].max()) + 1, 3)
        sums.index_add_(0, record, torch.stack([scores[:, 0], torch.ones_like(scores[:, 0]), scores[:, 1]], dim=1))
        return sums.cpu().numpy()

    def _logits(self, model: torch.nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """For a model without packing: logits (float32 [targets, vocabulary]) and ids of the target tokens."""
        wanted = batch["targets"] != IGNORED
        logits = model(**unpack(batch)).logits[batch["records"][wanted], batch["position_ids"][wanted]]
        return logits.float(), batch["targets"][wanted]

    def metrics(self, outputs: np.ndarray, rows: Rows) -> dict[str, float]:
        """Loss per target, perplexity = exp(loss), and the share of targets predicted correctly."""
        nll, tokens, right = outputs.astype(np.float64).sum(axis=0)
        loss = nll / max(1.0, tokens)
        return {
            "loss": float(loss),
            "perplexity": float(np.exp(loss)),
            "token_accuracy": float(right / max(1.0, tokens)),
        }

    def confusion(self, outputs: np.ndarray, rows: Rows) -> None:
        """None: a language model has no classes."""
        return

    def reliability(self, outputs: np.ndarray, rows: Rows) -> None:
        """None: a language model has no classes."""
        return

    def worst(self, outputs: np.ndarray, rows: Rows, folder: Path, count: int) -> list[Example]:
        """The records with the highest mean loss per target, as the model saw them; NaN losses first."""
        asked = np.flatnonzero(outputs[:, 1] > 0)
        losses = outputs[asked, 0] / outputs[asked, 1]
        order = np.argsort(losses)[::-1][:count]
        words = pretrained.tokenizer(folder)
        return [
            {
                **_in_words(words, *(rows.lists(column, asked[[i]])[0] for column in ("input_ids", "labels"))),
                "loss per target": float(losses[i]),
                "targets": int(outputs[asked[i], 1]),
                "tokens": int(rows.lengths[asked[i]]),
            }
            for i in order
        ]

    def probe(self, model: Any, folder: Path, rows: Rows, max_length: int) -> dict[str, Any]:
        """The beginning of the first record and the model's greedy continuation."""
        tokenizer = pretrained.tokenizer(folder)
        ids, labels = (rows.lists(column, np.array([0]))[0] for column in ("input_ids", "labels"))
        start = int(np.argmax(labels != IGNORED)) or min(len(ids), 16)
        prompt = tokenizer.decode(ids[:start])
        tokens = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
        model.config.use_cache = True
        with torch.inference_mode():
            out = model.generate(**tokens, max_new_tokens=PROBE_TOKENS, do_sample=False)
        text = tokenizer.decode(out[0, tokens["input_ids"].shape[1] :], skip_special_tokens=True)
        return {"input": {"prompt": prompt, "max_tokens": PROBE_TOKENS}, "output": {"text": text}}


def _in_words(tokenizer: Any, ids: np.ndarray, labels: np.ndarray) -> Example:
    """The text; for a chat, the prompt (its end if it is long) and the expected answer."""
    wanted = labels != IGNORED
    if wanted[0]:
        return {"text": shortened(tokenizer.decode(ids, skip_special_tokens=True))}
    asked, answer = (tokenizer.decode(part, skip_special_tokens=True).strip() for part in (ids[~wanted], ids[wanted]))
    return {"prompt": shortened(asked, keep_end=True), "expected answer": shortened(answer)}


def _packs(model: Any) -> bool:
    """Whether a model, or the model in a DeepSpeed engine, accepts packed rows."""
    return can_pack(getattr(model, "module", model).config)


def _inputs(batch: Batch) -> Batch:
    return {name: batch[name] for name in ("input_ids", "position_ids")}


TASK = CausalLM()
