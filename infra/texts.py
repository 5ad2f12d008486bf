"""What training and serving both need to know of texts and tokenizers."""

from __future__ import annotations

from typing import Any

UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}]"
"""A character of a script that is written without blanks between words, as a regular expression for `regex`."""


def unknown_id(tokenizer: Any) -> int | None:
    """The token by which a Hugging Face tokenizer replaces what it does not know; None if it knows everything.

    GPT-2 and its like, which know all bytes, name the token that begins or ends a text.
    """
    found: int | None = tokenizer.unk_token_id
    return None if found in (tokenizer.bos_token_id, tokenizer.eos_token_id) else found
