"""Sets up the process of a command, so that neither its output nor its user's account can make it fail."""

from __future__ import annotations

import codecs
import getpass
import io
import os
import sys
import unicodedata
from pathlib import Path

from heliostat.infra.errors import ConfigError, StorageError

_PLAIN = {"…": "...", "–": "-", "—": "-", "·": "*", "•": "*", "×": "x", "≤": "<=", "≥": ">=", "→": "->", "√": "v"}


def prepare() -> None:
    """Sets up the process of a command: output that cannot fail for a sign, and a user with a name and a home.

    Raises ConfigError if the user has no home folder.
    """
    codecs.register_error("heliostat.plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not _takes_every_sign(stream):
            stream.reconfigure(errors="heliostat.plain")
    _name_user()


def _takes_every_sign(stream: io.TextIOWrapper) -> bool:
    return stream.encoding.lower().startswith("utf") and stream.errors != "strict"  # strict fails for half a pair


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    """Replaces what the terminal's encoding lacks by plain signs; a handler for `codecs.register_error`."""
    assert isinstance(error, UnicodeEncodeError)
    return "".join(map(_plain_sign, error.object[error.start : error.end])), error.end


def _plain_sign(sign: str) -> str:
    """The ASCII text closest to a sign that is drawn with: lines of boxes, dots of plots; `?` for a letter."""
    if sign in _PLAIN:
        return _PLAIN[sign]
    name = unicodedata.name(sign, "")
    if name.startswith("BOX DRAWINGS"):
        *words, last = name.split()
        if "AND" in words:
            return "+"
        return "-" if last in ("HORIZONTAL", "LEFT", "RIGHT") else "|"
    return "*" if name.startswith("BRAILLE") or name.endswith("BLOCK") else "?"


def _name_user() -> None:
    """Gives a user whom the system does not know (a container's arbitrary ID) a name, which Ray and torch ask for."""
    try:
        getpass.getuser()
    except (KeyError, OSError):  # OSError from Python 3.13
        os.environ["LOGNAME"] = f"user-{os.getuid()}"
    try:
        Path.home()
    except RuntimeError as error:
        raise ConfigError(f"HOME: not set, and user {os.getuid()} has no home here; set it to a folder") from error


def flush_output() -> None:
    """Writes what is buffered for standard output; raises StorageError if it cannot be written.

    Exits with code 1 if the reader of a pipe has gone, as `head` does: there is nobody to tell.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
        sys.exit(1)
    except OSError as error:
        _discard_output()
        raise StorageError(f"standard output: {error.strerror or error}") from error


def _discard_output() -> None:
    """Points standard output to nowhere, so that Python does not fail again when it flushes at its exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
