"""The nodes of the Ray cluster that this process has joined, and a process on each that can be asked.

The processes reserve nothing, so a full cluster is asked too, and end with the block, or with this process.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from heliostat.cluster.session.interrupts import interrupts_ignored

START_SECONDS = 60.0
"""For the first answer of a node, whose process starts with it; a code upload may come before."""
ANSWER_SECONDS = 60.0
"""For any other answer, unless a check says less."""
_CODE = "heliostat.cluster.doctor.nodes"


@dataclass(frozen=True)
class Node:
    """A node as Ray's head knows it."""

    id: str
    address: str
    """Its IP address, or the name that it was started with."""
    name: str
    """The address, with the beginning of the ID where several nodes share one."""
    is_alive: bool
    resources: Mapping[str, float]


@dataclass(frozen=True)
class Missing:
    """In place of a node's answer."""

    why: str


def nodes() -> list[Node]:
    """All nodes, lost ones too, in the order of their names."""
    import ray

    found: list[dict[str, Any]] = ray.nodes()
    addresses = [one["NodeManagerAddress"] for one in found if one["Alive"]]
    return sorted(
        (
            Node(
                one["NodeID"],
                one["NodeManagerAddress"],
                name_of(one["NodeManagerAddress"], one["NodeID"], addresses),
                bool(one["Alive"]),
                dict(one["Resources"]),
            )
            for one in found
        ),
        key=lambda node: node.name,
    )


def name_of(address: str, identity: str, addresses: Sequence[str]) -> str:
    """The address where it is the only such one."""
    return address if addresses.count(address) < 2 else f"{address} ({identity[:6]})"


@contextmanager
def probes(on: Sequence[Node]) -> Iterator[dict[str, Any]]:
    """An actor on each node, by the node's name, that is ended with the block. Actors may never come up: ask them."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    actors: dict[str, Any] = {}
    try:
        with _by_value():
            from heliostat.cluster.doctor.nodes.probe import Probe

            remote = ray.remote(num_cpus=0, num_gpus=0, max_restarts=0)(Probe)
            for node in on:
                pinned = NodeAffinitySchedulingStrategy(node.id, soft=False)
                actors[node.name] = remote.options(scheduling_strategy=pinned).remote()
        yield actors
    finally:
        with interrupts_ignored():
            for actor in actors.values():
                ray.kill(actor)


@contextmanager
def _by_value() -> Iterator[None]:
    """What nodes run travels with the call: they may have another Heliostat, or none."""
    import importlib

    from ray import cloudpickle

    module = importlib.import_module(_CODE)
    cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        cloudpickle.unregister_pickle_by_value(module)


def ask(calls: Mapping[str, Any], seconds: float = ANSWER_SECONDS) -> dict[str, Any]:
    """The answer to each call (the reference that `actor.method.remote` gives), or a Missing after so many seconds.

    The keys are those of `calls`, in their order.
    """
    import ray

    if not calls:
        return {}
    ready, _ = ray.wait(list(calls.values()), num_returns=len(calls), timeout=seconds)
    in_time = set(ready)
    return {
        name: _answer(call) if call in in_time else Missing(f"no answer in {seconds:.0f} s")
        for name, call in calls.items()
    }


def _answer(call: Any) -> Any:
    import ray

    try:
        return ray.get(call, timeout=ANSWER_SECONDS)
    except Exception as error:  # of the probe, in Ray's wrapper; of Ray; of a node that goes: told beside the others
        return Missing(one_line(error))


def one_line(error: Exception) -> str:
    """What happened, without Ray's traceback, in 200 characters at most."""
    cause = getattr(error, "cause", None)
    text = f"{type(cause).__name__}: {cause}" if isinstance(cause, Exception) else str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]


def offset_seconds(actor: Any, times: int = 5, patience_seconds: float = 2.0) -> tuple[float, float] | None:
    """How far the actor's clock is ahead of this machine's, and the uncertainty of that; None without an answer.

    The middle of the shortest of some round trips, as in NTP (RFC 5905, section 8): the uncertainty is half of it.
    """
    import ray

    best: tuple[float, float] | None = None
    for _ in range(times):
        sent, start = time.time(), time.perf_counter()
        try:
            there = float(ray.get(actor.clock.remote(), timeout=patience_seconds))
        except Exception:  # a node that has gone or is frozen: the caller names it
            return best
        trip = time.perf_counter() - start
        if best is None or trip / 2 < best[1]:
            best = there - (sent + trip / 2), trip / 2
    return best
