"""A training cluster whose pods are taken away, as Kueue and a drain do: SIGTERM, and some time to go.

Head and worker are pods on a network of their own (`tests/pods.py`), started as KubeRay starts them; the manifests say
what runs before SIGTERM and how long it may take. Run by `make faults`.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from heliostat.cluster.doctor.compiler import operators_folder
from heliostat.cluster.kubernetes.build import build
from heliostat.infra.storage.store import open_store
from tests.integration.ray_pods import environment, needs_pods, pods_network, start_head, start_worker, wait_for_head
from tests.integration.test_kills import WATCHED, newest_checkpoint
from tests.pods import Network, Pod
from tests.unit.k8s.conftest import K8S, Manifests
from tests.waiting import until

pytestmark = [pytest.mark.faults, needs_pods]
FIRST_SECONDS = 600
"""Until a run takes steps, with operators to compile on a machine that does other work."""


@pytest.fixture
def net() -> Iterator[Network]:
    with pods_network() as made:
        yield made


@pytest.fixture
def spec(net: Network, tiny_values: dict[str, Any]) -> Path:
    """A spec whose run stores no checkpoint by itself, with all that it names where pods see it."""
    encoder, reviews = net.folder / "encoder", net.folder / "reviews.csv"
    shutil.copytree(tiny_values["model"]["source"], encoder)
    shutil.copy(tiny_values["data"]["source"], reviews)
    train = {
        **tiny_values["train"],
        "zero_stage": 0,
        "epochs": 9999,
        "checkpoint_every": 99999,
        "validate_every": 99999,
    }
    values = {**tiny_values, "model": {"source": str(encoder)}, "train": train, "cluster": {"autoscales": True}}
    values["data"] = {**tiny_values["data"], "source": str(reviews)}
    (file := net.folder / "spec.yaml").write_text(yaml.safe_dump(values))
    return file


def begin(net: Network, spec: Path, head: Pod) -> Path:
    """Submits the run on the head, as KubeRay's submitter does; the file to which its first worker writes its steps."""
    (watched := net.folder / "watched").mkdir()
    (driver := net.folder / "driver.py").write_text(WATCHED.format(folder=str(watched), pause=0.2))
    submit = ["ray", "job", "submit", "--no-wait", "--address", "http://127.0.0.1:8265", "--"]
    head.run(*submit, sys.executable, str(driver), "train", str(spec), "--run", "first")
    return watched / "steps-0"


def taken(steps: Path) -> list[int]:
    """The steps that were finished."""
    lines = steps.read_text().splitlines() if steps.exists() else []
    return [int(line.split()[0]) for line in lines if line != "start"]


def take_away(pods: list[Pod], grace_seconds: float) -> None:
    """What kubelets do with pods that have no preStop."""
    until_then = time.monotonic() + grace_seconds
    for pod in pods:
        pod.terminate()
    while any(pod.is_up() for pod in pods) and time.monotonic() < until_then:
        time.sleep(0.2)
    for pod in pods:
        pod.kill()


def test_a_cluster_that_a_queue_takes_away_loses_no_finished_step(net: Network, spec: Path) -> None:
    manifests = Manifests("base", build(K8S / "base"))
    ray = [pod for pod in manifests.pods() if pod.owner["kind"] == "RayJob" and pod.role in ("head", "worker")]
    assert len(ray) == 2
    assert not any("lifecycle" in pod.spec["containers"][0] for pod in ray)
    [grace] = {pod.spec["terminationGracePeriodSeconds"] for pod in ray}
    own = {"MLFLOW_TRACKING_URI": f"sqlite:///{net.folder}/mlflow.db", "TORCH_EXTENSIONS_DIR": str(operators_folder())}
    variables = {**environment(net, manifests, "train"), **own}
    head = start_head(net, 3, variables)
    net.resolve(head_svc=head)
    wait_for_head(net, head)
    worker = start_worker(net, 4, variables)
    steps, store = begin(net, spec, head), open_store(str(net.folder / "storage"))
    until(lambda: len(taken(steps)) > 20, "steps of the run", FIRST_SECONDS)
    assert newest_checkpoint(store) == 0
    take_away([head, worker], grace)
    assert newest_checkpoint(store) == taken(steps)[-1] > 20
