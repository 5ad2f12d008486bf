"""IDX files: pairs by name, what they hold, and what is said of headers and files that do not agree."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heliostat.train.data.config import DataConfig
from heliostat.train.data.formats import idx
from heliostat.train.data.formats.source import find_source, read
from heliostat.train.data.prepared import fingerprint_of
from tests.unit.train.prepared import Words
from tests.unit.train.refusals import NEEDED, unfound, unread

IMAGES = np.arange(3 * 2 * 4, dtype=np.uint8).reshape(3, 2, 4)
LABELS = np.array([5, 0, 9], dtype=np.uint8)


def pair(folder: Path, name: str = "train") -> tuple[Path, Path]:
    idx.write(folder, name, IMAGES, LABELS)
    return folder / f"{name}-images-idx3-ubyte", folder / f"{name}-labels-idx1-ubyte"


def rows(file: Path) -> list[tuple[int, dict[str, Any]]]:
    return list(read(file, "idx", NEEDED))


def failure(file: Path) -> str:
    return unread(file, "idx")


def refused(path: Path) -> str:
    return unfound(path, "idx")


def header(*sizes: int, kind: int = 8) -> bytes:
    return struct.pack(f">BBBB{len(sizes)}I", 0, 0, kind, len(sizes), *sizes)


def test_images_come_with_their_labels(tmp_path: Path) -> None:
    images, labels = pair(tmp_path)
    source = find_source(tmp_path, "auto")
    assert (source.format, source.files, source.label_files) == ("idx", (images,), (labels,))
    found = rows(images)
    assert [(number, record["label"]) for number, record in found] == [(1, "5"), (2, "0"), (3, "9")]
    assert found[1][1]["image"].tolist() == IMAGES[1][:, :, None].tolist()
    assert found[1][1]["image"].dtype == np.uint8
    assert found[1][1]["image"].flags.writeable
    assert source.place(0, 2) == f"{images} record 2"


def test_several_pairs_compressed_or_with_dots_in_their_names(tmp_path: Path) -> None:
    train, train_labels = pair(tmp_path)
    for file in (train, train_labels):
        file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    for file in pair(tmp_path, "t10k"):
        file.rename(file.with_name(file.name.replace("-idx", ".idx")))
    source = find_source(tmp_path, "auto")
    assert [file.name for file in source.files] == ["t10k-images.idx3-ubyte", "train-images-idx3-ubyte.gz"]
    assert [file.name for file in source.label_files] == ["t10k-labels.idx1-ubyte", "train-labels-idx1-ubyte.gz"]
    for file in source.files:
        assert [record["label"] for _, record in rows(file)] == ["5", "0", "9"]
    assert find_source(source.files[1], "auto").label_files == source.label_files[1:]


def test_images_may_have_three_channels(tmp_path: Path) -> None:
    colours = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
    idx.write(tmp_path, "x", colours, LABELS[:2])
    found = rows(tmp_path / "x-images-idx4-ubyte")
    assert [record["image"].shape for _, record in found] == [(3, 4, 3)] * 2
    assert found[1][1]["image"].tolist() == colours[1].tolist()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "begins with nothing; 00000803 or 00000804 is needed (IDX, unsigned bytes)"),
        (b"\x89PNG....", "begins with 89504e47; 00000803 or 00000804 is needed (IDX, unsigned bytes)"),
        (header(3, 2, 4, kind=13) + bytes(96), "begins with 00000d03; 00000803 or 00000804 is needed (IDX, unsigned"),
        (header(3)[:6], "begins with 00000801; 00000803 or 00000804 is needed"),
        (header(3, 2, 4)[:9], "the file ends there; its header tells of more"),
        (header(3, 0, 4), "images of 0 x 4; 1 to 33,554,432 pixels with 1 or 3 channels are allowed"),
        (header(3, 1 << 30, 1 << 30), "images of 1073741824 x 1073741824; 1 to 33,554,432 pixels"),
        (header(3, 2, 4, 2) + bytes(48), "images of 2 x 4 x 2; 1 to 33,554,432 pixels with 1 or 3 channels"),
        (header(4, 2, 4) + bytes(32), "4 images; train-labels-idx1-ubyte holds 3 labels"),
        (header(3, 2, 4) + bytes(25), "bytes after the 3 that its header tells of"),
    ],
)
def test_a_header_that_cannot_be_is_told(tmp_path: Path, content: bytes, message: str) -> None:
    images, _ = pair(tmp_path)
    images.write_bytes(content)
    assert failure(images).startswith(f"FOLDER/train-images-idx3-ubyte: {message}")


def test_files_that_end_too_early_are_named_with_the_place(tmp_path: Path) -> None:
    images, labels = pair(tmp_path)
    whole = images.read_bytes()
    images.write_bytes(whole[:-3])
    ends = "the file ends there; its header tells of more"
    assert failure(images) == f"FOLDER/train-images-idx3-ubyte record 3: {ends}"
    images.write_bytes(whole)
    labels.write_bytes(labels.read_bytes()[:-2])
    assert failure(images) == f"FOLDER/train-labels-idx1-ubyte record 2: {ends}"
    packed = images.with_name(f"{images.name}.gz")
    packed.write_bytes(gzip.compress(whole)[:20])
    assert failure(packed).startswith("FOLDER/train-images-idx3-ubyte.gz: cannot be read: ")


def test_images_and_labels_without_each_other_are_refused(tmp_path: Path) -> None:
    images, labels = pair(tmp_path)
    idx.write(tmp_path, "test", IMAGES, LABELS)
    (tmp_path / "test-labels-idx1-ubyte").unlink()
    wanted = "such as test-labels-idx1-ubyte; train-labels-idx1-ubyte found"
    assert refused(tmp_path) == f"PATH/test-images-idx3-ubyte: one file with its labels is needed, {wanted}"
    (tmp_path / "test-images-idx3-ubyte").unlink()
    images.unlink()
    assert refused(tmp_path) == "data.source: PATH holds no IDX file with images; *images* in its name is needed"
    idx.write(tmp_path, "test", IMAGES, LABELS)
    assert refused(tmp_path).endswith("labels without images; a file such as train-images-idx3-ubyte is needed")
    assert refused(labels).startswith("data.source: PATH holds no IDX file with images")


def test_a_pair_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    _, labels = pair(tmp_path)
    labels.with_name(f"{labels.name}.gz").write_bytes(gzip.compress(labels.read_bytes()))
    assert refused(tmp_path).endswith("train-labels-idx1-ubyte, train-labels-idx1-ubyte.gz found")


def test_data_change_with_their_labels(tmp_path: Path) -> None:
    images, labels = pair(tmp_path)
    data = DataConfig(source="x")
    before = fingerprint_of(find_source(images, "idx"), data, Words())
    labels.write_bytes(labels.read_bytes()[:-1] + b"\x01")
    assert fingerprint_of(find_source(images, "idx"), data, Words()) != before
