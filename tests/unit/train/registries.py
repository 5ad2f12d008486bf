"""Package registries for tests: archives made by hand, and a pip and an npm that know one release."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any

from tests.unit.train.file_server import FileServer


def archive(folder: Path, name: str, files: dict[str, str]) -> Path:
    """A wheel or an sdist with these files in it."""
    target = folder / name
    if name.endswith(".whl"):
        with zipfile.ZipFile(target, "w") as package:
            for path, text in files.items():
                package.writestr(path, text)
        return target
    with tarfile.open(target, "w:gz") as package:
        for path, text in files.items():
            info = tarfile.TarInfo(path)
            info.size = len(text.encode())
            package.addfile(info, io.BytesIO(text.encode()))
    return target


class Pip:
    """A pip that has one archive, as sdist or as wheel, and counts how often it is asked."""

    def __init__(self, name: str, files: dict[str, str]) -> None:
        self.name, self.files, self.calls, self.sha256 = name, files, 0, ""

    def run(self, command: list[str], cwd: Path, **_: Any) -> subprocess.CompletedProcess[str]:
        self.calls += 1
        wanted = "--no-binary" if self.name.endswith(".tar.gz") else "--only-binary"
        if wanted not in command:
            return subprocess.CompletedProcess(command, 1, "", "ERROR: none of this kind\n")
        assert command[-3:-1] == ["--dest", "."]
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
