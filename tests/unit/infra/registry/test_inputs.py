"""What models of our own making take in, and what they refuse."""

from __future__ import annotations

import io
import math
import struct
import zlib
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from heliostat.infra.errors import DataError
from heliostat.infra.images import png
from heliostat.infra.registry.inputs import (
    CategoryColumn,
    ImageInputs,
    NoiseInputs,
    NumberColumn,
    TableInputs,
    TextInputs,
    image_bytes,
    same_word,
    spelled,
)

TABLE = TableInputs(
    columns=(
        NumberColumn(name="age", mean=40, std=10),
        CategoryColumn(name="plan", values=("free", "paid")),
        NumberColumn(name="spent", mean=5, std=2, fill=5),
        CategoryColumn(name="city", values=("Kyiv", "Lima"), fill="Lima"),
    )
)
GREY = ImageInputs(height=2, width=3, mode="grey", mean=(0.5,), std=(0.25,))


@pytest.mark.parametrize(
    ("word", "spellings"),
    [
        ("1", [1, 1.0, "1", "1.0", " 1.00 ", Decimal("1.00")]),
        ("0", [0, -0.0, "-0.0", "0.0"]),
        ("true", [True, "True", "true", "TRUE"]),
        ("0.5", [0.5, "0.5", Decimal("0.50")]),
        ("caf\u00e9", ["caf\u00e9", "cafe\u0301"]),
        ("01.0", ["01.0"]),
        ("1.10", ["1.10"]),
        ("1e-10", [1e-10, "1e-10"]),
        (None, [None, "", " ", "NaN", math.nan, Decimal("NaN")]),
    ],
)
def test_a_word_is_one_however_a_format_spells_it(word: str | None, spellings: list[Any]) -> None:
    assert {spelled(value) for value in spellings} == {word}


def test_a_request_may_spell_a_word_as_any_format_does() -> None:
    member = CategoryColumn(name="member", values=("1", "caf\u00e9", "true"))
    for value in (1.0, "1.0", Decimal("1.0"), 1):
        assert member.numbers(value) == [1.0, 0.0, 0.0]
    assert member.numbers("cafe\u0301") == [0.0, 1.0, 0.0]
    assert member.numbers("True") == member.numbers(True) == [0.0, 0.0, 1.0]


def test_a_label_is_found_as_it_stands_before_it_is_found_in_another_spelling() -> None:
    assert same_word("1.0", ("1", "1.0")) == "1.0"
    assert same_word("True", ("false", "true")) == "true"
    assert same_word("cafe\u0301", ("caf\u00e9",)) == "caf\u00e9"
    assert same_word("cafe", ("caf\u00e9",)) is None


def test_a_row_is_standardised_and_one_hot_in_the_order_of_the_columns() -> None:
    row = {"city": "Kyiv", "spent": "9", "age": 30, "plan": "paid"}
    assert TABLE.features(row) == [-1.0, 0.0, 1.0, 2.0, 1.0, 0.0]
    assert TABLE.width == 6
    assert TABLE.row(TABLE.features(row)) == {"age": 30.0, "plan": "paid", "spent": 9.0, "city": "Kyiv"}


@pytest.mark.parametrize(
    "missing", [{}, {"spent": None, "city": ""}, {"spent": " ", "city": None}, {"spent": math.nan}]
)
def test_what_is_missing_is_filled_where_the_column_says_so(missing: dict[str, Any]) -> None:
    assert TABLE.features({"age": 40, "plan": "free", **missing}) == [0.0, 1.0, 0.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"age": None}, "age: missing; a value is needed"),
        ({"age": math.nan}, "age: missing; a value is needed"),
        ({"age": math.inf}, "age: inf given; a finite number is needed"),
        ({"age": 10**400}, "age: 1000"),
        ({"age": 1e308}, "age: 1e+308 given; a number that 32 bits can hold, once it is standardised, is needed"),
        ({"age": "old"}, "age: 'old' given; a finite number is needed"),
        ({"age": True}, "age: True given; a finite number is needed"),
        ({"age": [1]}, "age: [1] given; a finite number is needed"),
        ({"plan": "gold"}, "plan: 'gold' was not in the training data; free, paid were"),
        ({"plan": {"a": 1}}, "plan: {'a': 1} given; text or a number is needed"),
        ({"plan": None}, "plan: missing; a value is needed"),
        ({"colour": 1}, "colour: no such column; age, plan, spent, city are allowed"),
    ],
)
def test_a_row_that_would_have_to_be_guessed_at_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        TABLE.features({"age": 30, "plan": "paid", **change})
    assert str(caught.value).startswith(message)
    assert len(str(caught.value)) < 200


def test_an_image_has_the_size_that_the_model_was_trained_on() -> None:
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3, 1)
    assert (GREY.pixels(png(pixels), "image") == pixels).all()
    turned = png(pixels.swapaxes(0, 1))
    with pytest.raises(DataError, match=r"^image: 2 x 3 pixels; 3 x 2 are needed$"):
        GREY.pixels(turned, "image")
    assert GREY.model_copy(update={"resize": True}).pixels(turned, "image").shape == (2, 3, 1)


@pytest.mark.parametrize(
    ("resize", "side", "message"),
    [
        (False, 5_700, "5700 x 5700 pixels; 3 x 2 are needed"),
        (True, 5_700, "5700 x 5700 pixels; 4,194,304 in all are allowed for this model"),
        (True, 2_048, "damaged image"),
    ],
)
def test_a_picture_of_too_many_pixels_is_refused_before_any_is_decoded(resize: bool, side: int, message: str) -> None:
    """The files have no pixels at all, so that decoding one would find it damaged."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", header), (b"IDAT", b""), (b"IEND", b""))
    ]
    with pytest.raises(DataError, match=f"^image: {message}"):
        GREY.model_copy(update={"resize": resize}).pixels(b"\x89PNG\r\n\x1a\n" + b"".join(parts), "image")


def test_large_images_may_have_as_many_times_more_pixels() -> None:
    large = GREY.model_copy(update={"resize": True, "height": 400, "width": 500})
    assert large.most_pixels == 64 * 400 * 500


def test_an_image_that_is_rotated_by_its_orientation_has_the_size_that_is_seen() -> None:
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (2, 3)).save(stream, "PNG", exif=exif)
    assert GREY.pixels(stream.getvalue(), "image").shape == (2, 3, 1)


def test_colours_are_not_dropped_unless_training_did_so() -> None:
    grey = np.repeat(np.arange(6, dtype=np.uint8).reshape(2, 3, 1), 3, axis=2)
    assert (GREY.pixels(png(grey), "image") == grey[:, :, :1]).all(), "nothing is lost"
    coloured = grey + np.array([0, 0, 9], dtype=np.uint8)
    with pytest.raises(DataError, match=r"^image: a coloured image; a grey one is needed$"):
        GREY.pixels(png(coloured), "image")
    assert GREY.model_copy(update={"to_grey": True}).pixels(png(coloured), "image").shape == GREY.shape


def test_base64_may_be_a_data_url_and_must_be_base64() -> None:
    assert image_bytes("aGk=", "image") == image_bytes("data:image/png;base64,aGk=", "image") == b"hi"
    for text in ("hi!", "data:image/png;base64,hi!", "é"):
        with pytest.raises(DataError, match=r"^image: not base64$"):
            image_bytes(text, "image")


def test_texts_are_cut_and_filled_up_to_one_length() -> None:
    made = TextInputs(length=3, pad_id=9, unknown_id=8, vocabulary=10).padded([[1], [1, 2, 3, 4], []])
    assert made["input_ids"].tolist() == [[1, 9, 9], [1, 2, 3], [8, 9, 9]]
    assert made["attention_mask"].tolist() == [[1, 0, 0], [1, 1, 1], [1, 0, 0]]


def test_the_noise_of_a_seed_begins_the_same_however_much_of_it_there_is() -> None:
    noise = NoiseInputs(size=5)
    assert torch.equal(noise.noise(3, 40)[:2], noise.noise(3, 2))
    assert not torch.equal(noise.noise(3, 1), noise.noise(4, 1))


def test_noise_of_a_class_is_that_of_the_seed_with_two_numbers_exchanged() -> None:
    noise = NoiseInputs(size=6, classes=3)
    free, asked = noise.noise(3, 300), noise.noise(3, 300, 2)
    assert torch.bincount(noise.classes_of(free)).min() > 70
    assert noise.classes_of(asked).tolist() == [2] * 300
    assert torch.equal(free.sort(dim=1).values, asked.sort(dim=1).values)
    assert torch.equal(free[:, 3:], asked[:, 3:])
    assert torch.equal(free[noise.classes_of(free) == 2], asked[noise.classes_of(free) == 2])
    assert NoiseInputs(size=2).classes_of(torch.randn(4, 2)).tolist() == [0] * 4
