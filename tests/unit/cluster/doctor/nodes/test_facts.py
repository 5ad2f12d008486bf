from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from heliostat.cluster.doctor.nodes import facts as module
from heliostat.cluster.doctor.nodes.facts import facts, gpu_links, infiniband, nvidia_gpus, resolved

NVLINK = """\
\t\x1b[4mGPU0\tGPU1\tNIC0\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\x1b[0m
GPU0\t X \tNV18\tPIX\t0-47\t0\tN/A
GPU1\tNV18\t X \tSYS\t48-95\t1\tN/A
NIC0\tPIX\tSYS\t X \t\t\t

Legend:

  X    = Self
  NV#  = Connection traversing a bonded set of # NVLinks
"""


def test_gpus_and_driver_are_read_from_nvidia_smi() -> None:
    lines = "NVIDIA H200, 143771, 570.86.15\nNVIDIA H200, 143771, 570.86.15\n"
    assert nvidia_gpus(lines) == (["NVIDIA H200 140 GiB", "NVIDIA H200 140 GiB"], "570.86.15")
    assert nvidia_gpus("") == ([], "")
    assert nvidia_gpus("NVIDIA-SMI has failed because it couldn't communicate with the driver\n") == ([], "")
    assert nvidia_gpus("NVIDIA GB10, [N/A], 580.1\n") == (["NVIDIA GB10"], "580.1")


def test_links_between_gpus_and_no_others_are_named() -> None:
    assert gpu_links(NVLINK) == ["GPUs by NVLink (NV18)"]
    assert gpu_links(NVLINK.replace("NV18", "PHB")) == ["GPUs by PCIe (PHB)"]
    assert gpu_links("") == []


def port(folder: Path, device: str, **lines: str) -> None:
    inside = folder / device / "ports" / "1"
    inside.mkdir(parents=True)
    for name, line in lines.items():
        (inside / name).write_text(f"{line}\n")


def test_ports_of_infiniband_that_are_down_are_told_from_others(tmp_path: Path) -> None:
    port(tmp_path, "mlx5_0", link_layer="InfiniBand", rate="400 Gb/sec (4X NDR)", state="4: ACTIVE")
    port(tmp_path, "mlx5_1", link_layer="Ethernet", rate="25 Gb/sec (1X EDR)", state="1: DOWN")
    assert infiniband(tmp_path) == ["mlx5_0 InfiniBand 400 Gb/sec (4X NDR)", "mlx5_1 Ethernet 25 Gb/sec (1X EDR), down"]
    assert infiniband(tmp_path / "none") == []


def test_facts_of_this_machine() -> None:
    found = facts("127.0.0.1")
    assert found["versions"]["Python"].split(".")[:2] == [str(part) for part in sys.version_info[:2]]
    assert found["versions"]["ray"].startswith("2.")
    assert "lo" in found["links"]


def test_gpus_that_pytorch_cannot_use(monkeypatch: pytest.MonkeyPatch) -> None:
    def output(*command: str) -> str:
        return "NVIDIA L4, 23034, 570.1\n" if command[1].startswith("--query-gpu") else ""

    monkeypatch.setattr(module, "_output", output)
    found = facts("127.0.0.1")
    assert found["gpus"] == ["NVIDIA L4 22 GiB"]
    assert found["versions"]["NVIDIA driver"] == "570.1"
    import torch

    if torch.version.cuda is None:
        assert "is built without CUDA" in found["cuda_trouble"]


def test_names_resolve_or_do_not() -> None:
    assert "127.0.0.1" in resolved("localhost")
    assert resolved("nowhere.invalid") == []
    assert resolved("a" * 70) == []


BY_VALUE = """
import pickle, sys
sys.modules["heliostat"] = None
probe = pickle.load(sys.stdin.buffer)()
found = probe.facts("127.0.0.1")
stored = probe.storage({"url": sys.argv[1], "endpoint_url": None, "marker": "marker", "own": "own"})
port = probe.meet("127.0.0.1")
meeting = {"name": "x", "host": "127.0.0.1", "port": port, "backend": "gloo", "size": 1, "seconds": 0.1,
           "patience_seconds": 10}
print(found["versions"]["ray"], repr(stored["operation"]), probe.all_reduce(meeting, 0), probe.resolve([]).keys())
"""


def test_a_node_without_heliostat_runs_all_that_it_is_sent(tmp_path: Path) -> None:
    from ray import cloudpickle

    from heliostat.cluster.doctor.nodes.cluster import _by_value
    from heliostat.cluster.doctor.nodes.probe import Probe

    (tmp_path / "marker").write_bytes(b"heliostat doctor")
    with _by_value():
        sent = cloudpickle.dumps(Probe)
    done = subprocess.run(
        [sys.executable, "-c", BY_VALUE, str(tmp_path)], input=sent, capture_output=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().split()[1:3] == ["''", "0.0"]
    assert [file.name for file in tmp_path.iterdir()] == ["marker"]
