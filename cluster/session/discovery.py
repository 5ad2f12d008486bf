"""Removes the list of metrics agents that a Ray leaves behind: Prometheus would ask for its nodes for ever."""

from __future__ import annotations

from contextlib import suppress

from heliostat.cluster.folders import ray_folder
from heliostat.cluster.scrape import DISCOVERY
from heliostat.cluster.session.processes import started_at


def forget_ended() -> bool:
    """Removes the discovery file in the user's Ray folder if its Ray has ended; returns whether it did.

    It is a link into the folder of a session, whose name ends with the process ID of what started it. Ray never
    removes it, and neither does a command that is killed.
    """
    link = ray_folder() / DISCOVERY
    with suppress(OSError):
        pid = link.readlink().parent.name.rpartition("_")[2]
        if pid.isdigit() and started_at(int(pid)) is None:
            link.unlink()
            return True
    return False
