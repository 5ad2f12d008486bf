"""Helper process that holds a replica's connections, and ends their streams when the replica dies.

Started as a program by `stream_guard`. It imports only a few standard modules, so that it starts fast and stays small.
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
    """One message to the process: HOLD, sent along with a connection's descriptor, or RELEASE of that number."""
    return b"%s%0*d" % (kind, _MESSAGE_BYTES - 1, number)


def main(descriptor: str, words: str) -> None:
    """Reads the socket `descriptor` until the replica closes it, then writes `words` (hex) to all held connections."""
    if os.fork():
        return  # detach: Ray kills the child processes of a replica with it
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
