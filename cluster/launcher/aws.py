"""EC2, as Ray's own provider asks for it: `node_config` holds parameters of RunInstances."""

from __future__ import annotations

from typing import Any

from heliostat.cluster.launcher.config import AwsConfig, PoolConfig
from heliostat.cluster.launcher.nodes import Node, node_types

INITIALIZATION: list[str] = []


def provider(aws: AwsConfig) -> dict[str, Any]:
    """Where machines are; stopped ones would keep costing money for their disks."""
    return {"type": "aws", "region": aws.region, "use_internal_ips": not aws.public_head, "cache_stopped_nodes": False}


def types(aws: AwsConfig) -> dict[str, Any]:
    """Head and pools."""
    head = _node(aws, aws.head_machine, aws.head_disk_gb, aws.head_profile)
    return node_types(aws, head, lambda pool, spot: _worker(aws, pool, spot))


def _worker(aws: AwsConfig, pool: PoolConfig, spot: bool) -> Node:
    node = _node(aws, pool.machine, pool.disk_gb, aws.worker_profile)
    options = {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"}
    return {**node, **({"InstanceMarketOptions": {"MarketType": "spot", "SpotOptions": options}} if spot else {})}


def _node(aws: AwsConfig, machine: str, disk_gb: int, profile: str) -> Node:
    # Containers are on the machine's own network, so one hop reaches the service that hands out credentials.
    metadata = {"HttpEndpoint": "enabled", "HttpTokens": "required", "HttpPutResponseHopLimit": 1}
    disk = {"VolumeSize": disk_gb, "VolumeType": "gp3", "Encrypted": True, "DeleteOnTermination": True}
    return {
        "ImageId": aws.machine_image,
        "InstanceType": machine,
        "IamInstanceProfile": {"Arn": profile},
        "SubnetIds": list(aws.subnets),
        "SecurityGroupIds": list(aws.security_groups),
        "BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": disk}],
        "MetadataOptions": metadata,
    }
