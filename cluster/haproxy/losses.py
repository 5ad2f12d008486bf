"""Which requests have been lost as often as they may be: handed on from one HAProxy to the one that replaces it.

A loss is followed by a change of replicas, so by a new HAProxy, whose own table starts empty. The one that ends empties
its table too, while connections that it has may still send requests.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from heliostat.cluster.haproxy.rules import LOSSES, LOST_TABLE

ASK_SECONDS = 2.0
_AT_ONCE = 100
"""Commands on a line for HAProxy, which takes 16 KB."""


def keep(admin_sockets: Sequence[str], file: Path) -> None:
    """Writes the requests that the running HAProxy refuses, if there is one, into `file`, and keeps those of before.

    A line is the request and when it is taken again, in seconds since 1970: a map as HAProxy reads them. The running
    one, which has this map from its start, is told as well.
    """
    found = {name: until for name, until in _written(file).items() if until > time.time()}
    for path in admin_sockets:
        with suppress(OSError):
            found |= _refused(path, file)
    file.write_text("".join(f"{name} {until}\n" for name, until in sorted(found.items())))


def _written(file: Path) -> dict[str, int]:
    with suppress(OSError):
        return {name: int(until) for name, until in map(str.split, file.read_text().splitlines())}
    return {}


def _refused(path: str, file: Path) -> dict[str, int]:
    said = _say(path, f"show table {LOST_TABLE} data.gpc0 ge {LOSSES}")
    lines = re.findall(r"key=(\S+) .*\bexp=(\d+) .*\bgpc1=0\b", said)
    found = {name: int(time.time() + int(milliseconds) / 1000) + 1 for name, milliseconds in lines}
    for some in _batches([f"add map {file} {name} {until}" for name, until in found.items()]):
        _say(path, "; ".join(some))
    return found


def _batches(commands: Sequence[str]) -> Iterator[Sequence[str]]:
    return (commands[at : at + _AT_ONCE] for at in range(0, len(commands), _AT_ONCE))


def _say(path: str, command: str) -> str:
    with socket.socket(socket.AF_UNIX) as admin:
        admin.settimeout(ASK_SECONDS)
        admin.connect(path)
        admin.sendall(f"{command}\n".encode())
        return b"".join(iter(lambda: admin.recv(65536), b"")).decode()
