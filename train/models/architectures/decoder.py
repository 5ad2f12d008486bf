"""A decoder trained from scratch: a Llama (Touvron et al. 2023) of any size, as a Hugging Face model folder."""

from __future__ import annotations

from pathlib import Path

import torch

from heliostat.train.models.architectures.config import Decoder

SEED = 0


def write_decoder(config: Decoder, tokenizer: Path, end: str, max_length: int, folder: Path) -> None:
    """Writes weights initialised from SEED, the same on every machine, with the tokenizer in the file `tokenizer`.

    `end` is the token that ends a text, `max_length` the maximum length in tokens.
    """
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = PreTrainedTokenizerFast(tokenizer_file=str(tokenizer), eos_token=end, pad_token=end)
    settings = LlamaConfig(
        vocab_size=len(words),
        hidden_size=config.hidden,
        intermediate_size=config.feed_forward or 4 * config.hidden,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        max_position_embeddings=max_length,
        tie_word_embeddings=True,
        attention_dropout=config.dropout,
        bos_token_id=None,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        LlamaForCausalLM(settings).save_pretrained(folder)
    words.save_pretrained(folder)
