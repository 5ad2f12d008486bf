"""Takes objects away: what runs first, what it needs when it is gone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial

from heliostat.cluster.deploy.api import Api, Reference
from heliostat.cluster.deploy.patience import persistently
from heliostat.cluster.kubernetes.build import Manifest
from heliostat.cluster.kubernetes.order import KEPT, ORDER, position, to_delete
from heliostat.infra.errors import KubernetesError

PART_OF = "app.kubernetes.io/part-of=heliostat"
"""What all our objects are labelled with."""
POLL_SECONDS = 2.0
MADE_BY_OTHERS = ("Endpoints", "EndpointSlice", "Event", "Pod")
"""Kinds that carry our labels because what makes them copies those."""


def deployed(api: Api, kinds: Iterable[tuple[str, str]]) -> list[Manifest]:
    """What was deployed into the namespace of these API versions and kinds, without what KubeRay made of it."""
    found = [one for version, kind in kinds for one in api.all_of(version, kind, labels=PART_OF)]
    return [one for one in found if not one["metadata"].get("ownerReferences")]


def ours(api: Api, with_volumes: bool) -> list[Reference]:
    """All that was deployed into the namespace, without volumes unless asked for."""
    left_out = (*MADE_BY_OTHERS, *(() if with_volumes else KEPT))
    return [Reference.of(one) for one in deployed(api, (one for one in api.kinds() if one[1] not in left_out))]


def volumes(api: Api) -> list[Reference]:
    """Those that were deployed into the namespace."""
    return [Reference.of(one) for one in deployed(api, (("v1", kind) for kind in KEPT))]


def remove(api: Api, references: Iterable[Reference], seconds: float, say: Callable[[str], None]) -> None:
    """Deletes them in their order and waits until they are gone.

    Raises KubernetesError, naming what is left and what it waits for, if it is there after so many seconds; what comes
    later in the order is then still there, since the end of the others may need it.
    """
    until = time.monotonic() + seconds
    for group in to_delete(references, lambda one: one.kind):
        for one in group:
            if persistently(partial(api.delete, one), until):
                say(f"{one}: is deleted")
        _gone(api, group, until, seconds)


def _gone(api: Api, group: list[Reference], until: float, seconds: float) -> None:
    while left := persistently(partial(_left, api, group), until):
        if time.monotonic() >= until:
            raise KubernetesError(f"not gone after {seconds:g} s: {'; '.join(_held(one) for one in left)}{_rest(left)}")
        time.sleep(POLL_SECONDS)


def _left(api: Api, group: list[Reference]) -> list[Manifest]:
    return [found for one in group if (found := api.get(one)) is not None]


def _held(found: Manifest) -> str:
    finalizers = ", ".join(found["metadata"].get("finalizers") or []) or "nothing that it names"
    return f"{found['kind']} {found['metadata']['name']} waits for {finalizers}"


def _rest(left: list[Manifest]) -> str:
    if all(position(one["kind"]) < ORDER.index("RayCluster") for one in left):
        return ""
    return "; accounts, Secrets and policies stay, which the end of these needs. Is KubeRay's operator running?"
