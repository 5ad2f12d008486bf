"""The C++ operators that DeepSpeed compiles on this machine: can it, and has it?

A run on CPUs uses one, which exchanges gradients through shared memory. Without a compiler a run goes on with what
PyTorch brings (gloo), so nothing here is an error.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

from heliostat.infra.errors import ResourceError

OPERATORS = {"deepspeed_shm_comm": "ShareMemCommBuilder"}
"""DeepSpeed's name of each operator that our runs use -> its builder."""
COMPILE_SECONDS = 600


def compiler_available() -> bool:
    """Whether DeepSpeed can compile its operators here; a run goes on with PyTorch's own where it cannot."""
    return not missing_tools()


def missing_tools() -> list[str]:
    """What is missing to compile C++ operators, as names to install; empty where nothing is."""
    missing = []
    if not shutil.which(os.environ.get("CXX") or "c++"):
        missing.append("a C++ compiler (Debian: g++)")
    if not shutil.which("ninja", path=_path_for_tools()):
        missing.append("ninja (pip install ninja)")
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        missing.append("Python's headers (Debian: python3-dev)")
    return missing


def _path_for_tools() -> str:
    """PATH as a session of ours gives it to Ray's workers: with the folder of this Python in it."""
    return os.pathsep.join((os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)))


def compiled_operators() -> list[str]:
    """Names of the operators that are compiled for this Python already; PyTorch compiles again where they are stale."""
    return [name for name in OPERATORS if list(_build_root().glob(f"**/{name}/{name}.so"))]


def _build_root() -> Path:
    """Where PyTorch puts compiled extensions: TORCH_EXTENSIONS_DIR, or this Python's part of its cache."""
    if given := os.environ.get("TORCH_EXTENSIONS_DIR"):
        return Path(given)
    from torch.utils.cpp_extension import get_default_build_root

    folders = Path(get_default_build_root()).glob(f"py{sys.version_info.major}{sys.version_info.minor}*_*")
    return next(folders, Path(os.devnull))


def compile_operators() -> float:
    """Compiles the operators now and returns the seconds it took, about 30 to 90 each; ResourceError where it fails."""
    if missing := missing_tools():
        raise ResourceError(f"DeepSpeed's operators: cannot be compiled without {', '.join(missing)}")
    start = time.monotonic()
    for name, builder in OPERATORS.items():
        program = (
            "from deepspeed.accelerator import get_accelerator; "
            f"get_accelerator().create_op_builder({builder!r}).load()"
        )
        _run(name, [sys.executable, "-c", program])
    return time.monotonic() - start


def _run(name: str, command: list[str]) -> None:
    environment = {**os.environ, "PATH": _path_for_tools(), "DS_ACCELERATOR": "cpu"}
    try:
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=COMPILE_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise ResourceError(f"DeepSpeed's {name}: not compiled after {COMPILE_SECONDS} s") from error
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if "error" in line.lower()]
        raise ResourceError(f"DeepSpeed's {name}: {lines[0].strip() if lines else 'the compiler failed'}")
