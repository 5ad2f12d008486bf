"""What would be refused of built objects after they were taken, or be taken and do nothing. Pure and offline.

RayJob, RayService and RayCronJob have no admission webhook, and that of RayCluster is not in KubeRay's default
installation: a wrong object is taken, and fails later in its status.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from heliostat.cluster.kubernetes.build import Manifest
from heliostat.cluster.kubernetes.kuberay.clusters import of_a_cluster
from heliostat.cluster.kubernetes.kuberay.jobs import of_a_cron_job, of_a_job
from heliostat.cluster.kubernetes.kuberay.rule import Refusal
from heliostat.cluster.kubernetes.kuberay.services import of_a_service
from heliostat.cluster.kubernetes.workload import is_pinned
from heliostat.infra.errors import ConfigError

RULES: dict[str, Callable[[Any], Iterator[Refusal]]] = {
    "RayCluster": of_a_cluster,
    "RayJob": of_a_job,
    "RayService": of_a_service,
    "RayCronJob": of_a_cron_job,
}


def check(objects: Iterable[Manifest]) -> None:
    """Raises ConfigError with the first refusal, and how many more there are, in one line."""
    found = refusals(objects)
    if found:
        raise ConfigError(found[0] + (f" (and {len(found) - 1} more)" if len(found) > 1 else ""))


def refusals(objects: Iterable[Manifest]) -> list[str]:
    """What KubeRay 1.7 refuses, and images that may be others tomorrow: a line for each object, field and value."""
    return [found.line(one) for one in objects for found in (*_of_kuberay(one), *_images(one, ""))]


def ignored(objects: Iterable[Manifest]) -> list[str]:
    """What a stock operator takes and then does nothing for: a line for each object and field."""
    return [found.line(one) for one in objects for found in _ignored(one)]


def _of_kuberay(one: Manifest) -> Iterator[Refusal]:
    if str(one.get("apiVersion", "")).startswith("ray.io/"):
        yield from RULES.get(one["kind"], lambda _: iter(()))(one)


def _images(value: Any, path: str) -> Iterator[Refusal]:
    """Images without tag or digest, and those of the tag `latest`, at any depth."""
    items = enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else ()
    for key, item in items:
        place = f"{path}[{key}]" if isinstance(value, list) else f"{path}.{key}".lstrip(".")
        if key == "image" and isinstance(item, str) and not is_pinned(item):
            yield Refusal(place, item, "NAME:TAG, with no tag `latest`, or NAME@sha256:DIGEST is allowed")
        else:
            yield from _images(item, place)


def _ignored(one: Manifest) -> Iterator[Refusal]:
    kind = one.get("kind")
    if kind == "RayCronJob":
        yield Refusal(
            "kind", kind, "nothing runs: the operator's feature gate RayCronJob is off unless it is switched on"
        )
