"""Finds the programs of the system that the monitor runs."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from heliostat.infra.errors import ConfigError, ResourceError

_SECONDS = 30


@dataclass(frozen=True)
class Program:
    """A program that is looked for on PATH."""

    title: str
    names: tuple[str, ...]
    """What it is called; the first that is there is used."""
    oldest: tuple[int, int]
    """The oldest version that is known to work: that of Debian 12, which the tests run."""
    package: str
    """Debian's package."""
    releases: str
    """The project's own page with releases."""


PROMETHEUS = Program("Prometheus", ("prometheus",), (2, 42), "prometheus", "https://prometheus.io/download/#prometheus")
ALERTMANAGER = Program(
    "Alertmanager",
    ("prometheus-alertmanager", "alertmanager"),
    (0, 25),
    "prometheus-alertmanager",
    "https://prometheus.io/download/#alertmanager",
)


def find(program: Program) -> str:
    """The path of the program; raises ResourceError if it is not on PATH, does not run, or is too old."""
    names = " or ".join(program.names)
    path = next((found for name in program.names if (found := shutil.which(name))), None)
    if path is None:
        raise ResourceError(
            f"{program.title}: no {names} on PATH; install it: apt-get install {program.package}, or {program.releases}"
        )
    major, minor = program.oldest
    version = _version(path)
    if version is None:
        raise ResourceError(f"{program.title}: {path} does not tell its version; {program.releases} has others")
    if version < program.oldest:
        raise ResourceError(
            f"{program.title}: {path} is version {version[0]}.{version[1]}; {major}.{minor} is the oldest that works: "
            f"{program.releases} has newer ones"
        )
    return path


def _version(path: str) -> tuple[int, int] | None:
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"version v?(\d+)\.(\d+)", done.stdout + done.stderr)
    return (int(match[1]), int(match[2])) if match else None


def check(tool: str, arguments: list[str], file: Path) -> None:
    """Lets `tool` (promtool, amtool) check the file, if it is on PATH; raises ConfigError with what it says."""
    path = shutil.which(tool)
    if path is None:
        return
    done = subprocess.run([path, *arguments, str(file)], capture_output=True, text=True, timeout=_SECONDS)
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())
        raise ConfigError(f"{file}: refused by {tool}: {said}")
