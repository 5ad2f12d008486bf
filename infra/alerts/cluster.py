"""Rules that watch Ray's nodes. The label `job` names the Ray cluster."""

from __future__ import annotations

from heliostat.infra.alerts import ray_names
from heliostat.infra.alerts.rule import Alert, Group, Recording

FULL_SHARE = 0.9
LOST_MINUTES = 10
RESTARTED_MINUTES = 15

CPUS_USED = Recording(
    "heliostat:node_cpus_used:sum",
    f'sum by (job, NodeAddress) ({ray_names.RESOURCES}{{Name="CPU", State="USED"}})',
)

MEMORY_FULL = Alert(
    "HeliostatNodeMemoryFull",
    f"{ray_names.MEMORY_USED} / {ray_names.MEMORY_TOTAL} > {FULL_SHARE}",
    "5m",
    "warning",
    "Node {{ $labels.ip }} uses {{ $value | humanizePercentage }} of its memory; at 95% Ray ends processes",
)
DISK_FULL = Alert(
    "HeliostatNodeDiskFull",
    f"{ray_names.DISK_PERCENT} > {FULL_SHARE * 100:g}",
    "5m",
    "warning",
    'The disk of node {{ $labels.ip }} is {{ $value | printf "%.0f" }}% full',
)
SPILLING = Alert(
    "HeliostatObjectStoreSpills",
    f'sum by (job, NodeAddress) ({ray_names.OBJECT_STORE_MEMORY}{{Location="SPILLED"}}) > 0',
    "10m",
    "warning",
    "Node {{ $labels.NodeAddress }} has {{ $value | humanize1024 }}B of Ray's objects on disk",
)
NO_NODE_FITS = Alert(
    "HeliostatNoNodeFits",
    f'sum by (job) ({ray_names.UNSCHEDULABLE_TASKS}{{Reason="Infeasible"}}) > 0'
    f' or sum by (job) ({ray_names.PLACEMENT_GROUPS}{{State="Infeasible"}}) > 0',
    "10m",
    "warning",
    "{{ $value }} tasks, actors or placement groups in {{ $labels.job }} ask for more than any node has",
)
NODE_LOST = Alert(
    "HeliostatNodeLost",
    f"last_over_time({CPUS_USED.name}[{LOST_MINUTES}m]) > 0 unless {CPUS_USED.name}"
    f" and on (job) count by (job) ({CPUS_USED.name})",
    "1m",
    "warning",
    "Node {{ $labels.NodeAddress }} of {{ $labels.job }} is gone, with work on {{ $value }} CPUs",
)
"""A node that was idle at last has been scaled down, and where all are gone, the cluster was stopped."""
HEAD_RESTARTED = Alert(
    "HeliostatHeadRestarted",
    "count by (job, namespace) (count by (job, namespace, SessionName)"
    f' (last_over_time({ray_names.ACTIVE_NODES}{{namespace!=""}}[{RESTARTED_MINUTES}m]))) > 1',
    "0s",
    "critical",
    "The head of {{ $labels.job }} in {{ $labels.namespace }} has started anew: what ran on its cluster is gone",
)
"""On Kubernetes only: on a machine, each command may have a Ray of its own. A head that keeps its state in Redis keeps
its session's name too."""

GROUP = Group(
    "heliostat-cluster", (CPUS_USED, MEMORY_FULL, DISK_FULL, SPILLING, NO_NODE_FITS, NODE_LOST, HEAD_RESTARTED)
)
