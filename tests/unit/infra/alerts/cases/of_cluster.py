"""Cases of rules about nodes and GPUs."""

from __future__ import annotations

from tests.unit.infra.alerts.cases.case import Case, Series, node

GPU = {"Hostname": "gpu-node", "gpu": "1"}


MEMORY = "GPU 1 of gpu-node has memory errors that it cannot correct"


NODE = {"job": "ray", "NodeAddress": "10.0.0.2"}


def of_ray(metric: str, labels: str, values: str) -> Series:
    return {f'ray_{metric}{{job="ray",NodeAddress="10.0.0.2",{labels}}}': values}


def cpus(first: str, second: str) -> Series:
    """CPUs in use on two nodes."""
    labels = 'job="ray",Name="CPU",State="USED"'
    return {
        f'ray_resources{{{labels},NodeAddress="10.0.0.1"}}': first,
        f'ray_resources{{{labels},NodeAddress="10.0.0.2"}}': second,
    }


def dcgm(field: str, values: str) -> Series:
    """A field of two GPUs of a node, as NVIDIA's exporter names them; the other GPU has none."""
    labels = 'Hostname="gpu-node",modelName="H200"'
    return {
        f'DCGM_FI_DEV_{field}{{gpu="0",{labels},UUID="a"}}': "0x60",
        f'DCGM_FI_DEV_{field}{{gpu="1",{labels},UUID="b"}}': values,
    }


def gpus(taken: str, *used: str) -> Series:
    """GPUs of a node that are taken, and how much of the time each is used, in percent."""
    found = {
        f'ray_node_gpus_utilization{{job="ray",ip="10.0.0.2",GpuIndex="{at}"}}': one for at, one in enumerate(used)
    }
    return {**found, **of_ray("resources", 'Name="GPU",State="USED"', taken)}


def sessions(namespace: str, **by_name: str) -> Series:
    """The head of a cluster says how many nodes there are, in sessions of these names."""
    labels = 'job="ray"' + (f',namespace="{namespace}"' if namespace else "")
    return {f'ray_cluster_active_nodes{{{labels},SessionName="{name}"}}': values for name, values in by_name.items()}


CASES = (
    Case(
        "HeliostatNodeMemoryFull", "nineteen parts of twenty", "20m",
        {**node("mem_used", "95x30"), **node("mem_total", "100x30")},
        {"job": "ray", "ip": "10.0.0.2"}, "Node 10.0.0.2 uses 95% of its memory; at 95% Ray ends processes",
    ),
    Case("HeliostatNodeMemoryFull", "half", "20m", {**node("mem_used", "50x30"), **node("mem_total", "100x30")}),
    Case(
        "HeliostatNodeDiskFull", "96 %", "20m", node("disk_utilization_percentage", "96.2x30"),
        {"job": "ray", "ip": "10.0.0.2"}, "The disk of node 10.0.0.2 is 96% full",
    ),
    Case("HeliostatNodeDiskFull", "80 %", "20m", node("disk_utilization_percentage", "80x30")),
    Case(
        "HeliostatObjectStoreSpills", "a gibibyte stays on disk", "20m",
        of_ray("object_store_memory", 'Location="SPILLED"', "1073741824x30"),
        NODE, "Node 10.0.0.2 has 1GiB of Ray's objects on disk",
    ),
    Case(
        "HeliostatObjectStoreSpills", "objects are in memory", "20m",
        {
            **of_ray("object_store_memory", 'Location="MMAP_SHM"', "1e9x30"),
            **of_ray("object_store_memory", 'Location="SPILLED"', "0x30"),
        },
    ),
    Case(
        "HeliostatNoNodeFits", "two tasks", "20m",
        of_ray("scheduler_unscheduleable_tasks", 'Reason="Infeasible"', "2x30"),
        {"job": "ray"}, "2 tasks, actors or placement groups in ray ask for more than any node has",
    ),
    Case(
        "HeliostatNoNodeFits", "a placement group", "20m",
        of_ray("gcs_placement_group_count", 'State="Infeasible"', "1x30"),
        {"job": "ray"}, "1 tasks, actors or placement groups in ray ask for more than any node has",
    ),
    Case(
        "HeliostatNoNodeFits", "all wait for their turn", "20m",
        {
            **of_ray("scheduler_unscheduleable_tasks", 'Reason="WaitingForResources"', "9x30"),
            **of_ray("gcs_placement_group_count", 'State="Pending"', "3x30"),
        },
    ),
    Case(
        "HeliostatNodeLost", "a node that worked", "15m", cpus("1x30", "4x10 stale"),
        NODE, "Node 10.0.0.2 of ray is gone, with work on 4 CPUs",
    ),
    Case(
        "HeliostatGpuHot", "one is", "20m", dcgm("GPU_TEMP", "91x60"), GPU, "GPU 1 of gpu-node is at 91 °C"
    ),
    Case("HeliostatGpuHot", "warm", "20m", dcgm("GPU_TEMP", "84x60")),
    Case("HeliostatGpuMemoryErrors", "a double-bit error", "15m", dcgm("ECC_DBE_VOL_TOTAL", "2x12 3x48"), GPU, MEMORY),
    Case(
        "HeliostatGpuMemoryErrors", "a row is remapped", "15m", dcgm("UNCORRECTABLE_REMAPPED_ROWS", "0x12 1x48"), GPU,
        MEMORY,
    ),
    Case("HeliostatGpuMemoryErrors", "no spare row is left", "15m", dcgm("ROW_REMAP_FAILURE", "1x60"), GPU, MEMORY),
    Case("HeliostatGpuMemoryErrors", "long ago", "40m", dcgm("UNCORRECTABLE_REMAPPED_ROWS", "0x12 1x48")),
    Case(
        "HeliostatGpuThrottled", "again and again", "30m", dcgm("THERMAL_VIOLATION", "0+1000x60"), GPU,
        "GPU 1 of gpu-node has slowed itself down because of its temperature",
    ),
    Case("HeliostatGpuThrottled", "once", "40m", dcgm("THERMAL_VIOLATION", "0x10 9000x50")),
    Case(
        "HeliostatGpuIdle", "taken, and nothing runs", "55m", gpus("2x60", "0x60", "1x60"), NODE,
        "2 GPUs of node 10.0.0.2 are taken, and none there was used above 5% in 30 minutes",
    ),
    Case("HeliostatGpuIdle", "one of two works now and then", "55m", gpus("2x60", "0x60", "0x20 90 0x40")),
    Case("HeliostatGpuIdle", "nobody took them", "55m", gpus("0x60", "0x60", "0x60")),
    Case("HeliostatNodeLost", "a node that was idle is scaled down", "15m", cpus("1x30", "4x5 0x5 stale")),
    Case("HeliostatNodeLost", "the cluster is stopped", "15m", cpus("1x10 stale", "4x10 stale")),
    Case(
        "HeliostatHeadRestarted", "it has another session", "20m", sessions("ml", a="1x15 stale", b="_x16 1x14"),
        {"job": "ray", "namespace": "ml"}, "The head of ray in ml has started anew: what ran on its cluster is gone",
    ),
    Case("HeliostatHeadRestarted", "one session", "20m", sessions("ml", a="1x30")),
    Case("HeliostatHeadRestarted", "long ago", "40m", sessions("ml", a="1x15 stale", b="_x16 1x24")),
    Case(
        "HeliostatHeadRestarted", "commands of a machine, each with its Ray", "20m",
        sessions("", a="1x15 stale", b="_x16 1x14"),
    ),
)  # fmt: skip
