"""Checks which of Heliostat's dependencies are installed: an image or an environment may have only some of them.

Imports only the standard library, since any other package may be missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import metadata, util

MODULES = {"PIL": "pillow", "sklearn": "scikit-learn", "yaml": "pyyaml"}
"""Modules whose package has another name."""
SERVING = {"boto3", "fastapi", "pydantic", "ray", "torch", "transformers"}
"""Some of the packages in the serving image."""
TRAINING = ("deepspeed", "pyarrow")
"""Modules needed for data preparation or training: without them it is not worth starting Ray."""
ADVICE = "pip install heliostat installs it"
SERVES_ONLY = "this image serves only; use the train image, or pip install heliostat"


def missing_packages() -> list[str]:
    """Heliostat's required dependencies that are not installed, sorted; extras do not count."""
    try:
        lines = metadata.requires("heliostat") or []
    except metadata.PackageNotFoundError:  # a checkout that is on the path but not installed
        return []
    names = [re.split(r"[^\w.-]", line)[0].lower() for line in lines if ";" not in line]
    return sorted(name for name in names if not _is_installed(name))


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def advice(missing: Iterable[str]) -> str:
    """How to get the missing packages."""
    lost = set(missing)
    return SERVES_ONLY if "deepspeed" in lost and not lost & SERVING else ADVICE


def explain(error: ModuleNotFoundError) -> str | None:
    """One line for an error caused by a missing package; None if no package is missing or the module is ours."""
    module = (error.name or "").partition(".")[0]
    missing = missing_packages()
    if not missing or module in ("", "heliostat"):
        return None
    package = MODULES.get(module, module.replace("_", "-"))
    return f"needs {package}, which is not installed here: {advice(missing)}"


def require(*modules: str) -> None:
    """Raises ModuleNotFoundError for the first missing module, before a command would fail later."""
    for module in modules:
        if util.find_spec(module) is None:
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)
