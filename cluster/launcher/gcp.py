"""Compute Engine, as Ray's provider asks for it: `node_config` is the body of `instances.insert`."""

from __future__ import annotations

from typing import Any

from heliostat.cluster.launcher.config import GcpConfig, GcpPoolConfig, PoolConfig
from heliostat.cluster.launcher.nodes import Node, node_types

MODULE = "heliostat.cluster.launcher.gcp_nodes.Nodes"
ALL_OF_ITS_ROLES = "https://www.googleapis.com/auth/cloud-platform"
"""Google's advice: a machine's scope is wide, the roles of its account say what it may do."""
INITIALIZATION = ["sudo usermod -aG docker $USER", "sleep 11"]
"""The group counts from the next login on, and Ray's connections stay for ten seconds."""


def provider(gcp: GcpConfig) -> dict[str, Any]:
    """Where machines are."""
    return {
        "type": "external",
        "module": MODULE,
        "region": gcp.region,
        "availability_zone": gcp.zone,
        "project_id": gcp.project,
        "use_internal_ips": not gcp.public_head,
    }


def types(gcp: GcpConfig) -> dict[str, Any]:
    """Head and pools. Ray gives the head an account of its own making."""
    head = _node(gcp, gcp.head_machine, gcp.head_disk_gb, is_public=gcp.public_head)
    return node_types(gcp, head, lambda pool, spot: _worker(gcp, pool, spot))


def _worker(gcp: GcpConfig, pool: PoolConfig, spot: bool) -> Node:
    node = _node(gcp, pool.machine, pool.disk_gb, is_public=False)
    node["serviceAccounts"] = [{"email": gcp.worker_account, "scopes": [ALL_OF_ITS_ROLES]}]
    accelerator = pool.accelerator if isinstance(pool, GcpPoolConfig) else None
    if accelerator:
        node["guestAccelerators"] = [{"acceleratorType": accelerator, "acceleratorCount": pool.gpus}]
    scheduling: dict[str, Any] = {"onHostMaintenance": "TERMINATE", "automaticRestart": False}
    if spot:
        scheduling |= {"provisioningModel": "SPOT", "instanceTerminationAction": "DELETE"}
    return {**node, "scheduling": scheduling}


def _node(gcp: GcpConfig, machine: str, disk_gb: int, *, is_public: bool) -> Node:
    interface: dict[str, Any] = {"subnetwork": gcp.subnetwork}
    if is_public:
        interface["accessConfigs"] = [{"name": "External NAT", "type": "ONE_TO_ONE_NAT"}]
    disk = {
        "boot": True,
        "autoDelete": True,
        "type": "PERSISTENT",
        "initializeParams": {"diskSizeGb": disk_gb, "sourceImage": gcp.machine_image},
    }
    return {"machineType": machine, "disks": [disk], "networkInterfaces": [interface]}
