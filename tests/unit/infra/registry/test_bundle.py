from __future__ import annotations

import json
import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from heliostat.infra.errors import IntegrityError, NotFoundError, StorageError
from heliostat.infra.registry.bundle import (
    Manifest,
    delete_directory,
    fetch_directory,
    publish_directory,
    read_manifest,
    read_pointer,
    verify_directory,
    write_pointer,
)
from heliostat.infra.storage.base import Entry
from heliostat.infra.storage.local import LocalStore

FILES = {"spec.yaml": b"name: x\n", "model/weights": b"w" * 3_000_000, "model/deep/empty": b""}


class FailingStore(LocalStore):
    """Refuses every upload of files whose key ends in `weights`."""

    def upload(self, file: Path, key: str) -> None:
        if key.endswith("weights"):
            raise StorageError(f"{key}: cannot write: the disk is full")
        super().upload(file, key)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(str(tmp_path / "store"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    for name, data in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_directory_comes_back_as_it_was(store: LocalStore, source: Path, tmp_path: Path) -> None:
    published = publish_directory(store, "models/x/1", source, {"labels": ["a", "b"]})
    fetched = fetch_directory(store, "models/x/1", tmp_path / "there", digest=published.digest)
    assert contents(tmp_path / "there") == FILES
    assert fetched == published == read_manifest(store, "models/x/1")
    assert fetched.metadata == {"labels": ["a", "b"]}
    assert published.files["model/weights"].size_bytes == 3_000_000
    assert published.files["model/weights"].sha256 == sha256(FILES["model/weights"]).hexdigest()
    assert published.digest == sha256(store.read_bytes("models/x/1/manifest.json")).hexdigest()


def test_a_bundle_may_be_the_root_of_its_store(store: LocalStore, source: Path, tmp_path: Path) -> None:
    publish_directory(store, "", source)
    fetch_directory(LocalStore(store.url), "", tmp_path / "there")
    assert contents(tmp_path / "there") == FILES


def test_the_manifest_is_written_last(source: Path, tmp_path: Path) -> None:
    order: list[str] = []

    class Recording(LocalStore):
        def upload(self, file: Path, key: str) -> None:
            super().upload(file, key)
            order.append(key)

        def write_bytes(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
            super().write_bytes(key, data, if_absent=if_absent)
            order.append(key)

    publish_directory(Recording(str(tmp_path / "store")), "b", source)
    assert sorted(order[:-1]) == sorted(f"b/{name}" for name in FILES)
    assert order[-1] == "b/manifest.json"


def test_a_failed_upload_publishes_nothing_and_may_be_repeated(source: Path, tmp_path: Path) -> None:
    broken = FailingStore(str(tmp_path / "store"))
    with pytest.raises(StorageError, match="the disk is full"):
        publish_directory(broken, "b", source)
    with pytest.raises(NotFoundError, match=r"store/b: no bundle here"):
        fetch_directory(broken, "b", tmp_path / "there")
    assert not (tmp_path / "there").exists()
    publish_directory(LocalStore(broken.url), "b", source)
    fetch_directory(broken, "b", tmp_path / "there")


def test_a_bundle_never_changes(store: LocalStore, source: Path) -> None:
    first = publish_directory(store, "b", source)
    (source / "spec.yaml").write_bytes(b"other")
    with pytest.raises(StorageError, match="store/b: holds a bundle already, and bundles never change"):
        publish_directory(store, "b", source)
    assert read_manifest(store, "b") == first
    assert store.read_bytes("b/spec.yaml") == FILES["spec.yaml"]


def test_of_two_publishers_at_once_the_second_fails(source: Path, tmp_path: Path) -> None:
    class Slow(LocalStore):
        def upload(self, file: Path, key: str) -> None:
            super().upload(file, key)
            if key.endswith("weights"):  # the other publisher ends while this one uploads
                LocalStore(self.url).write_bytes("b/manifest.json", b"theirs")

    with pytest.raises(StorageError, match=r"manifest\.json: cannot write: it exists already"):
        publish_directory(Slow(str(tmp_path / "store")), "b", source)
    assert (tmp_path / "store/b/manifest.json").read_bytes() == b"theirs"


def test_a_directory_that_cannot_be_a_bundle_is_refused(store: LocalStore, source: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for nothing in ("empty", "absent"):
        with pytest.raises(StorageError, match=f"{nothing}: no files to store"):
            publish_directory(store, "b", tmp_path / nothing)
    (source / "manifest.json").write_text("{}")
    with pytest.raises(StorageError, match=r"manifest\.json: this name is kept for the manifest"):
        publish_directory(store, "b", source)
    assert store.list() == []


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[1_234_567] ^= 1
    file.write_bytes(data)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (Path.unlink, "missing, but the manifest names it"),
    "truncated": (
        lambda file: os.truncate(file, 2_999_999),
        "has 2999999 bytes, and the manifest says 3000000",
    ),
    "longer": (lambda file: file.open("ab").write(b"x"), "has 3000001 bytes, and the manifest says 3000000"),
    "altered": (flip, "has SHA-256 [0-9a-f]{64}, and the manifest says [0-9a-f]{64}"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found_and_nothing_is_left(store: LocalStore, source: Path, tmp_path: Path, damage: str) -> None:
    publish_directory(store, "b", source)
    harm, complaint = DAMAGE[damage]
    harm(Path(store.url) / "b/model/weights")
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(IntegrityError, match=f"store/b/model/weights: {complaint}"):
        fetch_directory(store, "b", tmp_path / "there")
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_copy_that_is_there_already_is_verified(store: LocalStore, source: Path, tmp_path: Path, damage: str) -> None:
    manifest = publish_directory(store, "b", source)
    there = tmp_path / "there"
    fetch_directory(store, "b", there)
    inode = (there / "spec.yaml").stat().st_ino
    fetch_directory(store, "b", there)
    verify_directory(there, manifest)
    assert (there / "spec.yaml").stat().st_ino == inode, "fetched again though it was whole"
    harm, complaint = DAMAGE[damage]
    harm(there / "model/weights")
    with pytest.raises(IntegrityError, match=f"there/model/weights: {complaint}"):
        fetch_directory(store, "b", there)


def test_a_folder_with_other_files_is_left_alone(store: LocalStore, source: Path, tmp_path: Path) -> None:
    publish_directory(store, "b", source)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis").write_text("years of work")
    with pytest.raises(IntegrityError, match=r"mine/.*missing"):
        fetch_directory(store, "b", tmp_path / "mine")
    assert contents(tmp_path / "mine") == {"thesis": b"years of work"}


def test_further_files_in_storage_are_no_part_of_a_bundle(store: LocalStore, source: Path, tmp_path: Path) -> None:
    publish_directory(store, "b", source)
    store.write_bytes("b/left-over", b"")
    fetch_directory(store, "b", tmp_path / "there")
    assert contents(tmp_path / "there") == FILES


def test_a_manifest_with_another_digest_is_refused(store: LocalStore, source: Path, tmp_path: Path) -> None:
    digest = publish_directory(store, "b", source).digest
    text = store.read_bytes("b/manifest.json").replace(b'"metadata": {}', b'"metadata": {"a":1}')
    store.write_bytes("b/manifest.json", text)
    with pytest.raises(IntegrityError, match=f"manifest.json: has SHA-256 .*, and {digest} is expected"):
        fetch_directory(store, "b", tmp_path / "there", digest=digest)
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "a//b", "..\\evil"])
def test_a_manifest_that_names_files_outside_is_refused(
    store: LocalStore, source: Path, tmp_path: Path, name: str
) -> None:
    publish_directory(store, "b", source)
    manifest = json.loads(store.read_bytes("b/manifest.json"))
    manifest["files"][name] = manifest["files"].pop("spec.yaml")
    store.write_bytes("b/manifest.json", json.dumps(manifest).encode())
    (tmp_path / "evil").write_text("safe")
    with pytest.raises(IntegrityError, match=r"b/manifest\.json: damaged: .*not a storage key"):
        fetch_directory(store, "b", tmp_path / "there")
    assert (tmp_path / "evil").read_text() == "safe"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": {}}', '{"version": 2}'])
def test_a_damaged_manifest_is_one_line(store: LocalStore, text: str) -> None:
    store.write_bytes("b/manifest.json", text.encode())
    with pytest.raises(IntegrityError, match=r"^[^\n]*b/manifest\.json: damaged: not a manifest of this version$"):
        read_manifest(store, "b")


def test_delete_begins_with_the_manifest(source: Path, tmp_path: Path) -> None:
    class Recording(LocalStore):
        def delete(self, prefix: str) -> None:
            deleted.append(prefix)
            super().delete(prefix)

    deleted: list[str] = []
    store = Recording(str(tmp_path / "store"))
    publish_directory(store, "b", source)
    store.write_bytes("c", b"")
    delete_directory(store, "b")
    assert deleted == ["b/manifest.json", "b"]
    assert store.list() == [Entry("c", 0)]


def test_a_pointer_is_replaced_in_one_step(store: LocalStore) -> None:
    with pytest.raises(NotFoundError):
        read_pointer(store, "runs/1/latest.json")
    write_pointer(store, "runs/1/latest.json", {"step": 1})
    write_pointer(store, "runs/1/latest.json", {"step": 2, "path": "é"})
    assert read_pointer(store, "runs/1/latest.json") == {"step": 2, "path": "é"}


@pytest.mark.parametrize("data", [b"", b"[1]", b"\xff", b'{"a"'])
def test_a_damaged_pointer_is_one_line(store: LocalStore, data: bytes) -> None:
    store.write_bytes("latest.json", data)
    with pytest.raises(IntegrityError, match=r"store/latest\.json: damaged: "):
        read_pointer(store, "latest.json")


def test_a_fetched_folder_can_be_read_by_others(store: LocalStore, source: Path, tmp_path: Path) -> None:
    manifest: Manifest = publish_directory(store, "b", source)
    fetch_directory(store, "b", tmp_path / "deep/er/there", digest=manifest.digest)
    assert (tmp_path / "deep/er/there").stat().st_mode & 0o055 == 0o055
