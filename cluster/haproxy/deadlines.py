"""How long each application's answers, and the bodies sent to it, may take: asked of its replicas, which know the spec.

One HAProxy serves all applications of a Ray, with specs of their own, and Ray tells it names and addresses only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import NamedTuple

from heliostat.cluster.haproxy.settings import BODY_SECONDS, LONGEST_SECONDS

ASK_SECONDS = 1.0
"""How long a replica may take to say it. Ray waits for HAProxy to start, and one that is stuck must not hold it up."""


class Deadlines(NamedTuple):
    """Of an application, in seconds: `serve.timeout_seconds` and `serve.body_timeout_seconds`."""

    answer: float = LONGEST_SECONDS
    body: float = BODY_SECONDS


def deadlines(urls: Mapping[str, Sequence[str]], known: Path) -> dict[str, Deadlines]:
    """By application: the longest deadlines of its replicas, whose addresses with routes (`host:port/route`) are given.

    Where a replica does not say them, what the application last said, which `known` keeps, counts too; the defaults
    where nothing is known.
    """
    before: dict[str, Deadlines] = {}
    with suppress(OSError, ValueError, TypeError, AttributeError):
        before = {name: Deadlines(*map(float, one)) for name, one in json.loads(known.read_text()).items()}
    with ThreadPoolExecutor(max(1, sum(map(len, urls.values())))) as threads:
        asked = {name: threads.map(_said, addresses) for name, addresses in urls.items()}
        found = {name: _longest(list(said), before.get(name)) for name, said in asked.items()}
    known.write_text(json.dumps(before | {name: one for name, one in found.items() if one}))
    return {name: one or Deadlines() for name, one in found.items()}


def _longest(said: Sequence[Deadlines | None], before: Deadlines | None) -> Deadlines | None:
    known = [one for one in said if one]
    if before and len(known) < max(1, len(said)):
        known.append(before)
    return Deadlines(*map(max, zip(*known, strict=True))) if known else None


def _said(url: str) -> Deadlines | None:
    address, _, route = url.partition("/")
    connection = HTTPConnection(address, timeout=ASK_SECONDS)
    with suppress(OSError, HTTPException, ValueError, KeyError, TypeError):
        connection.request("GET", f"/{route}/health".replace("//", "/"))
        said = json.load(connection.getresponse())
        return Deadlines(float(said["timeout_seconds"]), float(said["body_timeout_seconds"]))
    return None
