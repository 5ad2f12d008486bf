"""Streams whose replica is killed still end with an error event: a process beside it holds their connections too."""

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
"""The last event of a stream that its replica could not end."""
_PROGRAM = Path(__file__).with_name("stream_guard_process.py")


class StreamGuard:
    """The process, from the replica's side; it ends with the replica, or when it is closed."""

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
        """Keeps a connection on which a chunked answer has begun; returns what releases it."""
        number = next(self._numbers)
        with suppress(OSError):  # without the process, streams go on as they would
            socket.send_fds(self._socket, [message(HOLD, number)], [connection.fileno()])
        return number

    def release(self, number: int) -> None:
        """The answer on a connection is at its end."""
        with suppress(OSError):
            self._socket.send(message(RELEASE, number))

    def close(self) -> None:
        """Ends the process; connections that it holds get the error event."""
        self._socket.close()
