"""Explanations of texts: integrated gradients of the embeddings, from a baseline of as many neutral tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch

from heliostat.infra.errors import DataError
from heliostat.infra.registry.inputs import TextInputs
from heliostat.infra.registry.programs import Program
from heliostat.serve.explain.answers import TextExplanation
from heliostat.serve.explain.base import Explainer, Target
from heliostat.serve.explain.gradients import integrated_gradients
from heliostat.serve.explain.graphs import Run, embedding_of
from heliostat.serve.explain.words import sum_by_word

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer


class Embedded(Protocol):
    """A model that can be run on embeddings."""

    silent_id: int
    """The neutral token, which replaces all others in the baseline."""

    def inputs(self, ids: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and mask of a text as the model takes them: int64 [1, length]."""
        ...

    def embed(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Embeddings of the tokens: float [1, length, width]."""
        ...

    def logits(self, embeddings: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Logits of all labels: float [texts, labels]."""
        ...


class ProgramEmbeddings:
    """An exported program, whose embeddings are a node of its graph. The neutral token is the unknown word."""

    def __init__(self, program: Program, inputs: TextInputs, what: str, device: torch.device | str = "cpu") -> None:
        self.program = program
        self.settings = inputs
        self.node = embedding_of(program, what)
        self.silent_id = inputs.unknown_id
        self.device = torch.device(device)

    def inputs(self, ids: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and mask, padded to the program's fixed length."""
        found = self.settings.padded([ids])
        return found["input_ids"].to(self.device), found["attention_mask"].to(self.device)

    def embed(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Output of the embedding node."""
        run = Run(self.program, {})
        run.outputs({"input_ids": ids, "attention_mask": mask})
        return run.seen[self.node].detach()

    def logits(self, embeddings: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Logits for these embeddings. cuDNN is off: it has no gradients of an LSTM in evaluation mode."""
        with torch.backends.cudnn.flags(enabled=False):
            return Run(self.program, {self.node: embeddings}).outputs({"input_ids": ids, "attention_mask": mask})


class EncoderEmbeddings:
    """A Hugging Face encoder with a classification head. The neutral token is padding, not masked."""

    def __init__(self, model: Any, silent_id: int) -> None:
        self.model = model
        self.silent_id = silent_id

    def inputs(self, ids: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and an attention mask of ones."""
        found = torch.tensor([list(ids)], device=self.model.device)
        return found, torch.ones_like(found)

    def embed(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The token embeddings, without those of positions."""
        found: torch.Tensor = self.model.get_input_embeddings()(ids).detach()
        return found

    def logits(self, embeddings: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Logits for these embeddings."""
        found: torch.Tensor = self.model(inputs_embeds=embeddings, attention_mask=mask).logits
        return found


class TextExplainer(Explainer[str]):
    """Explains texts. Special tokens, such as [CLS], are the same in the baseline, so they get no attribution.

    `tokenizer` truncates at the model's maximum length, without padding.
    """

    methods = ("integrated_gradients",)

    def __init__(self, model: Embedded, tokenizer: Tokenizer, labels: Sequence[str]) -> None:
        super().__init__(labels)
        self.model = model
        self.tokenizer = tokenizer

    def logits(self, item: str) -> torch.Tensor:
        """Logits of all labels: float [1, labels]."""
        ids, mask = self.model.inputs(self._encoded(item).ids)
        return self.model.logits(self.model.embed(ids, mask), ids, mask)

    def explained(self, item: str, target: Target) -> TextExplanation:
        """The attribution of each word, summed over its tokens."""
        encoded = self._encoded(item)
        ids, mask = self.model.inputs(encoded.ids)
        silent, count = ids.clone(), len(encoded.ids)
        added = torch.tensor(encoded.special_tokens_mask, dtype=torch.bool, device=ids.device)
        silent[0, :count] = torch.where(added, ids[0, :count], self.model.silent_id)
        found, convergence, passes = integrated_gradients(
            lambda *given: self.model.logits(*given)[:, target.at],
            self.model.embed(ids, mask),
            self.model.embed(silent, mask),
            (ids, mask),
        )
        tokens = found[0, :count].sum(dim=-1).tolist()
        words = sum_by_word(item, encoded.offsets, tokens)
        return TextExplanation(
            method=target.method,
            label=target.label,
            score=target.score,
            predicted=target.predicted,
            passes=1 + passes,
            convergence=convergence,
            words=words,
            rest=sum(tokens) - sum(one.attribution for one in words),
            truncated=bool(encoded.overflowing),
        )

    def _encoded(self, text: str) -> Encoding:
        encoded = self.tokenizer.encode(text)
        if all(encoded.special_tokens_mask):
            raise DataError("nothing in the text that the model can read, so there is nothing to explain")
        return encoded
