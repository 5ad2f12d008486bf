"""Tokenizers of exported programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from heliostat.infra.errors import ModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer in a program's folder; raises ModelError if it is missing or cannot be read."""
    from tokenizers import Tokenizer

    file = folder / TOKENIZER
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises only plain Exception
        raise ModelError(f"{file}: cannot be read ({str(error).splitlines()[0][:200]})") from error


TOKENIZER = "tokenizer.json"
