"""Why pods do not come up, in words: from their status, and from the events of who should make them; pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from heliostat.cluster.kubernetes.build import Manifest

IMAGES = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
STARTING = ("ContainerCreating", "PodInitializing")
PASSING = ("FailedToUpdateServeApplications",)
"""KubeRay's calls end after two seconds, which a first deployment takes longer than."""
SHOWN = 300
"""Characters of a message."""


def of_pods(pods: Iterable[Manifest]) -> list[str]:
    """A line for each pod that does not come up, in order, none twice."""
    return list(dict.fromkeys(line for pod in pods for line in _of(pod)))


def of_events(events: Iterable[Manifest]) -> list[str]:
    """A line for each kind of warning, the newest first."""
    warnings = [one for one in events if one.get("type") == "Warning" and one.get("reason") not in PASSING]
    ordered = sorted(warnings, key=_time, reverse=True)
    return list(dict.fromkeys(f"{one.get('reason')}: {_short(str(one.get('message')))}" for one in ordered))


def _of(pod: Manifest) -> Iterator[str]:
    name, status = pod["metadata"]["name"], pod.get("status", {})
    for one in status.get("conditions") or []:
        if one.get("type") == "PodScheduled" and one.get("status") == "False":
            gated = one.get("reason") == "SchedulingGated"
            why = "waits for its queue" if gated else f"no node takes it: {_short(str(one.get('message', '')))}"
            yield f"pod {name}: {why}"
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        if line := _of_container(container):
            yield f"pod {name}: {line}"
    if status.get("phase") == "Failed" and status.get("message"):
        yield f"pod {name}: {status.get('reason', 'failed')}: {_short(status['message'])}"


def _of_container(container: Manifest) -> str | None:
    waiting = container.get("state", {}).get("waiting") or {}
    reason, message = waiting.get("reason", ""), _short(str(waiting.get("message", "")))
    if reason in IMAGES:
        return f"the image {container.get('image')} cannot be had ({reason}): {message}"
    if reason == "CrashLoopBackOff":
        last = (container.get("lastState", {}).get("terminated")) or {}
        cause = "out of memory" if last.get("reason") == "OOMKilled" else f"exit code {last.get('exitCode', '?')}"
        return f"{container.get('name')} ends again and again: {cause}"
    return f"{reason}: {message}" if reason and reason not in STARTING else None


def _time(event: Manifest) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp") or "")


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else f"{line[:SHOWN]}…"
