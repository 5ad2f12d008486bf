"""Texts: integrated gradients of the embeddings, from a text of as many tokens that say nothing."""

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
from heliostat.serve.explain.words import by_word

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer


class Embedded(Protocol):
    """A model that can be asked with embeddings."""

    silent_id: int
    """The token that stands for all others in the baseline."""

    def inputs(self, ids: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and mask of a text as the model takes them: int64 [1, length]."""
        ...

    def embed(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Of each token: float [1, length, width]."""
        ...

    def logits(self, embeddings: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Of all labels: float [texts, labels]."""
        ...


class ProgramWords:
    """An exported program; its embeddings are a node of its graph. The baseline is unknown words."""

    def __init__(self, program: Program, inputs: TextInputs, what: str, device: torch.device | str = "cpu") -> None:
        self.program = program
        self.settings = inputs
        self.node = embedding_of(program, what)
        self.silent_id = inputs.unknown_id
        self.device = torch.device(device)

    def inputs(self, ids: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and mask, padded to the one length that the program takes."""
        found = self.settings.padded([ids])
        return found["input_ids"].to(self.device), found["attention_mask"].to(self.device)

    def embed(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """What the node makes of the tokens."""
        run = Run(self.program, {})
        run.outputs({"input_ids": ids, "attention_mask": mask})
        return run.seen[self.node].detach()

    def logits(self, embeddings: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """With these embeddings in place of the node's. cuDNN has no gradients of an LSTM that does not train."""
        with torch.backends.cudnn.flags(enabled=False):
            return Run(self.program, {self.node: embeddings}).outputs({"input_ids": ids, "attention_mask": mask})


class EncoderWords:
    """A Hugging Face encoder with a classification head. The baseline is padding that is not masked."""

    def __init__(self, model: Any, silent_id: int) -> None:
        self.model = model
        self.silent_id = silent_id

    def inputs(self, ids: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and a mask that leaves nothing out."""
        found = torch.tensor([list(ids)], device=self.model.device)
        return found, torch.ones_like(found)

    def embed(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The embeddings of the words, without those of their places."""
        found: torch.Tensor = self.model.get_input_embeddings()(ids).detach()
        return found

    def logits(self, embeddings: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """With these embeddings."""
        found: torch.Tensor = self.model(inputs_embeds=embeddings, attention_mask=mask).logits
        return found


class TextExplainer(Explainer[str]):
    """Explains texts. Tokens that the tokenizer adds, such as [CLS], are in the baseline too, and so count for nothing.

    `tokenizer` cuts at the longest that the model takes, and pads nothing.
    """

    methods = ("integrated_gradients",)

    def __init__(self, model: Embedded, tokenizer: Tokenizer, labels: Sequence[str]) -> None:
        super().__init__(labels)
        self.model = model
        self.tokenizer = tokenizer

    def logits(self, item: str) -> torch.Tensor:
        """Of all labels: float [1, labels]."""
        ids, mask = self.model.inputs(self._encoded(item).ids)
        return self.model.logits(self.model.embed(ids, mask), ids, mask)

    def explained(self, item: str, target: Target) -> TextExplanation:
        """What each word does, the pieces of a word together."""
        encoded = self._encoded(item)
        ids, mask = self.model.inputs(encoded.ids)
        silent, count = ids.clone(), len(encoded.ids)
        added = torch.tensor(encoded.special_tokens_mask, dtype=torch.bool, device=ids.device)
        silent[0, :count] = torch.where(added, ids[0, :count], self.model.silent_id)
        found, convergence = integrated_gradients(
            lambda *given: self.model.logits(*given)[:, target.at],
            self.model.embed(ids, mask),
            self.model.embed(silent, mask),
            (ids, mask),
        )
        tokens = found[0, :count].sum(dim=-1).tolist()
        words = by_word(item, encoded.offsets, tokens)
        return TextExplanation(
            method=target.method,
            label=target.label,
            score=target.score,
            predicted=target.predicted,
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
