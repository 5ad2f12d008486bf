"""The rules in KubeRay's schemas (`x-kubernetes-validations`, in CEL), which an API server holds objects to."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import celpy
import pytest

from tests.unit.k8s.test_kuberay import CRDS, FILES, schema


@pytest.fixture(scope="session")
def schemas() -> dict[str, dict[str, Any]]:
    if not CRDS.is_dir():
        pytest.skip(f"KubeRay's schemas are not here: {CRDS}")
    return {kind: schema(name) for kind, name in FILES.items()}


def broken(node: dict[str, Any], value: Any, before: Any, path: str = "") -> Iterator[str]:
    """The rules that a value breaks, where it was `before`; an object that was just made is compared with itself."""
    for rule in node.get("x-kubernetes-validations", []):
        if not holds(rule["rule"], value, before):
            yield f"{path}: {rule.get('message') or rule['rule']}"
    if isinstance(value, dict):
        for key, part in value.items():
            inner = node.get("properties", {}).get(key) or node.get("additionalProperties")
            if isinstance(inner, dict):
                yield from broken(inner, part, (before or {}).get(key), f"{path}.{key}")
    if isinstance(value, list) and isinstance(node.get("items"), dict):
        for index, part in enumerate(value):
            yield from broken(node["items"], part, part, f"{path}[{index}]")


def holds(rule: str, value: Any, before: Any) -> bool:
    environment = celpy.Environment()
    program = environment.program(environment.compile(rule))
    return bool(program.evaluate({"self": celpy.json_to_cel(value), "oldSelf": celpy.json_to_cel(before)}))


def test_no_object_breaks_a_rule_of_its_schema(manifests: Any, schemas: dict[str, dict[str, Any]]) -> None:
    for kind, node in schemas.items():
        for one in manifests.of(kind):
            assert list(broken(node, one, one)) == []


def changed(one: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {**one, "spec": {**copy.deepcopy(one["spec"]), **spec}}


@pytest.mark.parametrize(
    ("before", "after", "path"),
    [
        ({"managedBy": "example.com/other"}, {"managedBy": "example.com/other"}, ".spec.managedBy"),
        ({"managedBy": "ray.io/kuberay-operator"}, {"managedBy": "kueue.x-k8s.io/multikueue"}, ".spec.managedBy"),
        ({}, {"deletionStrategy": {"onSuccess": {"policy": "DeleteCluster"}}}, ".spec.deletionStrategy"),
    ],
)
def test_the_check_finds_what_breaks_one(
    committed: Any, schemas: dict[str, dict[str, Any]], before: dict[str, Any], after: dict[str, Any], path: str
) -> None:
    job = committed.only("RayJob")
    found = list(broken(schemas["RayJob"], changed(job, **after), changed(job, **{**after, **before})))
    assert found
    assert {one.partition(":")[0] for one in found} == {path}
