"""What travels with a job, by Ray's own packing."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from heliostat.cluster import jobs, upload
from heliostat.cluster.package import checkout
from heliostat.infra.errors import ConfigError


def written(folder: Path, files: Mapping[str, int]) -> Path:
    """`folder` with files of so many bytes."""
    for name, size in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(bytes(size))
    return folder


def packed(folder: Path, archive: Path) -> set[str]:
    """The files that Ray packs of a working directory, by its own client's functions and options."""
    from ray._private.ray_constants import get_runtime_env_default_excludes
    from ray._private.runtime_env.packaging import create_package

    create_package(str(folder), archive, include_gitignore=True, excludes=get_runtime_env_default_excludes())
    with zipfile.ZipFile(archive) as content:
        return {name for name in content.namelist() if not name.endswith("/")}


KEPT = {"a.csv": 3, "more/b.csv": 4}
STAYS = {
    ".git/objects/x": 9,
    ".venv/lib/x.py": 9,
    "env/x": 9,
    ".env": 9,
    "heliostat-data/models/m": 9,
    "more/checkpoints/c": 9,
    "more/x.secret": 9,
}


def test_what_a_folder_holds_beside_data_stays_here(tmp_path: Path) -> None:
    source = written(tmp_path / "shop", {**KEPT, **STAYS})
    (source / ".gitignore").write_text("*.secret\n")
    with jobs.environment({"data/shop": source}) as environment:
        folder = Path(environment["working_dir"])
        names = packed(folder, tmp_path / "package.zip")
        package = upload.measure(folder)
    assert names - {".rayignore", "data/shop/.gitignore"} == {f"data/shop/{name}" for name in KEPT}
    assert {str(path.relative_to(folder)) for path in package.sizes} == names
    stays = {".git", ".venv", "env", ".env", "heliostat-data", "more/checkpoints", "more/x.secret"}
    assert {str(path.relative_to(folder / "data" / "shop")) for path in package.left_out} == stays


def test_it_is_as_large_as_rays_archive(tmp_path: Path) -> None:
    source = written(tmp_path / "shop", {f"{number}.csv": 10_000 for number in range(50)})
    with jobs.environment({"data/shop": source}) as environment:
        packed(Path(environment["working_dir"]), tmp_path / "package.zip")
        size = upload.measure(Path(environment["working_dir"])).size_bytes
    real = (tmp_path / "package.zip").stat().st_size
    assert real <= size <= 1.1 * real, "measured too small, it would be sent and refused"


def test_more_than_ray_takes_is_refused_with_the_five_largest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._private import ray_constants

    sizes = {f"{number}.csv": number * 2**20 for number in range(1, 8)}
    source = written(tmp_path / "shop", sizes)
    with jobs.environment({"data/shop": source}) as environment:
        upload.check(environment)
        monkeypatch.setattr(ray_constants, "DASHBOARD_CLIENT_MAX_SIZE", 20 * 2**20)
        with pytest.raises(
            ConfigError, match=r"28\.0 MiB would travel with the job, and Ray takes 20\.0 MiB"
        ) as caught:
            upload.check(environment)
    largest = ", ".join(f"data/shop/{number}.csv ({number}.0 MiB)" for number in (7, 6, 5, 4, 3))
    assert f"the largest: {largest}; " in str(caught.value)


def test_the_code_is_measured_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._private import ray_constants

    assert checkout() is not None
    monkeypatch.setattr(ray_constants, "DASHBOARD_CLIENT_MAX_SIZE", 2**20)
    with jobs.environment() as environment, pytest.raises(ConfigError, match=r"cluster/|train/|serve/|infra/"):
        upload.check(environment)
    package = upload.measure(checkout() or Path(), environment["excludes"])
    assert any(path.match("train/checkpoints/*.py") for path in package.sizes), "a room, and no checkpoints"
    assert not any("__pycache__" in path.parts for path in package.sizes)
