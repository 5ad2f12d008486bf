"""What KubeRay 1.7.0 refuses of a RayCluster, rule by rule."""

from __future__ import annotations

import pytest

from tests.unit.k8s.refused import GONE, Case

CLUSTER = "RayCluster"
HEAD = "spec.headGroupSpec"
POD = f"{HEAD}.template.spec"
ENV = f"{POD}.containers.0.env"
GROUP = "spec.workerGroupSpecs.0"
OPTIONS = "spec.gcsFaultToleranceOptions"
NO_SCALING = {"spec.enableInTreeAutoscaling": False}


def variable(name: str, value: str = "1") -> list[dict[str, str]]:
    return [{"name": name, "value": value}]


CASES = {
    "cluster name length": Case(
        CLUSTER, {"metadata.name": "m" * 54}, {"metadata.name": "m" * 53}, "metadata.name: 'm+' given; 53 characters"
    ),
    "head container": Case(
        CLUSTER, {f"{POD}.containers": []}, {}, rf"{HEAD}\.template\.spec\.containers: not given; at least one"
    ),
    "worker container": Case(
        CLUSTER, {f"{GROUP}.template.spec.containers": []}, {}, r"spec\.workerGroupSpecs\[0\]\..*containers: not given"
    ),
    "sizes twice": Case(
        CLUSTER,
        {f"{HEAD}.resources": {"CPU": "1"}},
        {f"{HEAD}.resources": {"CPU": "1"}, f"{HEAD}.rayStartParams": {}},
        rf"{HEAD}\.rayStartParams\.num-cpus: '0' given; sizes stand there or in `resources`",
    ),
    "labels in start parameters": Case(
        CLUSTER,
        {f"{GROUP}.rayStartParams": {"labels": "a=b"}},
        {f"{GROUP}.labels": {"a": "b"}},
        r"rayStartParams\.labels: 'a=b' given; labels stand in the group's own `labels`",
    ),
    "name of a label": Case(
        CLUSTER,
        {f"{GROUP}.labels": {"-a": "b"}},
        {f"{GROUP}.labels": {"ray.io/a": "b"}},
        r"workerGroupSpecs\[0\]\.labels: '-a' given; the name of a label",
    ),
    "value of a label": Case(
        CLUSTER,
        {f"{GROUP}.labels": {"a": "b c"}},
        {f"{GROUP}.labels": {"a": "b_c"}},
        r"labels\.a: 'b c' given; 63 letters, digits",
    ),
    "bounds without autoscaling": Case(
        CLUSTER,
        {**NO_SCALING, f"{GROUP}.maxReplicas": GONE},
        NO_SCALING,
        r"maxReplicas: not given; both bounds are needed where enableInTreeAutoscaling is not true",
    ),
    "negative minimum": Case(
        CLUSTER, {f"{GROUP}.minReplicas": -1}, {f"{GROUP}.minReplicas": 0}, "minReplicas: -1 given; 0 or more"
    ),
    "negative maximum": Case(
        CLUSTER,
        {f"{GROUP}.minReplicas": GONE, f"{GROUP}.maxReplicas": -1},
        {f"{GROUP}.minReplicas": GONE, f"{GROUP}.maxReplicas": 0},
        "maxReplicas: -1 given; 0 or more",
    ),
    "minimum over maximum": Case(
        CLUSTER, {f"{GROUP}.minReplicas": 5}, {f"{GROUP}.minReplicas": 4}, "minReplicas: 5 given; at most .* 4, is"
    ),
    "suspended group": Case(
        CLUSTER,
        {f"{GROUP}.suspend": True},
        {f"{GROUP}.suspend": True, **NO_SCALING},
        r"workerGroupSpecs\[0\]\.suspend: True given; false is allowed where",
    ),
    "negative idle time of a group": Case(
        CLUSTER,
        {f"{GROUP}.idleTimeoutSeconds": -1},
        {f"{GROUP}.idleTimeoutSeconds": 0},
        "idleTimeoutSeconds: -1 given; 0 or more",
    ),
    "idle time of a group without v2": Case(
        CLUSTER,
        {f"{GROUP}.idleTimeoutSeconds": 60, "spec.autoscalerOptions.version": "v1"},
        {f"{GROUP}.idleTimeoutSeconds": 60},
        r"idleTimeoutSeconds: 60 given; needs autoscalerOptions\.version v2",
    ),
    "priority without v2": Case(
        CLUSTER,
        {f"{GROUP}.priority": 1, "spec.autoscalerOptions.version": "v1"},
        {f"{GROUP}.priority": 0, "spec.autoscalerOptions.version": "v1"},
        r"priority: 1 given; needs autoscalerOptions\.version v2",
    ),
    "priority with an older Ray": Case(
        CLUSTER,
        {f"{GROUP}.priority": 1, "spec.rayVersion": "2.55.1"},
        {f"{GROUP}.priority": 1, "spec.rayVersion": "2.56.0"},
        r"priority: 1 given; needs rayVersion 2\.56\.0",
    ),
    "Redis address without options": Case(
        CLUSTER,
        {ENV: variable("RAY_REDIS_ADDRESS", "redis:6379")},
        {OPTIONS: {"redisAddress": "redis:6379"}},
        r"env\.RAY_REDIS_ADDRESS: 'redis:6379' given; gcsFaultToleranceOptions has a field",
    ),
    "Redis address beside options": Case(
        CLUSTER,
        {ENV: variable("RAY_REDIS_ADDRESS", "a"), OPTIONS: {"redisAddress": "b"}},
        {ENV: variable("RAY_REDIS_ADDRESS", "a"), "metadata.annotations": {"ray.io/ft-enabled": "true"}},
        r"env\.RAY_REDIS_ADDRESS: 'a' given; gcsFaultToleranceOptions has a field",
    ),
    "Redis password in the environment": Case(
        CLUSTER,
        {ENV: variable("REDIS_PASSWORD", "hidden"), OPTIONS: {"redisAddress": "a"}},
        {OPTIONS: {"redisAddress": "a", "redisPassword": {"value": "hidden"}}},
        r"env\.REDIS_PASSWORD: '…' given; gcsFaultToleranceOptions has a field",
    ),
    "Redis password of ray start": Case(
        CLUSTER,
        {f"{HEAD}.rayStartParams": {"redis-password": "hidden"}, OPTIONS: {"redisAddress": "a"}},
        {f"{HEAD}.rayStartParams": {"redis-password": "hidden"}},
        r"redis-password: '…' given; gcsFaultToleranceOptions has a field",
    ),
    "Redis user in the environment": Case(
        CLUSTER, {ENV: variable("REDIS_USERNAME", "me")}, {}, r"env\.REDIS_USERNAME: 'me' given; gcsFault"
    ),
    "Redis user of ray start": Case(
        CLUSTER, {f"{HEAD}.rayStartParams": {"redis-username": "me"}}, {}, "redis-username: 'me' given; gcsFault"
    ),
    "annotation beside options": Case(
        CLUSTER,
        {"metadata.annotations": {"ray.io/ft-enabled": "true"}, OPTIONS: {"redisAddress": "a"}},
        {OPTIONS: {"redisAddress": "a"}},
        r"gcsFaultToleranceOptions: given; no annotation ray\.io/ft-enabled",
    ),
    "storage namespace beside options": Case(
        CLUSTER,
        {"metadata.annotations": {"ray.io/external-storage-namespace": "n"}, OPTIONS: {"redisAddress": "a"}},
        {OPTIONS: {"redisAddress": "a", "externalStorageNamespace": "n"}},
        r"gcsFaultToleranceOptions: given; no annotation ray\.io/external-storage-namespace",
    ),
    "embedded storage without its gate": Case(
        CLUSTER, {OPTIONS: {"backend": "rocksdb"}}, {OPTIONS: {"backend": "redis"}}, "backend: 'rocksdb' given; redis"
    ),
    "storage with Redis": Case(
        CLUSTER,
        {OPTIONS: {"backend": "redis", "storage": {"size": "1Gi"}}},
        {OPTIONS: {"backend": "redis"}},
        r"gcsFaultToleranceOptions\.storage: given; backend redis takes none",
    ),
    "negative idle time": Case(
        CLUSTER,
        {"spec.autoscalerOptions.idleTimeoutSeconds": -1},
        {"spec.autoscalerOptions.idleTimeoutSeconds": 0},
        r"autoscalerOptions\.idleTimeoutSeconds: -1 given; 0 or more",
    ),
    "the autoscaler's command": Case(
        CLUSTER,
        {"spec.autoscalerOptions.env": variable("KUBERAY_GEN_AUTOSCALER_START_CMD")},
        {"spec.autoscalerOptions.env": variable("OTHER")},
        r"autoscalerOptions\.env: 'KUBERAY_GEN_AUTOSCALER_START_CMD' given; that variable is KubeRay's own",
    ),
    "variable of v2 without autoscaling": Case(
        CLUSTER,
        {**NO_SCALING, ENV: variable("RAY_enable_autoscaler_v2")},
        {**NO_SCALING, ENV: variable("RAY_enable_autoscaler_v2", "0")},
        r"env\.RAY_enable_autoscaler_v2: '1' given; needs enableInTreeAutoscaling true",
    ),
    "variable of v2 beside the version": Case(
        CLUSTER,
        {ENV: variable("RAY_enable_autoscaler_v2")},
        {ENV: variable("RAY_enable_autoscaler_v2"), "spec.autoscalerOptions.version": GONE},
        r"env\.RAY_enable_autoscaler_v2: '1' given; autoscalerOptions\.version says it already",
    ),
    "restart of heads with v2": Case(
        CLUSTER,
        {f"{POD}.restartPolicy": "Always"},
        {f"{POD}.restartPolicy": "Never"},
        r"headGroupSpec\.template\.spec\.restartPolicy: 'Always' given; Never is allowed with autoscaler v2",
    ),
    "restart of workers with v2": Case(
        CLUSTER,
        {f"{GROUP}.template.spec.restartPolicy": "OnFailure"},
        {f"{GROUP}.template.spec.restartPolicy": "OnFailure", "spec.autoscalerOptions.version": "v1"},
        r"workerGroupSpecs\[0\]\.template\.spec\.restartPolicy: 'OnFailure' given; Never",
    ),
    "history server without its gate": Case(
        CLUSTER, {"spec.historyServerOptions": {}}, {}, r"historyServerOptions: given; .*gate RayClusterHistoryServer"
    ),
    "network policy without its gate": Case(
        CLUSTER, {"spec.networkPolicy": {}}, {}, "networkPolicy: given; .*gate RayClusterNetworkPolicy, which is off"
    ),
    "TLS without its gate": Case(
        CLUSTER, {"spec.tlsOptions": {}}, {}, "tlsOptions: given; .*gate RayClusterMTLS, which is off"
    ),
    "token with an older Ray": Case(
        CLUSTER,
        {"spec.rayVersion": "2.51.2"},
        {"spec.rayVersion": "2.52.0"},
        r"rayVersion: '2\.51\.2' given; authOptions needs 2\.52\.0 or later",
    ),
    "token without a version": Case(
        CLUSTER,
        {"spec.rayVersion": GONE},
        {"spec.rayVersion": GONE, "spec.authOptions": GONE},
        r"rayVersion: not given; authOptions needs 2\.52\.0",
    ),
    "token of Kubernetes with an older Ray": Case(
        CLUSTER,
        {"spec.rayVersion": "2.54.0", "spec.authOptions": {"mode": "token", "enableK8sTokenAuth": True}},
        {"spec.authOptions": {"mode": "token", "enableK8sTokenAuth": True}},
        r"rayVersion: '2\.54\.0' given; authOptions needs 2\.55\.0",
    ),
    "token of Kubernetes without the mode": Case(
        CLUSTER,
        {"spec.authOptions": {"enableK8sTokenAuth": True}},
        {"spec.authOptions": {"enableK8sTokenAuth": False}},
        r"enableK8sTokenAuth: True given; needs authOptions\.mode token",
    ),
    "token of Kubernetes beside a Secret": Case(
        CLUSTER,
        {"spec.authOptions": {"mode": "token", "enableK8sTokenAuth": True, "secretName": "s"}},
        {"spec.authOptions": {"mode": "token", "secretName": "s"}},
        r"authOptions\.secretName: 's' given; enableK8sTokenAuth beside it takes none",
    ),
    "upgrade of a cluster": Case(
        CLUSTER,
        {"spec.upgradeStrategy": {"type": "NewCluster"}},
        {"spec.upgradeStrategy": {"type": "Recreate"}},
        r"upgradeStrategy\.type: 'NewCluster' given; Recreate or None",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_kuberay_refuses_is_one_line_and_its_neighbour_is_taken(name: str) -> None:
    CASES[name].check()
