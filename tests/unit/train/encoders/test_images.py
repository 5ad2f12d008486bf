"""Images as pixels of one size: what is learned of them, and what is refused."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heliostat.infra.images import png
from heliostat.infra.registry.inputs import ImageInputs
from heliostat.train import tasks
from heliostat.train.data.config import SPLITS, DataConfig
from heliostat.train.data.rows import Rows
from heliostat.train.encoders.images import ImageEncoder
from heliostat.train.models.bases import INPUTS
from tests.unit.train.prepared import Result, failure, run


def drawn(count: int, height: int = 4, width: int = 5, channels: int = 3) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(256, size=(height, width, channels), dtype=np.uint8) for _ in range(count)]


def lines(folder: Path, images: list[np.ndarray | str | None]) -> Path:
    texts = [base64.b64encode(png(one)).decode() if isinstance(one, np.ndarray) else one for one in images]
    records = [{"image": text, "label": f"class {i % 2}"} for i, text in enumerate(texts)]
    (folder / "images.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder / "images.jsonl"


def learned(result: Result) -> ImageInputs:
    return ImageInputs.model_validate_json((result.folder / INPUTS).read_bytes())


def test_pixels_are_kept_as_they_are_and_each_channel_is_learned_from_the_training_split(tmp_path: Path) -> None:
    images = drawn(200)
    result = run(tmp_path, lines(tmp_path, [*images]), ImageEncoder())
    inputs = learned(result)
    assert (inputs.shape, inputs.mode) == ((4, 5, 3), "rgb")
    rows = Rows(result.tables["train"], (), inputs.shape)
    pixels = rows.matrix("pixels", np.arange(len(rows)))
    assert {one.tobytes() for one in pixels} <= {one.tobytes() for one in images}
    assert inputs.mean == pytest.approx((pixels / 255).mean(axis=(0, 1, 2)))
    assert inputs.std == pytest.approx((pixels / 255).std(axis=(0, 1, 2)))
    assert result.tables["train"]["length"].unique().to_pylist() == [1]


def test_pictures_to_make_new_ones_like_have_a_class_or_any_or_none(tmp_path: Path) -> None:
    source, task = lines(tmp_path, [*drawn(60)]), tasks.get("image-generation")
    for data, labels in (
        ({}, ["class 0", "class 1"]),
        ({"where": "label == 'class 0'"}, ["class 0"]),
        ({"columns": {"label": None}}, []),
    ):
        encoder = task.encoder(DataConfig.model_validate({"source": str(source), **data}), None)
        result = run(tmp_path, source, encoder, **data)
        assert result.labels == labels
        rows = Rows(result.tables["train"], tuple(labels), learned(result).shape)
        batch = task.collate(rows, np.arange(5))
        assert [labels[one] for one in batch.get("labels", [])] == [
            result.tables["train"]["label"][i].as_py() for i in range(5 if labels else 0)
        ]


def folders(folder: Path, damaged: list[str]) -> Path:
    """A folder of pictures of two classes, of which those `damaged` are cut off."""
    for number, image in enumerate(drawn(80)):
        file = folder / "pictures" / "ab"[number % 2] / f"{number:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(image)[: 60 if file.name in damaged else None])
    return folder / "pictures"


def test_damaged_pictures_are_all_named_at_once(tmp_path: Path) -> None:
    message = failure(tmp_path, folders(tmp_path, ["04.png", "07.png", "33.png"]), ImageEncoder())
    problem, _, others = message.partition("; nor can 2 more be used: ")
    assert problem.startswith("FILE/a/04.png: image: damaged image: ")
    assert others == "FILE/b/07.png, FILE/b/33.png"


def test_damaged_pictures_are_dropped_and_counted_where_the_spec_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = folders(tmp_path, ["04.png", "07.png", "33.png"])
    counts = run(tmp_path, source, ImageEncoder(), missing="drop").counts
    assert (counts["read"], counts["damaged"], counts["empty"]) == (80, 3, 0)
    assert sum(counts[name] for name in SPLITS) == 77
    assert f"{source / 'a' / '04.png'} (and 2 more): left out, as data.missing says (image: damaged im" in caplog.text
    broken: list[Any] = [*drawn(80), "no base64!"]
    assert run(tmp_path, lines(tmp_path, broken), ImageEncoder(), missing="drop").counts["damaged"] == 1


def test_the_same_picture_counts_once(tmp_path: Path) -> None:
    images = drawn(60)
    result = run(tmp_path, lines(tmp_path, [*images, *images[:10]]), ImageEncoder())
    assert (result.counts["duplicates"], result.counts["conflicting"]) == (10, 0)


def test_the_mode_and_the_size_of_the_spec(tmp_path: Path) -> None:
    source = lines(tmp_path, [*drawn(60), *drawn(5, 9, 9)])
    options = {"images": {"height": 3, "width": 3, "mode": "grey", "resize": True}}
    inputs = learned(run(tmp_path, source, ImageEncoder(), **options))
    assert (inputs.shape, inputs.to_grey) == ((3, 3, 1), True)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("no base64!", "FILE line 101: image: not base64"),
        ("aGVsbG8=", "FILE line 101: image: no image; PNG, JPEG, BMP, WebP or GIF is needed"),
        (drawn(1, 6, 6)[0], "FILE line 101: image: 6 x 6 pixels; 5 x 4 are needed; data.images says which"),
    ],
)
def test_an_image_unlike_the_others_is_refused_by_place(tmp_path: Path, image: np.ndarray | str, message: str) -> None:
    images: list[Any] = drawn(100)
    assert failure(tmp_path, lines(tmp_path, [*images, image]), ImageEncoder()).startswith(message)


def test_a_grey_image_among_coloured_ones_is_grey_in_all_channels(tmp_path: Path) -> None:
    result = run(tmp_path, lines(tmp_path, [*drawn(60), *drawn(30, channels=1)]), ImageEncoder())
    assert learned(result).mode == "rgb"
    found = np.concatenate([np.array(table["pixels"].to_pylist()) for table in result.tables.values()])
    assert (np.ptp(found.reshape(90, -1, 3), axis=2).max(axis=1) == 0).sum() == 30


def test_a_coloured_image_among_grey_ones_keeps_its_colours_or_is_refused(tmp_path: Path) -> None:
    source = lines(tmp_path, [*drawn(60, channels=1), drawn(1)[0]])
    assert failure(tmp_path, source, ImageEncoder()).startswith("FILE line 61: image: a coloured image; a grey one")
    assert learned(run(tmp_path, source, ImageEncoder(), images={"mode": "rgb"})).mode == "rgb"


@pytest.mark.parametrize("shade", range(0, 256, 17))
def test_a_channel_that_is_the_same_everywhere_has_a_deviation_of_1(tmp_path: Path, shade: int) -> None:
    images: list[Any] = drawn(60)
    for image in images:
        image[:, :, 1] = shade
    inputs = learned(run(tmp_path, lines(tmp_path, images), ImageEncoder()))
    assert inputs.std[1] == 1.0
    assert inputs.mean[1] == pytest.approx(shade / 255)


def test_a_record_without_an_image_is_refused_or_left_out(tmp_path: Path) -> None:
    source = lines(tmp_path, [*drawn(60), None, ""])
    said = failure(tmp_path, source, ImageEncoder())
    assert said == "FILE line 61: data.missing: fail given, and column 'image' is empty; drop is allowed"
    assert run(tmp_path, source, ImageEncoder(), missing="drop").counts["empty"] == 2
