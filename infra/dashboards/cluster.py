"""Panels of the Ray cluster, from Ray's own metrics."""

from __future__ import annotations

from heliostat.infra.dashboards.grafana import Dashboard, Panel, Query

CPU = Panel("CPU", "Use of each node's CPUs.", "percent", (Query("ray_node_cpu_utilization", "{{ip}}"),), most=100)
MEMORY = Panel(
    "Memory",
    "Share of each node's memory that is used.",
    "percentunit",
    (Query("ray_node_mem_used / ray_node_mem_total", "{{ip}}"),),
    most=1,
)
GPU = Panel(
    "GPU",
    "Use of each GPU; zero where there is none.",
    "percent",
    (Query("sum by (ip, GpuIndex) (ray_node_gpus_utilization) or vector(0)", "{{ip}} GPU {{GpuIndex}}"),),
    most=100,
)
OBJECT_STORE = Panel(
    "Object store",
    "Bytes in Ray's object store on each node, and bytes that were spilled to disk.",
    "bytes",
    (
        Query("sum by (NodeAddress) (ray_object_store_used_memory)", "{{NodeAddress}} in memory"),
        Query('sum by (NodeAddress) (ray_object_store_memory{Location="SPILLED"})', "{{NodeAddress}} spilled"),
    ),
)
NODES = Panel(
    "Nodes", "Nodes that are up.", "short", (Query("count(ray_node_cpu_count)", "nodes"),), width=4, kind="stat"
)
CPUS_TAKEN = Panel(
    "CPUs taken",
    "Ray's logical CPUs that are taken, of all there are.",
    "percentunit",
    (Query('sum(ray_resources{Name="CPU", State="USED"}) / sum(ray_resources{Name="CPU"})', "taken"),),
    width=4,
    kind="stat",
    most=1,
    steps=(("green", None), ("orange", 0.95)),
)
PENDING = Panel(
    "Pending",
    "What waits for room: tasks and actors by reason, and placement groups. Where it stays above zero, workers are "
    "missing.",
    "short",
    (
        Query("sum by (Reason) (ray_scheduler_unscheduleable_tasks)", "{{Reason}}"),
        Query('sum(ray_gcs_placement_group_count{State=~"Pending|Infeasible"})', "placement groups"),
    ),
)
PROCESSES = Panel(
    "Memory by process",
    "Resident memory of the processes that hold most of it.",
    "bytes",
    (Query("topk(8, sum by (Component) (ray_component_rss_bytes))", "{{Component}}"),),
    width=12,
)
DISK = Panel(
    "Disk",
    "Share of each node's disk that is used; checkpoints and spilled objects fill it.",
    "percent",
    (Query("ray_node_disk_utilization_percentage", "{{ip}}"),),
    width=12,
    most=100,
)

CLUSTER = Dashboard(
    "heliostat-cluster",
    "Heliostat: cluster",
    "The Ray cluster below endpoints and runs.",
    (),
    (("Nodes", (CPU, MEMORY, GPU, DISK, PROCESSES)), ("Ray", (NODES, CPUS_TAKEN, OBJECT_STORE, PENDING))),
)
