"""What we have applied of an object, read from the object itself: `metadata.managedFields`.

Applying an object means to give all fields that are ours: what is left out is removed. So a change of one field,
without the folder that the object was applied from, begins with all that was applied. The format is that of structured
merge diff (https://github.com/kubernetes-sigs/structured-merge-diff): `f:NAME` is a field, `k:{…}` an item of a list by
its keys, `v:VALUE` an item of a set, `.` the thing itself. Lists of KubeRay's kinds are atomic: leaves.
"""

from __future__ import annotations

import json
from typing import Any

from heliostat.cluster.deploy.api import MANAGER
from heliostat.cluster.kubernetes.build import Manifest
from heliostat.infra.errors import KubernetesError


def applied(live: Manifest) -> Manifest:
    """The object as it was applied by us. Raises KubernetesError if it was not."""
    fields = next(
        (
            one["fieldsV1"]
            for one in live["metadata"].get("managedFields") or []
            if one.get("manager") == MANAGER and one.get("operation") == "Apply" and not one.get("subresource")
        ),
        None,
    )
    if fields is None:
        raise KubernetesError(f"{live['kind']} {live['metadata']['name']}: was not deployed by `heliostat deploy`")
    found = _picked(live, fields)
    found["metadata"] = {**found.get("metadata", {}), "name": live["metadata"]["name"]}
    return {"apiVersion": live["apiVersion"], "kind": live["kind"], **found}


def _picked(value: Any, fields: dict[str, Any]) -> Any:
    inner = {key: part for key, part in fields.items() if key != "."}
    if not inner:
        return value
    if isinstance(value, dict):
        names = {key[2:]: part for key, part in inner.items() if key.startswith("f:")}
        return {name: _picked(value[name], part) for name, part in names.items() if name in value}
    return [_picked(item, part) for key, part in inner.items() for item in value if _is_meant(item, key)]


def _is_meant(item: Any, key: str) -> bool:
    kind, _, text = key.partition(":")
    wanted = json.loads(text)
    if kind == "v":
        return bool(item == wanted)
    return isinstance(item, dict) and all(item.get(name) == value for name, value in wanted.items())
