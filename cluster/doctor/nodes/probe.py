"""The process on each node that the command asks. Sent by value, as `facts` is."""

from __future__ import annotations

import time
from typing import Any

from heliostat.cluster.doctor.nodes.bandwidth import Meeting, measure, open_store
from heliostat.cluster.doctor.nodes.facts import Facts, facts, resolved
from heliostat.cluster.doctor.nodes.storing import Place, Stored, try_storage


class Probe:
    """Answers one question at a time, in plain values."""

    def __init__(self) -> None:
        self._store: Any = None

    def facts(self, address: str) -> Facts:
        """What is on this node."""
        return facts(address)

    def clock(self) -> float:
        """Unix time here."""
        return time.time()

    def resolve(self, names: list[str]) -> dict[str, list[str]]:
        """IP addresses of each name, and of this host's own under the empty one."""
        import socket

        return {"": resolved(socket.gethostname()), **{name: resolved(name) for name in names}}

    def storage(self, place: Place) -> Stored:
        """Whether storage can be used from here."""
        return try_storage(place)

    def meet(self, address: str) -> int:
        """Imports PyTorch and opens a store for all-reduces at this node's address; returns its port."""
        import torch

        torch.set_num_threads(1)
        self._store = self._store or open_store(address)
        return int(self._store.port)

    def all_reduce(self, meeting: Meeting, rank: int) -> float:
        """Bus bandwidth of an all-reduce with other nodes, in bytes per second."""
        return measure(meeting, rank)
