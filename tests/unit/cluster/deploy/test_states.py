from __future__ import annotations

from typing import Any

import pytest

from heliostat.cluster.deploy import problems, states

CONFIG = "applications: [{name: mood}]"


def found(kind: str, status: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {"kind": kind, "metadata": {"name": "x", "generation": 2}, "spec": spec, "status": status}


def service(status: dict[str, Any], generation: int = 2) -> dict[str, Any]:
    return found("RayService", {"observedGeneration": generation, **status}, serveConfigV2=CONFIG)


def cluster(*conditions: tuple[str, str], ready: int = 1) -> dict[str, Any]:
    status = {"observedGeneration": 2, "readyWorkerReplicas": ready}
    said = [{"type": kind, "status": value, "message": f"about {kind}"} for kind, value in conditions]
    return found("RayCluster", {**status, "conditions": said}, workerGroupSpecs=[{"minReplicas": 1}])


WELL = cluster(("HeadPodReady", "True"), ("RayClusterProvisioned", "True"))
BROKEN = {"mood": {"status": "DEPLOY_FAILED", "message": "another digest"}}
INVALID = {"type": "Ready", "status": "False", "reason": "ValidationFailed", "message": "m"}
RUNNING = {"activeServiceStatus": {"rayClusterName": "c", "applicationStatuses": {"mood": {"status": "RUNNING"}}}}


@pytest.mark.parametrize(
    ("one", "child", "phase", "words"),
    [
        (service(RUNNING), WELL, "done", "mood run"),
        (service(RUNNING, generation=1), WELL, "waits", "KubeRay has not looked at it yet"),
        (service(RUNNING), cluster(("HeadPodReady", "False")), "waits", "x: its head is not ready: about HeadPodReady"),
        (
            service(RUNNING),
            cluster(("ReplicaFailure", "True"), ("HeadPodReady", "True"), ("RayClusterProvisioned", "True")),
            "waits",
            "x: pods are refused: about ReplicaFailure",
        ),
        (
            service({**RUNNING, "pendingServiceStatus": {"rayClusterName": "d"}}),
            WELL,
            "waits",
            "a new cluster comes up, d",
        ),
        (service({}), None, "waits", "a new cluster comes up"),
        (
            service({"pendingServiceStatus": {"rayClusterName": "d", "applicationStatuses": BROKEN}}),
            None,
            "failed",
            "a new cluster comes up, d, mood deploy_failed: another digest",
        ),
        (
            service({"conditions": [INVALID]}),
            None,
            "failed",
            "KubeRay refuses it: m",
        ),
    ],
)
def test_how_far_an_endpoint_is(one: dict[str, Any], child: dict[str, Any] | None, phase: str, words: str) -> None:
    state = states.of_service(one, child)
    assert (state.phase, state.words) == (phase, words)


@pytest.mark.parametrize(
    ("said", "phase"), [("DEPLOY_FAILED", "failed"), ("DEPLOYING", "waits"), ("UNHEALTHY", "waits")]
)
def test_an_application_that_does_not_run_is_named_though_the_service_is_ready(said: str, phase: str) -> None:
    applications = {"mood": {"status": said, "message": "line\none"}}
    ready = [{"type": "Ready", "status": "True"}]
    active = {"rayClusterName": "c", "applicationStatuses": applications}

    state = states.of_service(service({"conditions": ready, "activeServiceStatus": active}), WELL)

    assert (state.phase, state.words) == (phase, f"mood {said.lower()}: line one")


@pytest.mark.parametrize(
    ("status", "spec", "phase", "words"),
    [
        ({}, {}, "waits", "KubeRay has not looked at it yet"),
        ({"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}, {}, "runs", "running: running"),
        ({"jobDeploymentStatus": "Retrying", "failed": 1}, {}, "waits", "retrying, attempt 2"),
        ({"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}, {}, "done", "succeeded"),
        ({"jobDeploymentStatus": "Complete", "jobStatus": "STOPPED"}, {}, "failed", "STOPPED"),
        (
            {"jobDeploymentStatus": "ValidationFailed", "message": "too long"},
            {},
            "failed",
            "ValidationFailed: too long",
        ),
        ({"jobDeploymentStatus": "Suspended"}, {"suspend": True}, "waits", "suspended"),
    ],
)
def test_how_far_a_job_is(status: dict[str, Any], spec: dict[str, Any], phase: str, words: str) -> None:
    state = states.of_job(found("RayJob", status, **spec))
    assert (state.phase, state.words) == (phase, words)


def test_a_job_under_a_queue_waits_for_quota() -> None:
    job = found("RayJob", {"jobDeploymentStatus": "Suspended"}, suspend=True)
    job["metadata"]["labels"] = {states.QUEUE: "team"}
    assert states.of_job(job).words == "waits for quota in the queue team"


def test_why_pods_do_not_come_up() -> None:
    def pod(name: str, **status: Any) -> dict[str, Any]:
        return {"metadata": {"name": name}, "status": status}

    def waiting(reason: str, message: str, **more: Any) -> list[dict[str, Any]]:
        return [{"name": "ray", "image": "i:1", "state": {"waiting": {"reason": reason, "message": message}}, **more}]

    gated = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}
    pods = [
        pod("a", containerStatuses=waiting("CreateContainerConfigError", 'secret "heliostat-keys" not found')),
        pod("b", containerStatuses=waiting("ContainerCreating", "")),
        pod("c", containerStatuses=waiting("CrashLoopBackOff", "", lastState={"terminated": {"reason": "OOMKilled"}})),
        pod("d", initContainerStatuses=waiting("ErrImagePull", "denied")),
        pod("e", conditions=[gated]),
        pod("f", phase="Failed", reason="Evicted", message="The node was low on memory"),
        pod("g", phase="Running", conditions=[{"type": "PodScheduled", "status": "True"}]),
    ]

    assert problems.of_pods(pods) == [
        'pod a: CreateContainerConfigError: secret "heliostat-keys" not found',
        "pod c: ray ends again and again: out of memory",
        "pod d: the image i:1 cannot be had (ErrImagePull): denied",
        "pod e: waits for its queue",
        "pod f: Evicted: The node was low on memory",
    ]


def test_warnings_are_told_once_newest_first_but_for_those_that_pass() -> None:
    def event(reason: str, message: str, at: str, kind: str = "Warning") -> dict[str, Any]:
        return {"metadata": {}, "type": kind, "reason": reason, "message": message, "lastTimestamp": at}

    events = [
        event("FailedCreate", "quota", "2026-01-01T00:00:01Z"),
        event("FailedCreate", "quota", "2026-01-01T00:00:03Z"),
        event("FailedToUpdateServeApplications", "timeout", "2026-01-01T00:00:04Z"),
        event("Created", "fine", "2026-01-01T00:00:05Z", "Normal"),
        event("Other", "x" * 400, "2026-01-01T00:00:02Z"),
    ]

    assert problems.of_events(events) == ["FailedCreate: quota", f"Other: {'x' * 300}…"]
