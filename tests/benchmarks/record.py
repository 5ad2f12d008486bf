"""Where benchmark results go: one JSON file each, with all that is needed to read the numbers later."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("ray", "torch", "transformers", "deepspeed", "tokenizers", "fastapi", "uvicorn", "mlflow", "pydantic")


def record(name: str, results: dict[str, Any]) -> Path:
    """Writes `results` with hardware, versions, commit and date to `results/<name>.json`; returns the file."""
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{name}.json"
    context = {
        "benchmark": name,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "hardware": hardware(),
        "versions": versions(),
    }
    file.write_text(json.dumps({**context, "results": results}, indent=2) + "\n", encoding="utf-8")
    return file


def hardware() -> dict[str, Any]:
    """Processor, cores, memory and accelerators of this machine, and how busy it was already."""
    import torch

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": gpus,
        "load_average": list(os.getloadavg()),
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def versions() -> dict[str, str]:
    """Python and the packages that matter, as installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The commit, with `+changes` where the working tree differs from it."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        run = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
        return run.stdout.strip()

    changes = "+changes" if git("status", "--porcelain", "--", "../..") else ""
    return f"{git('rev-parse', 'HEAD') or 'none'}{changes}"
