"""Waits for what was applied, and says how far it is and what keeps it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from heliostat.cluster.deploy import problems, states
from heliostat.cluster.deploy.api import Api, Reference
from heliostat.cluster.deploy.patience import persistently
from heliostat.cluster.deploy.states import State
from heliostat.cluster.kubernetes.build import Manifest
from heliostat.infra.errors import KubernetesError

POLL_SECONDS = 3.0
SETTLE_SECONDS = 60.0
"""How long a failure must stand: the status of an endpoint that is mended still tells of the failure before."""
AWAY_SECONDS = 120.0
"""How long the cluster's API may not answer meanwhile."""
PROBLEM_SECONDS = 10.0
"""For so long pods may be without a node or an image before it is said."""
WAITED = {
    "Deployment": states.of_deployment,
    "StatefulSet": states.of_deployment,
    "RayCluster": states.of_cluster,
    "RayJob": states.of_job,
}
"""Kinds that something runs for, beside RayService."""
Ask = Callable[[Manifest], State]
"""Asks a RayService that runs at its clients' address whether it answers as its specification says."""


@dataclass
class Waiting:
    """One object that is waited for."""

    reference: Reference
    words: str = ""
    phase: str = "waits"
    since: float = field(default_factory=time.monotonic)
    """When its words last changed."""
    told: set[str] = field(default_factory=set)


def wait(
    api: Api,
    references: Iterable[Reference],
    seconds: float,
    say: Callable[[str], None],
    ask: Ask,
    watch: Callable[[], None] = lambda: None,
) -> None:
    """Returns when all are as they were asked for; says each change. `watch` is called at each look.

    Raises KubernetesError, with what keeps it, where one has failed or is not there after so many seconds; a job that
    has begun by then is waited for to its end.
    """
    waiting = [Waiting(one) for one in references if one.kind in WAITED or one.kind == "RayService"]
    until = time.monotonic() + seconds
    while True:
        look = partial(_waiting, api, waiting, say, ask, watch)
        waiting = persistently(look, time.monotonic() + AWAY_SECONDS)
        if not waiting:
            return
        late = [one for one in waiting if one.phase != "runs"] if time.monotonic() >= until else []
        if late:
            raise KubernetesError(f"not there after {seconds:g} s: {'; '.join(_kept(api, one) for one in late)}")
        time.sleep(POLL_SECONDS)


def _waiting(
    api: Api, before: list[Waiting], say: Callable[[str], None], ask: Ask, watch: Callable[[], None]
) -> list[Waiting]:
    """What is still waited for after one more look."""
    watch()
    return [one for one in before if not _look(api, one, say, ask)]


def state_of(api: Api, found: Manifest) -> State:
    """How far an object of a kind that is waited for is."""
    if found["kind"] != "RayService":
        return WAITED[found["kind"]](found)
    name = (found.get("status", {}).get("activeServiceStatus") or {}).get("rayClusterName")
    child = api.get(Reference(found["apiVersion"], "RayCluster", name)) if name else None
    return states.of_service(found, child)


def troubles(api: Api, found: Manifest) -> list[str]:
    """What keeps an object from coming up: its pods' troubles, else the events about it."""
    return problems.of_pods(_pods(api, found)) or problems.of_events(_events(api, found))


def _look(api: Api, one: Waiting, say: Callable[[str], None], ask: Ask) -> bool:
    """Whether it is done. Raises KubernetesError if it has failed for long enough."""
    found = api.get(one.reference)
    if found is None:
        raise KubernetesError(f"{one.reference}: somebody has deleted it")
    state = state_of(api, found)
    if state.is_done and one.reference.kind == "RayService":
        state = ask(found)
    one.phase = state.phase
    if state.words != one.words:
        one.words, one.since = state.words, time.monotonic()
        say(f"{one.reference}: {state.words}")
    if state.is_done:
        return True
    stands = time.monotonic() - one.since
    is_settled = one.reference.kind == "RayJob" or stands >= SETTLE_SECONDS or "refuses" in state.words
    if state.has_failed and is_settled:
        raise KubernetesError("; ".join([f"{one.reference}: {state.words}", *troubles(api, found)]))
    if state.phase == "waits" and stands >= PROBLEM_SECONDS:
        _tell(one, troubles(api, found), say)
    return False


def _tell(one: Waiting, lines: list[str], say: Callable[[str], None]) -> None:
    for line in lines:
        if line not in one.told:
            one.told.add(line)
            say(f"  {line}")


def _kept(api: Api, one: Waiting) -> str:
    found = api.get(one.reference)
    return "; ".join([f"{one.reference}: {one.words}", *(troubles(api, found) if found else [])])


def _pods(api: Api, found: Manifest) -> list[Manifest]:
    if found["kind"] in ("Deployment", "StatefulSet"):
        labels = found["spec"]["selector"]["matchLabels"]
        return api.all_of("v1", "Pod", labels=",".join(f"{key}={value}" for key, value in labels.items()))
    pods = [pod for name in _clusters(found) for pod in api.all_of("v1", "Pod", labels=f"ray.io/cluster={name}")]
    submitters = api.all_of("v1", "Pod", labels=f"job-name={found['metadata']['name']}")
    return [*pods, *(submitters if found["kind"] == "RayJob" else [])]


def _clusters(found: Manifest) -> list[str]:
    """Names of the RayClusters of an object."""
    status = found.get("status", {})
    services = [status.get(key) or {} for key in ("activeServiceStatus", "pendingServiceStatus")]
    own = found["metadata"]["name"] if found["kind"] == "RayCluster" else ""
    names = [own, status.get("rayClusterName", ""), *(one.get("rayClusterName", "") for one in services)]
    return [name for name in names if name]


def _events(api: Api, found: Manifest) -> list[Manifest]:
    children = [api.get(Reference(found["apiVersion"], "RayCluster", name)) for name in _clusters(found)]
    uids = [one["metadata"]["uid"] for one in (found, *children) if one]
    return [one for uid in uids for one in api.all_of("v1", "Event", fields=f"involvedObject.uid={uid}")]
