"""Tokenizers that are learned from the training split: words for classifiers, pieces for language models."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer

from heliostat.infra.registry.inputs import TextInputs
from heliostat.train.encoders.subwords import SubwordEncoder
from heliostat.train.encoders.words import UNKNOWN_ID, WordEncoder
from heliostat.train.models.bases import END, INPUTS, TOKENIZER
from tests.unit.train.prepared import Result, many, reviews, run

ODD = "Überraschung <br />«ζῷον» 漢字"


def tokenizer(result: Result) -> Tokenizer:
    return Tokenizer.from_file(str(result.folder / TOKENIZER))


def test_words_are_those_of_the_training_split(tmp_path: Path) -> None:
    rows = [(f"{text}, <b>Fine</b> word{i}", label, 0) for i, (text, label, _) in enumerate(many(300))]
    result = run(tmp_path, reviews(tmp_path, rows), WordEncoder(), vocabulary=10_000)
    known = tokenizer(result).get_vocab()
    words = {name: {f"word{i}" for i in range(300)} & known.keys() for name in ("all",)}["all"]
    assert len(words) == result.counts["train"], "each text has a word of its own"
    assert {"fine", "review", ","} <= known.keys()
    assert not {"Fine", "b", "<"} & known.keys()
    unknown = [row.count(UNKNOWN_ID) for row in result.tables["test"]["input_ids"].to_pylist()]
    assert all(count >= 1 for count in unknown), "and of the test split it is not known"
    inputs = TextInputs.model_validate_json((result.folder / INPUTS).read_bytes())
    assert (inputs.length, inputs.vocabulary) == (256, len(known))


def test_the_most_frequent_words_are_kept_and_texts_cut_at_their_end(tmp_path: Path) -> None:
    rows = [(f"{text} rare{i}", label, 0) for i, (text, label, _) in enumerate(many(300))]
    result = run(tmp_path, reviews(tmp_path, rows), WordEncoder(), vocabulary=16, max_length=4)
    assert tokenizer(result).get_vocab_size() == 16
    first = result.tables["train"]["input_ids"].to_pylist()[0]
    assert tokenizer(result).decode(first).startswith("review number")
    assert len(first) == 4
    assert result.counts["truncated"] == 300


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
