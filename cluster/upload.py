"""What travels to a cluster with a job: files by name, measured before anything is sent."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heliostat.infra import log
from heliostat.infra.errors import ConfigError

NEVER_SENT = (".git", ".venv", "venv", "env", ".env", "__pycache__", "heliostat-data", "checkpoints", "mlruns")
"""Patterns, as in a `.gitignore`, of what stays here wherever it lies in a folder that is sent."""
_SHOWN = 5
_HEADERS_BYTES = 150
"""Of a file in a zip archive, beside its name, which is there twice; Ray's archives are not compressed."""
_log = log.get(__name__)


@dataclass(frozen=True)
class Package:
    """A folder as Ray packs it."""

    sizes: Mapping[Path, int]
    """Bytes of each file."""
    left_out: tuple[Path, ...]
    """Files and folders that stay here."""

    @property
    def size_bytes(self) -> int:
        """Bytes of the archive."""
        return sum(size + _HEADERS_BYTES + 2 * len(str(path)) for path, size in self.sizes.items())


def gather(files: Mapping[str, Path], folder: Path) -> None:
    """Puts links to files and folders into `folder`, at the paths in it by which a job finds them.

    Raises ConfigError for one that is not there.
    """
    for name, path in files.items():
        if not path.exists():
            raise ConfigError(f"{path}: no such file to send with the job")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(path.absolute())  # Ray packs what links lead to
    # Ray's option `excludes` would apply to the package of our code too, where checkpoints/ is a room.
    (folder / ".rayignore").write_text("".join(f"{pattern}\n" for pattern in NEVER_SENT), encoding="utf-8")


def check(runtime_env: Mapping[str, Any]) -> None:
    """Raises ConfigError, which names the largest files, if Ray would not take a package; says what is left out."""
    from ray._private.ray_constants import DASHBOARD_CLIENT_MAX_SIZE
    from ray._private.runtime_env.packaging import GCS_STORAGE_MAX_SIZE

    limit = min(DASHBOARD_CLIENT_MAX_SIZE, GCS_STORAGE_MAX_SIZE)
    excludes = list(runtime_env.get("excludes") or [])
    for folder in filter(None, [runtime_env.get("working_dir"), *runtime_env.get("py_modules", [])]):
        package = measure(Path(folder), excludes)
        if package.size_bytes > limit:
            raise ConfigError(_too_large(Path(folder), package, limit))
        if folder == runtime_env.get("working_dir") and package.left_out:
            _log.info("not sent with the job: %s", _listed(_name(Path(folder), path) for path in package.left_out))


def measure(folder: Path, excludes: Iterable[str] = ()) -> Package:
    """What of `folder` Ray packs: by its own walk, with its rules for `.gitignore` and `.rayignore`."""
    from ray._private import ray_constants
    from ray._private.runtime_env import packaging

    seen: dict[Path, int] = {}
    patterns = [*ray_constants.get_runtime_env_default_excludes(), *excludes]
    heeds_gitignore = os.environ.get(ray_constants.RAY_RUNTIME_ENV_IGNORE_GITIGNORE, "0") != "1"

    def see(path: Path) -> None:
        seen[path] = path.stat().st_size if path.is_file() else -1

    packaging._dir_travel(
        folder, [packaging._get_excludes(folder, patterns)], see, include_gitignore=heeds_gitignore, logger=_silent()
    )
    inside = (child for path, size in seen.items() if size < 0 and path.is_dir() for child in path.iterdir())
    left_out = tuple(sorted(child for child in inside if child not in seen))
    return Package({path: size for path, size in seen.items() if size >= 0}, left_out)


def _silent() -> Any:
    """A logger for Ray's walk, which tells of each ignore file."""
    import logging

    logger = logging.getLogger(f"{__name__}.walk")
    logger.disabled = True
    return logger


def _too_large(folder: Path, package: Package, limit: int) -> str:
    largest = sorted(package.sizes.items(), key=lambda item: item[1], reverse=True)[:_SHOWN]
    named = ", ".join(f"{_name(folder, path)} ({_mib(size)})" for path, size in largest)
    return (
        f"{_mib(package.size_bytes)} would travel with the job, and Ray takes {_mib(limit)}; the largest: {named}; "
        "name them in a .gitignore, or give data and models as s3://… or as an absolute path that the cluster has"
    )


def _name(folder: Path, path: Path) -> str:
    return str(path.relative_to(folder))


def _listed(names: Iterable[str]) -> str:
    found = list(names)
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ", ".join(found[:_SHOWN]) + more


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
