"""What Ray and its metrics agent say of what runs."""

from __future__ import annotations

from typing import Any

import httpx

from heliostat.cluster.scrape import metrics_targets


def alive_actors() -> list[str]:
    """Classes of the actors that live."""
    import ray

    return [actor["ActorClassName"] for actor in ray._private.state.actors().values() if actor["State"] == "ALIVE"]


def named_actors() -> set[str]:
    """Names of the actors that live, in all namespaces."""
    import ray

    return {actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)}


def replica_pids(name: str) -> list[int]:
    """Processes of the replicas of an endpoint."""
    import ray

    actors = ray._private.state.actors().values()
    return [
        actor["Pid"]
        for actor in actors
        if actor["State"] == "ALIVE" and actor["Name"].startswith(f"SERVE_REPLICA::{name}#")
    ]


def placement_groups() -> list[Any]:
    """Those that hold resources, or wait for them."""
    import ray

    return [group for group in ray.util.placement_group_table().values() if group["state"] != "REMOVED"]


def samples(name: str, **labels: str) -> float:
    """The sum of a metric over all that has these labels, as Ray's metrics agent exports it."""
    (target,) = metrics_targets()
    lines = httpx.get(f"http://{target}/metrics", timeout=10).text.splitlines()
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    found = [line for line in lines if line.startswith(f"ray_{name}{{") and all(label in line for label in wanted)]
    return sum(float(line.rpartition(" ")[2]) for line in found)
