"""What is rendered, deployed to an API server that keeps objects as Kubernetes does, with KubeRay's writes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from heliostat.cluster.deploy import remove
from heliostat.cluster.deploy.api import Api, Reference
from heliostat.cluster.deploy.apply import Applied, apply
from heliostat.cluster.deploy.checks import check
from heliostat.cluster.deploy.states import State
from heliostat.cluster.kubernetes.build import Manifest, build
from heliostat.cluster.kubernetes.order import to_delete
from heliostat.cluster.kubernetes.overlays import OVERLAYS
from heliostat.infra.errors import KubernetesError
from heliostat.operations.deploy import bring_up
from tests.fake_kuberay import FakeKubeRay
from tests.fake_kubernetes import MONITORING, FakeKubernetes, RefusalError
from tests.unit.k8s.conftest import rendered

pytestmark = pytest.mark.usefixtures("kuberay")
COMPONENT = "app.kubernetes.io/component"


def answers(api: Api, found: Manifest) -> State:
    """An endpoint that answers as soon as KubeRay says that it runs."""
    return State("done", "answers")


def part(objects: list[Manifest], *names: str) -> list[Manifest]:
    """A copy of the objects of some components."""
    return [copy.deepcopy(one) for one in objects if one["metadata"]["labels"][COMPONENT] in names]


def endpoint(objects: list[Manifest]) -> list[Manifest]:
    return part(objects, "platform", "serve")


def service(manifests: list[Manifest]) -> Manifest:
    [found] = [one for one in manifests if one["kind"] == "RayService"]
    return found


def writes(kubernetes: FakeKubernetes) -> list[tuple[str, str]]:
    return [one for one in kubernetes.requests if one[0] != "GET" and not one[1].endswith("?dryRun")]


def deploy(api: Api, manifests: list[Manifest], seconds: float = 5) -> list[str]:
    """Brings up; returns what was said."""
    said: list[str] = []
    bring_up(api, manifests, seconds, said.append, answers)
    return said


def test_an_endpoint_comes_up_with_its_platform(api: Api, objects: list[Manifest]) -> None:
    said = deploy(api, endpoint(objects))

    assert said[0].endswith("created, 0 changed, 0 as they were")
    assert "RayService mood: answers" in said


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_deploying_again_changes_nothing(api: Api, kubernetes: FakeKubernetes, tmp_path: Path, overlay: str) -> None:
    kubernetes.kinds = {**kubernetes.kinds, **MONITORING}
    rendered(overlay, tmp_path / "rendered")
    manifests = build(tmp_path / "rendered")
    deploy(api, manifests)
    before = kubernetes.objects["ray.io/v1/RayService", "models", "mood"].live

    said = deploy(api, copy.deepcopy(manifests))

    assert said[0] == f"0 created, 0 changed, {len(manifests)} as they were"
    assert kubernetes.objects["ray.io/v1/RayService", "models", "mood"].live == before


def test_a_new_version_is_a_change_of_the_endpoint_alone(api: Api, objects: list[Manifest]) -> None:
    manifests = endpoint(objects)
    deploy(api, manifests)
    config = yaml.safe_load(service(manifests)["spec"]["serveConfigV2"])
    config["applications"][0]["args"]["version"] = "4"
    service(manifests)["spec"]["serveConfigV2"] = yaml.safe_dump(config)

    said = deploy(api, manifests)

    assert said[0] == f"0 created, 1 changed, {len(manifests) - 1} as they were"


def test_new_limits_reach_the_cluster_that_serves(
    api: Api, kubernetes: FakeKubernetes, objects: list[Manifest]
) -> None:
    manifests = endpoint(objects)
    deploy(api, manifests)
    service(manifests)["spec"]["rayClusterConfig"]["workerGroupSpecs"][0].update(minReplicas=2, maxReplicas=3)

    deploy(api, manifests)

    child = kubernetes.find("RayCluster", "mood-abcde")
    assert child is not None
    assert child["spec"]["workerGroupSpecs"][0]["minReplicas"] == 2
    assert child["spec"]["workerGroupSpecs"][0]["maxReplicas"] == 3


def test_a_change_that_kuberay_makes_nothing_of_ends_in_an_error_that_names_it(
    api: Api, objects: list[Manifest]
) -> None:
    manifests = endpoint(objects)
    deploy(api, manifests)
    group = service(manifests)["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]
    group["template"]["spec"]["containers"][0]["image"] = "another:1"

    with pytest.raises(
        KubernetesError, match="RayService mood: rayClusterConfig has changed, and upgradeStrategy None"
    ):
        deploy(api, manifests)

    group["template"]["spec"]["containers"][0]["image"] = "again:2"
    service(manifests)["spec"]["upgradeStrategy"] = {"type": "NewCluster"}
    deploy(api, manifests)
    group["template"]["spec"]["tolerations"] = [{"operator": "Exists"}]
    with pytest.raises(KubernetesError, match="RayService mood: tolerations have changed, which no pod that runs"):
        deploy(api, manifests)


def test_a_standing_cluster_that_its_autoscaler_has_written_is_taken_over(
    api: Api, kubernetes: FakeKubernetes, objects: list[Manifest]
) -> None:
    manifests = part(objects, "platform", "cluster")
    deploy(api, manifests)
    live = kubernetes.find("RayCluster", "heliostat")
    assert live is not None
    live["spec"]["workerGroupSpecs"][0]["replicas"] = 3
    kubernetes.write(live, "autoscaler")

    deploy(api, manifests)

    [cluster] = [one for one in manifests if one["kind"] == "RayCluster"]
    cluster["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["image"] = "another:1"
    with pytest.raises(KubernetesError, match="RayCluster heliostat: pods that run keep their template"):
        deploy(api, manifests)


def test_a_job_is_followed_to_its_end(
    api: Api, kubernetes: FakeKubernetes, kuberay: FakeKubeRay, objects: list[Manifest]
) -> None:
    pod = {"name": "mood-7-xyz", "labels": {"job-name": "mood-7"}}
    kubernetes.write({"apiVersion": "v1", "kind": "Pod", "metadata": pod})
    kubernetes.logs["mood-7-xyz"] = "2026-01-01T00:00:01Z step 1\n2026-01-01T00:00:01Z step 2\n"

    said = deploy(api, part(objects, "platform", "train"))

    assert [line for line in said if line.startswith("step")] == ["step 1", "step 2"]
    assert said[-1] == "RayJob mood-7: succeeded"


def test_a_job_that_fails_is_an_error_and_stays_to_be_looked_at(
    api: Api, kubernetes: FakeKubernetes, kuberay: FakeKubeRay, objects: list[Manifest]
) -> None:
    manifests = part(objects, "platform", "train")
    kuberay.job = {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "AppFailed"}

    with pytest.raises(KubernetesError, match="RayJob mood-7: FAILED: AppFailed"):
        deploy(api, manifests)

    assert kubernetes.find("RayJob", "mood-7") is not None
    again = r"RayJob mood-7 has ended \(FAILED: AppFailed\), and KubeRay runs a job once; --run gives another name"
    with pytest.raises(KubernetesError, match=again):
        check(api, manifests, lambda line: None)


def test_a_job_that_never_begins_is_taken_back(
    api: Api, kubernetes: FakeKubernetes, kuberay: FakeKubeRay, objects: list[Manifest]
) -> None:
    kuberay.job = {"jobDeploymentStatus": "Initializing"}

    with pytest.raises(KubernetesError, match=r"not there after 0.1 s: RayJob mood-7: initializing"):
        deploy(api, part(objects, "platform", "train"), seconds=0.1)

    assert kubernetes.find("RayJob", "mood-7") is None


def test_a_job_that_has_begun_is_waited_for_beyond_the_limit(
    api: Api, kubernetes: FakeKubernetes, kuberay: FakeKubeRay, objects: list[Manifest]
) -> None:
    kuberay.job = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}
    looks = 0

    def end_later(method: str, path: str) -> None:
        nonlocal looks
        looks += method == "GET" and path.endswith("/rayjobs/mood-7")
        if looks == 20:
            looks += 1
            found: Any = kubernetes.find("RayJob", "mood-7")
            kuberay.job = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}
            kubernetes.write(found)

    kubernetes.faults.append(end_later)

    assert deploy(api, part(objects, "platform", "train"), seconds=0.01)[-1] == "RayJob mood-7: succeeded"


def test_a_first_endpoint_that_does_not_come_up_is_taken_back(
    api: Api, kubernetes: FakeKubernetes, kuberay: FakeKubeRay, objects: list[Manifest]
) -> None:
    kuberay.trouble = [{"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: team"}]

    with pytest.raises(KubernetesError, match=r"pods are refused: exceeded quota: team.*heliostat destroy takes them"):
        deploy(api, endpoint(objects), seconds=0.1)

    assert kubernetes.find("RayService", "mood") is None
    assert kubernetes.find("ServiceAccount", "heliostat") is not None


def test_a_version_that_fails_leaves_the_endpoint_that_was_there(
    api: Api, kubernetes: FakeKubernetes, kuberay: FakeKubeRay, objects: list[Manifest]
) -> None:
    manifests = endpoint(objects)
    deploy(api, manifests)
    kuberay.applications["mood"] = {"status": "DEPLOY_FAILED", "message": "the manifest\nhas another digest"}
    service(manifests)["spec"]["serveConfigV2"] += "\n# another\n"

    with pytest.raises(KubernetesError, match="RayService mood: mood deploy_failed: the manifest has another digest"):
        deploy(api, manifests)

    assert kubernetes.find("RayService", "mood") is not None


def test_a_dead_head_is_not_taken_for_an_endpoint_that_runs(
    api: Api, kuberay: FakeKubeRay, objects: list[Manifest]
) -> None:
    kuberay.trouble = [{"type": "HeadPodReady", "status": "False", "message": "ContainersNotReady"}]

    with pytest.raises(KubernetesError, match="mood-abcde: its head is not ready: ContainersNotReady"):
        deploy(api, endpoint(objects), seconds=0.1)


def test_what_keeps_pods_is_said_in_words(
    api: Api, kubernetes: FakeKubernetes, kuberay: FakeKubeRay, objects: list[Manifest]
) -> None:
    kuberay.trouble = [{"type": "HeadPodReady", "status": "False", "message": "no"}]
    pull = {"image": "i:1", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}}
    pending = [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}]
    for name, status in {"head": {"containerStatuses": [pull]}, "worker": {"conditions": pending}}.items():
        meta = {"name": name, "labels": {"ray.io/cluster": "mood-abcde"}}
        kubernetes.write({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "status": status})
    said: list[str] = []

    with pytest.raises(KubernetesError) as failed:
        bring_up(api, endpoint(objects), 0.3, said.append, answers)

    for line in (
        "pod head: the image i:1 cannot be had (ImagePullBackOff): not found",
        "pod worker: no node takes it: 0/3 nodes are available",
    ):
        assert said.count(f"  {line}") == 1
        assert line in str(failed.value)


def test_nothing_is_changed_where_something_is_wrong(
    api: Api, kubernetes: FakeKubernetes, objects: list[Manifest]
) -> None:
    kubernetes.remove("Secret", "heliostat-keys")
    kubernetes.remove("Namespace", "models", "")
    kubernetes.kinds = {version: kinds for version, kinds in kubernetes.kinds.items() if version != "ray.io/v1"}
    before = writes(kubernetes)

    with pytest.raises(KubernetesError) as refused:
        check(api, endpoint(objects), lambda line: None)

    assert str(refused.value) == (
        "test, models: nothing is changed: there is no namespace models: kubectl create namespace models; KubeRay is"
        " not installed here: helm install kuberay-operator kuberay/kuberay-operator"
    )
    assert writes(kubernetes) == before


@pytest.mark.parametrize(
    ("image", "said"),
    [("quay.io/kuberay/operator:v1.5.1", "KubeRay's operator is 1.5.1"), ("quay.io/kuberay/operator:v1.7.0", None)],
)
def test_an_operator_that_is_too_old_is_refused(
    api: Api, kubernetes: FakeKubernetes, objects: list[Manifest], image: str, said: str | None
) -> None:
    found = kubernetes.all_of("Deployment")[0]
    found["spec"]["template"]["spec"]["containers"][0]["image"] = image
    kubernetes.write(found, namespace="")

    if said is None:
        check(api, endpoint(objects), lambda line: None)
        return
    with pytest.raises(KubernetesError, match=said):
        check(api, endpoint(objects), lambda line: None)


@pytest.mark.parametrize("place", [0, 1])
def test_a_container_beside_the_operator_is_not_taken_for_it(
    api: Api, kubernetes: FakeKubernetes, objects: list[Manifest], place: int
) -> None:
    found = kubernetes.all_of("Deployment")[0]
    containers = found["spec"]["template"]["spec"]["containers"]
    containers.insert(place, {"name": "istio-proxy", "image": "docker.io/istio/proxyv2:1.2.3"})
    kubernetes.write(found, namespace="")

    check(api, endpoint(objects), lambda line: None)

    [operator] = [one for one in containers if one["name"] == "kuberay-operator"]
    operator["image"] = "ghcr.io/us/operator:v1.6.0"
    kubernetes.write(found, namespace="")
    with pytest.raises(KubernetesError, match=r"KubeRay's operator is 1\.6\.0 \(ghcr"):
        check(api, endpoint(objects), lambda line: None)


def test_a_missing_secret_and_a_refused_object_are_both_named(
    api: Api, kubernetes: FakeKubernetes, objects: list[Manifest]
) -> None:
    kubernetes.remove("Secret", "heliostat-keys")
    manifests = endpoint(objects)
    service(manifests)["spec"]["unknownField"] = 1

    with pytest.raises(KubernetesError) as refused:
        check(api, manifests, lambda line: None)

    assert "there is no Secret heliostat-keys: kubectl create secret" in str(refused.value)
    assert "RayService mood: mood: .spec.unknownField: field not declared in schema" in str(refused.value)
    assert kubernetes.find("ServiceAccount", "heliostat") is None


def quota(**hard: str) -> Manifest:
    meta, spec = {"name": "team"}, {"hard": hard}
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta, "spec": spec, "status": {"hard": hard}}


def test_a_quota_without_room_is_refused_and_one_with_room_is_not(
    api: Api, kubernetes: FakeKubernetes, objects: list[Manifest]
) -> None:
    kubernetes.write(quota(**{"requests.memory": "5Gi", "pods": "10"}))

    with pytest.raises(KubernetesError, match=r"quota team: requests.memory \S+Gi needed, 5Gi left of 5Gi"):
        check(api, endpoint(objects), lambda line: None)

    kubernetes.write(quota(**{"requests.memory": "64Gi", "pods": "10"}))
    check(api, endpoint(objects), lambda line: None)
    deploy(api, endpoint(objects))
    kubernetes.write(quota(**{"requests.memory": "5Gi", "pods": "10"}))
    check(api, endpoint(objects), lambda line: None)  # nothing new is asked for


def test_a_second_cluster_needs_room_beside_the_first(
    api: Api, kubernetes: FakeKubernetes, objects: list[Manifest]
) -> None:
    manifests = endpoint(objects)
    service(manifests)["spec"]["upgradeStrategy"] = {"type": "NewCluster"}
    deploy(api, manifests)
    kubernetes.write(quota(pods="1"))
    service(manifests)["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][0]["image"] = (
        "x:2"
    )

    with pytest.raises(KubernetesError, match="no room for RayService mood: quota team: pods 2 needed, 1 left of 1"):
        check(api, manifests, lambda line: None)


def test_nodes_without_room_are_told_of_and_not_refused(
    api: Api, kubernetes: FakeKubernetes, objects: list[Manifest]
) -> None:
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}}
    kubernetes.write({**node, "status": {"allocatable": {"cpu": "100m", "memory": "1Gi"}}}, namespace="")
    said: list[str] = []

    check(api, endpoint(objects), said.append)

    assert any(line.startswith("no node has room now for head (cpu 0.35") for line in said), said


def test_who_may_not_ask_for_nodes_or_secrets_can_deploy(
    api: Api, kubernetes: FakeKubernetes, objects: list[Manifest]
) -> None:
    def forbid(method: str, path: str) -> None:
        if method == "GET" and path.split("/")[-1] in (
            "nodes",
            "resourcequotas",
            "heliostat-keys",
            "deployments",
            "models",
        ):
            raise RefusalError(403, "Forbidden", "forbidden")

    kubernetes.faults.append(forbid)
    said: list[str] = []

    check(api, endpoint(objects), said.append)

    assert said == ["the version of KubeRay's operator is not to be seen here"]


def test_a_failure_in_the_middle_says_which_object_and_takes_back_what_runs(
    api: Api, kubernetes: FakeKubernetes, objects: list[Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(method: str, path: str) -> None:
        if method == "PATCH" and "rayservices" in path:
            raise RefusalError(500, "InternalError", "etcdserver: request timed out")

    kubernetes.faults.append(fail)
    monkeypatch.setattr("heliostat.cluster.deploy.apply.AWAY_SECONDS", 0.1)

    with pytest.raises(KubernetesError, match="RayService mood: etcdserver: request timed out; the platform's"):
        deploy(api, endpoint(objects))


def test_all_goes_in_the_order_in_which_the_last_can_still_be_cleaned_up(
    api: Api, kubernetes: FakeKubernetes, objects: list[Manifest]
) -> None:
    deploy(api, part(objects, "platform", "serve", "cluster"))
    del kubernetes.requests[:]

    remove.remove(api, remove.ours(api, with_volumes=False), 5, lambda line: None)

    ended = [path.split("/")[-2] for method, path in kubernetes.requests if method == "DELETE"]
    assert ended[:2] == ["rayservices", "rayclusters"]
    assert ended.index("deployments") > ended.index("rayclusters")
    assert ended.index("serviceaccounts") > ended.index("configmaps")
    assert ended[-1] == "networkpolicies"
    assert {one["kind"] for one in kubernetes.all_of("PersistentVolumeClaim")} == {"PersistentVolumeClaim"}
    assert kubernetes.find("Secret", "heliostat-keys") is not None, "made by hand"


def test_accounts_and_policies_stay_while_an_endpoint_does_not_end(
    api: Api, kubernetes: FakeKubernetes, kuberay: FakeKubeRay, objects: list[Manifest]
) -> None:
    deploy(api, endpoint(objects))
    kuberay.holds_deletion = True

    with pytest.raises(KubernetesError) as stuck:
        remove.remove(api, remove.ours(api, with_volumes=False), 0.1, lambda line: None)

    assert "RayService mood waits for ray.io/operator" in str(stuck.value)
    assert "accounts, Secrets and policies stay" in str(stuck.value)
    assert kubernetes.find("ServiceAccount", "heliostat") is not None


def test_what_runs_goes_before_what_it_needs() -> None:
    groups = to_delete(
        [Reference("v1", "ServiceAccount", "a"), Reference("ray.io/v1", "RayJob", "j")], lambda one: one.kind
    )

    assert [[str(one) for one in group] for group in groups] == [["RayJob j"], ["ServiceAccount a"]]


def test_a_job_that_a_queue_has_written_is_not_applied_again(
    api: Api, kubernetes: FakeKubernetes, kuberay: FakeKubeRay, objects: list[Manifest]
) -> None:
    manifests = part(objects, "platform", "train")
    kuberay.job = {"jobDeploymentStatus": "Running"}
    done = Applied()
    apply(api, manifests, done)
    live: Any = kubernetes.find("RayJob", "mood-7")
    live["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["metadata"]["labels"]["kueue.x-k8s.io/podset"] = "head"
    kubernetes.write(live, "kueue")

    again = Applied()
    apply(api, manifests, again)

    assert Reference("ray.io/v1", "RayJob", "mood-7") in again.unchanged
    assert kubernetes.find("RayJob", "mood-7") == kubernetes.find("RayJob", "mood-7")
    found: Any = kubernetes.find("RayJob", "mood-7")
    assert "kueue.x-k8s.io/podset" in found["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["metadata"]["labels"]


def test_a_server_that_is_away_for_a_moment_ends_no_deployment(
    api: Api, kubernetes: FakeKubernetes, kuberay: FakeKubeRay, objects: list[Manifest]
) -> None:
    away = iter([RefusalError(503, "ServiceUnavailable", "apiserver is shutting down")] * 3)

    def fail(method: str, path: str) -> None:
        if method == "GET" and path.endswith("/rayservices/mood") and kubernetes.find("RayService", "mood"):
            for error in away:
                raise error

    kubernetes.faults.append(fail)
    manifests = endpoint(objects)
    kuberay.applications["mood"] = {"status": "DEPLOYING"}

    with pytest.raises(KubernetesError, match="not there after"):
        deploy(api, manifests, seconds=0.2)

    assert next(away, None) is None, "it was away, and was asked again"


def test_a_log_that_may_not_be_read_ends_no_job(api: Api, kubernetes: FakeKubernetes, objects: list[Manifest]) -> None:
    def forbid(method: str, path: str) -> None:
        if path.endswith("/log"):
            raise RefusalError(403, "Forbidden", "pods/log is forbidden")

    kubernetes.faults.append(forbid)
    pod = {"name": "mood-7-xyz", "labels": {"job-name": "mood-7"}}
    kubernetes.write({"apiVersion": "v1", "kind": "Pod", "metadata": pod})

    said = deploy(api, part(objects, "platform", "train"))

    assert said.count("its log may not be read: pods/log is forbidden") == 1
    assert said[-1] == "RayJob mood-7: succeeded"


def test_what_a_component_brings_goes_too_and_what_others_made_of_ours_does_not(
    api: Api, kubernetes: FakeKubernetes
) -> None:
    kubernetes.kinds = {**kubernetes.kinds, "kueue.x-k8s.io/v1beta1": {"LocalQueue": ("localqueues", True)}}
    labels = {"app.kubernetes.io/part-of": "heliostat"}
    queue = {"apiVersion": "kueue.x-k8s.io/v1beta1", "kind": "LocalQueue"}
    made: dict[str, Any] = {"apiVersion": "v1", "kind": "Pod"}
    kubernetes.write({**queue, "metadata": {"name": "q", "labels": labels}})
    kubernetes.write({**queue, "metadata": {"name": "owned", "labels": labels, "ownerReferences": [{"name": "x"}]}})
    kubernetes.write({**made, "metadata": {"name": "p", "labels": labels}})

    assert [str(one) for one in remove.ours(api, with_volumes=True)] == ["LocalQueue q"]
