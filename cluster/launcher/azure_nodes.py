"""Ray's provider of machines on Azure, whose refusals the autoscaler remembers. Needs Azure's clients."""

from __future__ import annotations

from typing import Any

from ray.autoscaler._private._azure.node_provider import AzureNodeProvider

from heliostat.cluster.launcher.spot import refusals


class Nodes(AzureNodeProvider):
    """As Ray's own, but for what is raised where a machine cannot be had."""

    def create_node(self, node_config: dict[str, Any], tags: dict[str, str], count: int) -> None:
        """Starts `count` machines; raises NodeLaunchException if the cloud refuses."""
        with refusals():
            super().create_node(node_config, tags, count)
