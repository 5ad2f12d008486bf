"""What KubeRay refuses of a RayJob, and of a RayCronJob, which makes some."""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import yaml

from heliostat.cluster.kubernetes.kuberay.clusters import of_a_child_spec
from heliostat.cluster.kubernetes.kuberay.rule import Refusal, at, below, name_of

NAME_CHARACTERS = 47
"""The cluster's name has six more."""
CRON_NAME_CHARACTERS = 36
"""The job's name has eleven more."""
ORDER = ("DeleteWorkers", "DeleteCluster", "DeleteSelf")
"""In which a job's things are deleted."""
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_CRON: tuple[tuple[int, int, tuple[str, ...]], ...] = (
    (0, 59, ()), (0, 23, ()), (1, 31, ()), (1, 12, _MONTHS), (0, 6, _DAYS)
)  # fmt: skip
"""Least, most and names of minute, hour, day of the month, month and day of the week (github.com/robfig/cron)."""


def of_a_job(one: Any) -> Iterator[Refusal]:
    """Of a RayJob."""
    yield from name_of(one, NAME_CHARACTERS)
    for found in of_a_job_spec(at(one, "spec"), at(one, "metadata", "annotations") or {}):
        yield found.under("spec")


def of_a_cron_job(one: Any) -> Iterator[Refusal]:
    """Of a RayCronJob."""
    yield from name_of(one, CRON_NAME_CHARACTERS)
    schedule, zone = str(at(one, "spec", "schedule") or ""), at(one, "spec", "timeZone")
    if "TZ" in schedule:
        yield Refusal("spec.schedule", schedule, "a time zone stands in spec.timeZone")
    elif not _is_schedule(schedule):
        yield Refusal("spec.schedule", schedule, "five fields of cron, or @daily and its like, are allowed")
    if zone is not None and not _is_zone(zone):
        yield Refusal("spec.timeZone", zone, "a name such as Europe/Berlin is allowed")
    for found in of_a_job_spec(at(one, "spec", "jobTemplate"), {}):
        yield found.under("spec.jobTemplate")


def of_a_job_spec(spec: Any, annotations: Mapping[str, Any]) -> Iterator[Refusal]:
    """Of a RayJobSpec, by paths below it."""
    yield from _cluster(spec, annotations)
    yield from _modes(spec)
    yield from _times(spec)
    if at(spec, "deletionStrategy") is not None:
        yield from _deletion(spec)
    if (text := at(spec, "runtimeEnvYAML")) and not _is_mapping(text):
        yield Refusal("runtimeEnvYAML", text, "a mapping in YAML is allowed")


def _cluster(spec: Any, annotations: Mapping[str, Any]) -> Iterator[Refusal]:
    selector, own = at(spec, "clusterSelector"), at(spec, "rayClusterSpec")
    if not selector and own is None:
        yield Refusal("rayClusterSpec", None, "one of it and clusterSelector is needed")
    if own is not None:
        for found in of_a_child_spec(own, annotations, "RayJob"):
            yield found.under("rayClusterSpec")
    if not selector:
        return
    if not selector.get("ray.io/cluster"):
        yield Refusal("clusterSelector", selector, "the name of a cluster at ray.io/cluster is needed")
    if at(spec, "suspend"):
        yield Refusal("suspend", True, "false is allowed with clusterSelector")
    if (at(spec, "backoffLimit") or 0) > 0:
        yield Refusal("backoffLimit", at(spec, "backoffLimit"), "0 is allowed with clusterSelector")


def _modes(spec: Any) -> Iterator[Refusal]:
    mode = at(spec, "submissionMode")
    if mode == "InteractiveMode" and (at(spec, "backoffLimit") or 0) > 0:
        yield Refusal("backoffLimit", at(spec, "backoffLimit"), "0 is allowed in InteractiveMode")
    if mode != "SidecarMode":
        return
    for key in ("submitterPodTemplate", "submitterConfig", "clusterSelector"):
        if at(spec, key):
            yield Refusal(key, at(spec, key), "SidecarMode takes none")
    policy = at(spec, "rayClusterSpec", "headGroupSpec", "template", "spec", "restartPolicy")
    if policy not in (None, "", "Never"):
        path = "rayClusterSpec.headGroupSpec.template.spec.restartPolicy"
        yield Refusal(path, policy, "Never is allowed in SidecarMode")


def _times(spec: Any) -> Iterator[Refusal]:
    keeps = not at(spec, "shutdownAfterJobFinishes")
    if at(spec, "suspend") and keeps:
        yield Refusal("suspend", True, "needs shutdownAfterJobFinishes true")
    if keeps and (at(spec, "ttlSecondsAfterFinished") or 0) > 0:
        yield Refusal(
            "ttlSecondsAfterFinished", at(spec, "ttlSecondsAfterFinished"), "needs shutdownAfterJobFinishes true"
        )
    for key, least in (("ttlSecondsAfterFinished", 0), ("backoffLimit", 0), *((one, 1) for one in _DEADLINES)):
        yield from below(spec, key, least)


_DEADLINES = ("activeDeadlineSeconds", "preRunningDeadlineSeconds")


def _deletion(spec: Any) -> Iterator[Refusal]:
    strategy = at(spec, "deletionStrategy")
    rules, older = at(strategy, "deletionRules"), [key for key in ("onSuccess", "onFailure") if at(strategy, key)]
    path = "deletionStrategy"
    if rules and at(spec, "shutdownAfterJobFinishes"):
        yield Refusal(f"{path}.deletionRules", rules, "needs shutdownAfterJobFinishes false")
    if rules and older:
        yield Refusal(f"{path}.{older[0]}", at(strategy, older[0]), "deletionRules beside it takes none")
    if not rules and len(older) < 2:
        yield Refusal(path, strategy, "deletionRules are needed, or both onSuccess and onFailure")
    for place, rule in enumerate(rules or []):
        yield from _rule(spec, f"{path}.deletionRules[{place}]", rule)
    yield from _consistency(f"{path}.deletionRules", rules or [])
    for key in older:
        policy = at(strategy, key, "policy")
        if policy is None:
            yield Refusal(f"{path}.{key}.policy", None, "it is needed")
        if policy == "DeleteNone" and at(spec, "shutdownAfterJobFinishes"):
            yield Refusal(f"{path}.{key}.policy", policy, "needs shutdownAfterJobFinishes false")
        yield from _policy(spec, f"{path}.{key}.policy", policy)


def _rule(spec: Any, path: str, rule: Any) -> Iterator[Refusal]:
    condition = at(rule, "condition")
    states = [key for key in ("jobStatus", "jobDeploymentStatus") if at(condition, key)]
    if len(states) != 1:
        yield Refusal(f"{path}.condition", condition, "one of jobStatus and jobDeploymentStatus is needed")
    for found in below(condition, "ttlSeconds", 0):
        yield found.under(f"{path}.condition")
    yield from _policy(spec, f"{path}.policy", at(rule, "policy"))


def _policy(spec: Any, path: str, policy: Any) -> Iterator[Refusal]:
    if at(spec, "clusterSelector") and policy in ("DeleteCluster", "DeleteWorkers"):
        yield Refusal(path, policy, "DeleteSelf or DeleteNone is allowed with clusterSelector")
    if policy == "DeleteWorkers" and at(spec, "rayClusterSpec", "enableInTreeAutoscaling"):
        yield Refusal(path, policy, "needs rayClusterSpec.enableInTreeAutoscaling false")


def _consistency(path: str, rules: list[Any]) -> Iterator[Refusal]:
    """Rules of one state: each policy once, and workers before the cluster before the job."""
    seen: dict[tuple[Any, Any], dict[str, int]] = {}
    for place, rule in enumerate(rules):
        condition, policy = at(rule, "condition"), at(rule, "policy")
        one = seen.setdefault((at(condition, "jobStatus"), at(condition, "jobDeploymentStatus")), {})
        if policy in one:
            yield Refusal(f"{path}[{place}].policy", policy, "one rule for each policy and state is allowed")
        one.setdefault(policy, at(condition, "ttlSeconds") or 0)
    for ends in seen.values():
        times = [(policy, ends[policy]) for policy in ORDER if policy in ends]
        for (before, first), (policy, seconds) in pairwise(times):
            if seconds < first:
                yield Refusal(
                    path, f"{policy} after {seconds} s", f"as long as {before}, {first} s, or more is allowed"
                )


def _is_mapping(text: str) -> bool:
    try:
        return isinstance(yaml.safe_load(text), dict)
    except yaml.YAMLError:
        return False


def _is_zone(zone: str) -> bool:
    try:
        zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return bool(zone)


def _is_schedule(text: str) -> bool:
    if text.startswith("@"):
        known = ("yearly", "annually", "monthly", "weekly", "daily", "midnight", "hourly")
        return text[1:] in known or bool(re.fullmatch(r"@every (\d+(\.\d*)?(ns|us|µs|ms|s|m|h))+", text))
    fields = text.split()
    return len(fields) == len(_CRON) and all(
        _is_part(part, *kind) for field, kind in zip(fields, _CRON, strict=True) for part in field.split(",")
    )


def _is_part(part: str, least: int, most: int, names: tuple[str, ...]) -> bool:
    """Whether one part of a field is `*`, a number, a range, or one of them with a step."""
    whole, slash, step = part.lower().partition("/")
    if slash and not (step.isdecimal() and int(step) > 0):
        return False
    if whole in ("*", "?"):
        return True
    ends = [str(names.index(end) + least) if end in names else end for end in whole.split("-")]
    if not 1 <= len(ends) <= 2 or not all(end.isdecimal() and least <= int(end) <= most for end in ends):
        return False
    return int(ends[0]) <= int(ends[-1])
