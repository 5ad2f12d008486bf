"""What `kubectl kustomize` makes of the base and of each overlay."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from heliostat.cluster.kubernetes import kustomization
from heliostat.cluster.kubernetes.build import build
from heliostat.cluster.kubernetes.folder import write
from heliostat.cluster.kubernetes.overlays import OVERLAYS, package
from heliostat.cluster.kubernetes.pods import CLUSTERS
from heliostat.operations.render import workload
from heliostat.serve.args import AppArgs
from heliostat.spec import Spec, load_spec

K8S = Path(__file__).resolve().parents[3] / "k8s"
TARGETS = ["base", *sorted(f"overlays/{folder.name}" for folder in (K8S / "overlays").iterdir())]
PLAIN_KINDS = {
    "Deployment": ("template",),
    "Job": ("template",),
    "CronJob": ("jobTemplate", "spec", "template"),
}
"""Kubernetes' own kinds that make pods, and where in their spec the pod is."""


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
    if one["kind"] in PLAIN_KINDS:
        for key in PLAIN_KINDS[one["kind"]]:
            spec = spec[key]
        yield Pod(one, one["kind"], spec)
    if one["kind"] not in CLUSTERS:
        return
    for key in CLUSTERS[one["kind"]]:
        spec = spec[key]
    yield Pod(one, "head", spec["headGroupSpec"]["template"])
    for group in spec["workerGroupSpecs"]:
        yield Pod(one, "worker", group["template"])
    if submitter := one["spec"].get("submitterPodTemplate"):
        yield Pod(one, "submitter", submitter)


IMAGES = {"train": "registry.local:5000/heliostat/train:0.1.0", "serve": f"ghcr.io/heliostat/serve@sha256:{'5e' * 32}"}


def spec_of(overlay: str) -> Spec:
    """A spec that fits the overlay, of another name than the one that the manifests are written for."""
    more = {
        "local": ["serve.replicas={min: 1, max: 2}", "serve.cpus_per_replica=1"],
        "gpu": ["serve.replicas={min: 1, max: 3}", "serve.gpus_per_replica=1", "serve.timeout_seconds=7200"],
        "production": [
            "serve.replicas={min: 5, max: 9}",
            "train.workers={min: 2, max: 6}",
            "serve.ingress.header_seconds=5",
        ],
    }
    return load_spec("sentiment", ["name=mood", "storage.url=s3://bucket/models", *more[overlay]])


def args_of(spec: Spec) -> AppArgs:
    """How a version of it is served."""
    return AppArgs(
        name=spec.name, url="s3://bucket/models/models/mood/mood-7", digest="ab" * 32, version="3",
        config=spec.serve, storage=spec.storage,
    )  # fmt: skip


def rendered(overlay: str, folder: Path, is_served: bool = True) -> dict[str, str]:
    """Files of such a spec, with a version in production."""
    spec = spec_of(overlay)
    args = args_of(spec) if is_served else None
    found = kustomization.files(workload(spec, overlay, "mood-7", IMAGES, args), overlay, package())
    write(folder, found)
    return found


EVERY_TARGET = [*TARGETS, *(f"rendered {overlay}" for overlay in OVERLAYS)]


@cache
def manifests_of(target: str) -> Manifests:
    """One of EVERY_TARGET: of the repository, or what is rendered from a spec over an overlay.

    Built once for all tests of a process, which only read it.
    """
    kind, _, overlay = target.partition(" ")
    if kind != "rendered":
        return Manifests(target, build(K8S / target))
    with TemporaryDirectory() as folder:
        rendered(overlay, Path(folder))
        return Manifests(target, build(Path(folder)))


@pytest.fixture(scope="session", params=TARGETS)
def committed(request: pytest.FixtureRequest) -> Manifests:
    """Each target of the repository in turn."""
    return manifests_of(request.param)


@pytest.fixture(scope="session", params=EVERY_TARGET)
def manifests(request: pytest.FixtureRequest) -> Manifests:
    """Each target in turn, and what is rendered from a spec over each overlay."""
    return manifests_of(request.param)


@pytest.fixture(scope="session")
def definitions_read_once() -> Iterator[None]:
    """The validator of objects would read megabytes of definitions for each of them."""
    from kubernetes_validate import utils  # type: ignore[import-untyped]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, "schema_contents", cache(utils.schema_contents))
        yield
