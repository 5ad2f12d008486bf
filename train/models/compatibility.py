"""What must fit between a base model and a spec, checked before workers start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from heliostat.infra import log
from heliostat.infra.errors import ConfigError
from heliostat.train.models import pretrained

OFFSET = frozenset(
    {"camembert", "data2vec-text", "ibert", "longformer", "mpnet", "roberta", "roberta-prelayernorm", "xlm-roberta"}
)
"""Models whose first position is the one after the padding token's id."""
MIXES_PADDING = frozenset({"canine", "fnet", "xlnet"})
"""Classifiers whose answer to a text depends on the padding beside it, which they do not mask or look for elsewhere."""
_log = log.get(__name__)


def check_texts(folder: Path, task: str, max_length: int) -> None:
    """Raises ConfigError if the base model in `folder` cannot read what its tokenizer makes of texts for `task`."""
    config, words = _config(folder), pretrained.tokenizer(folder)
    tokens, rows = 1 + max(words.get_vocab().values()), getattr(config, "vocab_size", None)
    if rows and tokens > rows:
        raise ConfigError(
            f"model.source: its tokenizer has {tokens} tokens, but the model's embedding only {rows}; a model whose "
            "embedding has a row for each token is needed"
        )
    longest = positions(config)
    if longest and max_length > longest:
        raise ConfigError(
            f"data.max_length: {max_length} given; model.source has {longest} positions, and {longest} or less is "
            "allowed"
        )
    if task == "text-classification":
        _check_padding(config)


def positions(config: Any) -> int | None:
    """The largest number of tokens of a text; None if the model has no limit."""
    count = getattr(config, "max_position_embeddings", None)
    return count - config.pad_token_id - 1 if count and config.model_type in OFFSET else count


def check_labels(folder: Path, task: str, labels: int) -> None:
    """Warns if the base model in `folder` has a head for another number of labels; a new one is trained then."""
    if task != "text-classification":
        return
    config = _config(folder)
    heads = [name for name in config.architectures or () if name.endswith("ForSequenceClassification")]
    if heads and config.num_labels != labels:
        _log.warning(
            "model.source: its head has %d labels, the data %d; a new head is trained", config.num_labels, labels
        )


def _check_padding(config: Any) -> None:
    if config.model_type in MIXES_PADDING:
        raise ConfigError(
            f"model.source: a {config.model_type} answers a text otherwise when it is padded, so that answers would "
            "depend on the texts beside it; another model is needed"
        )
    if config.pad_token_id is None:
        _log.warning("model.source: has no padding token; its end-of-text token is published as that")


def _config(folder: Path) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(folder).get_text_config()
