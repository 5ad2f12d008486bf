"""Python environments that hold a part of what is installed here, such as what the serving image installs."""

from __future__ import annotations

import csv
import importlib.metadata
import shutil
import sysconfig
import venv
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import heliostat

SERVE = Path(__file__).parents[1] / "infra" / "docker" / "serve.txt"


def serve_packages() -> list[Requirement]:
    """What the serving image installs beside Heliostat."""
    lines = SERVE.read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def closure(requirements: Iterable[Requirement]) -> set[str]:
    """Names of all distributions that come with `requirements`."""
    found: dict[str, set[str]] = {}
    waiting = list(requirements)
    while waiting:
        one = waiting.pop()
        name = canonicalize_name(one.name)
        extras = found.setdefault(name, set())
        new = {"", *one.extras} - extras
        if not new:
            continue
        extras |= new
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for need in map(Requirement, needs):
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in new):
                waiting.append(need)
    return set(found)


def make_environment(folder: Path, requirements: Iterable[Requirement]) -> Path:
    """A virtual environment in `folder` with Heliostat, as a wheel installs it, and `requirements`, nothing else.

    Takes a second, since all is linked; returns the folder of its programs.
    """
    venv.create(folder, symlinks=True, with_pip=False)
    programs = folder / "bin"
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    link([importlib.metadata.distribution(name) for name in sorted(closure(requirements))], packages, programs)
    shutil.copytree(
        Path(next(iter(heliostat.__path__))), packages / "heliostat", ignore=shutil.ignore_patterns("__pycache__")
    )
    ours = importlib.metadata.distribution("heliostat")
    metadata = packages / f"heliostat-{ours.version}.dist-info"
    metadata.mkdir()
    # A checkout that is installed has an egg-info too, and from its folder Python finds that one first.
    (metadata / "METADATA").write_text(ours.read_text("METADATA") or ours.read_text("PKG-INFO") or "")
    write_programs(ours, programs)
    return programs


def link(wanted: list[Distribution], packages: Path, programs: Path) -> None:
    """Links what the distributions installed: folders of one distribution alone as they are, others file by file."""
    owners = Counter(top for one in importlib.metadata.distributions() for top in tops(one))
    for distribution in wanted:
        for file in own(distribution):
            path = Path(file.parts[0]) if owners[file.parts[0]] == 1 else file
            if not (packages / path).is_symlink():
                (packages / path).parent.mkdir(parents=True, exist_ok=True)
                (packages / path).symlink_to(Path(str(distribution.locate_file(path))).absolute())
        write_programs(distribution, programs)


def own(distribution: Distribution) -> Iterator[Path]:
    """The files of a distribution below the folder of packages."""
    return (Path(name) for name in names(distribution) if first_part(name) not in ("..", "__pycache__"))


def tops(distribution: Distribution) -> set[str]:
    """The files and folders of a distribution that lie in the folder of packages itself."""
    return {first_part(name) for name in names(distribution)} - {"..", "__pycache__"}


def names(distribution: Distribution) -> list[str]:
    """The files that a distribution installed, from its RECORD: `Distribution.files` takes a minute for all of them."""
    rows = csv.reader((distribution.read_text("RECORD") or "").splitlines())
    return [row[0] for row in rows if row and not row[0].startswith("/")]


def first_part(name: str) -> str:
    return name.partition("/")[0]


def write_programs(distribution: Distribution, programs: Path) -> None:
    """The console scripts of a distribution, run by the environment's Python."""
    for entry in distribution.entry_points:
        if entry.group == "console_scripts":
            module, _, function = entry.value.partition(":")
            script = programs / entry.name
            script.write_text(
                f"#!{programs / 'python'}\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n"
            )
            script.chmod(0o755)


def programs_of(requirements: Iterable[Requirement]) -> set[str]:
    """Names of the console scripts that come with `requirements`."""
    distributions = map(importlib.metadata.distribution, closure(requirements))
    return {one.name for found in distributions for one in found.entry_points if one.group == "console_scripts"}


def owners_by_module() -> dict[str, set[str]]:
    """Which distributions a top-level module is from; importlib.metadata's own says so from Python 3.11 on."""
    found: dict[str, set[str]] = defaultdict(set)
    for distribution in importlib.metadata.distributions():
        owner = canonicalize_name(distribution.name)
        for top in tops(distribution):
            found[top.partition(".")[0]].add(owner)
    return found
