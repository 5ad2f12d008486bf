"""What is rendered, on a real API server with KubeRay's operator. See conftest.py for what it takes."""

from __future__ import annotations

import copy
import subprocess
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import yaml

from heliostat.cluster.deploy import states, wait
from heliostat.cluster.deploy.api import MANAGER, Api, Reference
from heliostat.cluster.deploy.checks import check
from heliostat.cluster.deploy.remove import ours, remove
from heliostat.cluster.kubernetes import kustomization
from heliostat.cluster.kubernetes.build import Manifest, build, kubectl
from heliostat.cluster.kubernetes.folder import write
from heliostat.cluster.kubernetes.overlays import OVERLAYS, package
from heliostat.infra.errors import KubernetesError
from heliostat.infra.registry.registry import ModelVersion
from heliostat.operations.kubernetes import pinned
from heliostat.operations.render import workload
from heliostat.spec import load_spec
from tests.kube.conftest import SECONDS, clusters, deployed, known, part
from tests.unit.k8s.conftest import IMAGES, args_of
from tests.waiting import until

RECIPES = sorted(file.stem for file in (Path(__file__).parents[2] / "recipes").glob("*.yaml"))
OF = Callable[[str], list[Manifest]]


def only(objects: list[Manifest], kind: str) -> Manifest:
    """The one object of a kind."""
    [found] = [one for one in objects if one["kind"] == kind]
    return found


def generations(api: Api, objects: list[Manifest]) -> dict[str, int]:
    found = {str(Reference.of(one)): api.get(Reference.of(one)) for one in objects}
    return {name: one["metadata"].get("generation", 0) for name, one in found.items() if one}


def pods(api: Api, cluster: str) -> list[Manifest]:
    return api.all_of("v1", "Pod", labels=f"ray.io/cluster={cluster}")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_is_taken_and_the_second_time_nothing_changes(namespace: Api, manifests: OF, overlay: str) -> None:
    objects = manifests(overlay)
    said: list[str] = []
    check(namespace, objects, said.append)
    deployed(namespace, objects)
    before = generations(namespace, objects)

    done = deployed(namespace, objects)

    assert [str(one) for one in done.changed] == []
    assert generations(namespace, objects) == before
    jobs = [one for one in objects if one["kind"] == "RayJob"]  # which are not applied again, though they could be
    assert {namespace.apply(one, dry_run=True)["metadata"]["generation"] for one in jobs} == {
        before[str(Reference.of(one))] for one in jobs
    }


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubectl_sees_no_difference_either(
    namespace: Api, manifests: OF, overlay: str, tmp_path: Path, kubeconfig: str
) -> None:
    objects = [one for one in manifests(overlay) if one["kind"] != "RayCluster"]
    deployed(namespace, objects)
    file = tmp_path / "objects.yaml"
    file.write_text(yaml.safe_dump_all(objects))
    place = ["--kubeconfig", kubeconfig, "--namespace", namespace.namespace]
    words = ["diff", "--server-side", "--field-manager", MANAGER, "-f", str(file)]

    done = subprocess.run([kubectl(), *place, *words], capture_output=True, text=True)

    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_is_taken_under_the_restricted_standard(namespace: Api, tmp_path: Path, recipe: str) -> None:
    spec = load_spec(recipe, ["storage.url=s3://bucket/models"])
    files = kustomization.files(workload(spec, "local", None, IMAGES, args_of(spec)), "local", package())
    write(tmp_path, files)
    objects = known(namespace, build(tmp_path))

    check(namespace, objects, lambda line: None)
    deployed(namespace, part(objects, "platform", "cluster"))

    until(lambda: pods(namespace, "heliostat"), "the cluster's pods are admitted", SECONDS)


def test_pods_of_all_of_kuberays_kinds_are_admitted(namespace: Api, manifests: OF) -> None:
    objects = manifests("local")
    deployed(namespace, objects)

    def owners() -> set[str]:
        """What has a head: KubeRay names a cluster after its owner, and five characters."""
        heads = namespace.all_of("v1", "Pod", labels="ray.io/node-type=head")
        names = [pod["metadata"]["labels"]["ray.io/cluster"] for pod in heads]
        return {name if name == "heliostat" else name.rpartition("-")[0] for name in names}

    until(lambda: owners() >= {"heliostat", "mood", "mood-7"}, "a head for each", SECONDS)
    refused = [one for one in namespace.all_of("v1", "Event") if "violates PodSecurity" in str(one.get("message"))]
    assert [one["message"] for one in refused] == []


def test_a_new_version_is_made_on_the_cluster_that_is_there(namespace: Api, manifests: OF) -> None:
    objects = part(manifests("production"), "platform", "serve")
    deployed(namespace, objects)
    until(lambda: clusters(namespace, "mood"), "the endpoint's cluster", SECONDS)
    before = [one["metadata"]["name"] for one in clusters(namespace, "mood")]
    service = only(objects, "RayService")
    changed = [one for one in objects if one is not service] + [_another_version(service)]

    done = deployed(namespace, changed)

    assert [str(one) for one in done.changed] == ["RayService mood"]
    assert [one["metadata"]["name"] for one in clusters(namespace, "mood")] == before
    found = namespace.get(Reference.of(service))
    assert found is not None
    assert states.serve_config(found)["applications"][0]["args"]["version"] == "9"


def _another_version(service: Manifest) -> Manifest:
    version = ModelVersion("mood", 9, "s3://bucket/r9", "cd" * 32, "r", datetime.now(timezone.utc), (), {})
    return pinned(copy.deepcopy(service), "mood", version)


def test_a_change_of_the_pods_brings_up_another_cluster(namespace: Api, manifests: OF) -> None:
    objects = part(manifests("production"), "platform", "serve")
    deployed(namespace, objects)
    until(lambda: clusters(namespace, "mood"), "the endpoint's cluster", SECONDS)
    config = only(objects, "RayService")["spec"]["rayClusterConfig"]
    config["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["image"] = "registry.example.com/another:2"

    deployed(namespace, objects)

    def images() -> list[str]:
        groups = [one["spec"]["workerGroupSpecs"][0] for one in clusters(namespace, "mood")]
        return [group["template"]["spec"]["containers"][0]["image"] for group in groups]

    until(lambda: "registry.example.com/another:2" in images(), "a cluster with the new image", SECONDS)


def test_new_limits_reach_the_cluster_and_what_is_scaled_stays_so(namespace: Api, manifests: OF) -> None:
    objects = part(manifests("production"), "platform", "serve")
    deployed(namespace, objects)
    until(lambda: clusters(namespace, "mood"), "the endpoint's cluster", SECONDS)
    [child] = clusters(namespace, "mood")
    scaled: list[dict[str, Any]] = [{"op": "add", "path": "/spec/workerGroupSpecs/0/replicas", "value": 5}]
    namespace.patch(Reference.of(child), scaled)
    only(objects, "RayService")["spec"]["rayClusterConfig"]["workerGroupSpecs"][0].update(minReplicas=4, maxReplicas=9)

    deployed(namespace, objects)

    [child] = clusters(namespace, "mood")
    group = child["spec"]["workerGroupSpecs"][0]
    assert (group["minReplicas"], group["maxReplicas"], group["replicas"]) == (4, 9, 5)


def test_a_standing_cluster_that_is_scaled_can_be_applied_again(namespace: Api, manifests: OF) -> None:
    objects = part(manifests("local"), "platform", "cluster")
    deployed(namespace, objects)
    cluster = only(objects, "RayCluster")
    scaled: list[dict[str, Any]] = [{"op": "add", "path": "/spec/workerGroupSpecs/0/replicas", "value": 1}]
    namespace.patch(Reference.of(cluster), scaled)

    deployed(namespace, objects)


def test_a_quota_that_is_used_up_is_said_before_and_after(namespace: Api, manifests: OF) -> None:
    meta, none = {"name": "team"}, {"hard": {"pods": "0"}}
    namespace.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta, "spec": none})
    objects = part(manifests("local"), "platform", "cluster")
    cluster = only(objects, "RayCluster")

    with pytest.raises(KubernetesError, match=r"quota team: pods . needed, 0 left of 0"):
        check(namespace, objects, lambda line: None)
    deployed(namespace, objects)

    def words() -> str:
        found = namespace.get(Reference.of(cluster))
        return f"{wait.state_of(namespace, found).words} {wait.troubles(namespace, found)}" if found else ""

    until(lambda: "quota" in words(), "the quota is named", SECONDS)


@pytest.mark.parametrize("kind", ["RayJob", "RayService"])
def test_a_name_that_kuberay_refuses_is_a_failure_that_is_seen(namespace: Api, manifests: OF, kind: str) -> None:
    objects = manifests("local")
    one = only(objects, kind)
    one["metadata"]["name"] = "a" * 48

    namespace.apply(one)

    def state() -> states.State | None:
        found = namespace.get(Reference.of(one))
        return wait.state_of(namespace, found) if found else None

    until(lambda: (found := state()) is not None and found.has_failed, f"the {kind} is refused", SECONDS)


def test_all_is_taken_away_in_its_order(namespace: Api, manifests: OF) -> None:
    deployed(namespace, manifests("local"))

    remove(namespace, ours(namespace, with_volumes=False), 4 * SECONDS, lambda line: None)

    assert ours(namespace, with_volumes=False) == []
    assert [one.kind for one in ours(namespace, with_volumes=True)] == ["PersistentVolumeClaim"] * 2
    assert namespace.get(Reference("v1", "Secret", "heliostat-keys")) is not None


def test_a_cluster_is_done_when_its_pods_run(namespace: Api, manifests: OF) -> None:
    if namespace.all_of("v1", "Node"):
        pytest.skip("there are nodes, whose kubelets say whether pods run")
    objects = part(manifests("local"), "platform", "cluster")
    deployed(namespace, objects)
    [reference] = [Reference.of(one) for one in objects if one["kind"] == "RayCluster"]

    def run() -> None:
        for pod in pods(namespace, "heliostat"):
            if pod["status"].get("phase") != "Running":
                set_running(namespace, pod)

    wait.wait(namespace, [reference], SECONDS, lambda line: None, lambda found: states.State("done", ""), run)


def set_running(api: Api, pod: Manifest) -> None:
    """What a kubelet says of a pod that runs and is ready."""
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    ready = [{"type": kind, "status": "True", "lastTransitionTime": now} for kind in ("Ready", "ContainersReady")]
    status = {"phase": "Running", "conditions": ready, "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]}
    operations = [{"op": "add", "path": f"/status/{key}", "value": value} for key, value in status.items()]
    api._ask("PATCH", f"{api._path(Reference.of(pod))}/status", None, operations, "application/json-patch+json")
