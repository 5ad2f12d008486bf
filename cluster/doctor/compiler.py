"""Compiles DeepSpeed's C++ operators for this machine, and checks whether that is possible.

Runs on CPUs use one, which all-reduces gradients through shared memory. Without a compiler, runs fall back to PyTorch's
gloo, so a missing operator is not an error.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from importlib.metadata import version
from pathlib import Path

from heliostat.cluster.folders import cache_folder, locked, path_from_our_python
from heliostat.infra.errors import ResourceError

OPERATORS = {"deepspeed_shm_comm": "ShareMemCommBuilder"}
"""DeepSpeed's name of each operator that our runs use -> its builder class."""
COMPILE_SECONDS = 600


def compiler_available() -> bool:
    """Whether DeepSpeed can compile its operators here; otherwise runs use PyTorch's gloo."""
    return not missing_tools()


def missing_tools() -> list[str]:
    """What is missing to compile C++ operators, as names to install; empty if nothing is."""
    missing = []
    if not shutil.which(os.environ.get("CXX") or "c++"):
        missing.append("a C++ compiler (Debian: g++)")
    if not shutil.which("ninja", path=path_from_our_python()):
        missing.append("ninja (pip install ninja)")
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        missing.append("Python's headers (Debian: python3-dev)")
    return missing


def compiled_operators() -> list[str]:
    """Names of the operators that are already compiled for this environment."""
    return [name for name in OPERATORS if (operators_folder() / name / f"{name}.so").exists()]


def operators_folder() -> Path:
    """Folder of compiled operators: TORCH_EXTENSIONS_DIR, or a cache folder for this Python environment.

    PyTorch's default folder is shared by all environments, and would be recompiled at each switch between them.
    """
    if given := os.environ.get("TORCH_EXTENSIONS_DIR"):
        return Path(given)
    environment = (sys.prefix, sys.version, version("torch"), version("deepspeed"))
    return cache_folder() / "operators" / hashlib.sha256(repr(environment).encode()).hexdigest()[:16]


def load_operators() -> None:
    """Loads the operators into this process, after compiling them if needed; raises ResourceError if that fails.

    One process at a time. PyTorch waits for a lock file that the compiling process removes, forever if that process was
    killed. Our own lock ends with its process, so whoever holds it knows that PyTorch's lock file is stale.
    """
    from deepspeed.accelerator import get_accelerator

    folder = operators_folder()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.update(TORCH_EXTENSIONS_DIR=str(folder), PATH=path_from_our_python())
    for name, builder in OPERATORS.items():
        with locked(folder / f".{name}.lock"):
            (folder / name / "lock").unlink(missing_ok=True)
            try:
                get_accelerator().create_op_builder(builder).load()
            except (RuntimeError, ImportError) as error:
                raise ResourceError(f"DeepSpeed's {name}: {_first_error(str(error))}") from error


def compile_operators() -> float:
    """Compiles the operators; returns the seconds it took, about 30 to 90 each. Raises ResourceError if it fails."""
    if missing := missing_tools():
        raise ResourceError(f"DeepSpeed's operators: cannot be compiled without {', '.join(missing)}")
    start = time.monotonic()
    _run([sys.executable, "-c", f"from {__name__} import load_operators; load_operators()"])
    return time.monotonic() - start


def _run(command: list[str]) -> None:
    environment = {**os.environ, "DS_ACCELERATOR": "cpu"}
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
        raise ResourceError(f"DeepSpeed's operators: not compiled after {COMPILE_SECONDS} s") from error
    if done.returncode:
        raise ResourceError(f"DeepSpeed's operators: {_first_error(done.stdout + done.stderr)}")


def _first_error(output: str) -> str:
    lines = [line for line in output.splitlines() if "error" in line.lower()]
    return lines[0].strip() if lines else "the compiler failed"
