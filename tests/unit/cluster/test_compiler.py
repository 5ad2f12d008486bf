from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

import pytest

from heliostat.cluster import compiler
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


def test_a_failed_compilation_is_its_first_error(monkeypatch: pytest.MonkeyPatch) -> None:
    failing = "import sys; print('note: x'); print('shm.cpp:3: error: no immintrin.h'); sys.exit(1)"
    with pytest.raises(ResourceError, match=r"^DeepSpeed's op: shm.cpp:3: error: no immintrin.h$"):
        compiler._run("op", [sys.executable, "-c", failing])
    monkeypatch.setattr(compiler, "COMPILE_SECONDS", 0.2)
    with pytest.raises(ResourceError, match="not compiled after"):
        compiler._run("op", [sys.executable, "-c", "import time; time.sleep(30)"])


def test_nothing_is_compiled_without_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "missing_tools", lambda: ["ninja"])
    with pytest.raises(ResourceError, match="cannot be compiled without ninja"):
        compiler.compile_operators()
