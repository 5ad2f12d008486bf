"""How this Heliostat gets to the machines of a cluster."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def checkout() -> Path | None:
    """The folder of this package where it is a checkout's, whose parts are links; None where it is installed."""
    import heliostat

    package = Path(next(iter(heliostat.__path__)))
    return package if (package / "cluster").is_symlink() else None


def code_environment() -> dict[str, Any]:
    """What of a Ray runtime environment takes this package along; empty for an installed one, which is there already.

    Ray's packaging follows the links of a checkout, so the other side gets real files. Within a job it is empty too:
    the job has brought its package.
    """
    package = checkout()
    if package is None or "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        return {}
    return {"py_modules": [str(package)], "excludes": ["**/__pycache__/"]}
