"""Our live actors and placement groups in the current cluster, for `heliostat status` and tests of clean-up."""

from __future__ import annotations

import time
from typing import Any

from heliostat.cluster.session.session import NAMESPACE

NAMESPACES = (NAMESPACE, "serve")
"""Ray namespaces of our actors and placement groups; Ray Serve always uses its own."""


def leftovers(patience_seconds: float = 0) -> list[str]:
    """Sorted names of our live actors and placement groups; empty if all are cleaned up.

    Ray ends an actor a moment after its last handle is gone, so this polls until the list is empty or
    `patience_seconds` have passed. It asks the head node directly, so it works without Ray's API server. Ray's own
    actors (job supervisors, statistics) are in other namespaces and not counted.
    """
    until = time.monotonic() + patience_seconds
    while (found := _alive()) and time.monotonic() < until:
        time.sleep(0.1)
    return found


def _alive() -> list[str]:
    from ray._private.state import state
    from ray.core.generated.gcs_pb2 import ActorTableData, PlacementGroupTableData

    head = state._connect_and_get_accessor()
    actors = [ActorTableData.FromString(one) for one in head.get_actor_table(None, None)]
    groups = [PlacementGroupTableData.FromString(one) for one in head.get_placement_group_table()]
    return sorted(
        [f"actor {_name(one)}" for one in actors if _is_ours(one) and one.state != ActorTableData.DEAD]
        + [f"placement group {_name(one)}" for one in groups if _is_ours(one) and one.state != one.REMOVED]
    )


def _is_ours(one: Any) -> bool:
    return one.ray_namespace in NAMESPACES


def _name(one: Any) -> str:
    return one.name or getattr(one, "class_name", "") or one.placement_group_id.hex()
