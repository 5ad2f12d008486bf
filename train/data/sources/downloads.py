"""HTTP downloads that resume: what was received before a connection broke is kept, and the next attempt continues."""

from __future__ import annotations

import base64
import hashlib
import http.client
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path

from heliostat.infra import log
from heliostat.infra.errors import StorageError

ATTEMPTS = 5
"""Consecutive attempts without progress; an attempt that receives bytes resets the count."""
PAUSE_SECONDS = 1.0
"""Pause before the second attempt; doubled before each one after it."""
TIMEOUT_SECONDS = 60.0
"""Longest wait for a byte."""
BLOCK_BYTES = 1 << 20

_PASSING = (408, 425, 429)
"""Client errors worth a retry, like all status codes from 500 on."""
_LOGIN = (401, 403, 407)
_STRENGTHS = ("sha512", "sha384", "sha256", "sha1")
_log = log.get(__name__)


def download(url: str, file: Path, integrity: str) -> None:
    """Downloads `url` to `file` and checks it against `integrity`: `sha512-` and base64, as npm writes it.

    Partial downloads are kept in `<file>.part`, for the next attempt or the next call. Raises StorageError if the file
    cannot be downloaded or its checksum differs, and PermissionError if the server denies access.
    """
    part = file.with_name(f"{file.name}.part")
    resumed = part.exists()
    _complete(url, part)
    if resumed and not _matches(part, integrity):  # the kept part may have been of another file
        part.unlink()
        _complete(url, part)
    if not _matches(part, integrity):
        part.unlink()
        raise StorageError(f"{url}: its bytes do not have the checksum {integrity}; nothing of them is kept")
    part.rename(file)


def _complete(url: str, part: Path) -> None:
    """Appends to `part`, with retries, until it is complete."""
    if not url.startswith(("http://", "https://")):
        raise StorageError(f"{url}: an address with http:// or https:// is needed")
    fruitless = 0
    reason: Exception | None = None
    while fruitless < ATTEMPTS:
        if fruitless:
            time.sleep(PAUSE_SECONDS * 2 ** (fruitless - 1))
        before = _size_bytes(part)
        try:
            _append(url, part)
            return
        except (OSError, http.client.HTTPException) as error:
            _raise_if_final(error, url)
            fruitless = 1 if _size_bytes(part) > before else fruitless + 1
            _log.info("%s: broken off at %.1f MB: %s", url, _size_bytes(part) / 1e6, error)
            reason = error
    kept = f"the {_size_bytes(part) / 1e6:.1f} MB that came are kept for the next time"
    raise StorageError(f"{url}: {reason}, after {ATTEMPTS} attempts in a row; {kept}")


def _append(url: str, part: Path) -> None:
    """Requests the missing bytes of `part`; a server without range requests sends the whole file, which replaces it."""
    have = _size_bytes(part)
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
            length = int(response.headers.get("Content-Length") or 0)
            goes_on = response.status == http.HTTPStatus.PARTIAL_CONTENT
            _log.info("%s: %.1f MB%s", url, length / 1e6, " more" if goes_on else "")
            came = _copied(response, part, "ab" if goes_on else "wb")
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            return  # the file is complete; the checksum will tell
        raise
    if came < length:
        raise ConnectionError(f"{length - came} bytes are missing")


def _copied(response: http.client.HTTPResponse, part: Path, how: str) -> int:
    came = 0
    with part.open(how) as file:
        while block := response.read(BLOCK_BYTES):
            came += file.write(block)
    return came


def _raise_if_final(error: Exception, url: str) -> None:
    """Raises for errors that a retry would not fix."""
    untrusted = isinstance(getattr(error, "reason", None), ssl.SSLCertVerificationError)
    code = error.code if isinstance(error, urllib.error.HTTPError) else None
    if untrusted or code in _LOGIN:
        raise PermissionError(f"{url}: {error}") from error
    if code and code < http.HTTPStatus.INTERNAL_SERVER_ERROR and code not in _PASSING:
        raise StorageError(f"{url}: {error}") from error


def _matches(file: Path, integrity: str) -> bool:
    """Whether the file has the strongest of the checksums; any of them if there are several of that kind."""
    sums = [part.partition("?")[0].partition("-") for part in integrity.split()]
    strongest = next((kind for kind in _STRENGTHS if any(kind == name for name, _, _ in sums)), None)
    if strongest is None:
        raise StorageError(f"{integrity!r} is no checksum that is known; {', '.join(_STRENGTHS)} are")
    digest = hashlib.new(strongest, usedforsecurity=False)
    with file.open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            digest.update(block)
    found = base64.b64encode(digest.digest()).decode()
    return any((name, value) == (strongest, found) for name, _, value in sums)


def _size_bytes(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
