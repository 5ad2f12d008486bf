"""What goes for every object and every pod, whoever makes it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from heliostat import __version__
from heliostat.infra.alerts.watching import EXPORTER
from tests.unit.k8s.conftest import PLAIN_KINDS

K8S = Path(__file__).resolve().parents[3] / "k8s"
OLDEST, NEWEST = "1.30", "1.37"
"""Kubernetes releases that the objects must be valid for."""
OTHER_GROUPS = ("ray.io", "monitoring.coreos.com", "kueue.x-k8s.io")
RAY_DRAIN_SECONDS = 30
"""RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S: how long `ray start` lets a node drain that gets SIGTERM."""
PARTS = {"platform", "cluster", "train", "serve", "monitoring"}


def test_k8s_holds_yaml_and_what_yaml_reads() -> None:
    files = [file for file in K8S.rglob("*") if file.is_file()]
    assert len(files) > 10
    assert {file.suffix for file in files} <= {".yaml", ".env"}


@pytest.mark.usefixtures("definitions_read_once")
@pytest.mark.parametrize("release", [OLDEST, NEWEST])
def test_objects_are_what_kubernetes_knows(manifests: Any, release: str) -> None:
    checked = 0
    for one in manifests.objects:
        assert one["metadata"]["name"]
        if one["apiVersion"].split("/")[0] not in OTHER_GROUPS:
            kubernetes_validate.validate(one, release, strict=True)
            checked += 1
    assert checked >= 10


def test_there_is_all_that_the_path_needs(manifests: Any) -> None:
    kinds = {one["kind"] for one in manifests.objects}
    assert {"RayCluster", "RayJob", "RayService", "NetworkPolicy", "ServiceAccount", "ConfigMap"} <= kinds
    assert manifests.only("Deployment", "heliostat-mlflow")
    assert manifests.only("PersistentVolumeClaim", "heliostat-mlflow")


def test_objects_name_no_namespace_and_say_what_they_belong_to(manifests: Any) -> None:
    for one in manifests.objects:
        labels = one["metadata"]["labels"]
        assert "namespace" not in one["metadata"], one["metadata"]["name"]
        assert labels["app.kubernetes.io/part-of"] == "heliostat"
        assert labels["app.kubernetes.io/component"] in PARTS, "kubectl apply -l picks parts by it"


def test_images_are_pinned(manifests: Any) -> None:
    images = {image for image in walk(manifests.objects, "image") if isinstance(image, str)}
    assert len(images) >= 2
    for image in images:
        name, _, tag = image.rpartition("/")[2].partition(":")
        assert re.fullmatch(r"v?\d+\.\d+(\.\d+)?", tag) or "@sha256:" in image, image
        if name in ("train", "serve") and "@" not in image:
            assert tag == __version__


def test_no_secret_is_in_the_manifests(manifests: Any) -> None:
    assert not manifests.of("Secret")
    for variable in walk(manifests.objects, "env"):
        for one in variable:
            named_like_one = re.search("KEY|TOKEN|SECRET|PASSWORD", one["name"])
            assert not named_like_one or "secretKeyRef" in one["valueFrom"], one["name"]
    for one in manifests.of("ConfigMap"):
        assert not [key for key in one["data"] if re.search("KEY|TOKEN|SECRET|PASSWORD", key)]


def walk(value: Any, key: str) -> list[Any]:
    """The values of `key` at any depth."""
    if isinstance(value, list):
        return [found for item in value for found in walk(item, key)]
    if not isinstance(value, dict):
        return []
    return [
        *([value[key]] if key in value else []),
        *(found for item in value.values() for found in walk(item, key)),
    ]


def test_pods_keep_to_the_restricted_standard(manifests: Any) -> None:
    for pod in manifests.pods():
        context = pod.spec["securityContext"]
        assert context["runAsNonRoot"] is True, pod.name
        assert context["runAsUser"] > 0, pod.name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, pod.name
        for volume in pod.spec.get("volumes", []):
            assert set(volume) - {"name"} <= {"emptyDir", "configMap", "persistentVolumeClaim", "projected"}, pod.name
        for container in [*pod.spec.get("initContainers", []), *pod.spec["containers"]]:
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False, pod.name
            assert own["capabilities"] == {"drop": ["ALL"]}, pod.name
            assert own["readOnlyRootFilesystem"] is True, pod.name
            mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
            assert "/tmp" in mounted, f"{pod.name}: nothing could be written"


def test_autoscaler_containers_are_restricted_too(manifests: Any) -> None:
    options = walk(manifests.objects, "autoscalerOptions")
    assert len(options) == 3
    for one in options:
        assert one["securityContext"]["allowPrivilegeEscalation"] is False
        assert one["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert one["resources"]["limits"]["memory"]


def token_volumes(pod: Any) -> list[dict[str, Any]]:
    """Its volumes with a token for Kubernetes."""
    volumes = pod.spec.get("volumes", [])
    return [one for one in volumes if walk(one, "serviceAccountToken") or walk(one, "secret")]


def test_no_container_of_ours_may_ask_kubernetes_for_anything(manifests: Any) -> None:
    """A training driver runs in the head's container: a token there would open every Secret of the namespace."""
    for account in manifests.of("ServiceAccount"):
        assert account["automountServiceAccountToken"] is False
    for pod in manifests.pods():
        assert pod.spec["automountServiceAccountToken"] is False, pod.name
        tokens = {volume["name"] for volume in token_volumes(pod)}
        assert bool(tokens) == (pod.role == "head"), pod.name
        for container in [*pod.spec["containers"], *pod.spec.get("initContainers", [])]:
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            assert not mounted & tokens, f"{pod.name}: {container['name']}"


def test_the_autoscaler_finds_what_a_kubernetes_client_looks_for(manifests: Any) -> None:
    heads = [pod for pod in manifests.pods() if pod.role == "head"]
    options = [
        one for kind in ("RayCluster", "RayJob", "RayService") for one in walk(manifests.of(kind), "autoscalerOptions")
    ]
    assert len(heads) == len(options) == 3
    for head, one in zip(sorted(heads, key=lambda pod: str(pod.owner["kind"])), options, strict=True):
        [volume] = token_volumes(head)
        [mount] = one["volumeMounts"]
        assert mount["name"] == volume["name"]
        assert mount["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount"
        assert mount["readOnly"] is True
        paths = {path for source in volume["projected"]["sources"] for path in walk(source, "path")}
        assert paths == {"token", "ca.crt", "namespace"}
        assert walk(volume, "configMap")[0]["name"] == "kube-root-ca.crt"
        assert walk(volume, "fieldPath") == ["metadata.namespace"]


def test_every_container_has_resources(manifests: Any) -> None:
    for pod in manifests.pods():
        for container in [*pod.spec.get("initContainers", []), *pod.spec["containers"]]:
            resources = container["resources"]
            assert {"cpu", "memory"} <= set(resources["requests"]), pod.name
            assert {"cpu", "memory"} <= set(resources["limits"]), pod.name
            assert resources["requests"]["memory"] == resources["limits"]["memory"] or pod.role in (
                *PLAIN_KINDS,
                "submitter",
            ), f"{pod.name}: Ray plans with its limit, so it must be there"


def test_every_server_has_probes_and_time_to_stop(manifests: Any) -> None:
    for pod in manifests.pods():
        if pod.role in ("submitter", "Job", "CronJob"):
            continue
        ports = {port["name"]: port["containerPort"] for port in pod.spec["containers"][0]["ports"]}
        container = pod.spec["containers"][0]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if "exec" not in container[probe]:  # its command is looked at in test_commands.py
                port = container[probe]["httpGet"]["port"]
                assert isinstance(port, int) or port in ports, f"{pod.name} {probe}"
        if pod.labels["app.kubernetes.io/component"] == "train" and pod.role in ("head", "worker"):
            assert "lifecycle" not in container, f"{pod.name}: a run must store a checkpoint when Ray drains its node"
            assert pod.spec["terminationGracePeriodSeconds"] >= RAY_DRAIN_SECONDS + 16, pod.name
            continue
        [command] = walk(container["lifecycle"]["preStop"], "command")
        waits = re.search(r"sleep (\d+)", " ".join(command))
        seconds = int(waits.group(1)) if waits else 0
        # `ray stop` gives processes 16 s before it kills them.
        needed = seconds + (16 if "ray" in " ".join(command) else 0)
        assert pod.spec["terminationGracePeriodSeconds"] > needed, pod.name


def test_config_maps_that_pods_read_are_there(manifests: Any) -> None:
    there = {one["metadata"]["name"] for one in manifests.of("ConfigMap")}
    ray = [pod for pod in manifests.pods() if pod.role in ("head", "worker")]
    assert len(ray) == 6
    for pod in ray:
        assert len(pod.environment) == 1
        assert set(pod.environment) <= there, pod.name
        assert "-" in pod.environment[0].removeprefix("heliostat-environment"), "named after its content"
    mounted = [volume["configMap"]["name"] for pod in ray for volume in pod.spec["volumes"] if "configMap" in volume]
    assert len(mounted) == 2
    assert set(mounted) <= there


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    return set(selector.get("matchLabels", {}).items()) <= set(labels.items()) and all(
        one["key"] in labels and labels[one["key"]] in one.get("values", labels.values())
        for one in selector.get("matchExpressions", [])
    )


def policies(manifests: Any, labels: dict[str, str]) -> list[dict[str, Any]]:
    return [one for one in manifests.of("NetworkPolicy") if selects(one["spec"]["podSelector"], labels)]


def test_every_pod_is_closed_by_default(manifests: Any) -> None:
    for pod in manifests.pods():
        closing = [one for one in policies(manifests, pod.labels) if one["metadata"]["name"] == "heliostat"]
        assert closing, f"{pod.name} is open to everyone"
        assert closing[0]["spec"]["policyTypes"] == ["Ingress", "Egress"]
        assert "ingress" not in closing[0]["spec"], "which lets nobody in"


def test_no_policy_lets_everyone_in(manifests: Any) -> None:
    for policy in manifests.of("NetworkPolicy"):
        for rule in policy["spec"].get("ingress", []):
            assert rule["from"], policy["metadata"]["name"]
            for peer in rule["from"]:
                narrow = peer.get("podSelector") or peer.get("namespaceSelector")
                assert narrow, policy["metadata"]["name"]


@pytest.mark.parametrize(
    ("component", "role", "caller", "port", "allowed"),
    [
        ("serve", "worker", {"heliostat/client": "true"}, 8000, True),
        ("serve", "worker", {"heliostat/client": "true"}, 8265, False),
        ("serve", "worker", {}, 8000, False),
        ("train", "head", {"heliostat/client": "true"}, 8265, False),
    ],
)
def test_who_reaches_what_from_other_namespaces(
    manifests: Any, component: str, role: str, caller: dict[str, str], port: int, allowed: bool
) -> None:
    labels = {"app.kubernetes.io/part-of": "heliostat", "app.kubernetes.io/component": component}
    rules = [
        rule
        for policy in policies(manifests, {**labels, "ray.io/node-type": role, "ray.io/is-ray-node": "yes"})
        for rule in policy["spec"].get("ingress", [])
        for peer in rule["from"]
        if "namespaceSelector" in peer and "podSelector" not in peer and selects(peer["namespaceSelector"], caller)
    ]
    open_ports = {one["port"] for rule in rules for one in rule["ports"]}
    assert (port in open_ports) == allowed


def test_services_find_pods(manifests: Any) -> None:
    labels = [pod.labels for pod in manifests.pods()]
    for service in manifests.of("Service"):
        assert any(service["spec"]["selector"].items() <= one.items() for one in labels)
    for budget in manifests.of("PodDisruptionBudget"):
        assert any(selects(budget["spec"]["selector"], one) for one in labels)


def test_the_budget_leaves_room_for_a_drain() -> None:
    folder = K8S / "overlays" / "production"
    budget = yaml.safe_load((folder / "disruption.yaml").read_text())["spec"]["minAvailable"]
    patch = yaml.safe_load((folder / "service-pods.yaml").read_text())
    least = next(one["value"] for one in patch if one["path"].endswith("minReplicas"))
    assert budget == least - 1


def test_no_drain_takes_a_head_of_an_endpoint_in_production(manifests: Any) -> None:
    """Not one of the two that there are in an upgrade either, and none of a training cluster is held."""
    budgets = [one for one in manifests.of("PodDisruptionBudget") if one["metadata"]["name"] == "heliostat-head"]
    assert len(budgets) == manifests.target.endswith("production")
    for budget in budgets:
        held = [pod for pod in manifests.pods() if selects(budget["spec"]["selector"], pod.labels)]
        assert [(pod.owner["kind"], pod.role) for pod in held] == [("RayService", "head")]
        assert budget["spec"]["minAvailable"] == 2


def test_nodes_that_take_no_pods_count_for_nothing_where_replicas_are_spread(manifests: Any) -> None:
    """Else a tainted or drained node is an empty one, and no other gets a second replica."""
    found = [one for constraints in walk(manifests.objects, "topologySpreadConstraints") for one in constraints]
    assert bool(found) == manifests.target.endswith("production")
    assert {one.get("nodeTaintsPolicy") for one in found} <= {"Honor"}


def test_a_monitor_scrapes_ports_that_pods_have(manifests: Any) -> None:
    for monitor in manifests.of("PodMonitor"):
        pods = [pod for pod in manifests.pods() if selects(monitor["spec"]["selector"], pod.labels)]
        assert len(pods) == {"heliostat": 6, "heliostat-exporter": 1}[monitor["metadata"]["name"]]
        named = {port["name"] for pod in pods for port in pod.spec["containers"][0]["ports"]}
        scraped = [one["port"] for one in monitor["spec"]["podMetricsEndpoints"]]
        assert set(scraped) <= named
        for pod in pods:
            assert scraped[0] in {port["name"] for port in pod.spec["containers"][0]["ports"]}


def test_alerts_find_the_exporter_by_its_job(manifests: Any) -> None:
    for monitor in manifests.of("PodMonitor"):
        for pod in manifests.pods():
            if monitor["metadata"]["name"] == "heliostat-exporter" and selects(monitor["spec"]["selector"], pod.labels):
                assert f'job="{pod.labels[monitor["spec"]["jobLabel"]]}"' == EXPORTER


def test_the_dashboard_comes_along_in_production() -> None:
    folder = K8S / "overlays" / "production"
    components = yaml.safe_load((folder / "kustomization.yaml").read_text())["components"]
    assert "../../components/monitoring" in components
