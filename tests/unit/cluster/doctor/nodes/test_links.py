from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from itertools import combinations
from types import SimpleNamespace
from typing import Any

import pytest

from heliostat.cluster.doctor.nodes import links
from heliostat.cluster.doctor.nodes.bandwidth import Meeting
from heliostat.cluster.doctor.nodes.cluster import Missing
from heliostat.cluster.doctor.nodes.links import Measured, judge, measure, rate, rounds, slow_pairs

MB = 1e6


@pytest.mark.parametrize("count", range(9))
def test_in_the_rounds_each_pair_meets_once_and_nobody_twice_at_a_time(count: int) -> None:
    names = [f"node-{number}" for number in range(count)]
    found = rounds(names)
    assert sorted(tuple(sorted(pair)) for pairs in found for pair in pairs) == list(combinations(names, 2))
    for pairs in found:
        assert len({name for pair in pairs for name in pair}) == 2 * len(pairs)
    assert len(found) == (max(0, count - 1) if count % 2 == 0 else count)


def test_a_pair_is_slow_below_half_of_the_median() -> None:
    assert slow_pairs({("a", "b"): 100.0, ("a", "c"): 50.0, ("b", "c"): 100.0}) == []
    assert slow_pairs({("a", "b"): 100.0, ("a", "c"): 49.0, ("b", "c"): 100.0}) == [("a", "c")]
    assert slow_pairs({("a", "b"): 1.0}) == []
    assert slow_pairs({}) == []


class Network:
    """Nodes whose links have a speed each, in bytes per second; 0 is a link that is cut. A group has its slowest."""

    def __init__(self, names: str, speeds: Mapping[str, float], usual: float = 100 * MB) -> None:
        self.names, self.speeds, self.usual = names, speeds, usual
        self.met: dict[str, set[str]] = {}
        self.backends: set[str] = set()

    def actors(self) -> dict[str, Any]:
        return {name: self._actor(name) for name in self.names}

    def _actor(self, name: str) -> Any:
        def all_reduce(meeting: Meeting, rank: int) -> str:
            self.met.setdefault(meeting["name"], set()).add(name)
            self.backends.add(meeting["backend"])
            return meeting["name"]

        meet, reduce = SimpleNamespace(remote=lambda address: 1), SimpleNamespace(remote=all_reduce)
        return SimpleNamespace(meet=meet, all_reduce=reduce)

    def ask(self, calls: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        return {name: self._of(call) if isinstance(call, str) else call for name, call in calls.items()}

    def _of(self, meeting: str) -> float | Missing:
        pairs = ["".join(pair) for pair in combinations(sorted(self.met[meeting]), 2)]
        speed = min(self.speeds.get(pair, self.usual) for pair in pairs)
        return speed or Missing("no answer in 20 s")


def measured(monkeypatch: pytest.MonkeyPatch, network: Network, with_gpu: str = "") -> Measured:
    monkeypatch.setattr(links, "ask", network.ask)
    addresses = dict.fromkeys(network.names, "127.0.0.1")
    return measure(network.actors(), addresses, list(with_gpu), lambda done, total: None)


def test_a_slow_link_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = measured(monkeypatch, Network("abc", {"bc": 5 * MB}))
    assert found.together == 5 * MB
    [pairs, together] = judge(found)
    assert (pairs.status, together.status) == ("warn", "pass")
    assert pairs.found == "gloo, 3 of 3 pairs: slowest b – c 5 MB/s, median 100 MB/s; slow: b – c"


def test_a_node_whose_links_are_all_slow_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = measured(monkeypatch, Network("abcde", {f"{one}d": 5 * MB for one in "abc"} | {"de": 5 * MB}))
    assert judge(found)[0].found.endswith("; all slow pairs have d")


def test_equal_links_are_no_reason_to_warn(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [check.status for check in judge(measured(monkeypatch, Network("abcd", {})))] == ["pass", "pass"]


def test_a_link_that_is_cut_is_named_and_the_others_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    found = measured(monkeypatch, Network("abc", {"ab": 0}))
    assert {frozenset(pair) for pair in found.pairs} == {frozenset("ac"), frozenset("bc")}
    assert found.together is None
    lost = [check for check in judge(found) if check.status == "fail"]
    assert len(lost) == 1
    assert {"a", "b"} <= set(lost[0].found.partition(":")[0])


def test_a_gpu_whose_memory_is_in_use_is_no_broken_link() -> None:
    full = Measured("nccl", failed={("a", "b"): "OutOfMemoryError: CUDA out of memory. Tried to allocate 256.00 MiB"})
    [check] = judge(full)
    assert (check.status, "firewall" in check.advice) == ("warn", False)


def test_keys_of_pytorch_s_store_are_left_out() -> None:
    [check] = judge(Measured("gloo", failed={("a", "b"): "DistStoreError: wait timeout after 10000ms, keys: /1 a b/0"}))
    assert (check.status, check.found) == ("fail", "a – b: DistStoreError: wait timeout after 10000ms")


def test_gpus_are_measured_with_nccl_and_nodes_without_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network("abc", {})
    found = measured(monkeypatch, network, with_gpu="ac")
    assert network.backends == {"nccl"}
    assert [check.found for check in judge(found)] == [
        "nccl, 1 of 1 pairs: slowest a – c 100 MB/s",
        "b takes no part: it has no GPU",
    ]
    assert measured(monkeypatch, Network("ab", {}), with_gpu="a").backend == "gloo"


def test_a_single_node_has_no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    [check] = judge(measured(monkeypatch, Network("a", {})))
    assert (check.status, check.found) == ("pass", "not measured: it takes two nodes")


def test_no_round_begins_after_the_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(links, "time", SimpleNamespace(monotonic=lambda: next(clock), monotonic_ns=lambda: 0))
    found = measured(monkeypatch, Network("abcdefgh", {}))
    assert (len(found.pairs), found.possible) == (8, 28)


@pytest.mark.parametrize(("speed", "said"), [(1.25e9, "1.25 GB/s"), (12.34e6, "12.3 MB/s")])
def test_rates_are_said_in_units_of_the_field(speed: float, said: str) -> None:
    assert rate(speed) == said


ALONE_THEN_TOGETHER = """
import sys
from heliostat.cluster.doctor.nodes.bandwidth import measure, open_store
first = sys.argv[1] == "0"
if first:
    store = open_store("127.0.0.1")
    print(store.port, flush=True)
port = store.port if first else int(sys.argv[2])
common = {"host": "127.0.0.1", "port": port, "backend": "gloo", "size": 2, "seconds": 0.1}
if first:
    try:
        measure({"name": "nobody", "patience_seconds": 1, **common}, 0)
    except Exception:
        print("alone", flush=True)
print(measure({"name": "both", "patience_seconds": 60, **common}, int(sys.argv[1])) > 0)
"""


def test_members_meet_after_one_of_them_has_waited_for_nobody() -> None:
    def member(*words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", ALONE_THEN_TOGETHER, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    with member("0") as first:
        assert first.stdout
        with member("1", first.stdout.readline().strip()) as second:
            try:
                said, other = first.communicate(timeout=120), second.communicate(timeout=120)
            finally:
                first.kill()
                second.kill()
    assert (said[0].split(), other[0].split()) == (["alone", "True"], ["True"]), said[1] + other[1]
