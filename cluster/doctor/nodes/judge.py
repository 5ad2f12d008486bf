"""What the answers of the nodes mean: lines of the report. Pure; nodes that say the same share a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from heliostat.cluster.doctor.machine import Check
from heliostat.cluster.doctor.nodes.cluster import Missing, Node
from heliostat.cluster.doctor.nodes.facts import Facts
from heliostat.infra.memory import GIB

Verdict = tuple[Literal["pass", "warn", "fail"], str, str]
"""Status, what was found, what to do."""
THIS_MACHINE = "this command"
"""Name of the process that asks, among those of the nodes, where versions are compared."""
ACCELERATORS = ("GPU", "TPU", "HPU", "NPU", "neuron_cores")
"""Ray's names of the resources that are accelerators."""
SKEW_WARN_SECONDS = 1.0
"""From here on, lines and spans of two nodes are told in the wrong order."""
SKEW_FAIL_SECONDS = 900.0
"""AWS refuses requests that were signed more than 15 minutes ago
(https://docs.aws.amazon.com/AmazonS3/latest/API/API_Error.html, RequestTimeTooSkewed)."""
MOST_NAMES = 5


def together(name: str, verdicts: Mapping[str, Verdict]) -> list[Check]:
    """A line for each different verdict, with the nodes that it holds for."""
    groups: dict[Verdict, list[str]] = {}
    for node, verdict in verdicts.items():
        groups.setdefault(verdict, []).append(node)
    return [
        Check(name, status, f"{_names(nodes, len(verdicts))}: {found}", advice)
        for (status, found, advice), nodes in groups.items()
    ]


def _names(nodes: Sequence[str], of: int) -> str:
    if len(nodes) == of > 1:
        return f"all {of} nodes"
    more = f" and {len(nodes) - MOST_NAMES} more" if len(nodes) > MOST_NAMES else ""
    return ", ".join(nodes[:MOST_NAMES]) + more


def nodes_found(nodes: Sequence[Node], silent: Mapping[str, Missing]) -> list[Check]:
    """How many nodes there are and answer; a line for each that does not."""
    alive = [node for node in nodes if node.is_alive]
    gone = len(nodes) - len(alive)
    found = f"{len(alive) - len(silent)} of {len(alive)} answer" + (f"; {gone} left earlier" if gone else "")
    advice = "look at its raylet, memory and network (ray status, ray logs); the checks below leave it out"
    return [
        Check("nodes", "fail" if silent else "pass", found, "see below" if silent else ""),
        *(Check("node", "fail", f"{name}: {missing.why}", advice) for name, missing in silent.items()),
    ]


def hardware(node: Node, facts: Facts) -> Verdict:
    """Accelerators and links of a node, against what Ray offers there."""
    cpus, offered = node.resources.get("CPU", 0), int(node.resources.get("GPU", 0))
    kinds = [f"{node.resources[kind]:g} {kind}" for kind in ACCELERATORS if node.resources.get(kind)]
    said = [f"{cpus:g} CPU", *kinds]
    said += _counted(facts["gpus"])
    said += [f"{name} {facts['versions'][name]}" for name in ("NVIDIA driver", "NCCL") if name in facts["versions"]]
    found = ", ".join([*said, *facts["links"]])
    if len(facts["gpus"]) > offered:
        there = len(facts["gpus"])
        return "warn", f"{found}; {there} GPUs there, {offered} in Ray", "give Ray the others: ray start --num-gpus"
    if offered > len(facts["gpus"]):
        return "warn", f"{found}; nvidia-smi finds {len(facts['gpus'])}", "is NVIDIA's driver in that container?"
    if facts["cuda_trouble"]:
        return "fail", f"{found}; {facts['cuda_trouble']}", "install PyTorch for a CUDA that this driver knows"
    return "pass", found, ""


def _counted(gpus: Sequence[str]) -> list[str]:
    return [f"{gpus.count(gpu)} × {gpu}" for gpu in dict.fromkeys(gpus)]


def memory(node: Node, facts: Facts) -> Verdict:
    """Shared memory against the object store that Ray keeps there."""
    size, store = facts["shared_memory_bytes"], node.resources.get("object_store_memory", 0.0)
    if size is None:
        return "pass", f"no /dev/shm; {_gib(store)} for objects", ""
    found = f"/dev/shm has {_gib(size)}, Ray's objects get {_gib(store)}"
    if size < store:
        advice = "Ray falls back to the disk, which is slow: --shm-size, or an emptyDir with medium Memory at /dev/shm"
        return "warn", found, advice
    return "pass", found, ""


def _gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB"


def versions(of: Mapping[str, Mapping[str, str]]) -> list[Check]:
    """Versions that differ between nodes, or from this process; what only some nodes have is a warning."""
    checks = []
    for name in dict.fromkeys(name for found in of.values() for name in found):
        users: dict[str, list[str]] = {}
        for node, there in of.items():
            users.setdefault(there.get(name, ""), []).append(node)
        lacking = users.pop("", [])
        found = "; ".join(f"{version} on {_names(nodes, 0)}" for version, nodes in users.items())
        if len(users) > 1:
            checks.append(Check(f"version of {name}", "fail", found, "use one image, or one environment, on all nodes"))
        elif set(lacking) - {THIS_MACHINE} and not _belongs_to_gpus(name):
            advice = "what needs it fails on the others; use one image on all nodes"
            checks.append(Check(f"version of {name}", "warn", f"{found}; not on {_names(lacking, 0)}", advice))
    if checks:
        return checks
    same = next(iter(of.values()), {})
    return [Check("versions", "pass", "equal: " + ", ".join(f"{name} {version}" for name, version in same.items()))]


def _belongs_to_gpus(name: str) -> bool:
    """Whether nodes without a GPU have none of it."""
    return name in ("NVIDIA driver", "CUDA", "NCCL")


def clocks(offsets: Mapping[str, tuple[float, float] | None]) -> list[Check]:
    """Offsets to this machine's clock, in seconds with their uncertainty, and the widest gap between two clocks."""
    known = {name: offset for name, offset in offsets.items() if offset is not None}
    silent = [name for name, offset in offsets.items() if offset is None]
    checks = (
        [Check("clock", "warn", f"{_names(silent, 0)}: not read", "the node is slow, or has gone")] if silent else []
    )
    for name, (offset, uncertainty) in known.items():
        if (beyond := abs(offset) - uncertainty) > SKEW_WARN_SECONDS:
            status: Literal["warn", "fail"] = "fail" if beyond > SKEW_FAIL_SECONDS else "warn"
            found = f"{name}: {abs(offset):.1f} s {'ahead of' if offset > 0 else 'behind'} this machine"
            checks.append(Check("clock", status, found, "let NTP set it (chronyc makestep): signatures, logs, traces"))
    if known and not checks:
        values = [0.0, *(offset for offset, _ in known.values())]
        widest, uncertain = max(values) - min(values), max(uncertainty for _, uncertainty in known.values())
        checks.append(Check("clock", "pass", f"{1000 * widest:.1f} ms apart at most, ± {1000 * uncertain:.1f} ms"))
    return checks


def names(own_address: str, wanted: Sequence[str], answers: Mapping[str, Sequence[str]], several: bool) -> Verdict:
    """Whether a node resolves what it needs: its own name, and the names in place of addresses of other nodes.

    gloo listens at the address of the node's own name, which must not be the loopback where there are `several` hosts.
    """
    lost = [name for name in wanted if not answers.get(name)]
    if lost:
        return "fail", f"does not resolve {', '.join(lost)}", "correct DNS or /etc/hosts there"
    own = answers.get("", [])
    if several and not _is_loopback(own_address) and (not own or all(map(_is_loopback, own))):
        found = f"its own name resolves to {', '.join(own) or 'nothing'}, where gloo would listen"
        return "warn", found, "correct /etc/hosts, or set GLOO_SOCKET_IFNAME to the interface of the node's address"
    return "pass", "names resolve", ""


def _is_loopback(address: str) -> bool:
    return address.startswith("127.") or address == "::1"
