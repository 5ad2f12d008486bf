"""A rendered file that is written over only where nobody has edited it."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from heliostat.infra.errors import ConfigError, StorageError
from heliostat.infra.storage.local import write_atomically

_MARK = "# sha256 of the lines below: "


def write(file: Path, text: str, *, force: bool = False) -> bool:
    """Makes `file` hold `text` below a line with its digest; returns whether it did not already.

    Raises ConfigError, before anything is written, if there is a file that was not written here, or edited since, and
    `force` is not given; StorageError if it cannot be written.
    """
    content = marked(text)
    before = _read(file)
    if before == content:
        return False
    if before is not None and not force and not _is_ours(before):
        raise ConfigError(f"{file}: changed since it was rendered, or never was; --force overwrites it")
    try:
        write_atomically(file, lambda stream: stream.write(content.encode()))
    except OSError as error:
        raise StorageError(f"{file}: cannot be written: {error}") from error
    return True


def marked(text: str) -> str:
    """The text below a line with its digest."""
    return f"{_MARK}{_digest(text)}\n{text}"


def _is_ours(content: str) -> bool:
    match = re.match(rf"{_MARK}([0-9a-f]{{64}})\n", content)
    return match is not None and _digest(content[match.end() :]) == match[1]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _read(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from None
