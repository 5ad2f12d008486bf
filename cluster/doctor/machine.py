"""Checks of the machine itself: accelerator, memory, disk, open files, ports."""

from __future__ import annotations

import os
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from heliostat.cluster.folders import LOOPBACK, ray_folder
from heliostat.infra.bf16 import cpu_unit, has_bf16
from heliostat.infra.memory import GIB

PORTS = {
    8265: ("Ray's dashboard", "Ray takes another by itself"),
    6379: ("ray start", "ray start --port=PORT moves it; a Ray of Heliostat does not need it"),
    10001: ("ray start", "ray start --ray-client-server-port=PORT moves it; a Ray of Heliostat does not need it"),
}
"""Ray's default ports -> who uses each, and what to do if it is taken."""


@dataclass(frozen=True)
class Check:
    """Result of one check: one line of the report."""

    name: str
    status: Literal["pass", "warn", "fail"]
    found: str
    advice: str = ""
    """What to do; empty if all is well."""


def check_accelerator() -> Check:
    """GPUs, or the CPU, and whether they compute bfloat16."""
    import torch

    if torch.cuda.is_available():
        gpus = [torch.cuda.get_device_properties(one) for one in range(torch.cuda.device_count())]
        found = ", ".join(f"{gpu.name} {gpu.total_memory / GIB:.0f} GiB" for gpu in gpus)
        return bf16_check(f"PyTorch {torch.__version__}, {found}", "GPU" if has_bf16("cuda") else None)
    unit = cpu_unit(torch.cpu.get_capabilities())
    return bf16_check(f"PyTorch {torch.__version__}, no GPU, {os.cpu_count()} CPUs", unit)


def bf16_check(found: str, unit: str | None) -> Check:
    """What `precision: auto` is on a device that computes bfloat16 with `unit`, or with nothing; no failure."""
    if unit:
        return Check("accelerator", "pass", f"{found}, bf16 in hardware ({unit})")
    return Check("accelerator", "pass", f"{found}, no bf16 in hardware: precision auto is fp32")


def check_memory() -> Check:
    """Free memory."""
    import psutil  # type: ignore[import-untyped]

    memory = psutil.virtual_memory()
    found = f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB free"
    if memory.available < 4 * GIB:
        return Check("memory", "warn", found, "the demo needs about 4 GiB; close something, or set train.workers=1")
    return Check("memory", "pass", found)


def check_shared_memory(folder: Path = Path("/dev/shm")) -> Check:
    """Size of shared memory, which Ray's object store and communication between workers use."""
    if not folder.exists():
        return Check("shared memory", "pass", f"no {folder} on this system; Ray uses {ray_folder()}")
    size = shutil.disk_usage(folder).total
    if size < 2 * GIB:
        advice = "Ray falls back to the disk, which is slow; in a container, give --shm-size=4g"
        return Check("shared memory", "warn", f"{folder} has {size / GIB:.1f} GiB", advice)
    return Check("shared memory", "pass", f"{folder} has {size / GIB:.1f} GiB")


def check_disk(name: str, folder: Path) -> Check:
    """Free disk space at the folder, or where it would be created."""
    free = shutil.disk_usage(existing(folder)).free
    found = f"{free / GIB:.0f} GiB free at {folder}"
    if free < GIB:
        return Check(name, "fail", found, "1 GiB at least, 10 GiB to be at ease; free some or choose another place")
    if free < 10 * GIB:
        return Check(name, "warn", found, "models and checkpoints fill 10 GiB soon; free some")
    return Check(name, "pass", found)


def existing(folder: Path) -> Path:
    """The folder, or its nearest parent that exists."""
    return next(one for one in (folder, *folder.parents) if one.exists())


def check_open_files() -> Check:
    """The limit of open files and connections per process; Ray raises it to the hard limit by itself."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if 0 <= hard < 4096:
        return Check("open files", "warn", f"limit {hard}", "busy endpoints need more: ulimit -Hn 65536")
    return Check("open files", "pass", f"limit {'none' if hard < 0 else hard}")


def check_port(port: int, user: str, advice: str) -> Check:
    """Whether nothing listens on a port that `user` needs."""
    with socket.socket() as probe:
        probe.settimeout(1)
        taken = probe.connect_ex((LOOPBACK, port)) == 0
    if taken:
        return Check(f"port {port}", "warn", f"in use; {user} would use it", advice)
    return Check(f"port {port}", "pass", "free")
