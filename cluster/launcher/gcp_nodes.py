"""Ray's provider of machines on Google's cloud, whose refusals the autoscaler remembers. Needs Google's client."""

from __future__ import annotations

from typing import Any

from ray.autoscaler._private.gcp.node_provider import GCPNodeProvider

from heliostat.cluster.launcher.spot import refusals


class Nodes(GCPNodeProvider):
    """As Ray's own, but for what is raised where a machine cannot be had."""

    def create_node(self, base_config: dict[str, Any], tags: dict[str, str], count: int) -> dict[str, Any]:
        """Starts `count` machines; raises NodeLaunchException if the cloud refuses."""
        with refusals():
            return dict(super().create_node(base_config, tags, count))
