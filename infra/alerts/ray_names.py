"""The metrics of Ray that rules use, as its agents expose them."""

from __future__ import annotations

REPLICAS_HEALTHY = "ray_serve_deployment_replica_healthy"
REPLICAS_WANTED = "ray_serve_autoscaling_target_replicas"
INGRESS_REQUESTS = "ray_serve_num_http_requests_total"
"""Requests by application and status as HAProxy answered them, or Ray's own proxy."""
RESOURCES = "ray_resources"
UNSCHEDULABLE_TASKS = "ray_scheduler_unscheduleable_tasks"
PLACEMENT_GROUPS = "ray_gcs_placement_group_count"
OBJECT_STORE_MEMORY = "ray_object_store_memory"
MEMORY_USED = "ray_node_mem_used"
MEMORY_TOTAL = "ray_node_mem_total"
DISK_PERCENT = "ray_node_disk_utilization_percentage"
NODE_CPUS = "ray_node_cpu_count"
GPU_UTILIZATION = "ray_node_gpus_utilization"
ACTIVE_NODES = "ray_cluster_active_nodes"
IDLE_NODES = "ray_cluster_idle_nodes"

RAY_NAMES = tuple(value for value in globals().copy().values() if isinstance(value, str) and value.startswith("ray_"))
"""All of them."""
