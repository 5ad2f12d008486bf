"""Tokenizers that are learned from the training split: words for classifiers, pieces for language models."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import regex
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel, WordPiece
from transformers import PreTrainedTokenizerFast

from heliostat.infra.registry.inputs import TextInputs
from heliostat.infra.texts import UNSPACED, unknown_id
from heliostat.train.encoders.subwords import SubwordEncoder
from heliostat.train.encoders.words import LONGEST_UNSPACED, PAD_ID, UNKNOWN_ID, WordEncoder
from heliostat.train.models.bases import END, INPUTS, TOKENIZER
from heliostat.train.tasks.text_classification import TextEncoder
from tests import chinese
from tests.unit.train.prepared import Result, failure, many, reviews, run

ODD = "Überraschung <br />«ζῷον» 漢字"


def tokenizer(result: Result) -> Tokenizer:
    return Tokenizer.from_file(str(result.folder / TOKENIZER))


def test_words_are_those_of_the_training_split(tmp_path: Path) -> None:
    rows = [(f"{text}, <b>Fine</b> word{i}", label, 0) for i, (text, label, _) in enumerate(many(300))]
    result = run(tmp_path, reviews(tmp_path, rows), WordEncoder(), vocabulary=10_000)
    known = tokenizer(result).get_vocab()
    assert {"fine", "review", "word", ","} <= known.keys()
    assert not {"Fine", "<"} & known.keys()
    assert not [word for word in known if "fine" in word and word != "fine"], "punctuation is no part of a word"
    inputs = TextInputs.model_validate_json((result.folder / INPUTS).read_bytes())
    assert (inputs.length, inputs.vocabulary) == (256, len(known))


def test_the_most_frequent_words_are_kept_and_texts_cut_at_their_end(tmp_path: Path) -> None:
    rows = [(f"{text} rare{i}", label, 0) for i, (text, label, _) in enumerate(many(300))]
    result = run(tmp_path, reviews(tmp_path, rows), WordEncoder(), vocabulary=60, max_length=4)
    assert tokenizer(result).get_vocab_size() == 60 + 256, "bytes come on top"
    first = result.tables["train"]["input_ids"].to_pylist()[0]
    assert tokenizer(result).decode(first).startswith("review number")
    assert len(first) == 4
    assert result.counts["truncated"] == 300


@pytest.mark.parametrize("text", [ODD, "บทวิจารณ์", "😀", "filmographies", "\x07"])
def test_nothing_is_unknown_whatever_the_training_split_held(tmp_path: Path, text: str) -> None:
    result = run(tmp_path, reviews(tmp_path, many(200)), WordEncoder())
    encoded = tokenizer(result).encode(text)
    assert encoded.ids
    assert not {PAD_ID, UNKNOWN_ID} & set(encoded.ids)
    assert result.counts["unknown_tokens"] == 0


def test_a_rare_word_is_read_in_pieces_of_others(tmp_path: Path) -> None:
    rows = [(f"{text} review review number numbers", label, 0) for text, label, _ in many(200)]
    words = tokenizer(run(tmp_path, reviews(tmp_path, rows), WordEncoder()))
    assert words.encode("numbers reviewnumber").tokens == ["numbers", "review", "number"]


def test_words_of_chinese_texts_are_learned(tmp_path: Path) -> None:
    rows = [(text, label, 0) for text, label in chinese.reviews(400)]
    result = run(tmp_path, reviews(tmp_path, rows), WordEncoder(), vocabulary=2000)
    words = tokenizer(result)
    known = {word for word in words.get_vocab() if regex.search(UNSPACED, word)}
    assert {"屏幕", "价格", "让人失望", "值得推荐"} <= known
    assert max(map(len, known)) == LONGEST_UNSPACED
    lengths = [len(ids) for ids in result.tables["test"]["input_ids"].to_pylist()]
    assert 5 < sum(lengths) / len(lengths) < 14, "words, neither sentences nor bytes"


def test_texts_that_a_tokenizer_does_not_know_are_refused_above_a_bound(tmp_path: Path) -> None:
    inner = Tokenizer(
        WordPiece({word: at for at, word in enumerate(("[UNK]", "review", "屏", ",", "。"))}, unk_token="[UNK]")
    )
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    encoder = TextEncoder(inner, "digest", 64, unknown_id=0)
    rows = [(text, label, 0) for text, label in chinese.reviews(200)]
    path = reviews(tmp_path, rows)
    message = failure(tmp_path, path, encoder)
    assert re.match(r"data\.max_unknown: 0\.1 given, and 0\.\d\d of the tokens of FILE are unknown to the mod", message)
    assert message.endswith(
        "use a base model that knows this language, or model.lstm, which learns the words of your texts"
    )
    counts = run(tmp_path, path, encoder, max_unknown=0.99).counts
    assert 0.4 < counts["unknown_tokens"] / counts["tokens"] < 0.9


def test_the_token_that_ends_a_text_is_not_unknown() -> None:
    inner = Tokenizer(WordLevel({"[UNK]": 0, "end": 1}, unk_token="[UNK]"))
    assert unknown_id(PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]", eos_token="end")) == 0
    assert unknown_id(PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="end", eos_token="end")) is None
    assert unknown_id(PreTrainedTokenizerFast(tokenizer_object=inner)) is None


def test_markup_ends_before_the_next_begins(tmp_path: Path) -> None:
    words = tokenizer(run(tmp_path, reviews(tmp_path, many(20)), WordEncoder()))
    for text, expected in (("fine<br />film", "fine film"), ("a <b<i>film", "a <b film"), ("1 < 2 > 0", "1 < 2 > 0")):
        assert words.normalizer.normalize_str(text) == expected


@pytest.mark.parametrize("text", [ODD, "a\nb  c\t", "'quoted' and 3.14"])
def test_pieces_say_every_text_again(tmp_path: Path, text: str) -> None:
    result = run(tmp_path, reviews(tmp_path, many(200)), SubwordEncoder(), vocabulary=300)
    pieces = tokenizer(result)
    assert pieces.decode(pieces.encode(text).ids) == text
    assert pieces.get_vocab_size() == 300


def test_a_text_of_a_language_model_ends_and_every_piece_is_a_target(tmp_path: Path) -> None:
    result = run(tmp_path, reviews(tmp_path, many(200)), SubwordEncoder(), vocabulary=400)
    end = tokenizer(result).token_to_id(END)
    train = result.tables["train"]
    assert {row[-1] for row in train["input_ids"].to_pylist()} == {end}
    assert train["labels"].to_pylist() == train["input_ids"].to_pylist()
    assert train["targets"].to_pylist() == [length - 1 for length in train["length"].to_pylist()]


def test_a_decoder_is_drawn_the_same_on_every_machine(tmp_path: Path) -> None:
    from heliostat.train.models.architectures.config import Decoder
    from heliostat.train.models.architectures.decoder import write_decoder

    result = run(tmp_path, reviews(tmp_path, many(200)), SubwordEncoder(), vocabulary=300)
    for name in ("one", "two"):
        config = Decoder(layers=1, hidden=16, heads=2)
        write_decoder(config, result.folder / TOKENIZER, END, 64, tmp_path / name)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two")]
    assert weights[0] == weights[1]
    from heliostat.train.models import pretrained

    model = pretrained.load("AutoModelForCausalLM", tmp_path / "one", None)
    assert model.config.vocab_size == 300
    assert pretrained.tokenizer(tmp_path / "one").eos_token == END
