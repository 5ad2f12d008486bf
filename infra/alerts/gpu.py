"""Rules that watch GPUs, by NVIDIA's DCGM exporter and by Ray. Where one of them is missing, its rules are silent.

The labels `gpu` and `Hostname` are the exporter's. Its default list has no fields of double-bit errors and of thermal
violations; where they are not exported, remapped rows and the temperature tell the same later.
"""

from __future__ import annotations

from heliostat.infra.alerts.ray_names import GPU_UTILIZATION, RESOURCES
from heliostat.infra.alerts.rule import Alert, Group

TEMPERATURE = "DCGM_FI_DEV_GPU_TEMP"
DOUBLE_BIT_ERRORS = "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL"
REMAPPED_ROWS = "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS"
REMAP_FAILURE = "DCGM_FI_DEV_ROW_REMAP_FAILURE"
THERMAL_VIOLATION = "DCGM_FI_DEV_THERMAL_VIOLATION"
DCGM_NAMES = (TEMPERATURE, DOUBLE_BIT_ERRORS, REMAPPED_ROWS, REMAP_FAILURE, THERMAL_VIOLATION)

TAKEN = f'{RESOURCES}{{Name="GPU", State="USED"}}'

HOT_CELSIUS = 88
IDLE_PERCENT = 5
IDLE_MINUTES = 30
_GPU = "max by (Hostname, gpu)"
_NAMED = "GPU {{ $labels.gpu }} of {{ $labels.Hostname }}"

HOT = Alert(
    "HeliostatGpuHot",
    f"{_GPU} ({TEMPERATURE}) > {HOT_CELSIUS}",
    "10m",
    "warning",
    f"{_NAMED} is at {{{{ $value }}}} °C",
)
ERRORS = Alert(
    "HeliostatGpuMemoryErrors",
    f"{_GPU} (increase({DOUBLE_BIT_ERRORS}[10m])) > 0"
    f" or {_GPU} (increase({REMAPPED_ROWS}[10m])) > 0"
    f" or {_GPU} ({REMAP_FAILURE}) > 0",
    "0s",
    "critical",
    f"{_NAMED} has memory errors that it cannot correct",
)
THROTTLED = Alert(
    "HeliostatGpuThrottled",
    f"{_GPU} (increase({THERMAL_VIOLATION}[10m])) > 0",
    "10m",
    "warning",
    f"{_NAMED} has slowed itself down because of its temperature",
)
IDLE = Alert(
    "HeliostatGpuIdle",
    f"sum by (job, NodeAddress) ({TAKEN}) > 0"
    f" and on (job, NodeAddress) max by (job, NodeAddress) (label_replace("
    f'max_over_time({GPU_UTILIZATION}[{IDLE_MINUTES}m]), "NodeAddress", "$1", "ip", "(.*)")) < {IDLE_PERCENT}',
    "10m",
    "warning",
    f"{{{{ $value }}}} GPUs of node {{{{ $labels.NodeAddress }}}} are taken, and none there was used above"
    f" {IDLE_PERCENT}% in {IDLE_MINUTES} minutes",
)

GROUP = Group("heliostat-gpu", (HOT, ERRORS, THROTTLED, IDLE))
