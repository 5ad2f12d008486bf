"""Azure, as Ray's provider asks for it: `azure_arm_parameters` are parameters of Ray's template of a machine."""

from __future__ import annotations

from typing import Any

from heliostat.cluster.launcher.config import AzureConfig
from heliostat.cluster.launcher.nodes import Node, node_types

MODULE = "heliostat.cluster.launcher.azure_nodes.Nodes"
INITIALIZATION = ["touch ~/.sudo_as_admin_successful", "sudo usermod -aG docker $USER", "sleep 11"]
"""Without the first, Ubuntu prints a notice at each login, among what Ray reads."""
ANY_PRICE = -1
"""Up to that of a machine on demand."""


def provider(azure: AzureConfig) -> dict[str, Any]:
    """Where machines are; stopped ones would keep costing money for their disks."""
    return {
        "type": "external",
        "module": MODULE,
        "location": azure.location,
        "subscription_id": azure.subscription,
        "resource_group": azure.resource_group,
        "subnet_mask": azure.subnet,
        "availability_zone": "none",
        "use_internal_ips": True,
        "cache_stopped_nodes": False,
    }


def types(azure: AzureConfig) -> dict[str, Any]:
    """Head and pools."""
    head = _node(azure, azure.head_machine, azure.head_disk_gb, spot=False)
    return node_types(azure, head, lambda pool, spot: _node(azure, pool.machine, pool.disk_gb, spot=spot))


def _node(azure: AzureConfig, machine: str, disk_gb: int, *, spot: bool) -> Node:
    lent = {"priority": "Spot", "evictionPolicy": "Delete", "billingProfile": {"maxPrice": ANY_PRICE}}
    parameters = {"vmSize": machine, **_image(azure.machine_image), "osDiskSize": disk_gb, **(lent if spot else {})}
    return {"azure_arm_parameters": parameters}


def _image(image: str) -> dict[str, str]:
    if image.startswith("/"):
        return {"imageId": image}
    names = ("imagePublisher", "imageOffer", "imageSku", "imageVersion")
    return dict(zip(names, image.split(":"), strict=True))
