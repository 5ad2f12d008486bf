"""Sheets of images: which labels belong to which rows, and what is said where they do not agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from heliostat.infra.errors import DataError
from heliostat.train.data.formats.source import find_source, read
from tests.unit.train.refusals import NEEDED, unfound, unread

RNG = np.random.default_rng(0)


def sheet(file: Path, images: np.ndarray) -> np.ndarray:
    """Writes images, uint8 [images, side, side, 3], as RGB rows."""
    Image.fromarray(images.reshape(len(images), -1, 3)).save(file)
    return images


def colours(count: int, side: int = 4) -> np.ndarray:
    return RNG.integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def rows(file: Path) -> list[tuple[int, dict[str, Any]]]:
    return list(read(file, "sheets", NEEDED))


def labels_of(file: Path) -> list[str]:
    return [record["label"] for _, record in rows(file)]


def failure(file: Path) -> str:
    return unread(file, "sheets")


def refused(path: Path) -> str:
    return unfound(path, "sheets")


def test_rows_are_images_in_the_order_of_the_numbers_in_names(tmp_path: Path) -> None:
    first = sheet(tmp_path / "data_batch_2.png", colours(3))
    second = sheet(tmp_path / "data_batch_10.png", colours(2))
    sheet(tmp_path / "test_batch.png", colours(2))
    (tmp_path / "train_lables.json").write_text("[1, 2, 3, 4, 5]")
    (tmp_path / "test_lables.json").write_text('["cat", "dog"]')
    (tmp_path / "package.json").write_text("{}")
    source = find_source(tmp_path, "sheets")
    assert [file.name for file in source.files] == ["data_batch_2.png", "data_batch_10.png", "test_batch.png"]
    assert [file.name for file in source.label_files] == ["train_lables.json", "test_lables.json"]
    assert [labels_of(file) for file in source.files] == [["1", "2", "3"], ["4", "5"], ["cat", "dog"]]
    for file, images in zip(source.files, (first, second), strict=False):
        for at, (number, record) in enumerate(rows(file)):
            assert number == at + 1
            assert record["image"].tolist() == images[at].tolist()
    assert source.place(1, 2) == f"{source.files[1]} record 2"


@pytest.mark.parametrize(("width", "shape"), [(16, (4, 4, 1)), (48, (4, 4, 3))])
def test_grey_rows_hold_one_value_a_pixel_or_three(tmp_path: Path, width: int, shape: tuple[int, int, int]) -> None:
    values = RNG.integers(0, 256, (2, width), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    (tmp_path / "labels.json").write_text("[0, 1]")
    assert [record["image"].tolist() for _, record in rows(tmp_path / "a.png")] == [
        row.reshape(shape).tolist() for row in values
    ]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("[1, 2]", "labels.json: 2 labels; a.png, b.png hold 5 rows"),
        ("{}", "labels.json: holds one dict; a JSON list of labels is needed"),
        ("[1, 2", "labels.json: not JSON: Expecting ',' delimiter"),
        ("[1, 2, 3, null, 5]", "labels.json record 4: None given; a whole number or text is needed"),
        ("[1, 2, 3, 0.5, 5]", "labels.json record 4: 0.5 given; a whole number or text is needed"),
    ],
)
def test_labels_that_do_not_fit_are_told(tmp_path: Path, labels: str, message: str) -> None:
    sheet(tmp_path / "a.png", colours(2))
    sheet(tmp_path / "b.png", colours(3))
    (tmp_path / "labels.json").write_text(labels)
    assert failure(tmp_path / "b.png").startswith(f"FOLDER/{message}")


def test_a_sheet_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text(json.dumps(list(range(4))))
    Image.new("RGB", (15, 4)).save(tmp_path / "a.png")
    assert failure(tmp_path / "a.png") == "FOLDER/a.png: rows of 15 x 3 values, which are no square image"
    sheet(tmp_path / "a.png", colours(4))
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:-60])
    assert failure(tmp_path / "a.png").startswith("FOLDER/a.png: damaged image: ")
    (tmp_path / "a.png").write_text("<html>")
    assert failure(tmp_path / "a.png") == "FOLDER/a.png: not a PNG file"


def test_which_labels_are_whose_must_be_told(tmp_path: Path) -> None:
    assert refused(tmp_path) == "data.source: PATH holds no sheets (.png)"
    sheet(tmp_path / "data.png", colours(1))
    wanted = "one list of its labels is needed, such as data_labels.json"
    assert refused(tmp_path) == f"PATH/data.png: {wanted}; none found"
    for name in ("a_labels.json", "b_labels.json"):
        (tmp_path / name).write_text("[1]")
    assert refused(tmp_path) == f"PATH/data.png: {wanted}; a_labels.json, b_labels.json found"
    (tmp_path / "data_labels.json").write_text("[1]")
    alike = "a .png file whose name begins alike is needed beside it"
    assert refused(tmp_path) == f"PATH/a_labels.json: labels without a sheet; {alike}"
    message = "PATH is a file; a folder with sheets and the lists of their labels is needed"
    assert refused(tmp_path / "data.png") == f"data.source: {message}"


def test_a_folder_of_sheets_does_not_tell_its_format(tmp_path: Path) -> None:
    sheet(tmp_path / "data.png", colours(1))
    (tmp_path / "labels.json").write_text("[1]")
    with pytest.raises(DataError, match=r"files of several formats \(images, json\); set data\.format"):
        find_source(tmp_path, "auto")
