"""Each Python that is promised can install what constraints.txt pins; asks the package index that pip asks."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from zipfile import ZipFile

import pytest
import ray.autoscaler._private
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.dockerfile import FOLDER, pip_installs
from tests.guides import ROOT

PROJECT = (ROOT / "pyproject.toml").read_text()
PROMISED = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', PROJECT)
SOURCE_ONLY = ("deepspeed",)
"""Packages that come without a wheel; for all others a wheel is demanded, as who installs has no compiler for them."""
PROJECT_AND_EXTRAS = ("--extra", "demo", "--extra", "dev", str(ROOT / "pyproject.toml"))
"""What `make install` asks for."""
NOT_PINNED = re.compile(r"nvidia-|cuda-|triton$")
"""What torch pins itself, where it is the build for GPUs."""


def pip_setting(name: str) -> str | None:
    """A setting of pip from its environment or its files."""
    if given := os.environ.get(f"PIP_{name.upper().replace('-', '_')}"):
        return given
    command = [sys.executable, "-m", "pip", "config", "get", f"global.{name}"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or None


@pytest.fixture(scope="module")
def index() -> dict[str, str]:
    """The environment that sends uv to pip's index, and keeps it from fetching Pythons."""
    names = {"index-url": "UV_DEFAULT_INDEX", "cert": "SSL_CERT_FILE"}
    found = {variable: pip_setting(name) for name, variable in names.items()}
    given = {variable: value for variable, value in found.items() if value}
    return {**os.environ, **given, "UV_PYTHON_DOWNLOADS": "never"}


@pytest.fixture(scope="module")
def resolved(index: dict[str, str]) -> dict[str, subprocess.CompletedProcess[str]]:
    """What becomes of constraints.txt on each Python."""
    return {python: resolve(python, ROOT / "constraints.txt", index) for python in PROMISED}


def resolve(
    python: str,
    constraints: Path,
    environment: dict[str, str],
    wanted: Sequence[str] = PROJECT_AND_EXTRAS,
    platform: str = "x86_64-manylinux_2_28",
) -> subprocess.CompletedProcess[str]:
    """What pip would take for `wanted` on Python `python`, from the metadata of the packages alone."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate"]
    target = ["--python", sys.executable, "--python-version", python, "--python-platform", platform]
    sources = ["--only-binary", ":all:", *(word for name in SOURCE_ONLY for word in ("--no-binary", name))]
    words = [*command, *target, *sources, "--constraint", str(constraints), *wanted]
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300, check=False)


def names(done: subprocess.CompletedProcess[str]) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in done.stdout.splitlines()}


def pins(python: str, constraints: Path = ROOT / "constraints.txt") -> Iterator[Requirement]:
    """The lines of the file that hold on Python `python`."""
    for line in constraints.read_text().splitlines():
        if not line.startswith("#"):
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"python_version": python}):
                yield requirement


def test_the_lowest_python_that_is_promised_is_the_one_that_everything_checks() -> None:
    lowest = min(PROMISED, key=lambda version: int(version.split(".")[1]))
    assert f'requires-python = ">={lowest}"' in PROJECT
    assert f'target-version = "py{lowest.replace(".", "")}"' in PROJECT, "ruff"
    assert f'python_version = "{lowest}"' in PROJECT, "mypy"
    assert f"sys.version_info < ({lowest.replace('.', ', ')})" in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize("python", PROMISED)
def test_a_python_that_is_promised_can_install_what_is_pinned(
    python: str, resolved: dict[str, subprocess.CompletedProcess[str]]
) -> None:
    done = resolved[python]
    assert done.returncode == 0, done.stderr
    pinned = [canonicalize_name(requirement.name) for requirement in pins(python)]
    assert len(pinned) == len(set(pinned)), "a package is pinned twice"
    assert {name for name in names(done) if not NOT_PINNED.match(name)} <= set(pinned)


INSTALLS = {
    stage: [words for words in pip_installs(stage) if "--no-deps" not in words]
    for stage in ("serve", "vllm", "train", "cluster")
}
"""What the Dockerfile's steps ask pip for, with dependencies."""
WHEEL = "/install/wheels/*.whl"
PROVIDERS = ("aws", "gcp", "azure")


def mounted(word: str, provider: str) -> str:
    """The file here that a step of the Dockerfile has under /install; the wheel's requirements for the wheel."""
    if word == WHEEL:
        return str(ROOT / "pyproject.toml")
    name = word.replace("${PROVIDER}", provider).rpartition("/")[2]
    return str(ROOT / name if name == "constraints.txt" else FOLDER / name) if word.startswith("/install/") else word


def asked(words: Sequence[str], provider: str, folder: Path) -> tuple[Path, list[str]]:
    """The constraints and the requirements of a `pip install`; those that are given by name stand in a file."""
    given = iter(words)
    constraints, wanted, named = Path(), [], []
    for word in given:
        if word == "--constraint":
            constraints = Path(mounted(next(given), provider))
        elif word == "--requirement":
            wanted.append(mounted(next(given), provider))
        elif word.startswith("/"):
            wanted.append(mounted(word, provider))
        else:
            named.append(word)
    (folder / "named.txt").write_text("\n".join(named))
    return constraints, [*wanted, str(folder / "named.txt")]


@pytest.mark.parametrize(
    ("stage", "provider"), [("serve", ""), ("vllm", ""), ("train", ""), *(("cluster", one) for one in PROVIDERS)]
)
def test_an_image_can_install_what_its_steps_ask_for(
    stage: str, provider: str, index: dict[str, str], tmp_path: Path
) -> None:
    [version] = re.findall(r"^ARG PYTHON_VERSION=([\d.]+)-", (FOLDER / "Dockerfile").read_text(), re.MULTILINE)
    minor = version.rpartition(".")[0]
    assert minor in PROMISED
    [words] = INSTALLS[stage]
    constraints, wanted = asked(words, provider, tmp_path)
    done = resolve(version, constraints, index, wanted, platform="x86_64-manylinux_2_36")  # Debian 12's glibc
    assert done.returncode == 0, done.stderr
    pinned = {canonicalize_name(requirement.name) for requirement in pins(minor, constraints)}
    own = {name for name in names(done) if not NOT_PINNED.match(name)} - pinned
    assert stage == "cluster" or not own, "and its SDK's dependencies have no pins of ours"


def test_what_ray_imports_of_azure_is_in_the_versions_that_are_pinned(index: dict[str, str], tmp_path: Path) -> None:
    """The newest azure-mgmt-resource has no ResourceManagementClient where Ray looks for it."""
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    done = subprocess.run(
        [*download, "--dest", str(tmp_path), "--requirement", str(FOLDER / "azure.txt")],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    held = {name for wheel in tmp_path.glob("*.whl") for name in ZipFile(wheel).namelist()}
    found = Path(next(iter(ray.autoscaler._private.__path__))) / "_azure"
    modules = {
        node.module
        for file in found.glob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("azure.")
    }
    assert "azure.mgmt.resource" in modules
    for module in modules:
        path = module.replace(".", "/")
        assert held & {f"{path}.py", f"{path}/__init__.py"}, module


def test_what_is_pinned_is_needed_on_some_python(resolved: dict[str, subprocess.CompletedProcess[str]]) -> None:
    pinned = {canonicalize_name(requirement.name) for python in PROMISED for requirement in pins(python)}
    assert pinned <= set().union(*map(names, resolved.values()))


def test_a_pin_that_a_python_cannot_install_is_found(tmp_path: Path, index: dict[str, str]) -> None:
    wrong = tmp_path / "constraints.txt"
    wrong.write_text("networkx==3.6.1\n")
    done = resolve(PROMISED[0], wrong, index)
    assert done.returncode != 0
    assert "networkx==3.6.1" in done.stderr
