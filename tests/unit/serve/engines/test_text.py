from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from heliostat.serve.engines.text import TextStream, first_stop, held_back

TEXTS = ["the lazy dog", "naïve café", "你好，世界", "🙂👩‍👩‍👧‍👦 fox", "  two  spaces\n\n", ""]


@pytest.mark.parametrize("text", TEXTS)
def test_the_pieces_are_whole_characters_and_make_the_text(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    ids = tokenizer.encode(text)
    stream = TextStream(tokenizer.backend_tokenizer)
    pieces = [*(stream.push(token) for token in ids), stream.finish()]
    assert "".join(pieces) == text
    assert all("�" not in piece for piece in pieces)
    assert len(ids) >= len(text.split())


def test_a_character_is_held_until_its_last_byte(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tokenizer.encode("🙂")
    stream = TextStream(tokenizer.backend_tokenizer)
    assert len(ids) == 4
    assert [stream.push(token) for token in ids] == ["", "", "", "🙂"]


def test_bytes_that_make_no_character_come_out_at_the_end(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = [*tokenizer.encode("dog"), *tokenizer.encode("🙂")[:2]]
    stream = TextStream(tokenizer.backend_tokenizer)
    text = "".join(stream.push(token) for token in ids)
    assert text == "dog"
    assert text + stream.finish() == tokenizer.decode(ids) == "dog�"


@pytest.fixture(scope="module")
def fallback() -> Tokenizer:
    """As SentencePiece's: words, and a token for each byte beneath them."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "▁a", "é"]
    vocabulary = {piece: at for at, piece in enumerate(pieces)}
    inner = Tokenizer(models.BPE(vocabulary, [("▁", "a")], unk_token="<unk>", byte_fallback=True))
    inner.add_special_tokens(["<s>", "</s>"])
    space = decoders.Replace("▁", " ")
    inner.decoder = decoders.Sequence([space, decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return inner


def pieces_of(tokenizer: Tokenizer, tokens: Sequence[str | int]) -> list[str]:
    """The pieces of these tokens; a number is a byte."""
    stream = TextStream(tokenizer)
    known = tokenizer.get_vocab()
    names = [f"<0x{token:02X}>" if isinstance(token, int) else token for token in tokens]
    return [*(stream.push(known[name]) for name in names), stream.finish()]


@pytest.mark.parametrize(
    ("tokens", "pieces"),
    [
        (["a", *"你".encode(), "b"], ["a", "", "", "你", "b", ""]),
        (["▁a", 0xF3, "▁a", "▁a"], ["a", "", "� a", " a", ""]),
        ([0x60, 0xF3, "a", "▁a"], ["`", "", "�a", " a", ""]),  # the byte would take back the one before it
        (["b", 0x60, 0xF3, 0xE4, "a", *"你".encode(), "b"], ["b", "`", "", "", "��a", "", "", "你", "b", ""]),
        (["a", 0x60, 0xF3], ["a", "`", "", "�"]),
        (["a", 0x60, 0xF3, "</s>"], ["a", "`", "", "", "�"]),
    ],
)
def test_bytes_that_are_no_utf8_spoil_nothing_but_themselves(
    fallback: Tokenizer, tokens: list[str | int], pieces: list[str]
) -> None:
    assert pieces_of(fallback, tokens) == pieces


def test_any_tokens_have_text(fallback: Tokenizer) -> None:
    drawn = random.Random(0)
    known: list[str | int] = ["a", "b", "▁a", "▁", "é", "<s>", "</s>"]
    for _ in range(2000):
        tokens: list[str | int] = [
            drawn.choice(known) if drawn.random() < 0.5 else drawn.randrange(256) for _ in range(drawn.randrange(1, 14))
        ]
        text = "".join(pieces_of(fallback, tokens))
        for letter in "éab":
            assert text.count(letter) >= sum(token in (letter, "▁" + letter) for token in tokens), tokens


def test_special_tokens_have_no_text(tokenizer: PreTrainedTokenizerFast) -> None:
    stream = TextStream(tokenizer.backend_tokenizer)
    assert stream.push(0) + stream.push(1) + stream.finish() == ""


def run(tokenizer: PreTrainedTokenizerFast, text: str, stop: tuple[str, ...]) -> tuple[list[str], bool]:
    stream, pieces = TextStream(tokenizer.backend_tokenizer, stop), []
    for token in tokenizer.encode(text):
        pieces.append(stream.push(token))
        if stream.stopped:
            break
    return [*pieces, stream.finish()], stream.stopped


@pytest.mark.parametrize(
    ("text", "stop", "before"),
    [
        ("one two three", ("two",), "one "),
        ("one two three", ("three", "two th"), "one "),  # the earliest wins
        ("aaab", ("ab",), "aa"),
        ("x🙂y", ("🙂",), "x"),
        ("stop", ("stop",), ""),
        ("ab\n\ncd", ("\n\n",), "ab"),
    ],
)
def test_the_answer_ends_before_a_stop_string(
    tokenizer: PreTrainedTokenizerFast, text: str, stop: tuple[str, ...], before: str
) -> None:
    pieces, stopped = run(tokenizer, text, stop)
    assert stopped
    assert "".join(pieces) == before


def test_the_start_of_a_stop_string_is_held_and_sent_when_it_was_none(tokenizer: PreTrainedTokenizerFast) -> None:
    pieces, stopped = run(tokenizer, "xy END xy EN", ("END OF",))
    assert not stopped
    assert "".join(pieces) == "xy END xy EN"
    assert pieces[-1] == "EN"


def test_where_stop_strings_begin() -> None:
    assert first_stop("abcabc", ("c", "bc"), since=2) == 2
    assert first_stop("abc", ("x",)) is None
    assert first_stop("abc", ()) is None
    assert held_back("text <|en", ("<|end|>",)) == 4
    assert held_back("text", ("<|end|>",)) == 0
    assert held_back("aa", ("aab",)) == 2
    assert held_back("ab", ("ab",)) == 0  # a whole one is found, not held
