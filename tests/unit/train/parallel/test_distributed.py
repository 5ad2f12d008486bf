from __future__ import annotations

import subprocess
import sys

import deepspeed
import pytest
import torch

from heliostat.train.parallel import distributed

LEFT_OUT = "DeepSpeed's own operators are left out"


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A process group of one, and a list of what was compiled."""
    calls: list[str] = []
    monkeypatch.setattr(deepspeed, "init_distributed", lambda **_: None)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 0)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 1)
    monkeypatch.setattr(distributed, "load_operators", lambda: calls.append("operators"))
    monkeypatch.setattr(deepspeed.ops, "__compatible_ops__", {"shm_comm": True, "fused_adam": True})
    return calls


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_without_a_compiler_operators_are_left_out_and_that_is_said(
    device: str, loaded: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(distributed, "compiler_available", lambda: False)
    assert distributed.join(device).device == device
    assert loaded == []
    assert deepspeed.ops.__compatible_ops__ == {"shm_comm": False, "fused_adam": False}
    assert LEFT_OUT in caplog.text


@pytest.mark.parametrize(("device", "expected"), [("cpu", ["operators"]), ("cuda", [])])
def test_the_shared_memory_all_reduce_is_loaded_on_cpus_only(
    device: str,
    expected: list[str],
    loaded: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(distributed, "compiler_available", lambda: True)
    distributed.join(device)
    assert loaded == expected
    assert all(deepspeed.ops.__compatible_ops__.values())
    assert LEFT_OUT not in caplog.text


@pytest.mark.parametrize("rank", [0, 1])
def test_what_the_first_rank_finds_out_no_other_tries(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one would read storage while the first deletes from it."""
    asked: list[int] = []

    def find_out() -> str:
        asked.append(rank)
        return "found"

    def broadcast(box: list[object], src: int) -> None:
        assert box == (["found"] if rank == 0 else [None])
        box[0] = "found"

    monkeypatch.setattr(torch.distributed, "broadcast_object_list", broadcast)
    assert distributed.World(rank, 2, "cpu").from_first(find_out) == "found"
    assert asked == ([0] if rank == 0 else [])


PROGRAM = """
import sys
from heliostat.train.parallel.distributed import import_deepspeed
import_deepspeed()
import deepspeed.runtime.zero.stage3, deepspeed.runtime.zero.muon.muon_optimizer
from deepspeed.runtime import compiler
assert not {"mlflow", "torch._inductor.compile_fx"} & set(sys.modules)
assert compiler.compile.__module__ == "deepspeed.runtime.compiler", "only Muon is left uncompiled"
import mlflow
"""


def test_deepspeed_is_imported_without_mlflow_and_without_a_compiler() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
