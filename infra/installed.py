"""Which of the packages that Heliostat depends on are here: an image or an environment may hold a part of them.

Nothing beyond the standard library is imported, since any of them may be missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import metadata, util

MODULES = {"PIL": "pillow", "sklearn": "scikit-learn", "yaml": "pyyaml"}
"""Modules that are called otherwise than the packages that bring them."""
SERVING = {"boto3", "fastapi", "pydantic", "ray", "torch", "transformers"}
"""What the serving image has, among others."""
TRAINING = ("deepspeed", "pyarrow")
"""Modules without which a Ray need not be started for data or training."""
ADVICE = "pip install heliostat installs it"
SERVES_ONLY = "this image serves only; use the train image, or pip install heliostat"


def missing_packages() -> list[str]:
    """The packages that Heliostat depends on and that are not installed, sorted; those of its extras do not count."""
    try:
        lines = metadata.requires("heliostat") or []
    except metadata.PackageNotFoundError:  # a checkout that is on the path and not installed
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
    """What to do about missing packages."""
    lost = set(missing)
    return SERVES_ONLY if "deepspeed" in lost and not lost & SERVING else ADVICE


def explain(error: ModuleNotFoundError) -> str | None:
    """One line for a module that is not there because packages are missing; None where all are, or it is ours."""
    module = (error.name or "").partition(".")[0]
    missing = missing_packages()
    if not missing or module in ("", "heliostat"):
        return None
    package = MODULES.get(module, module.replace("_", "-"))
    return f"needs {package}, which is not installed here: {advice(missing)}"


def require(*modules: str) -> None:
    """Raises ModuleNotFoundError for the first module that is not there, which a command would miss only later."""
    for module in modules:
        if util.find_spec(module) is None:
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)
