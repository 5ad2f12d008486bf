"""Package registries for tests: archives made by hand, and a pip and an npm that know one release."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any

from tests.unit.train.file_server import FileServer

METADATA = "Metadata-Version: 2.1\nName: tiny-reviews\nVersion: 1.0\n"


def archive(folder: Path, name: str, files: dict[str, str]) -> Path:
    """A wheel or an sdist with these files in it: the same bytes whenever it is made."""
    target = folder / name
    if name.endswith(".whl"):
        with zipfile.ZipFile(target, "w") as package:
            for path, text in files.items():
                package.writestr(zipfile.ZipInfo(path), text)
        return target
    with (
        gzip.GzipFile(target, "wb", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as package,
    ):
        for path, text in files.items():
            info = tarfile.TarInfo(path)
            info.size = len(text.encode())
            package.addfile(info, io.BytesIO(text.encode()))
    return target


class Pip:
    """A pip that has one archive, as sdist or as wheel, and counts how often it is asked."""

    def __init__(self, name: str, files: dict[str, str]) -> None:
        self.name, self.files, self.calls, self.sha256 = name, files, 0, ""
        self.asked = ""
        """The last requirements file."""

    def run(self, command: list[str], cwd: Path, **_: Any) -> subprocess.CompletedProcess[str]:
        self.calls += 1
        wanted = "--no-binary" if self.name.endswith(".tar.gz") else "--only-binary"
        if wanted not in command:
            return subprocess.CompletedProcess(command, 1, "", "ERROR: none of this kind\n")
        assert command[command.index("--dest") + 1] == "."
        self.asked = (cwd / command[command.index("--requirement") + 1]).read_text()
        made = archive(cwd, self.name, self.files)
        self.sha256 = hashlib.sha256(made.read_bytes()).hexdigest()
        return subprocess.CompletedProcess(command, 0, "", "")


class Npm:
    """An npm that knows one release, which a server has; it counts how often it is asked."""

    def __init__(self, server: FileServer) -> None:
        digest = hashlib.sha512(server.content).digest()
        self.dist = {"tarball": server.url, "integrity": f"sha512-{base64.b64encode(digest).decode()}"}
        self.content = server.content
        self.commands: list[list[str]] = []

    def run(self, command: list[str], cwd: Path, **_: Any) -> subprocess.CompletedProcess[str]:
        self.commands.append(command)
        if command[1] == "pack":
            (cwd / "digits-1.1.0.tgz").write_bytes(self.content)
            return subprocess.CompletedProcess(command, 0, "[]", "")
        return subprocess.CompletedProcess(command, 0, json.dumps(self.dist), "")


def sdist(folder: Path, marker: Path) -> Path:
    """tiny_reviews-1.0.tar.gz with data/a.csv and a build system of its own, which makes `marker` once it runs."""
    backend = f"""
import pathlib

pathlib.Path({str(marker)!r}).touch()

def prepare_metadata_for_build_wheel(folder, settings=None):
    info = pathlib.Path(folder, "tiny_reviews-1.0.dist-info")
    info.mkdir()
    (info / "METADATA").write_text({METADATA!r})
    return info.name

def build_wheel(folder, settings=None, metadata=None):
    raise RuntimeError("nobody asked for a wheel")
"""
    system = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    files = {"pyproject.toml": system, "backend.py": backend, "PKG-INFO": METADATA, "data/a.csv": "text,label\n"}
    return archive(
        folder, "tiny_reviews-1.0.tar.gz", {f"tiny_reviews-1.0/{path}": text for path, text in files.items()}
    )


def wheel(folder: Path) -> Path:
    """tiny_reviews-1.0-py3-none-any.whl with data/b.csv."""
    info = "tiny_reviews-1.0.dist-info"
    form = "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files = {"data/b.csv": "text,label\n", f"{info}/METADATA": METADATA, f"{info}/WHEEL": form, f"{info}/RECORD": ""}
    return archive(folder, "tiny_reviews-1.0-py3-none-any.whl", files)
