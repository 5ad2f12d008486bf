"""Node types of a cluster: what of them the clouds have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from heliostat.cluster.launcher.config import CloudConfig, PoolConfig

Node = dict[str, Any]
"""What a cloud is asked for a machine with, as its SDK and Ray's provider take it."""
PRICES = {"spot-first": ("spot", "on-demand"), "spot": ("spot",), "on-demand": ("on-demand",)}
"""The node types of a pool's `capacity`, the first one first where both can be had."""


def node_types(cloud: CloudConfig, head: Node, node: Callable[[PoolConfig, bool], Node]) -> dict[str, Any]:
    """`available_node_types`; `node` makes a pool's machine, of spot price or not.

    A pool's minimum is of the price that it can rely on: of machines on demand, unless it has spot machines only.
    """
    head_type = {"resources": {"CPU": 0}, "min_workers": 0, "max_workers": 0, "node_config": head}
    return {"head": head_type, **dict(_workers(cloud.pools, node))}


def _workers(
    pools: Mapping[str, PoolConfig], node: Callable[[PoolConfig, bool], Node]
) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, pool in pools.items():
        prices = PRICES[pool.capacity]
        for price in prices:
            yield (
                f"{name}-{price}",
                {
                    "resources": {"CPU": pool.cpus, **({"GPU": pool.gpus} if pool.gpus else {})},
                    "min_workers": pool.min if price == prices[-1] else 0,
                    "max_workers": pool.max,
                    "node_config": node(pool, price == "spot"),
                },
            )


def most_workers(cloud: CloudConfig) -> int:
    """Machines of all pools together, at most."""
    return sum(pool.max for pool in cloud.pools.values())
