"""If a replica is killed, its open streams still end with an error event: a helper process holds the connections."""

from __future__ import annotations

import socket
import subprocess
import sys
from contextlib import suppress
from itertools import count
from pathlib import Path

from heliostat.serve.errors import RequestError, sse_event
from heliostat.serve.http.stream_guard_process import HOLD, RELEASE, message

GONE = RequestError(503, "the replica that wrote this answer is gone; ask again", code="replica_lost")
"""The error event that ends a stream when its replica is killed."""
_PROGRAM = Path(__file__).with_name("stream_guard_process.py")


class StreamGuard:
    """Starts the helper process and talks to it; the process ends with the replica or on `close`."""

    def __init__(self) -> None:
        words = sse_event(GONE.body)
        self._numbers = count()
        self._socket, theirs = socket.socketpair()
        chunk = b"%x\r\n%s\r\n0\r\n\r\n" % (len(words), words)
        with theirs:
            command = [sys.executable, "-IS", str(_PROGRAM), str(theirs.fileno()), chunk.hex()]
            subprocess.run(command, pass_fds=[theirs.fileno()], check=True)
        self._socket.setblocking(False)

    def hold(self, connection: socket.socket) -> int:
        """Passes a connection with a chunked response to the process; returns the number to release it by."""
        number = next(self._numbers)
        with suppress(OSError):  # without the process, streams work as usual but are not guarded
            socket.send_fds(self._socket, [message(HOLD, number)], [connection.fileno()])
        return number

    def release(self, number: int) -> None:
        """Tells the process that the response on a connection is complete."""
        with suppress(OSError):
            self._socket.send(message(RELEASE, number))

    def close(self) -> None:
        """Stops the process, which first sends the error event on all connections that it still holds."""
        self._socket.close()
