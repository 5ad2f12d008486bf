"""Holds connections of a replica, and ends what is left on them once the replica is gone.

A program that `stream_guard` starts. It imports little and nothing of ours, so that it starts at once and stays small.
"""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress

HOLD, RELEASE = b"+", b"-"
_MESSAGE_BYTES = 16
_SEND_SECONDS = 5.0


def message(kind: bytes, number: int) -> bytes:
    """What the replica says: HOLD, beside which a connection comes, or RELEASE of what was held under the number."""
    return b"%s%0*d" % (kind, _MESSAGE_BYTES - 1, number)


def main(descriptor: str, words: str) -> None:
    """Reads the socket `descriptor` until its other end is closed, then writes `words` (in hex) on what is held."""
    if os.fork():
        return  # a process of its own: Ray ends the children of a replica with it
    os.setsid()
    with socket.socket(fileno=int(descriptor)) as replica:
        for connection in _left_over(replica):
            _say(connection, bytes.fromhex(words))


def _left_over(replica: socket.socket) -> list[int]:
    held: dict[bytes, int] = {}
    while True:
        said, descriptors, _, _ = socket.recv_fds(replica, _MESSAGE_BYTES, 1, socket.MSG_WAITALL)
        if not said:
            return list(held.values())
        kind, number = said[:1], said[1:]
        if kind == HOLD and descriptors:
            held[number] = descriptors[0]
        elif number in held:
            os.close(held.pop(number))


def _say(descriptor: int, words: bytes) -> None:
    with socket.socket(fileno=descriptor) as connection, suppress(OSError):
        connection.settimeout(_SEND_SECONDS)
        connection.sendall(words)
        connection.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    main(*sys.argv[1:])
