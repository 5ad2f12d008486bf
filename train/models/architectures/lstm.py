"""A long short-term memory (Hochreiter and Schmidhuber 1997) over the words of a text."""

from __future__ import annotations

import torch
from torch import nn

from heliostat.infra.registry.inputs import TextInputs
from heliostat.train.models.architectures.config import Lstm
from heliostat.train.models.architectures.network import Network, Settings


class LstmClassifier(Network):
    """Embeddings, an LSTM, max pooling over the tokens, and an output per class."""

    records_at_once = {"cpu": 32, "cuda": 512}

    def __init__(self, settings: Settings, outputs: int) -> None:
        super().__init__(settings, outputs)
        config, inputs = settings.model.lstm, settings.inputs
        assert isinstance(config, Lstm)
        assert isinstance(inputs, TextInputs)
        self.embedding = nn.Embedding(inputs.vocabulary, config.embedding)
        with torch.no_grad():  # no text that is learned from has it, and explanations take it for silence
            self.embedding.weight[inputs.unknown_id].zero_()
        self.dropout = nn.Dropout(config.dropout)
        self.lstm = nn.LSTM(config.embedding, config.hidden, batch_first=True)
        self.last = nn.Linear(config.hidden, outputs)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Logits [texts, outputs] of ids and mask [texts, tokens]; masked tokens have no influence."""
        found, _ = self.lstm(self.dropout(self.embedding(input_ids)))
        left_out = (attention_mask == 0)[:, :, None]
        largest = found.masked_fill(left_out, -1.0).amax(dim=1)  # an LSTM's outputs are above -1
        logits: torch.Tensor = self.last(self.dropout(largest))
        return logits

    def forward_flops(self) -> float:
        """FLOPs per token: the four gates, each with a matrix for the embedding and one for the previous state."""
        lstm = self.lstm
        return 2.0 * 4 * lstm.hidden_size * (lstm.input_size + lstm.hidden_size)


NETWORK = LstmClassifier
