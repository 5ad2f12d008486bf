"""What is wrong with a deployment, found before anything is changed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from heliostat.cluster.deploy import room
from heliostat.cluster.deploy.api import Api, Reference, RefusedError
from heliostat.cluster.deploy.changes import needs_second_cluster
from heliostat.cluster.deploy.states import ENDED, of_job
from heliostat.cluster.kubernetes import pods
from heliostat.cluster.kubernetes.build import Manifest
from heliostat.infra.errors import KubernetesError

KUBERNETES = (1, 30)
"""The oldest minor version that the manifests are for."""
KUBERAY = (1, 7, 0)
"""The same of KubeRay's operator: jobs have its `preRunningDeadlineSeconds`."""
OPERATOR = "app.kubernetes.io/component=kuberay-operator"
OPERATORS_CONTAINER = "kuberay-operator"
"""Its name in KubeRay's Helm chart and in its kustomize manifests alike."""
MISSING = {
    "ray.io": "KubeRay is not installed here: helm install kuberay-operator kuberay/kuberay-operator",
    "monitoring.coreos.com": "the Prometheus operator is not installed here; leave components/monitoring out",
    "kueue.x-k8s.io": "Kueue is not installed here; leave components/kueue out",
    "gateway.networking.k8s.io": "the Gateway API is not installed here",
}
NOTHING: list[Manifest] = []


def check(api: Api, manifests: Iterable[Manifest], say: Callable[[str], None]) -> None:
    """Raises KubernetesError with all that is wrong; says what may be, or cannot be seen."""
    wanted = list(manifests)
    if api.version() < KUBERNETES:
        raise KubernetesError(f"{api.context}: Kubernetes {_dotted(api.version())}; {_dotted(KUBERNETES)} is needed")
    first = [*_no_namespace(api), *_unknown_kinds(api, wanted), *_old_operator(api, say)]
    found = first or _of_objects(api, wanted, say)
    if found:
        raise KubernetesError(f"{api.context}, {api.namespace}: nothing is changed: {'; '.join(found)}")


def _of_objects(api: Api, manifests: list[Manifest], say: Callable[[str], None]) -> list[str]:
    """What is wrong with the objects, each of which is asked for and tried once."""
    live = {Reference.of(one): api.get(Reference.of(one)) for one in manifests}
    after, refused = _tried(api, manifests, live)
    found = [*_missing_secrets(api, manifests), *_ended_jobs(live), *refused]
    return found or _no_room(api, [one for one in manifests if _makes_pods(one, live, after)], say)


def forced(manifest: Manifest) -> bool:
    """Whether fields of others are taken over: a RayCluster's autoscaler writes into the list that we apply."""
    return bool(manifest["kind"] == "RayCluster")


def _no_namespace(api: Api) -> Iterator[str]:
    if _lacks(api, Reference("v1", "Namespace", api.namespace)):
        yield f"there is no namespace {api.namespace}: kubectl create namespace {api.namespace}"


def _unknown_kinds(api: Api, manifests: list[Manifest]) -> list[str]:
    unknown = {(one["apiVersion"], one["kind"]) for one in manifests if not api.has(one["apiVersion"], one["kind"])}
    reasons = [MISSING.get(version.partition("/")[0], f"no kind {kind} of {version}") for version, kind in unknown]
    return sorted(set(reasons))


def _old_operator(api: Api, say: Callable[[str], None]) -> Iterator[str]:
    operators = _allowed(lambda: api.all_of("apps/v1", "Deployment", labels=OPERATOR, everywhere=True), NOTHING)
    images = [_operators_own(found["spec"]["template"]["spec"]["containers"])["image"] for found in operators]
    versions = [(image, tuple(map(int, match.groups()))) for image in images if (match := _VERSION.search(image))]
    if not versions:
        say("the version of KubeRay's operator is not to be seen here")
    yield from (
        f"KubeRay's operator is {_dotted(version)} ({image}); {_dotted(KUBERAY)} is needed"
        for image, version in versions
        if version < KUBERAY
    )


def _operators_own(containers: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The operator's of its pod's containers, beside which a mesh or an agent may have put others: by name, or the
    first."""
    named = [one for one in containers if one["name"] == OPERATORS_CONTAINER]
    return (named or containers)[0]


_VERSION = re.compile(r":v?(\d+)\.(\d+)\.(\d+)")


def _missing_secrets(api: Api, manifests: list[Manifest]) -> Iterator[str]:
    # KubeRay keeps the token of a cluster in a Secret of the cluster's name.
    brought = {one["metadata"]["name"] for one in manifests if one["kind"] in ("Secret", "RayCluster")}
    needed = {name for one in manifests for name in secrets(one.get("spec", {}))} - brought
    for name in sorted(needed):
        if _lacks(api, Reference("v1", "Secret", name)):
            yield f"there is no Secret {name}: kubectl create secret generic {name} (docs/kubernetes.md)"


def secrets(part: Any) -> Iterator[str]:
    """Names of the Secrets that something refers to and cannot do without."""
    if isinstance(part, list):
        yield from (name for one in part for name in secrets(one))
    if not isinstance(part, Mapping):
        return
    for key, value in part.items():
        if key in ("secretRef", "secretKeyRef", "secret") and isinstance(value, Mapping) and not value.get("optional"):
            yield from filter(None, [value.get("name") or value.get("secretName")])
        else:
            yield from secrets(value)


def _ended_jobs(live: Mapping[Reference, Manifest | None]) -> Iterator[str]:
    for reference, found in live.items():
        if reference.kind == "RayJob" and found and found.get("status", {}).get("jobDeploymentStatus") in ENDED:
            words = of_job(found).words
            yield f"{reference} has ended ({words}), and KubeRay runs a job once; --run gives another name"


def _tried(
    api: Api, manifests: list[Manifest], live: Mapping[Reference, Manifest | None]
) -> tuple[dict[Reference, Manifest], list[str]]:
    """What the server would make of the objects, and what it refuses. A job that is there is not applied again."""
    after, refused = {}, []
    for one in manifests:
        reference = Reference.of(one)
        if reference.kind == "RayJob" and live[reference] is not None:
            continue
        try:
            after[reference] = api.apply(one, force=forced(one), dry_run=True)
        except RefusedError as error:
            refused.append(f"{reference}: {error}")
    return after, refused


def _makes_pods(
    manifest: Manifest, live: Mapping[Reference, Manifest | None], after: Mapping[Reference, Manifest]
) -> bool:
    """Whether applying it makes all of its pods, beside those that run."""
    reference = Reference.of(manifest)
    found = live[reference]
    return found is None or (reference.kind == "RayService" and needs_second_cluster(found, after[reference]))


def _no_room(api: Api, new: list[Manifest], say: Callable[[str], None]) -> list[str]:
    needed = [pod for one in new for pod in pods.of(one)]
    if not needed:
        return []
    quotas = _allowed(lambda: api.all_of("v1", "ResourceQuota"), NOTHING)
    if lines := room.over_quota(needed, quotas):
        return [f"no room for {', '.join(str(Reference.of(one)) for one in new)}: {line}" for line in lines]
    nodes = _allowed(lambda: api.all_of("v1", "Node"), NOTHING)
    running = _allowed(lambda: api.all_of("v1", "Pod", everywhere=True), NOTHING) if nodes else NOTHING
    for line in room.without_node(needed, nodes, running) if nodes else []:
        say(f"no node has room now for {line}: it waits until one is added or others end")
    return []


def _lacks(api: Api, reference: Reference) -> bool:
    """Whether the object is not there; False where the user may not ask."""
    return _allowed(lambda: [{}] if api.get(reference) else [], [{}]) == []


def _allowed(ask: Callable[[], list[Manifest]], otherwise: list[Manifest]) -> list[Manifest]:
    """The answer, or `otherwise` where the user may not ask."""
    try:
        return ask()
    except RefusedError as error:
        if error.status != 403:
            raise
        return otherwise


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
