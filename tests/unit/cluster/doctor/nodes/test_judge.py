from __future__ import annotations

from typing import Any

import pytest

from heliostat.cluster.doctor.nodes import judge
from heliostat.cluster.doctor.nodes.cluster import Missing, Node
from heliostat.cluster.doctor.nodes.facts import Facts
from heliostat.infra.memory import GIB


def node(name: str, is_alive: bool = True, **resources: float) -> Node:
    return Node(name * 6, name, name, is_alive, {"CPU": 2, "object_store_memory": GIB, **resources})


def facts(**more: Any) -> Facts:
    base: Any = {"versions": {}, "shared_memory_bytes": 2 * GIB, "gpus": [], "cuda_trouble": "", "links": []}
    return base | more


def test_a_node_that_does_not_answer_is_named_beside_those_that_do() -> None:
    known = [node("a"), node("b"), node("c", is_alive=False)]
    found = judge.nodes_found(known, {"b": Missing("no answer in 60 s")})
    assert [(check.status, check.found) for check in found] == [
        ("fail", "1 of 2 answer; 1 left earlier"),
        ("fail", "b: no answer in 60 s"),
    ]
    assert [check.status for check in judge.nodes_found(known[:1], {})] == ["pass"]


def test_nodes_that_say_the_same_share_a_line() -> None:
    fine: judge.Verdict = ("pass", "well", "")
    poor: judge.Verdict = ("warn", "ill", "rest")
    assert [check.found for check in judge.together("x", {"a": fine, "b": fine})] == ["all 2 nodes: well"]
    assert [check.found for check in judge.together("x", {"a": fine, "b": poor, "c": fine})] == ["a, c: well", "b: ill"]
    many = judge.together("x", {**{f"n{number}": fine for number in range(7)}, "z": poor})
    assert many[0].found == "n0, n1, n2, n3, n4 and 2 more: well"
    assert [check.found for check in judge.together("x", {"a": fine})] == ["a: well"]


@pytest.mark.parametrize(
    ("offered", "there", "trouble", "status", "words"),
    [
        (0, 0, "", "pass", "2 CPU"),
        (1, 1, "", "pass", "1 GPU, 1 × NVIDIA L4 22 GiB, NVIDIA driver 570.1, eth0 25 Gb/s"),
        (0, 2, "", "warn", "2 GPUs there, 0 in Ray"),
        (2, 1, "", "warn", "nvidia-smi finds 1"),
        (1, 1, "PyTorch is built without CUDA", "fail", "PyTorch is built without CUDA"),
    ],
)
def test_accelerators_against_what_ray_offers(offered: int, there: int, trouble: str, status: str, words: str) -> None:
    versions = {"NVIDIA driver": "570.1"} if there else {}
    found = facts(gpus=["NVIDIA L4 22 GiB"] * there, cuda_trouble=trouble, versions=versions, links=["eth0 25 Gb/s"])
    verdict = judge.hardware(node("a", GPU=offered), found)
    assert verdict[0] == status
    assert words in verdict[1]
    assert bool(verdict[2]) == (status != "pass")


def test_shared_memory_smaller_than_the_object_store_warns() -> None:
    assert judge.memory(node("a"), facts())[0] == "pass"
    status, found, advice = judge.memory(node("a", object_store_memory=3 * GIB), facts())
    assert (status, found) == ("warn", "/dev/shm has 2.0 GiB, Ray's objects get 3.0 GiB")
    assert "--shm-size" in advice
    assert judge.memory(node("a"), facts(shared_memory_bytes=None))[0] == "pass"


def test_versions_that_differ_are_named_with_their_nodes() -> None:
    same = {"a": {"torch": "2.13.0"}, "b": {"torch": "2.13.0"}}
    assert [(check.status, check.found) for check in judge.versions(same)] == [("pass", "equal: torch 2.13.0")]
    [check] = judge.versions({**same, "c": {"torch": "2.12.0"}})
    assert (check.status, check.name) == ("fail", "version of torch")
    assert check.found == "2.13.0 on a, b; 2.12.0 on c"


def test_a_package_that_some_nodes_lack_warns_unless_only_this_machine_does() -> None:
    [check] = judge.versions({"a": {"peft": "1"}, "b": {}})
    assert (check.status, check.found) == ("warn", "1 on a; not on b")
    found = judge.versions({"a": {"peft": "1"}, judge.THIS_MACHINE: {}})
    assert [check.status for check in found] == ["pass"]


def test_nodes_without_gpus_need_no_driver_but_drivers_are_equal() -> None:
    assert [check.status for check in judge.versions({"a": {"NVIDIA driver": "570.1"}, "b": {}})] == ["pass"]
    [check] = judge.versions({"a": {"NVIDIA driver": "570.1"}, "b": {"NVIDIA driver": "535.2"}})
    assert check.status == "fail"


@pytest.mark.parametrize(
    ("offset", "uncertainty", "status"),
    [(0.2, 0.01, "pass"), (1.5, 0.01, "warn"), (1.5, 1.0, "pass"), (-40.0, 0.01, "warn"), (1000.0, 0.01, "fail")],
)
def test_clocks(offset: float, uncertainty: float, status: str) -> None:
    [check] = judge.clocks({"a": (offset, uncertainty)})
    assert check.status == status


def test_clocks_name_the_node_and_the_gap() -> None:
    assert judge.clocks({"a": (-40.0, 0.01)})[0].found == "a: 40.0 s behind this machine"
    assert judge.clocks({"a": (0.1, 0.01), "b": (-0.2, 0.02)})[0].found == "300.0 ms apart at most, ± 20.0 ms"
    assert [check.status for check in judge.clocks({"a": None})] == ["warn"]
    assert judge.clocks({}) == []


def test_names() -> None:
    own = {"": ["10.0.0.1"], "head": ["10.0.0.9"]}
    assert judge.names("10.0.0.1", ["head"], own, several=True)[0] == "pass"
    status, found, _ = judge.names("10.0.0.1", ["head", "other"], {**own, "other": []}, several=True)
    assert (status, found) == ("fail", "does not resolve other")
    for addresses in (["127.0.1.1"], []):
        status, _, advice = judge.names("10.0.0.1", [], {"": addresses}, several=True)
        assert (status, "GLOO_SOCKET_IFNAME" in advice) == ("warn", True)
        assert judge.names("10.0.0.1", [], {"": addresses}, several=False)[0] == "pass"
    assert judge.names("127.0.0.2", [], {"": ["127.0.0.1"]}, several=True)[0] == "pass"
