"""Checks of the cluster that this process has joined, one after the other; each is bounded in time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from heliostat.cluster.doctor.machine import Check
from heliostat.cluster.doctor.nodes import judge, links
from heliostat.cluster.doctor.nodes.cluster import START_SECONDS, Missing, Node, ask, nodes, offset_seconds, probes
from heliostat.cluster.doctor.nodes.facts import Facts, versions
from heliostat.cluster.doctor.nodes.storage import check_storage
from heliostat.infra.storage.config import StorageConfig

Tell = Callable[[str, int, int], None]
"""Takes what is being done, how much of it is, and of how much (0 where that is unknown)."""


@dataclass(frozen=True)
class Answering:
    """Nodes that answered, with their actors and facts by name, and those that did not."""

    nodes: Sequence[Node]
    actors: Mapping[str, Any]
    facts: Mapping[str, Facts]
    silent: Mapping[str, Missing] = field(default_factory=dict)


def cluster_checks(storage: StorageConfig | None, bandwidth: bool, tell: Tell) -> list[Check]:
    """Runs all checks; without a storage, nodes are not asked for theirs, and without `bandwidth` nothing is sent.

    Takes some seconds, half a minute more with `bandwidth`, and a minute more where a node does not answer.
    """
    known = nodes()
    with probes([node for node in known if node.is_alive]) as actors:
        tell("asking the nodes", 0, 0)
        there = _roll_call(known, actors)
        checks = judge.nodes_found(known, there.silent) + _of_facts(there)
        tell("clocks and names", 0, 0)
        checks += judge.clocks({name: offset_seconds(actor) for name, actor in there.actors.items()}) + _names(there)
        tell("storage", 0, 0)
        checks += check_storage(storage, there.actors) if storage else [_NO_STORAGE]
        return checks + (_bandwidth(there, tell) if bandwidth else [])


_NO_STORAGE = Check(
    "storage", "pass", "not tried: give a SPEC, or set HELIOSTAT_STORAGE, to write there from each node"
)


def _roll_call(known: Sequence[Node], actors: Mapping[str, Any]) -> Answering:
    alive = {node.name: node for node in known if node.name in actors and node.is_alive}
    calls = {name: actors[name].facts.remote(node.address) for name, node in alive.items()}
    answers = ask(calls, START_SECONDS)
    silent = {name: answer for name, answer in answers.items() if isinstance(answer, Missing)}
    answered = [node for name, node in alive.items() if name not in silent]
    return Answering(
        answered,
        {node.name: actors[node.name] for node in answered},
        {node.name: answers[node.name] for node in answered},
        silent,
    )


def _of_facts(there: Answering) -> list[Check]:
    """Hardware, shared memory and versions."""
    facts = there.facts
    return [
        *judge.together("hardware", {node.name: judge.hardware(node, facts[node.name]) for node in there.nodes}),
        *judge.together("shared memory", {node.name: judge.memory(node, facts[node.name]) for node in there.nodes}),
        *judge.versions(
            {**{name: one["versions"] for name, one in facts.items()}, judge.THIS_MACHINE: versions()},
        ),
    ]


def _names(there: Answering) -> list[Check]:
    """Names that nodes are known by, as each of them resolves these; nothing is asked for plain addresses."""
    addresses = {node.address for node in there.nodes}
    wanted = sorted(address for address in addresses if not address.replace(".", "").isdigit() and ":" not in address)
    answers = ask({name: actor.resolve.remote(wanted) for name, actor in there.actors.items()})
    of_nodes: dict[str, judge.Verdict] = {}
    for node in there.nodes:
        answer = answers[node.name]
        if isinstance(answer, Missing):
            of_nodes[node.name] = ("fail", answer.why, "its resolver does not answer: /etc/resolv.conf there")
        else:
            of_nodes[node.name] = judge.names(node.address, wanted, answer, several=len(addresses) > 1)
    return judge.together("names", of_nodes)


def _bandwidth(there: Answering, tell: Tell) -> list[Check]:
    tell("all-reduce", 0, 0)
    found = links.measure(
        there.actors,
        {node.name: node.address for node in there.nodes},
        [name for name, facts in there.facts.items() if facts["gpus"] and not facts["cuda_trouble"]],
        lambda done, total: tell("all-reduce", done, total),
    )
    return links.judge(found)
