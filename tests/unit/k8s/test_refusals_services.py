"""What KubeRay 1.7.0 refuses of a RayService and of a RayCronJob, rule by rule."""

from __future__ import annotations

import pytest

from tests.unit.k8s.refused import GONE, Case

UPGRADE = "spec.upgradeStrategy"
INCREMENTAL = {
    "type": "NewClusterWithIncrementalUpgrade",
    "clusterUpgradeOptions": {"stepSizePercent": 20, "intervalSeconds": 10, "gatewayClassName": "istio"},
}
STEPS = f"{UPGRADE}.clusterUpgradeOptions"


CASES = {
    "service name length": Case(
        "RayService", {"metadata.name": "m" * 48}, {"metadata.name": "m" * 47}, "metadata.name: 'm+' given; 47 char"
    ),
    "name of the head's service": Case(
        "RayService",
        {"spec.rayClusterConfig.headGroupSpec.headService": {"metadata": {"name": "mine"}}},
        {"spec.rayClusterConfig.headGroupSpec.headService": {"metadata": {"labels": {"a": "b"}}}},
        r"headService\.metadata\.name: 'mine' given; KubeRay names it itself",
    ),
    "token of Kubernetes in a service": Case(
        "RayService",
        {"spec.rayClusterConfig.authOptions": {"mode": "token", "enableK8sTokenAuth": True}},
        {"spec.rayClusterConfig.authOptions": {"mode": "token", "secretName": "s"}},
        r"rayClusterConfig\.authOptions\.enableK8sTokenAuth: True given; no RayService takes it",
    ),
    "upgrade of a service's cluster": Case(
        "RayService",
        {"spec.rayClusterConfig.upgradeStrategy": {"type": "Recreate"}},
        {},
        r"rayClusterConfig\.upgradeStrategy\.type: 'Recreate' given; a cluster of a RayService takes none",
    ),
    "rules of a cluster in a service": Case(
        "RayService",
        {"spec.rayClusterConfig.rayVersion": "2.50.0"},
        {"spec.rayClusterConfig.rayVersion": "2.52.0"},
        r"spec\.rayClusterConfig\.rayVersion: '2\.50\.0' given",
    ),
    "initializing timeout": Case(
        "RayService",
        {"metadata.annotations": {"ray.io/initializing-timeout": "half an hour"}},
        {"metadata.annotations": {"ray.io/initializing-timeout": "30m"}},
        r"initializing-timeout: 'half an hour' given; a duration such as 30m",
    ),
    "upgrade of a service": Case(
        "RayService",
        {f"{UPGRADE}.type": "Recreate"},
        {f"{UPGRADE}.type": "None"},
        r"spec\.upgradeStrategy\.type: 'Recreate' given; NewCluster, NewClusterWithIncrementalUpgrade or None",
    ),
    "negative delay": Case(
        "RayService",
        {"spec.rayClusterDeletionDelaySeconds": -1},
        {"spec.rayClusterDeletionDelaySeconds": 0},
        "rayClusterDeletionDelaySeconds: -1 given; 0 or more",
    ),
    "incremental without autoscaling": Case(
        "RayService",
        {UPGRADE: INCREMENTAL, "spec.rayClusterConfig.enableInTreeAutoscaling": False},
        {UPGRADE: INCREMENTAL},
        r"upgradeStrategy\.type: .* given; needs rayClusterConfig\.enableInTreeAutoscaling true",
    ),
    "incremental without options": Case(
        "RayService",
        {UPGRADE: INCREMENTAL, STEPS: GONE},
        {UPGRADE: INCREMENTAL},
        "clusterUpgradeOptions: not given; NewClusterWithIncrementalUpgrade needs it",
    ),
    "incremental without a gateway class": Case(
        "RayService",
        {UPGRADE: INCREMENTAL, f"{STEPS}.gatewayClassName": GONE},
        {UPGRADE: INCREMENTAL},
        "gatewayClassName: not given; the name of a GatewayClass",
    ),
    "incremental without an interval": Case(
        "RayService",
        {UPGRADE: INCREMENTAL, f"{STEPS}.intervalSeconds": 0},
        {UPGRADE: INCREMENTAL, f"{STEPS}.intervalSeconds": 1},
        "intervalSeconds: 0 given; 1 or more",
    ),
    "incremental without a step": Case(
        "RayService",
        {UPGRADE: INCREMENTAL, f"{STEPS}.stepSizePercent": GONE},
        {UPGRADE: INCREMENTAL},
        "stepSizePercent: not given; 0 to 100",
    ),
    "step over the surge": Case(
        "RayService",
        {UPGRADE: INCREMENTAL, f"{STEPS}.maxSurgePercent": 10},
        {UPGRADE: INCREMENTAL, f"{STEPS}.maxSurgePercent": 20},
        "stepSizePercent: 20 given; at most maxSurgePercent, 10, is allowed",
    ),
    "surge": Case(
        "RayService",
        {UPGRADE: INCREMENTAL, f"{STEPS}.maxSurgePercent": 101},
        {UPGRADE: INCREMENTAL, f"{STEPS}.maxSurgePercent": 100},
        "maxSurgePercent: 101 given; 0 to 100",
    ),
    "cron job name length": Case(
        "RayCronJob", {"metadata.name": "m" * 37}, {"metadata.name": "m" * 36}, "metadata.name: 'm+' given; 36 char"
    ),
    "time zone in a schedule": Case(
        "RayCronJob",
        {"spec.schedule": "CRON_TZ=Europe/Berlin 0 3 * * 1"},
        {"spec.timeZone": "Europe/Berlin"},
        r"spec\.schedule: 'CRON_TZ=.*' given; a time zone stands in spec\.timeZone",
    ),
    "schedule": Case(
        "RayCronJob",
        {"spec.schedule": "0 24 * * 1"},
        {"spec.schedule": "*/15 0-23/2 1,15 jan-mar mon"},
        r"spec\.schedule: '0 24 \* \* 1' given; five fields of cron",
    ),
    "time zone": Case(
        "RayCronJob",
        {"spec.timeZone": "Berlin"},
        {"spec.timeZone": "Europe/Berlin"},
        r"spec\.timeZone: 'Berlin' given; a name such as Europe/Berlin",
    ),
    "rules of a job in a cron job": Case(
        "RayCronJob",
        {"spec.jobTemplate.backoffLimit": -1},
        {"spec.jobTemplate.backoffLimit": 0},
        r"spec\.jobTemplate\.backoffLimit: -1 given",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_kuberay_refuses_is_one_line_and_its_neighbour_is_taken(name: str) -> None:
    CASES[name].check()
