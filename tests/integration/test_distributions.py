"""The wheel and the source distribution, built as for a release, without a network."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from email import message_from_string
from email.message import Message
from pathlib import Path
from zipfile import ZipFile

import pytest

from heliostat import __version__
from tests.guides import ROOT

LEFT_BEHIND = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "*.egg-info", "heliostat-data", "*.log")
NOT_IN_THE_WHEEL = ("heliostat/infra/docker/", "heliostat/infra/terraform/")
"""Files for building images and clusters are no part of the package."""
MEGABYTE = 1_000_000


def build(folder: Path, kind: str) -> Path:
    """What `python -m build` makes of the project in `folder`."""
    command = [sys.executable, "-m", "build", "--no-isolation", kind, "--outdir", str(folder / "dist")]
    offline = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "PYTHONPATH": ""}
    done = subprocess.run([*command, str(folder)], env=offline, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [made] = (folder / "dist").glob("*.whl" if kind == "--wheel" else "*.tar.gz")
    return made


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkout") / "heliostat"
    return Path(shutil.copytree(ROOT, folder, symlinks=True, ignore=LEFT_BEHIND))


@pytest.fixture(scope="module")
def sdist(checkout: Path) -> Path:
    return build(checkout, "--sdist")


@pytest.fixture(scope="module")
def wheel(checkout: Path) -> Path:
    return build(checkout, "--wheel")


@pytest.fixture(scope="module")
def unpacked(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder)  # our own; the argument `filter` is not there in Debian 12's Python
    return folder / f"heliostat-{__version__}"


def contents(wheel: Path) -> dict[str, bytes]:
    with ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def metadata(wheel: Path) -> Message:
    return message_from_string(contents(wheel)[f"heliostat-{__version__}.dist-info/METADATA"].decode())


def files(folder: Path) -> Iterator[str]:
    """All files below `folder`, those behind links too."""
    for parent, _, names in os.walk(folder, followlinks=True):
        for name in names:
            yield (Path(parent) / name).relative_to(folder).as_posix()


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel: Path, checkout: Path) -> None:
    ours = {f"heliostat/{name}" for name in files(checkout / "heliostat")}
    held = {name for name in contents(wheel) if not name.startswith(f"heliostat-{__version__}.dist-info/")}
    assert held == {name for name in ours if not name.startswith(NOT_IN_THE_WHEEL)}
    assert {"heliostat/py.typed", "heliostat/train/loop.py", "heliostat/recipes/sentiment.yaml"} <= held


def test_the_wheel_holds_files_and_no_links(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = archive.namelist()
        assert len(names) == len(set(names))
        assert not [one.filename for one in archive.infolist() if stat.S_ISLNK(one.external_attr >> 16)]


def test_the_source_distribution_holds_what_one_works_with(sdist: Path, unpacked: Path, checkout: Path) -> None:
    held = set(files(unpacked))
    for folder in ("docs", "k8s", "tests"):
        assert {f"{folder}/{name}" for name in files(checkout / folder)} <= held, folder
    alone = {"CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "constraints.txt", "pyproject.toml"}
    assert alone | {"infra/docker/Dockerfile", "infra/docker/serve.txt", "infra/terraform/aws/cluster.tf"} <= held
    assert not [name for name in held if re.search(r"\.py[cod]$|(^|/)__pycache__/", name)]
    assert sdist.stat().st_size < 5 * MEGABYTE


def test_the_source_distribution_holds_each_file_once(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        members = archive.getmembers()
    assert all(member.isfile() or member.isdir() for member in members), "no links"
    modules = [member.name.partition("/")[2] for member in members if member.name.endswith(".py")]
    top = {name.split("/")[0] for name in modules}
    assert top == {"heliostat", "tests"}, "the folders are in the package"


def test_a_wheel_from_the_source_distribution_is_the_one_from_the_checkout(wheel: Path, unpacked: Path) -> None:
    again, first = contents(build(unpacked, "--wheel")), contents(wheel)
    assert again.keys() == first.keys()
    assert [name for name in first if again[name] != first[name]] == []


def test_the_metadata_says_where_to_look_and_what_it_runs_on(wheel: Path) -> None:
    told = metadata(wheel)
    addresses = dict(line.split(", ") for line in told.get_all("Project-URL", []))
    assert {"Homepage", "Documentation", "Changelog", "Issues"} <= addresses.keys()
    assert all(address.startswith("https://") for address in addresses.values())
    classifiers = told.get_all("Classifier", [])
    assert {"Typing :: Typed", "Operating System :: POSIX :: Linux"} <= set(classifiers)
    assert told["License-Expression"] == "Apache-2.0 AND MIT"
    assert told.get_all("License-File") == ["LICENSE", "heliostat/cluster/monitor/page/static/uplot/LICENSE"]
    assert not [one for one in classifiers if one.startswith("License ::")], "the expression says it"
