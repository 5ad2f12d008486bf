"""Folders of image files: classes by their names, and what is said of files that would be lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from heliostat.infra.errors import DataError
from heliostat.train.data.config import DataConfig
from heliostat.train.data.formats.source import Source, find_source, read
from heliostat.train.data.prepared import fingerprint_of
from tests.unit.train.prepared import Words

NEEDED = {"image": "data.columns.image", "label": "data.columns.label"}


def picture(file: Path, height: int = 2, width: int = 3, mode: str = "RGB") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (width, height), 7 if mode == "L" else (7, 8, 9)).save(file)
    return file


def refused(path: Path, format_: str = "images") -> str:
    with pytest.raises(DataError) as caught:
        find_source(path, format_)
    return str(caught.value).replace(str(path), "PATH")


def test_a_sub_folder_is_a_class(tmp_path: Path) -> None:
    cat = picture(tmp_path / "cat" / "b.png")
    dog = picture(tmp_path / "big dog" / "a.JPG", 4, 5)
    grey = picture(tmp_path / "cat" / "c.bmp", mode="L")
    for other in (".DS_Store", "README.md", "cat/notes.txt"):
        (tmp_path / other).write_text("x")
    source = find_source(tmp_path, "images")
    assert source == Source((dog, cat, grey), "images")
    found = [record for file in source.files for record in read(file, "images", NEEDED)]
    assert [number for number, _ in found] == [1, 1, 1]
    assert [record["label"] for _, record in found] == ["big dog", "cat", "cat"]
    assert [record["image"] for _, record in found] == [file.read_bytes() for file in (dog, cat, grey)]
    assert source.place(1, 1) == str(cat)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP"])
def test_images_are_known_by_their_content_whatever_their_ending(tmp_path: Path, kind: str) -> None:
    names = ("a.jfif", "b.jpe", "c.JFIF", "d", "e.photo", "f.jpg~")
    (tmp_path / "cat").mkdir()
    for name in names:
        with (tmp_path / "cat" / name).open("wb") as file:
            Image.new("RGB", (3, 2)).save(file, kind)
    found = find_source(tmp_path, "images").files
    assert [file.name for file in found] == sorted(names)


def test_files_that_are_no_images_are_listed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    picture(tmp_path / "cat" / "a.png")
    find_source(tmp_path, "images")
    assert caplog.text == ""
    for name in ("README", "cat/notes.txt", "cat/Thumbs.db"):
        (tmp_path / name).write_text("BMW, a car; not a bitmap")
    find_source(tmp_path, "images")
    assert f"data.source: 3 files of {tmp_path} are no images and left out: README, cat/Thumbs.db, cat/" in caplog.text


def test_a_folder_of_nothing_but_images_tells_its_format(tmp_path: Path) -> None:
    picture(tmp_path / "cat" / "a.png")
    picture(tmp_path / "dog" / "a.webp")
    assert find_source(tmp_path, "auto").format == "images"


def test_files_that_would_be_lost_are_refused(tmp_path: Path) -> None:
    picture(tmp_path / "cat" / "a.png")
    (tmp_path / "dog").mkdir()
    assert refused(tmp_path).startswith("data.source: PATH/dog holds no images (.png .jpg")
    (tmp_path / "dog" / "a.heic").write_text("x")
    assert refused(tmp_path).startswith("PATH/dog/a.heic: .heic is not read; .png .jpg")
    (tmp_path / "dog" / "a.heic").unlink()
    deep = picture(tmp_path / "dog" / "small" / "a.png")
    wanted = "images must lie in sub-folders of PATH, whose names are their classes"
    assert refused(tmp_path) == f"PATH/dog/small/a.png: {wanted}"
    deep.rename(tmp_path / "a.png")
    assert refused(tmp_path) == f"PATH/a.png: {wanted}"


def test_an_empty_folder_and_a_single_file_are_no_classes(tmp_path: Path) -> None:
    assert refused(tmp_path).startswith("data.source: PATH has sub-folders with no images")
    one = picture(tmp_path / "cat" / "a.png")
    message = "data.source: PATH is a file; a folder with one sub-folder for each class is needed"
    assert refused(one) == refused(one, "auto") == message


def test_an_image_that_is_gone_and_a_column_that_is_not_there_are_named(tmp_path: Path) -> None:
    file = picture(tmp_path / "cat" / "a.png")
    with pytest.raises(DataError, match=r"data\.columns\.text: column 'text' is not in .*; it has image, label"):
        list(read(file, "images", {"text": "data.columns.text"}))
    file.unlink()
    with pytest.raises(DataError, match=rf"^{file}: cannot be read: No such file"):
        list(read(file, "images", NEEDED))


def test_data_change_with_the_class_of_an_image_and_not_with_its_name(tmp_path: Path) -> None:
    data = DataConfig(source="x")
    prints = []
    for name in ("a/cat/1.png", "b/cat/2.png", "c/dog/1.png"):
        file = picture(tmp_path / name)
        prints.append(fingerprint_of(find_source(file.parents[1], "images"), data, Words()))
    assert prints[0] == prints[1]
    assert prints[0] != prints[2]
