"""How long the answers of each application may take: asked of its replicas, which know the spec.

One HAProxy serves all applications of a Ray, with specs of their own, and Ray tells it names and addresses only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from heliostat.cluster.haproxy.settings import LONGEST_SECONDS

ASK_SECONDS = 1.0
"""How long a replica may take to say it. Ray waits for HAProxy to start, and one that is stuck must not hold it up."""


def answer_seconds(urls: Mapping[str, Sequence[str]], known: Path) -> dict[str, float]:
    """By application: the longest answer of its replicas, whose addresses with routes (`host:port/route`) are given.

    Where a replica does not say it, what the application last said, which `known` keeps, counts too; LONGEST_SECONDS
    where nothing is known.
    """
    before: dict[str, float] = {}
    with suppress(OSError, ValueError):
        before = json.loads(known.read_text())
    with ThreadPoolExecutor(max(1, sum(map(len, urls.values())))) as threads:
        asked = {name: threads.map(_said, addresses) for name, addresses in urls.items()}
        found = {name: _longest(list(said), before.get(name)) for name, said in asked.items()}
    known.write_text(json.dumps(before | found))
    return {name: found[name] or LONGEST_SECONDS for name in urls}


def _longest(said: Sequence[float | None], before: float | None) -> float | None:
    known = [one for one in said if one is not None]
    if before is not None and len(known) < max(1, len(said)):
        known.append(before)
    return max(known, default=None)


def _said(url: str) -> float | None:
    address, _, route = url.partition("/")
    connection = HTTPConnection(address, timeout=ASK_SECONDS)
    with suppress(OSError, HTTPException, ValueError, KeyError, TypeError):
        connection.request("GET", f"/{route}/health".replace("//", "/"))
        return float(json.load(connection.getresponse())["timeout_seconds"])
    return None
