"""How far an object is, from what its status says; pure.

No `Ready` is believed alone. A RayService stays Ready with a broken new version, with a dead head and without its pods;
its child says `RayClusterProvisioned=True` when a used-up quota refused them all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from heliostat.cluster.kubernetes.build import Manifest

QUEUE = "kueue.x-k8s.io/queue-name"
ENDED = ("Complete", "Failed", "ValidationFailed")
"""Final states of a RayJob."""


@dataclass(frozen=True)
class State:
    """How far an object is."""

    phase: str
    """`waits`, `runs` (a job at work, which takes as long as it takes), `done` or `failed`."""
    words: str

    @property
    def is_done(self) -> bool:
        """Whether it is as it was asked for."""
        return self.phase == "done"

    @property
    def has_failed(self) -> bool:
        """Whether waiting is in vain."""
        return self.phase == "failed"


def of_deployment(found: Manifest) -> State:
    """Of a Deployment or StatefulSet."""
    wanted, status = found["spec"].get("replicas", 1), found.get("status", {})
    ready = status.get("readyReplicas", 0) if _is_seen(found) else 0
    updated = status.get("updatedReplicas", ready)
    return State("done" if min(ready, updated) >= wanted else "waits", f"{min(ready, updated)} of {wanted} pods ready")


def of_cluster(found: Manifest) -> State:
    """Of a RayCluster: its head and the least number of its workers are there."""
    status, least = found.get("status", {}), sum(_least(group) for group in found["spec"].get("workerGroupSpecs", []))
    if not _is_seen(found):
        return State("waits", "KubeRay has not looked at it yet")
    if problem := condition(found, "ReplicaFailure", "True"):
        return State("waits", f"pods are refused: {problem}")
    if condition(found, "HeadPodReady", "True") is None:
        return State("waits", f"its head is not ready{_because(condition(found, 'HeadPodReady', 'False'))}")
    workers = status.get("readyWorkerReplicas", 0)
    return State("done" if workers >= least else "waits", f"head ready, {workers} of {least} workers ready")


def of_job(found: Manifest) -> State:
    """Of a RayJob: it is done when it has succeeded."""
    status = found.get("status", {})
    state, message = status.get("jobDeploymentStatus", ""), _line(status.get("message"))
    if state == "Complete" and status.get("jobStatus") == "SUCCEEDED":
        return State("done", "succeeded")
    if state in ENDED:
        return State("failed", _joined(status.get("jobStatus") or state, status.get("reason", ""), message))
    if found["spec"].get("suspend"):
        queue = found["metadata"].get("labels", {}).get(QUEUE)
        return State("waits", f"waits for quota in the queue {queue}" if queue else "suspended")
    if not state:
        return State("waits", "KubeRay has not looked at it yet")
    attempts = f", attempt {status['failed'] + 1}" if status.get("failed") else ""
    phase = "runs" if status.get("jobStatus") == "RUNNING" else "waits"
    return State(phase, _joined(f"{state.lower()}{attempts}", str(status.get("jobStatus") or "").lower(), message))


def of_service(found: Manifest, child: Manifest | None) -> State:
    """Of a RayService, with the RayCluster that serves now; `done` says nothing yet of the version that answers."""
    if (invalid := _condition(found, "Ready")) and invalid.get("reason") == "ValidationFailed":
        return State("failed", f"KubeRay refuses it: {invalid.get('message', '')}")
    status = found.get("status", {})
    active, pending = status.get("activeServiceStatus") or {}, status.get("pendingServiceStatus") or {}
    if not _is_seen(found):
        return State("waits", "KubeRay has not looked at it yet")
    if not active.get("rayClusterName") or pending.get("rayClusterName"):
        name = pending.get("rayClusterName", "")
        phase = "failed" if _is_broken(pending, found) else "waits"
        return State(phase, f"a new cluster comes up{f', {name}' if name else ''}{_applications(pending, found)}")
    if child is not None and not (state := of_cluster(child)).is_done:
        return State("waits", f"{child['metadata']['name']}: {state.words}")
    applications = active.get("applicationStatuses") or {}
    wanted = application_names(found)
    lost = [name for name in wanted if applications.get(name, {}).get("status") != "RUNNING"]
    if lost:
        phase = "failed" if _is_broken(active, found) else "waits"
        return State(phase, _applications(active, found).lstrip(", ") or "nothing runs yet")
    return State("done", f"{', '.join(wanted)} run")


def application_names(service: Manifest) -> list[str]:
    """What a RayService's `serveConfigV2` deploys."""
    return [one["name"] for one in serve_config(service).get("applications", [])]


def serve_config(service: Manifest) -> dict[str, Any]:
    """The `serveConfigV2` of a RayService."""
    return dict(yaml.safe_load(service["spec"].get("serveConfigV2") or "") or {})


def condition(found: Manifest, kind: str, status: str) -> str | None:
    """What a condition of this kind and status says; None if the object has none such."""
    one = _condition(found, kind)
    return str(one.get("message") or one.get("reason") or kind) if one and one.get("status") == status else None


def _condition(found: Manifest, kind: str) -> dict[str, Any] | None:
    return next((one for one in found.get("status", {}).get("conditions") or [] if one.get("type") == kind), None)


def _is_broken(status: dict[str, Any], service: Manifest) -> bool:
    """Whether Ray Serve has given up an application."""
    found = status.get("applicationStatuses") or {}
    return any(found.get(name, {}).get("status") == "DEPLOY_FAILED" for name in application_names(service))


def _applications(status: dict[str, Any], service: Manifest) -> str:
    """The states of applications that do not run."""
    found = status.get("applicationStatuses") or {}
    lines = [
        _joined(f"{name} {found[name].get('status', '').lower()}", _line(found[name].get("message")))
        for name in application_names(service)
        if name in found and found[name].get("status") != "RUNNING"
    ]
    return f", {'; '.join(lines)}" if lines else ""


def _is_seen(found: Manifest) -> bool:
    seen = found.get("status", {}).get("observedGeneration", 0)
    return bool(seen >= found["metadata"].get("generation", 1))


def _least(group: dict[str, Any]) -> int:
    return int(group.get("minReplicas", 0)) * int(group.get("numOfHosts", 1))


def _because(text: str | None) -> str:
    return f": {text}" if text else ""


def _joined(*parts: str) -> str:
    return ": ".join(part for part in parts if part)


def _line(text: str | None) -> str:
    return " ".join((text or "").split())
