"""What a process finds on its node: versions, GPUs, networks, shared memory, names.

Sent to the nodes by value, which may have another Heliostat or none: imports nothing of Heliostat, and nothing at the
top that every Ray does not have.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import socket
import struct
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any, TypedDict

PACKAGES = (
    "ray", "heliostat", "torch", "deepspeed", "transformers", "peft", "vllm", "safetensors", "numpy", "pydantic",
)  # fmt: skip
"""Packages whose workers exchange objects or weights, or that change what a step computes."""
SHARED_MEMORY = Path("/dev/shm")
_GPU_QUERY = ("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits")
_PROGRAM_SECONDS = 10
_SIOCGIFADDR = 0x8915
"""Linux's request for the IPv4 address of an interface (netdevice(7))."""


class Facts(TypedDict):
    """Answer of a node, in plain values."""

    versions: dict[str, str]
    """Python, packages, and on a node with GPUs the driver, CUDA and NCCL; without what is not installed."""
    shared_memory_bytes: int | None
    """Size of /dev/shm; None where there is none."""
    gpus: list[str]
    """Name and memory of each GPU that the driver reports, such as `NVIDIA H200 140 GiB`."""
    cuda_trouble: str
    """Why PyTorch cannot use these GPUs; empty if it can, or there are none."""
    links: list[str]
    """Interconnects: between GPUs, InfiniBand, and the network interface of the node's address."""


def facts(address: str) -> Facts:
    """Facts of the node that Ray knows under `address`; imports PyTorch on a node with GPUs only."""
    gpus, driver = nvidia_gpus(_output(*_GPU_QUERY))
    cuda, trouble = _cuda() if gpus else ({}, "")
    between = gpu_links(_output("nvidia-smi", "topo", "-m")) if len(gpus) > 1 else []
    return {
        "versions": versions() | ({"NVIDIA driver": driver} if driver else {}) | cuda,
        "shared_memory_bytes": shutil.disk_usage(SHARED_MEMORY).total if SHARED_MEMORY.is_dir() else None,
        "gpus": gpus,
        "cuda_trouble": trouble,
        "links": [*between, *infiniband(), *_interface(address)],
    }


def versions() -> dict[str, str]:
    """Version of Python and of each package of PACKAGES that is installed here."""
    import platform

    found = {"Python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def nvidia_gpus(lines: str) -> tuple[list[str], str]:
    """GPUs, and the driver's version, in nvidia-smi's `name, memory in MiB, driver` lines."""
    rows = [[cell.strip() for cell in line.split(",")] for line in lines.splitlines() if line.count(",") == 2]
    named = [f"{name} {int(memory) / 1024:.0f} GiB" if memory.isdigit() else name for name, memory, _ in rows]
    return named, rows[0][2] if rows else ""


def gpu_links(matrix: str) -> list[str]:
    """Kinds of links between GPUs in `nvidia-smi topo -m`: `GPUs by NVLink (NV18)`, `GPUs by PCIe (PHB)`."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", matrix)
    rows = [line.split() for line in plain.splitlines() if re.match(r"\s*GPU\d+\s+(X|NV|SYS|NODE|P)", line)]
    kinds = sorted({kind for row in rows for kind in row[1 : 1 + len(rows)] if kind != "X"})
    nvlink = [kind for kind in kinds if kind.startswith("NV")]
    other = [kind for kind in kinds if kind not in nvlink]
    return [f"GPUs by {name} ({', '.join(found)})" for name, found in (("NVLink", nvlink), ("PCIe", other)) if found]


def infiniband(folder: Path = Path("/sys/class/infiniband")) -> list[str]:
    """Ports of RDMA devices, as `mlx5_0 InfiniBand 400 Gb/sec (4X NDR)`; one that is not active is said to be down."""
    found = []
    for port in sorted(folder.glob("*/ports/*")):
        kind, rate, state = (_line(port / name) for name in ("link_layer", "rate", "state"))
        down = "" if state.endswith("ACTIVE") else f", {state.partition(': ')[2].lower() or 'state unknown'}"
        found.append(f"{port.parent.parent.name} {kind} {rate}{down}")
    return found


def resolved(name: str) -> list[str]:
    """IP addresses of a host name, in the resolver's order; empty if it does not resolve."""
    try:
        return list(
            dict.fromkeys(str(found[4][0]) for found in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM))
        )
    except (OSError, UnicodeError):
        return []


def _cuda() -> tuple[dict[str, str], str]:
    """Versions of CUDA and NCCL in this PyTorch, and why it cannot use the GPUs."""
    try:
        import torch
    except ImportError:
        return {}, "PyTorch is not installed"
    if torch.version.cuda is None:
        return {}, f"PyTorch {torch.__version__} is built without CUDA"
    found = {"CUDA": str(torch.version.cuda)}
    if torch.distributed.is_nccl_available():
        nccl: Any = torch.cuda.nccl.version()  # type: ignore[no-untyped-call]
        found["NCCL"] = ".".join(map(str, nccl)) if isinstance(nccl, tuple) else str(nccl)
    return (
        found,
        "" if torch.cuda.is_available() else "PyTorch cannot use the GPUs: is the driver too old for its CUDA?",
    )


def _interface(address: str) -> list[str]:
    """Interface with this IPv4 address, with the speed that it reports; empty if none has it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            asked = struct.pack("256s", name.encode()[:15])
            try:
                found = socket.inet_ntoa(fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, asked)[20:24])
            except OSError:  # an interface without an IPv4 address
                continue
            if found == address:
                speed = _line(Path(f"/sys/class/net/{name}/speed"))
                return [f"{name} {int(speed) / 1000:g} Gb/s" if speed.isdigit() else name]
    return []


def _line(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def _output(*command: str) -> str:
    """Standard output of a program; empty if it is not there, fails, or takes too long."""
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PROGRAM_SECONDS, check=False, env=environment
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
