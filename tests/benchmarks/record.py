"""Where a measurement was made: every result carries hardware, versions, commit and date."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")
LOAD_BEFORE = os.getloadavg()[0]
"""What else the machine had to do when the benchmark began."""
PACKAGES = ("ray", "torch", "deepspeed", "transformers", "fastapi", "uvicorn")


def record(name: str, results: Mapping[str, Any]) -> Path:
    """Writes `results` with the circumstances to `results/<name>.json`, and to stdout; returns the file."""
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{name}.json"
    text = json.dumps({"results": results, **circumstances()}, indent=2, ensure_ascii=False) + "\n"
    file.write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return file


def circumstances() -> dict[str, Any]:
    """Hardware, versions, commit and date of now."""
    return {
        "hardware": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        },
        "load_before": round(LOAD_BEFORE, 1),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "commit": _commit(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _processor() -> str:
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return names[0].partition(":")[2].strip() if names else platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str:
    """The short hash, with a plus where files differ from it."""
    commit = _git("rev-parse", "--short", "HEAD")
    return commit + ("+" if _git("status", "--porcelain") else "")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, cwd=Path(__file__).parent, check=False)
    return done.stdout.strip()
