"""What the page may ask of Prometheus: three paths of its HTTP API, within bounds; everything else is refused."""

from __future__ import annotations

import json
import math
import re
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qs, urlencode

from heliostat.cluster.loopback import RefusedError

MAX_QUERY_CHARACTERS: Final = 8192
MAX_RANGE_SECONDS: Final = 31 * 86400.0
MAX_POINTS: Final = 2000
"""Of one series."""
MAX_ANSWER_BYTES: Final = 32 << 20
ANSWER_SECONDS: Final = 20.0
AT_ONCE: Final = 6
"""Queries that Prometheus answers for the page at the same time; others wait."""
WAIT_SECONDS: Final = 10.0

ALLOWED: Final = {
    r"/api/v1/query": {"query", "time"},
    r"/api/v1/query_range": {"query", "start", "end", "step"},
    r"/api/v1/label/[a-zA-Z_][a-zA-Z0-9_]*/values": {"match[]", "start", "end"},
}
"""Pattern of a path -> its parameters, each of them at most once."""
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open  # the loopback is behind no proxy


@dataclass(frozen=True)
class Proxy:
    """Asks one Prometheus."""

    prometheus: str
    """Its address, as `http://127.0.0.1:9090`."""
    _slots: threading.BoundedSemaphore = field(default_factory=lambda: threading.BoundedSemaphore(AT_ONCE))

    def ask(self, path: str, query_string: str) -> bytes:
        """The JSON that Prometheus answers, its own errors included; raises RefusedError."""
        parameters = checked(path, query_string)
        if not self._slots.acquire(timeout=WAIT_SECONDS):
            raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, "too many queries at the same time; ask again")
        try:
            return self._fetch(f"{self.prometheus}{path}?{urlencode(parameters)}")
        finally:
            self._slots.release()

    def _fetch(self, url: str) -> bytes:
        try:
            with _open(url, timeout=ANSWER_SECONDS) as answer:
                body: bytes = answer.read(MAX_ANSWER_BYTES + 1)
        except urllib.error.HTTPError as error:
            raise RefusedError(HTTPStatus.BAD_GATEWAY, _why(error)) from error
        except OSError as error:
            why = getattr(error, "reason", error)
            raise RefusedError(
                HTTPStatus.BAD_GATEWAY, f"Prometheus at {self.prometheus} does not answer: {why}"
            ) from error
        if len(body) > MAX_ANSWER_BYTES:
            raise RefusedError(
                HTTPStatus.BAD_GATEWAY, f"the answer has more than {MAX_ANSWER_BYTES >> 20} MiB; narrow it down"
            )
        return body


def checked(path: str, query_string: str) -> dict[str, str]:
    """The parameters, each of which Prometheus may be asked with; raises RefusedError."""
    allowed = next((names for pattern, names in ALLOWED.items() if re.fullmatch(pattern, path)), None)
    if allowed is None:
        raise RefusedError(HTTPStatus.NOT_FOUND, f"{path}: not a path that this page asks")
    given = parse_qs(query_string, keep_blank_values=True)
    for name, values in given.items():
        if name not in allowed or len(values) > 1:
            raise RefusedError(
                HTTPStatus.BAD_REQUEST, f"{name}: allowed are {', '.join(sorted(allowed))}, each at most once"
            )
    found = {name: values[0] for name, values in given.items()}
    for name in found.keys() & {"query", "match[]"}:
        if len(found[name]) > MAX_QUERY_CHARACTERS:
            raise RefusedError(HTTPStatus.BAD_REQUEST, f"{name}: more than {MAX_QUERY_CHARACTERS} characters")
    _check_range(found, needs_step="step" in allowed)
    return found


def _check_range(given: dict[str, str], needs_step: bool) -> None:
    numbers = {name: _number(name, given[name]) for name in ("start", "end", "step", "time") if name in given}
    if needs_step and not numbers.keys() >= {"start", "end", "step"}:
        raise RefusedError(HTTPStatus.BAD_REQUEST, "start, end, step: a range needs all of them")
    seconds = numbers.get("end", 0.0) - numbers.get("start", 0.0) if {"start", "end"} <= numbers.keys() else 0.0
    if not 0 <= seconds <= MAX_RANGE_SECONDS:
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"end - start: from 0 to {MAX_RANGE_SECONDS:.0f} seconds")
    if needs_step and (numbers["step"] <= 0 or seconds / numbers["step"] > MAX_POINTS):
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"step: above 0, and at most {MAX_POINTS} points in the range")


def _number(name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"{name}: {text[:40]!r} is not a number of seconds")
    return number


def _why(error: urllib.error.HTTPError) -> str:
    """What Prometheus says of a query that it refuses, such as where it cannot be parsed."""
    try:
        return str(json.loads(error.read(MAX_QUERY_CHARACTERS * 2))["error"])
    except (OSError, ValueError, KeyError, TypeError):
        return f"Prometheus answers {error.code} {error.reason}"
