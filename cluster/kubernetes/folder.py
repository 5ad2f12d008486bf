"""A folder of rendered files, in which somebody may have edited some: those are never overwritten unasked.

`.rendered.json` in it has the SHA-256 of each file as it was written, so that what has been edited can be told from
what an older spec gave; of two versions while the second is being written.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from heliostat.infra.errors import ConfigError, StorageError
from heliostat.infra.storage.local import write_atomically

RECORD = ".rendered.json"


@dataclass(frozen=True)
class Changes:
    """What rendering into a folder changes there."""

    written: Mapping[str, str]
    """Path -> text of files that are new, or other than before."""
    removed: tuple[str, ...]
    """Files that were rendered before and are not any more."""
    edited: tuple[str, ...]
    """Those of both that somebody has edited, or made, since."""


def changes(folder: Path, files: Mapping[str, str]) -> Changes:
    """Compares `files` with what is there. Raises ConfigError if the folder's record cannot be read."""
    known = _record(folder)
    written = {path: text for path, text in files.items() if _read(folder / path) != text}
    removed = tuple(sorted(path for path in known.keys() - files.keys() if (folder / path).is_file()))
    edited = [path for path in (*written, *removed) if _is_edited(folder / path, known.get(path, []))]
    return Changes(written, removed, tuple(sorted(edited)))


def write(folder: Path, files: Mapping[str, str], *, force: bool = False) -> Changes:
    """Makes the folder hold `files`, and nothing that was rendered before; files of others stay.

    Raises ConfigError, before anything is written, if one was edited since and `force` is not given; StorageError if
    one cannot be written.
    """
    found = changes(folder, files)
    if found.edited and not force:
        raise ConfigError(
            f"{folder}: {', '.join(found.edited)} changed since it was rendered; --diff shows how, --force overwrites"
        )
    before, now = _record(folder), {path: [_sha256(text)] for path, text in files.items()}
    either = {path: [*before.get(path, []), *now.get(path, [])] for path in {**before, **now}}
    try:
        if found.written or found.removed:
            _write_record(folder, either)  # so that what a full disk or a signal leaves is nobody's edit
        for path, text in found.written.items():
            _write(folder / path, text)
        for path in found.removed:
            (folder / path).unlink()
        _write_record(folder, now)
    except OSError as error:
        raise StorageError(f"{folder}: cannot be written: {error}") from error
    return found


def check_unedited(folder: Path, path: str) -> None:
    """Raises ConfigError for a file that no rendering wrote, or that somebody has edited since."""
    known = _record(folder)
    if path not in known:
        raise ConfigError(f"{folder / path}: not rendered by `heliostat render`, or its {RECORD} is missing")
    if _is_edited(folder / path, known[path]):
        raise ConfigError(f"{folder / path}: changed since it was rendered; `heliostat render … --diff` shows how")


def replace(folder: Path, path: str, text: str) -> None:
    """Writes one rendered file anew; raises as `check_unedited` does, and StorageError if it cannot be written."""
    check_unedited(folder, path)
    known = _record(folder)
    try:
        _write_record(folder, {**known, path: [*known[path], _sha256(text)]})
        _write(folder / path, text)
        _write_record(folder, {**known, path: [_sha256(text)]})
    except OSError as error:
        raise StorageError(f"{folder}: cannot be written: {error}") from error


def difference(folder: Path, files: Mapping[str, str]) -> str:
    """A unified diff from what is there to `files`."""
    found = changes(folder, files)
    texts = {**dict.fromkeys(found.removed, ""), **found.written}
    return "".join(
        line
        for path, text in sorted(texts.items())
        for line in difflib.unified_diff(
            (_read(folder / path) or "").splitlines(keepends=True), text.splitlines(keepends=True), path, path
        )
    )


def _record(folder: Path) -> dict[str, list[str]]:
    text = _read(folder / RECORD)
    if text is None:
        return {}
    try:
        known = {PurePosixPath(path): list(digests) for path, digests in json.loads(text).items()}
    except (ValueError, AttributeError, TypeError):
        raise ConfigError(f"{folder / RECORD}: damaged; remove it, and all that differs counts as edited") from None
    inside = {path: digests for path, digests in known.items() if not path.is_absolute() and ".." not in path.parts}
    return {str(path): digests for path, digests in inside.items()}  # what is outside, no rendering wrote


def _write_record(folder: Path, digests: Mapping[str, list[str]]) -> None:
    _write(folder / RECORD, json.dumps(dict(sorted(digests.items())), indent=1) + "\n")


def _is_edited(file: Path, known: list[str]) -> bool:
    text = _read(file)
    return text is not None and _sha256(text) not in known


def _read(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from None


def _write(file: Path, text: str) -> None:
    write_atomically(file, lambda stream: stream.write(text.encode()))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
