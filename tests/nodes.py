"""Raylets of one cluster on this machine."""

from __future__ import annotations

NODE = {
    "num_cpus": 1,
    "node_ip_address": "127.0.0.1",
    "object_store_memory": 100_000_000,
    "dashboard_agent_listen_port": 0,
}
"""What `ray.cluster_utils.Cluster` is asked for: a node with one CPU. Its agent chooses a port: at 52365, which is
Ray's own, that of another Ray on this machine may listen, and a head whose agent does not listen takes no jobs."""
