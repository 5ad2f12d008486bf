"""What each component promises for itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import mlflow.cli
import pytest
from typer.testing import CliRunner

from heliostat.cli import app
from heliostat.cluster.kubernetes.build import build
from heliostat.infra.config.strict import build as checked
from heliostat.infra.config.strict import parse_yaml
from heliostat.spec import Spec
from tests.unit.k8s.components.conftest import over
from tests.unit.k8s.conftest import K8S, Manifests
from tests.unit.k8s.quantities import canonical
from tests.unit.k8s.test_kuberay import closed, schema, schemas  # noqa: F401
from tests.unit.k8s.test_manifests import policies, selects


def test_each_cluster_keeps_what_its_head_knows_apart(tmp_path: Path) -> None:
    """KubeRay gives each cluster a storage namespace of its own unless one is named: two share it in an upgrade."""
    for name in ("head-recovery", "redis"):
        (place := tmp_path / name).mkdir()
        options = over(name, place).only("RayService")["spec"]["rayClusterConfig"]["gcsFaultToleranceOptions"]
        assert "externalStorageNamespace" not in options
        assert options["redisPassword"] == {
            "valueFrom": {"secretKeyRef": {"name": "heliostat-redis", "key": "password"}}
        }


def test_heads_and_their_clean_up_reach_redis_and_workers_do_not(tmp_path: Path) -> None:
    found = over("redis", tmp_path)
    host, _, port = found.only("RayService")["spec"]["rayClusterConfig"]["gcsFaultToleranceOptions"][
        "redisAddress"
    ].partition(":")
    service = found.only("Service", host)["spec"]
    [redis] = [pod for pod in found.pods() if pod.owner["metadata"]["name"] == host]
    assert service["selector"].items() <= redis.labels.items()
    assert int(port) == service["ports"][0]["port"]
    [closing] = [one for one in policies(found, redis.labels) if one["metadata"]["name"] == host]
    [rule] = closing["spec"]["ingress"]
    [head] = [pod for pod in found.pods() if pod.role == "head" and pod.owner["kind"] == "RayService"]
    for kind, reaches in (("head", True), ("redis-cleanup", True), ("worker", False)):
        labels = {**head.labels, "ray.io/node-type": kind}
        assert any(selects(peer["podSelector"], labels) for peer in rule["from"]) == reaches, kind
        outwards = [one for one in policies(found, labels) if one["metadata"]["name"] == "heliostat-head-recovery"]
        assert bool(outwards) == reaches, kind
    assert [one["port"] for one in rule["ports"]] == [int(port)]


def jobs_pods(found: Manifests) -> list[Any]:
    return [pod for pod in found.pods() if pod.owner["kind"] == "RayJob"]


@pytest.fixture(params=["base", "overlays/local", "overlays/gpu", "overlays/production"])
def queued(request: pytest.FixtureRequest, tmp_path: Path) -> Manifests:
    from tests.unit.k8s.components.conftest import with_components

    return with_components(tmp_path, request.param, ("kueue",))


def test_the_queue_has_every_resource_that_a_pod_of_the_job_asks_for(queued: Manifests) -> None:
    """Else the job waits for ever; each pod is one of `pods` too."""
    queue = Manifests("queues", build(K8S / "samples" / "queues")).only("ClusterQueue")
    [group] = queue["spec"]["resourceGroups"]
    asked = {"pods"}
    for pod in jobs_pods(queued):
        for container in [*pod.spec.get("initContainers", []), *pod.spec["containers"]]:
            asked |= {**container["resources"].get("limits", {}), **container["resources"]["requests"]}.keys()
    assert {"cpu", "memory"} <= asked
    assert asked <= set(group["coveredResources"])
    for flavor in group["flavors"]:
        assert [one["name"] for one in flavor["resources"]] == group["coveredResources"], "Kueue wants them in order"
        for one in flavor["resources"]:
            assert one["nominalQuota"] == canonical(one["nominalQuota"])


def test_a_queued_job_waits_and_has_a_size_that_the_queue_can_count(queued: Manifests) -> None:
    job = queued.only("RayJob")
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == queued.only("LocalQueue")["metadata"]["name"]
    assert job["spec"]["suspend"] is True
    assert job["spec"]["shutdownAfterJobFinishes"] is True, "KubeRay refuses to suspend others"
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["enableInTreeAutoscaling"] is False
    assert "autoscalerOptions" not in cluster
    for group in cluster["workerGroupSpecs"]:
        assert group["replicas"] == group["minReplicas"] == group["maxReplicas"] >= 1
    for other in ("RayCluster", "RayService"):
        assert "kueue.x-k8s.io/queue-name" not in queued.only(other)["metadata"]["labels"], "they scale by themselves"


def test_queues_and_priorities_are_those_that_the_job_names(queued: Manifests) -> None:
    sample = Manifests("queues", build(K8S / "samples" / "queues"))
    names = {kind: {one["metadata"]["name"] for one in sample.of(kind)} for kind in ("ClusterQueue", "ResourceFlavor")}
    assert queued.only("LocalQueue")["spec"]["clusterQueue"] in names["ClusterQueue"]
    [group] = sample.only("ClusterQueue")["spec"]["resourceGroups"]
    assert {one["name"] for one in group["flavors"]} <= names["ResourceFlavor"]
    values = {one["metadata"]["name"]: one["value"] for one in sample.of("WorkloadPriorityClass")}
    assert values["heliostat-high"] > values["heliostat-low"]
    assert queued.only("RayJob")["metadata"]["labels"]["kueue.x-k8s.io/priority-class"] in values
    assert {one["apiVersion"] for one in [*sample.objects, queued.only("LocalQueue")]} == {"kueue.x-k8s.io/v1beta2"}


def test_a_team_has_a_namespace_a_quota_a_queue_and_a_prefix_of_its_own() -> None:
    team = Manifests("team", build(K8S / "samples" / "team"))
    space = team.only("Namespace")["metadata"]
    assert {one["metadata"]["namespace"] for one in team.objects if one["kind"] != "Namespace"} == {space["name"]}
    assert space["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    queue = Manifests("queues", build(K8S / "samples" / "queues")).only("ClusterQueue")
    assert selects(queue["spec"]["namespaceSelector"], space["labels"])
    settings = team.only("ConfigMap", "heliostat-environment")["data"]
    assert settings["HELIOSTAT_STORAGE"].endswith(f"/{space['name']}")
    hard = team.only("ResourceQuota")["spec"]["hard"]
    assert all(value == canonical(value) for value in hard.values())
    defaults = team.only("LimitRange")["spec"]["limits"][0]
    named = {key.removeprefix("requests.") for key in hard if key.startswith("requests.")} - {"storage"}
    for container in (one for pod in team.pods() for one in pod.spec["containers"]):
        assert named - {"nvidia.com/gpu"} <= {**defaults["defaultRequest"], **container["resources"]["requests"]}.keys()


def dry_run(words: list[str], found: Manifests, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Spec:
    """What a command of a pod would do, read from its mounted spec and its ConfigMap."""
    for name, value in found.only("ConfigMap", "heliostat-environment")["data"].items():
        monkeypatch.setenv(name, value)
    (folder / "spec.yaml").write_text(found.only("ConfigMap", "heliostat-spec")["data"]["spec.yaml"])
    assert words[0] == "heliostat"
    given = [word.replace("/etc/heliostat/", f"{folder}/") for word in words[1:]]
    said = CliRunner().invoke(app, [*given, "--dry-run"])
    assert said.exit_code == 0, said.output
    return checked(Spec, parse_yaml(said.output))


def test_retraining_is_a_command_that_there_is_for_the_cluster_that_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = over("retraining", tmp_path)
    spec = found.only("CronJob")["spec"]
    [container] = spec["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    words = container["command"] + container["args"]
    planned = dry_run(words, found, tmp_path, monkeypatch)
    assert planned.train.promote == "better"
    assert planned.storage.url.startswith("s3://")
    cluster = found.only("RayCluster")["metadata"]["name"]
    assert words[words.index("--address") + 1] == f"http://{cluster}-head-svc:8265"
    [token] = [one for one in container["env"] if one["name"] == "RAY_AUTH_TOKEN"]
    assert token["valueFrom"]["secretKeyRef"] == {"name": cluster, "key": "auth_token"}
    assert (spec["concurrencyPolicy"], spec["timeZone"]) == ("Forbid", "Etc/UTC")
    assert spec["startingDeadlineSeconds"] > 100, "with less than the controller's 10 s it may never start"
    assert spec["jobTemplate"]["spec"]["backoffLimit"] == 0
    assert spec["jobTemplate"]["spec"]["activeDeadlineSeconds"] > 0


def test_retraining_by_kuberay_is_the_job_with_the_gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = over("retraining-raycronjob", tmp_path)
    cron, job = found.only("RayCronJob"), found.only("RayJob")
    assert len(cron["metadata"]["name"]) <= 36
    template = cron["spec"]["jobTemplate"]
    assert template["rayClusterSpec"] == job["spec"]["rayClusterSpec"]
    assert template["submitterPodTemplate"] == job["spec"]["submitterPodTemplate"]
    assert " " not in cron["spec"]["timeZone"]
    assert "TZ" not in cron["spec"]["schedule"]
    planned = dry_run(template["entrypoint"].split(), found, tmp_path, monkeypatch)
    assert (planned.train.promote, planned.train.resume) == ("better", "auto")


def test_kuberay_knows_the_fields_of_retraining(tmp_path: Path, schemas: dict[str, Any]) -> None:  # noqa: F811
    found = over("retraining-raycronjob", tmp_path).only("RayCronJob")
    jsonschema.Draft202012Validator(closed(schema("raycronjobs"))).validate(found)


def test_an_incremental_upgrade_is_one_that_kuberay_takes(tmp_path: Path) -> None:
    """Its validation, which runs after the object was taken."""
    found = over("incremental-upgrade", tmp_path)
    spec = found.only("RayService")["spec"]
    options = spec["upgradeStrategy"]["clusterUpgradeOptions"]
    assert spec["upgradeStrategy"]["type"] == "NewClusterWithIncrementalUpgrade"
    assert spec["rayClusterConfig"]["enableInTreeAutoscaling"] is True
    assert options["gatewayClassName"]
    assert options["intervalSeconds"] > 0
    assert 0 < options["stepSizePercent"] <= options["maxSurgePercent"] <= 100


def test_a_gateway_reaches_the_endpoint_and_nothing_else(tmp_path: Path) -> None:
    found = over("incremental-upgrade", tmp_path)
    gateway = {"gateway.networking.k8s.io/gateway-name": "sentiment-gateway"}
    for component, ports in (("serve", {8000}), ("train", set())):
        labels = {"app.kubernetes.io/part-of": "heliostat", "app.kubernetes.io/component": component}
        opened = {
            one["port"]
            for policy in policies(found, {**labels, "ray.io/node-type": "worker"})
            for rule in policy["spec"].get("ingress", [])
            for peer in rule["from"]
            if "namespaceSelector" not in peer and selects(peer["podSelector"], gateway)
            for one in rule["ports"]
        }
        assert opened == ports, component


def test_mlflow_on_postgresql_has_its_address_from_a_secret_and_artifacts_in_the_bucket(tmp_path: Path) -> None:
    found = over("postgres", tmp_path)
    assert not found.of("PersistentVolumeClaim")
    pod = found.only("Deployment", "heliostat-mlflow")["spec"]["template"]["spec"]
    [upgrade], [server] = pod["initContainers"], pod["containers"]
    for container in (upgrade, server):
        words = " ".join(container["command"] + container["args"])
        assert "postgresql" not in words
        assert "$(" not in words, "which would put it into the list of processes"
        [address] = [one for one in container["env"] if one["name"] == "MLFLOW_BACKEND_STORE_URI"]
        assert address["valueFrom"] == {"secretKeyRef": {"name": "heliostat-mlflow-database", "key": "uri"}}
    assert upgrade["image"] == server["image"], "tables and server are of one version"
    assert found.only("Deployment", "heliostat-mlflow")["spec"]["strategy"] == {"type": "Recreate"}
    places = [one["name"] for one in server["env"]]
    assert places.index("HELIOSTAT_STORAGE") < places.index("MLFLOW_ARTIFACTS_DESTINATION"), "it is made of that"
    [given] = [one["value"] for one in server["env"] if one["name"] == "MLFLOW_ARTIFACTS_DESTINATION"]
    assert given == "$(HELIOSTAT_STORAGE)/mlflow"


def test_mlflow_takes_the_database_from_its_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [server] = over("postgres", tmp_path).only("Deployment", "heliostat-mlflow")["spec"]["template"]["spec"][
        "containers"
    ]
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", "postgresql://u:p@h/n")
    monkeypatch.setenv("MLFLOW_ARTIFACTS_DESTINATION", "s3://heliostat/mlflow")
    given = mlflow.cli.cli.commands["server"].make_context("mlflow server", list(server["args"])).params
    assert (given["backend_store_uri"], given["artifacts_destination"]) == (
        "postgresql://u:p@h/n",
        "s3://heliostat/mlflow",
    )


def test_the_tables_are_made_and_made_again_by_the_container_before_the_server(tmp_path: Path) -> None:
    """On a database in a file; tests/integration/test_tracking_server.py has it on PostgreSQL."""
    pod = over("postgres", tmp_path).only("Deployment", "heliostat-mlflow")["spec"]["template"]["spec"]
    [upgrade] = pod["initContainers"]
    program, *words = upgrade["command"] + upgrade["args"]
    assert program == "python"
    address = {"MLFLOW_BACKEND_STORE_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, *words], env={**os.environ, **address}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "mlflow.db").stat().st_size > 0
