"""Spot machines first, machines on demand while the cloud has none: what Ray's autoscaler on the head is told.

Ray 2.60's newer autoscaler knows a priority of node types, and takes the first one again and again where a cloud
refuses it: only a machine that was started and never joined counts as unavailable there. The older one counts refusals
too, and lets a function of ours order node types by them (`RAY_AUTOSCALER_UTILIZATION_SCORER`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray.autoscaler._private.node_provider_availability_tracker import NodeAvailabilitySummary
from ray.autoscaler._private.resource_demand_scheduler import _default_utilization_scorer
from ray.autoscaler.node_launch_exception import NodeLaunchException

SPOT = "-spot"
"""How names of node types end whose machines may be taken away."""
DESCRIPTION_CHARACTERS = 300


def score(
    node_resources: dict[str, float],
    resources: list[dict[str, float]],
    node_type: str,
    *,
    node_availability_summary: NodeAvailabilitySummary,
) -> tuple[Any, ...] | None:
    """How well a node type suits what waits for resources; the autoscaler starts the highest. None where nothing fits.

    Ray's own score goes first, so that kinds of machines are chosen as ever; among equal ones those that the cloud has
    not refused within the last half an hour, then spot machines.
    """
    own = _default_utilization_scorer(
        node_resources, resources, node_type, node_availability_summary=node_availability_summary
    )
    if own is None:
        return None
    record = node_availability_summary.node_availabilities.get(node_type)
    return (*own, record is None or record.is_available, node_type.endswith(SPOT))


@contextmanager
def refusals() -> Iterator[None]:
    """Makes a refusal of each cloud what the autoscaler remembers; of Ray's own providers, only that of AWS does so."""
    try:
        yield
    except NodeLaunchException:
        raise
    except Exception as error:  # each SDK has its own
        description = str(error)[:DESCRIPTION_CHARACTERS]
        raise NodeLaunchException(type(error).__name__, description, sys.exc_info()) from error
