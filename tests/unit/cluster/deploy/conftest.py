"""A fake API server with a fake KubeRay, and a rendered endpoint to deploy there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from heliostat.cluster.deploy import patience, remove, wait
from heliostat.cluster.deploy.api import Api
from heliostat.cluster.deploy.contexts import connect
from heliostat.cluster.kubernetes.build import Manifest, build
from tests.fake_kuberay import FakeKubeRay
from tests.fake_kubernetes import FakeKubernetes
from tests.unit.k8s.conftest import rendered

OPERATOR = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "kuberay-operator", "labels": {"app.kubernetes.io/component": "kuberay-operator"}},
    "spec": {"template": {"spec": {"containers": [
        {"name": "kuberay-operator", "image": "quay.io/kuberay/operator:v1.7.0"}]}}},
}  # fmt: skip
READY = {"observedGeneration": 10**6, "readyReplicas": 1, "updatedReplicas": 1}


@pytest.fixture
def kubernetes() -> Iterator[FakeKubernetes]:
    """An empty cluster with the namespace `models` and its two Secrets; Deployments come up at once."""
    fake = FakeKubernetes()
    fake.write({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "models"}})
    for name in ("heliostat-keys", "heliostat-s3"):
        fake.write({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": {}})

    def come_up(found: Manifest) -> None:
        if found["kind"] == "Deployment" and "status" not in found and found["metadata"]["name"] != "kuberay-operator":
            fake.write({**found, "status": READY}, "deployment-controller")

    fake.reactions.append(come_up)
    yield fake
    fake.close()


@pytest.fixture
def kuberay(kubernetes: FakeKubernetes) -> FakeKubeRay:
    """KubeRay on that cluster."""
    kubernetes.write(OPERATOR, namespace="")
    return FakeKubeRay(kubernetes)


@pytest.fixture
def api(kubernetes: FakeKubernetes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Api:
    """Our way to it; waits are short."""
    monkeypatch.setenv("KUBECONFIG", str(kubernetes.kubeconfig(tmp_path / "kubeconfig", "test", "other")))
    monkeypatch.setattr(wait, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(wait, "PROBLEM_SECONDS", 0.0)
    monkeypatch.setattr(wait, "SETTLE_SECONDS", 0.1)
    monkeypatch.setattr(remove, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(patience, "PAUSE_SECONDS", 0.02)
    return connect("test", None, None)


@pytest.fixture(scope="session")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[Manifest]:
    """Everything that is rendered for the overlay `local`."""
    folder = tmp_path_factory.mktemp("rendered")
    rendered("local", folder)
    return build(folder)
