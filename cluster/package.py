"""How this Heliostat's code gets to the machines of a cluster."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def checkout() -> Path | None:
    """The package folder of a checkout, whose subfolders are links; None for an installed package."""
    import heliostat

    package = Path(next(iter(heliostat.__path__)))
    return package if (package / "cluster").is_symlink() else None


def code_runtime_env() -> dict[str, Any]:
    """The part of a Ray runtime environment that uploads this package; empty if it is installed.

    Ray's packaging follows the links of a checkout, so the cluster gets real files. Inside a job it is empty too: the
    package came with the job.
    """
    package = checkout()
    if package is None or "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        return {}
    return {"py_modules": [str(package)], "excludes": ["**/__pycache__/"]}
