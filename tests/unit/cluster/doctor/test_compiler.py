from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

import pytest

from heliostat.cluster.doctor import compiler
from heliostat.infra.errors import ResourceError


def program(folder: Path, name: str) -> None:
    (folder / name).write_text("#!/bin/sh\n")
    (folder / name).chmod(0o755)


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.delenv("CXX", raising=False)
    assert [one.split(" (")[0] for one in compiler.missing_tools()][:2] == ["a C++ compiler", "ninja"]
    assert compiler.compiler_available() is False
    program(tmp_path, "my-c++")
    program(tmp_path, "ninja")
    monkeypatch.setenv("CXX", "my-c++")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    assert compiler.missing_tools() == ["Python's headers (Debian: python3-dev)"]
    (tmp_path / "Python.h").touch()
    assert compiler.compiler_available() is True


def test_ninja_counts_beside_this_python_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    program(tmp_path / "bin", "ninja")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    assert not [one for one in compiler.missing_tools() if one.startswith("ninja")]


def test_compiled_operators_are_found_where_pytorch_puts_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    assert compiler.compiled_operators() == []
    (name,) = compiler.OPERATORS
    (tmp_path / name).mkdir()
    (tmp_path / name / "build.ninja").touch()
    assert compiler.compiled_operators() == []
    (tmp_path / name / f"{name}.so").touch()
    assert compiler.compiled_operators() == [name]


def test_each_environment_has_its_own_operators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCH_EXTENSIONS_DIR", raising=False)
    monkeypatch.setenv("HELIOSTAT_CACHE", str(tmp_path))
    ours = compiler.operators_folder()
    assert ours.parent == tmp_path / "operators"
    assert compiler.operators_folder() == ours
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "another"))
    assert compiler.operators_folder() != ours


class Builder:
    """In place of DeepSpeed's; it waits for PyTorch's file as PyTorch does, but not without end."""

    def __init__(self, lock: Path, fail: str) -> None:
        self.lock, self.fail = lock, fail

    def load(self) -> None:
        assert not self.lock.exists(), "would wait for ever"
        if self.fail:
            raise RuntimeError(self.fail)


@pytest.mark.parametrize("fail", ["", "building\nshm.cpp:3: error: no immintrin.h\nninja stopped"])
def test_a_lock_that_a_killed_process_left_is_removed(
    fail: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deepspeed.accelerator import get_accelerator

    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setenv("PATH", os.environ["PATH"])
    (name,) = compiler.OPERATORS
    stale = tmp_path / name / "lock"
    stale.parent.mkdir()
    stale.touch()
    monkeypatch.setattr(get_accelerator(), "create_op_builder", lambda builder: Builder(stale, fail))
    if fail:
        with pytest.raises(ResourceError, match=f"^DeepSpeed's {name}: shm.cpp:3: error: no immintrin.h$"):
            compiler.load_operators()
    else:
        compiler.load_operators()
    assert not stale.exists()


def test_a_failed_compilation_is_its_first_error(monkeypatch: pytest.MonkeyPatch) -> None:
    failing = "import sys; print('note: x'); print('shm.cpp:3: error: no immintrin.h'); sys.exit(1)"
    with pytest.raises(ResourceError, match=r"^DeepSpeed's operators: shm.cpp:3: error: no immintrin.h$"):
        compiler._run([sys.executable, "-c", failing])
    monkeypatch.setattr(compiler, "COMPILE_SECONDS", 0.2)
    with pytest.raises(ResourceError, match="not compiled after"):
        compiler._run([sys.executable, "-c", "import time; time.sleep(30)"])


def test_nothing_is_compiled_without_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "missing_tools", lambda: ["ninja"])
    with pytest.raises(ResourceError, match="cannot be compiled without ninja"):
        compiler.compile_operators()
