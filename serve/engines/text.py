"""Incremental detokenization: releases whole characters, and nothing that may be part of a stop string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class TextStream:
    """The text of one response as it grows."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        from tokenizers.decoders import DecodeStream

        self.tokenizer = tokenizer
        self.stop = tuple(stop)
        self.decoder = DecodeStream(skip_special_tokens=True)
        self.ids: list[int] = []
        self.held: list[int] = []
        """The tokens since the last one that gave text: those of an incomplete character."""
        self.sent = 0
        self.text = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """The text to send after one more token; sets `stopped` if a stop string was found."""
        self.ids.append(token)
        self.held.append(token)
        piece = self._decoded(token)
        if piece:
            self.held.clear()
        self.text += piece
        return self._release(held_back(self.text, self.stop))

    def _decoded(self, token: int) -> str:
        """The text of the held tokens, once it is whole.

        A tokenizer that falls back to bytes decodes a run of them as one, so that a byte which is no UTF-8 changes text
        that was sent already. Then the stream raises an Exception, no narrower one.
        """
        from tokenizers.decoders import DecodeStream

        try:
            return self.decoder.step(self.tokenizer, token) or ""
        except Exception:
            self.decoder = DecodeStream(ids=[token], skip_special_tokens=True)
            return self.tokenizer.decode(self.held, skip_special_tokens=True)

    def finish(self) -> str:
        """Returns what was held back: the start of a stop string that never came, or an incomplete character."""
        if self.stopped:
            return ""
        whole = self.tokenizer.decode(self.ids, skip_special_tokens=True)
        if whole.startswith(self.text):
            self.text = whole
        else:
            self.text += self.tokenizer.decode(self.held, skip_special_tokens=True)
        return self._release(0)

    def _release(self, held: int) -> str:
        end = len(self.text) - held
        at = first_stop(self.text, self.stop, self.sent)
        if at is not None:
            self.stopped, end = True, at
        piece = self.text[self.sent : end]
        self.sent = max(self.sent, end)
        return piece


def first_stop(text: str, stop: Sequence[str], since: int = 0) -> int | None:
    """Index of the earliest stop string in `text` from `since` on; None if there is none."""
    found = [at for at in (text.find(one, since) for one in stop) if at >= 0]
    return min(found, default=None)


def held_back(text: str, stop: Sequence[str]) -> int:
    """How many characters at the end of `text` may be the start of a stop string."""
    longest = max((len(one) for one in stop), default=1) - 1
    for length in range(min(longest, len(text)), 0, -1):
        if any(one.startswith(text[-length:]) for one in stop if len(one) > length):
            return length
    return 0
