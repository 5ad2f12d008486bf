"""What KubeRay 1.7.0 refuses of a RayJob, rule by rule."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.k8s.refused import GONE, Case

RULES = "spec.deletionStrategy.deletionRules"
NO_SHUTDOWN = {"spec.shutdownAfterJobFinishes": False, "spec.ttlSecondsAfterFinished": 0}


def after(seconds: int, policy: str, **state: str) -> dict[str, Any]:
    return {"policy": policy, "condition": {"ttlSeconds": seconds, **(state or {"jobStatus": "FAILED"})}}


def ends(policy: str) -> dict[str, Any]:
    return {"onSuccess": {"policy": "DeleteSelf"}, "onFailure": {"policy": policy}}


CASES = {
    "job name length": Case(
        "RayJob", {"metadata.name": "m" * 48}, {"metadata.name": "m" * 47}, "metadata.name: 'm+' given; 47 characters"
    ),
    "name is a label": Case(
        "RayJob", {"metadata.name": "7-mood"}, {"metadata.name": "mood-7"}, "metadata.name: '7-mood' given; .* a letter"
    ),
    "suspend without shutdown": Case(
        "RayJob",
        {**NO_SHUTDOWN, "spec.suspend": True},
        {"spec.suspend": True},
        r"spec\.suspend: True given; needs shutdownAfterJobFinishes true",
    ),
    "time to live without shutdown": Case(
        "RayJob",
        {"spec.shutdownAfterJobFinishes": False},
        NO_SHUTDOWN,
        r"spec\.ttlSecondsAfterFinished: 600 given; needs shutdownAfterJobFinishes true",
    ),
    "negative time to live": Case(
        "RayJob",
        {"spec.ttlSecondsAfterFinished": -1},
        {"spec.ttlSecondsAfterFinished": 0},
        "ttlSecondsAfterFinished: -1 given; 0 or more",
    ),
    "negative retries": Case(
        "RayJob", {"spec.backoffLimit": -1}, {"spec.backoffLimit": 0}, "backoffLimit: -1 given; 0 or more"
    ),
    "deadline": Case(
        "RayJob",
        {"spec.activeDeadlineSeconds": 0},
        {"spec.activeDeadlineSeconds": 1},
        "activeDeadlineSeconds: 0 given; 1 or more",
    ),
    "deadline before it runs": Case(
        "RayJob",
        {"spec.preRunningDeadlineSeconds": 0},
        {"spec.preRunningDeadlineSeconds": 1},
        "preRunningDeadlineSeconds: 0 given; 1 or more",
    ),
    "no cluster": Case(
        "RayJob",
        {"spec.rayClusterSpec": GONE},
        {"spec.rayClusterSpec": GONE, "spec.clusterSelector": {"ray.io/cluster": "c"}, "spec.backoffLimit": 0},
        "rayClusterSpec: not given; one of it and clusterSelector",
    ),
    "no name of a cluster": Case(
        "RayJob",
        {"spec.clusterSelector": {"cluster": "c"}, "spec.backoffLimit": 0},
        {"spec.clusterSelector": {"ray.io/cluster": "c"}, "spec.backoffLimit": 0},
        r"clusterSelector: given; the name of a cluster at ray\.io/cluster is needed",
    ),
    "suspend with a selector": Case(
        "RayJob",
        {"spec.clusterSelector": {"ray.io/cluster": "c"}, "spec.backoffLimit": 0, "spec.suspend": True},
        {"spec.clusterSelector": {"ray.io/cluster": "c"}, "spec.backoffLimit": 0},
        "suspend: True given; false is allowed with clusterSelector",
    ),
    "retries with a selector": Case(
        "RayJob",
        {"spec.clusterSelector": {"ray.io/cluster": "c"}},
        {"spec.clusterSelector": {"ray.io/cluster": "c"}, "spec.backoffLimit": 0},
        "backoffLimit: 3 given; 0 is allowed with clusterSelector",
    ),
    "retries of an interactive job": Case(
        "RayJob",
        {"spec.submissionMode": "InteractiveMode"},
        {"spec.submissionMode": "InteractiveMode", "spec.backoffLimit": 0},
        "backoffLimit: 3 given; 0 is allowed in InteractiveMode",
    ),
    "submitter of a sidecar": Case(
        "RayJob",
        {"spec.submissionMode": "SidecarMode", "spec.submitterConfig": GONE},
        {"spec.submissionMode": "SidecarMode", "spec.submitterConfig": GONE, "spec.submitterPodTemplate": GONE},
        "submitterPodTemplate: given; SidecarMode takes none",
    ),
    "configuration of a sidecar": Case(
        "RayJob",
        {"spec.submissionMode": "SidecarMode", "spec.submitterPodTemplate": GONE},
        {"spec.submissionMode": "SidecarMode", "spec.submitterConfig": GONE, "spec.submitterPodTemplate": GONE},
        "submitterConfig: given; SidecarMode takes none",
    ),
    "selector of a sidecar": Case(
        "RayJob",
        {
            "spec.submissionMode": "SidecarMode", "spec.submitterConfig": GONE, "spec.submitterPodTemplate": GONE,
            "spec.backoffLimit": 0, "spec.clusterSelector": {"ray.io/cluster": "c"},
        },
        {"spec.clusterSelector": {"ray.io/cluster": "c"}, "spec.backoffLimit": 0},
        "clusterSelector: given; SidecarMode takes none",
    ),
    "restart of a head with a sidecar": Case(
        "RayJob",
        {
            "spec.submissionMode": "SidecarMode", "spec.submitterConfig": GONE, "spec.submitterPodTemplate": GONE,
            "spec.rayClusterSpec.autoscalerOptions.version": "v1",
            "spec.rayClusterSpec.headGroupSpec.template.spec.restartPolicy": "Always",
        },
        {
            "spec.rayClusterSpec.autoscalerOptions.version": "v1",
            "spec.rayClusterSpec.headGroupSpec.template.spec.restartPolicy": "Always",
        },
        "restartPolicy: 'Always' given; Never is allowed in SidecarMode",
    ),
    "token of Kubernetes in a job": Case(
        "RayJob",
        {"spec.rayClusterSpec.authOptions": {"mode": "token", "enableK8sTokenAuth": True}},
        {"spec.rayClusterSpec.authOptions": {"mode": "token", "secretName": "s"}},
        r"spec\.rayClusterSpec\.authOptions\.enableK8sTokenAuth: True given; no RayJob takes it",
    ),
    "upgrade of a job's cluster": Case(
        "RayJob",
        {"spec.rayClusterSpec.upgradeStrategy": {"type": "Recreate"}},
        {},
        r"spec\.rayClusterSpec\.upgradeStrategy\.type: 'Recreate' given; a cluster of a RayJob takes none",
    ),
    "rules of a cluster in a job": Case(
        "RayJob",
        {"spec.rayClusterSpec.workerGroupSpecs.0.minReplicas": 5},
        {"spec.rayClusterSpec.workerGroupSpecs.0.minReplicas": 4},
        r"spec\.rayClusterSpec\.workerGroupSpecs\[0\]\.minReplicas: 5 given",
    ),
    "runtime environment": Case(
        "RayJob",
        {"spec.runtimeEnvYAML": "pip: ["},
        {"spec.runtimeEnvYAML": "pip: []"},
        r"runtimeEnvYAML: 'pip: \[' given; a mapping in YAML",
    ),
    "rules beside shutdown": Case(
        "RayJob",
        {RULES: [after(1, "DeleteCluster")]},
        {RULES: [after(1, "DeleteCluster")], **NO_SHUTDOWN},
        r"deletionRules: given; needs shutdownAfterJobFinishes false",
    ),
    "rules beside the older fields": Case(
        "RayJob",
        {"spec.deletionStrategy": {"deletionRules": [after(1, "DeleteSelf")], **ends("DeleteSelf")}, **NO_SHUTDOWN},
        {"spec.deletionStrategy": ends("DeleteSelf"), **NO_SHUTDOWN},
        "onSuccess: given; deletionRules beside it takes none",
    ),
    "empty strategy": Case(
        "RayJob",
        {"spec.deletionStrategy": {"onSuccess": {"policy": "DeleteSelf"}}},
        {"spec.deletionStrategy": ends("DeleteSelf")},
        "deletionStrategy: given; deletionRules are needed, or both",
    ),
    "older field without a policy": Case(
        "RayJob",
        {"spec.deletionStrategy": {**ends("DeleteSelf"), "onFailure": {"x": 1}}},
        {"spec.deletionStrategy": ends("DeleteCluster")},
        r"onFailure\.policy: not given; it is needed",
    ),
    "nothing deleted beside shutdown": Case(
        "RayJob",
        {"spec.deletionStrategy": ends("DeleteNone")},
        {"spec.deletionStrategy": ends("DeleteNone"), **NO_SHUTDOWN},
        r"onFailure\.policy: 'DeleteNone' given; needs shutdownAfterJobFinishes false",
    ),
    "workers deleted with autoscaling": Case(
        "RayJob",
        {RULES: [after(1, "DeleteWorkers")], **NO_SHUTDOWN},
        {
            RULES: [after(1, "DeleteWorkers")], **NO_SHUTDOWN,
            "spec.rayClusterSpec.enableInTreeAutoscaling": False,
        },
        r"deletionRules\[0\]\.policy: 'DeleteWorkers' given; needs rayClusterSpec\.enableInTreeAutoscaling false",
    ),
    "somebody else's cluster deleted": Case(
        "RayJob",
        {
            RULES: [after(1, "DeleteCluster")], **NO_SHUTDOWN, "spec.backoffLimit": 0,
            "spec.clusterSelector": {"ray.io/cluster": "c"},
        },
        {
            RULES: [after(1, "DeleteSelf")], **NO_SHUTDOWN, "spec.backoffLimit": 0,
            "spec.clusterSelector": {"ray.io/cluster": "c"},
        },
        r"deletionRules\[0\]\.policy: 'DeleteCluster' given; DeleteSelf or DeleteNone is allowed with",
    ),
    "condition of both kinds": Case(
        "RayJob",
        {RULES: [after(1, "DeleteSelf", jobStatus="FAILED", jobDeploymentStatus="Failed")], **NO_SHUTDOWN},
        {RULES: [after(1, "DeleteSelf", jobDeploymentStatus="Failed")], **NO_SHUTDOWN},
        r"deletionRules\[0\]\.condition: given; one of jobStatus and jobDeploymentStatus",
    ),
    "condition in the past": Case(
        "RayJob",
        {RULES: [after(-1, "DeleteSelf")], **NO_SHUTDOWN},
        {RULES: [after(0, "DeleteSelf")], **NO_SHUTDOWN},
        r"deletionRules\[0\]\.condition\.ttlSeconds: -1 given; 0 or more",
    ),
    "rule twice": Case(
        "RayJob",
        {RULES: [after(1, "DeleteSelf"), after(2, "DeleteSelf")], **NO_SHUTDOWN},
        {RULES: [after(1, "DeleteSelf"), after(2, "DeleteSelf", jobStatus="SUCCEEDED")], **NO_SHUTDOWN},
        r"deletionRules\[1\]\.policy: 'DeleteSelf' given; one rule for each policy and state",
    ),
    "order of rules": Case(
        "RayJob",
        {RULES: [after(9, "DeleteCluster"), after(1, "DeleteSelf")], **NO_SHUTDOWN},
        {RULES: [after(9, "DeleteCluster"), after(9, "DeleteSelf")], **NO_SHUTDOWN},
        "deletionRules: 'DeleteSelf after 1 s' given; as long as DeleteCluster, 9 s",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_kuberay_refuses_is_one_line_and_its_neighbour_is_taken(name: str) -> None:
    CASES[name].check()
