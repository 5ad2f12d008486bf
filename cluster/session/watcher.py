"""A process that ends a Ray as soon as the command that started it is gone, however it went (SIGKILL, a crash).

Ray ends most of its processes itself then; its agents first try for a minute to tell the dead cluster of it, and what
an actor has started stays for ever. The watcher waits for the end of a pipe from the command, so it costs nothing.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class Watcher:
    """The command's end of the pipe."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def watch(self, leader: int) -> None:
        """Ends the session of this process too: Ray's agents lose the mark in their environment."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"%d\n" % leader)
        self._process.stdin.flush()


@contextmanager
def watching(mark: str) -> Iterator[Watcher]:
    """Ends the processes with this mark if this process ends within the block."""
    command = [sys.executable, "-m", __name__, mark]
    silent = subprocess.DEVNULL
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=silent, stderr=silent, start_new_session=True
    ) as process:
        try:
            yield Watcher(process)
        finally:
            process.kill()


def main(mark: str) -> None:
    """Waits for the end of standard input, whose lines are the leaders of sessions; then kills what is left."""
    leaders = {int(line) for line in sys.stdin if line.strip()}
    from heliostat.cluster.session import processes
    from heliostat.cluster.session.discovery import forget_ended

    for _ in range(2):  # again, for those started while the others ended
        processes.end([*processes.family(mark), *processes.in_sessions(leaders)], seconds=0)
    forget_ended()


if __name__ == "__main__":
    main(sys.argv[1])
