"""Finds the slowest link between nodes: an all-reduce of each pair of nodes, in rounds, and one of all nodes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from heliostat.cluster.doctor.machine import Check
from heliostat.cluster.doctor.nodes.bandwidth import Meeting
from heliostat.cluster.doctor.nodes.cluster import START_SECONDS, Missing, ask

TOTAL_SECONDS = 30.0
"""For all measurements; starting PyTorch on the nodes comes before."""
LONGEST_SECONDS = 3.0
PATIENCE_SECONDS = 10.0
"""How long members of a measurement wait for each other."""
SLOW = 0.5
"""A pair is slow below this share of the median pair."""
NAME = "all-reduce"
NO_GPU = "it has no GPU"

Pair = tuple[str, str]


@dataclass
class Measured:
    """Bus bandwidths, in bytes per second."""

    backend: str
    pairs: dict[Pair, float] = field(default_factory=dict)
    failed: dict[Pair, str] = field(default_factory=dict)
    """Pairs that could not be measured, and why."""
    possible: int = 0
    """How many pairs there are; the time may not have sufficed for all."""
    together: float | Missing | None = None
    """All nodes at once; None where they are only two."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Nodes that took no part, and why."""


@dataclass(frozen=True)
class Member:
    """A node that takes part."""

    actor: Any
    address: str
    port: int


def rounds(names: Sequence[str]) -> list[list[Pair]]:
    """All pairs, in rounds in which each name is at most once: a round-robin tournament by the circle method.

    n − 1 rounds for an even number of names, n for an odd one, in which one name pauses each time.
    """
    circle: list[str | None] = [*names, *([None] if len(names) % 2 else [])]
    found = []
    for _ in range(len(circle) - 1):
        half = len(circle) // 2
        facing = zip(circle[:half], reversed(circle[half:]), strict=True)
        found.append([(one, other) for one, other in facing if one is not None and other is not None])
        circle = [circle[0], circle[-1], *circle[1:-1]]
    return found


def measure(
    actors: Mapping[str, Any],
    addresses: Mapping[str, str],
    with_gpu: Sequence[str],
    tell: Callable[[int, int], None],
) -> Measured:
    """Measures every pair of nodes, and all together, in about TOTAL_SECONDS; `tell` gets rounds done, and of how many.

    With NCCL where two nodes or more have GPUs, between these; with gloo between all otherwise.
    """
    backend = "nccl" if len(with_gpu) > 1 else "gloo"
    found = Measured(backend)
    taking_part = list(with_gpu) if backend == "nccl" else list(actors)
    found.left_out = {name: NO_GPU for name in actors if name not in taking_part}
    ports = ask({name: actors[name].meet.remote(addresses[name]) for name in taking_part}, START_SECONDS)
    found.left_out |= {name: port.why for name, port in ports.items() if isinstance(port, Missing)}
    members = {
        name: Member(actors[name], addresses[name], port)
        for name, port in ports.items()
        if not isinstance(port, Missing)
    }
    _measure_rounds(members, found, tell)
    return found


def _measure_rounds(members: Mapping[str, Member], found: Measured, tell: Callable[[int, int], None]) -> None:
    """The pairs, as long as there is time, and then all together if each pair could be measured."""
    planned, until = rounds(list(members)), time.monotonic() + TOTAL_SECONDS
    found.possible = sum(map(len, planned))
    seconds = min(LONGEST_SECONDS, TOTAL_SECONDS / (len(planned) + 1))
    for number, pairs in enumerate(planned):
        tell(number, len(planned) + 1)
        if time.monotonic() >= until:
            break
        answers = all_reduces(members, pairs, found.backend, seconds)
        for pair, answer in zip(pairs, answers, strict=True):
            if isinstance(answer, Missing):
                found.failed[pair] = answer.why
            else:
                found.pairs[pair] = answer
    if len(members) > 2 and not found.failed:
        [found.together] = all_reduces(members, [tuple(members)], found.backend, seconds)


def all_reduces(
    members: Mapping[str, Member], groups: Sequence[Sequence[str]], backend: str, seconds: float
) -> list[float | Missing]:
    """The bus bandwidth of each group, all at the same time; a Missing where a member of it failed."""
    calls: dict[str, Any] = {}
    for group in groups:
        first = members[group[0]]
        meeting: Meeting = {
            "name": f"{time.monotonic_ns()} {' '.join(group)}",
            "host": first.address,
            "port": first.port,
            "backend": backend,
            "size": len(group),
            "seconds": seconds,
            "patience_seconds": PATIENCE_SECONDS,
        }
        calls |= {name: members[name].actor.all_reduce.remote(meeting, rank) for rank, name in enumerate(group)}
    answers = ask(calls, seconds * 2 + PATIENCE_SECONDS * 2)
    return [_of_group([answers[name] for name in group]) for group in groups]


def _of_group(answers: Sequence[float | Missing]) -> float | Missing:
    return next((one for one in answers if isinstance(one, Missing)), answers[0])


def slow_pairs(pairs: Mapping[Pair, float]) -> list[Pair]:
    """Pairs below half of the median pair, slowest first."""
    if not pairs:
        return []
    limit = SLOW * statistics.median(pairs.values())
    return sorted((pair for pair, speed in pairs.items() if speed < limit), key=lambda pair: pairs[pair])


def judge(found: Measured) -> list[Check]:
    """Lines of the report: pairs, all together, and nodes that took no part."""
    checks = [_of_pairs(found), *_together(found)] if found.pairs else []
    checks += [_failed(pair, why) for pair, why in found.failed.items()]
    if not checks:
        checks.append(Check(NAME, "pass", "not measured: it takes two nodes"))
    return checks + [
        Check(NAME, "pass" if why == NO_GPU else "warn", f"{node} takes no part: {why}")
        for node, why in found.left_out.items()
    ]


def _failed(pair: Pair, why: str) -> Check:
    said = f"{_pair(pair)}: {why.partition(', keys: ')[0]}"  # of PyTorch's store, which tell nobody anything
    if "out of memory" in why:
        return Check(NAME, "warn", said, "its memory is in use: measure when that job has ended")
    return Check(NAME, "fail", said, "these nodes do not reach each other: firewall, host names?")


def _of_pairs(found: Measured) -> Check:
    speeds = found.pairs
    slowest = min(speeds, key=lambda pair: speeds[pair])
    said = f"{found.backend}, {len(speeds)} of {found.possible} pairs: slowest {_pair(slowest)} {rate(speeds[slowest])}"
    if len(speeds) > 1:
        said += f", median {rate(statistics.median(speeds.values()))}"
    slow = slow_pairs(speeds)
    if not slow:
        return Check(NAME, "pass", said)
    shared = set(slow[0]).intersection(*map(set, slow)) if len(slow) > 1 else set()
    where = f"all slow pairs have {min(shared)}" if shared else f"slow: {', '.join(map(_pair, slow[:3]))}"
    advice = "below half of the median pair: look at that link, its interface and what else uses it"
    return Check(NAME, "warn", f"{said}; {where}", advice)


def _together(found: Measured) -> list[Check]:
    if isinstance(found.together, Missing):
        return [Check(NAME, "fail", f"all nodes together: {found.together.why}", "each pair works; try again")]
    return [Check(NAME, "pass", f"all nodes together: {rate(found.together)}")] if found.together else []


def _pair(pair: Pair) -> str:
    return " – ".join(pair)


def rate(bytes_per_second: float) -> str:
    """Bus bandwidth for people: `1.25 GB/s`, `12.3 MB/s`."""
    giga = bytes_per_second >= 1e9
    return f"{bytes_per_second / (1e9 if giga else 1e6):.3g} {'GB' if giga else 'MB'}/s"
