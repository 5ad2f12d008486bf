"""Tools of the system that tests use: found, or unpacked from Debian's packages into .venv; no root is needed.

`make test` runs this file first. What cannot be had is named in one line, and the tests that need it are skipped, and
counted at the end. Nothing outside .venv changes: the packages are unpacked, not installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

PACKAGES = {
    "prometheus": ("prometheus",),  # runs the dashboards' queries
    "promtool": ("prometheus",),  # checks configurations and rules
    "prometheus-alertmanager": ("prometheus-alertmanager",),  # shows the alerts that fire
    "amtool": ("prometheus-alertmanager",),
    "chromium": ("chromium", "chromium-driver"),  # looks at the pages of endpoints
    "chromedriver": ("chromium", "chromium-driver"),
    "curl": ("curl",),  # runs the calls that guides show
    "wget": ("wget",),  # asks for an image's health
    "redis-server": ("redis-server",),  # keeps what a head of Ray knows
    "redis-cli": ("redis-server",),
    "postgres": ("postgresql",),  # has MLflow's tables
    "initdb": ("postgresql",),
}
"""Name of each tool -> the Debian packages that have it."""
FOLDER = Path(sys.prefix) / "tools"
"""Where packages are unpacked; its bin has what starts their tools."""
KEPT = ("bin", "lib", "usr/bin", "usr/lib", "usr/share/fonts", "usr/share/postgresql", "usr/share/prometheus")
SYSTEM = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")))
"""Folders of the system that have tools, and are not on PATH."""
BUILT_IN = b"/usr/share/prometheus/alertmanager"
"""Where Debian's Alertmanager looks for its templates, which an unpacked one has elsewhere."""
BUILT_IN_HERE = b"/proc/self/fd/9".ljust(len(BUILT_IN), b"/")
"""A path of the same length to the folder that its starter opens."""
UNUSED = ("libgl1-mesa-dri", "libllvm", "libz3", "libjs-")
"""How packages begin that others depend on and no test uses: drivers of graphics cards, scripts of Prometheus."""
SECONDS = 900
LACK = "there is no "


class UnavailableError(Exception):
    """Packages that cannot be had here; says why."""


def add_to_path() -> None:
    """Puts the unpacked tools before those of the system, for this process and its children."""
    own = str(FOLDER / "bin")
    others = [folder for folder in os.environ.get("PATH", os.defpath).split(os.pathsep) if folder != own]
    os.environ["PATH"] = os.pathsep.join([own, *others, *(folder for folder in SYSTEM if folder not in others)])


def missing(tools: Iterable[str]) -> list[str]:
    """Those of the tools that are not on PATH."""
    return [tool for tool in tools if shutil.which(tool) is None]


def need(tool: str) -> str:
    """Where the tool is; the test that asks is skipped where it is not here."""
    found = shutil.which(tool)
    if found is None:
        pytest.skip(f"{LACK}{tool}")
    return found


def how_to_install(tools: Iterable[str]) -> str:
    """The command that installs the tools."""
    packages = sorted({package for tool in tools for package in PACKAGES.get(tool, (tool,))})
    return f"apt-get install {' '.join(packages)}"


def main() -> int:
    """Provides what is missing; returns 1 where that fails in continuous integration, which may skip nothing."""
    add_to_path()
    wanted = missing(PACKAGES)
    with TemporaryDirectory() as scratch:
        for packages in dict.fromkeys(PACKAGES[tool] for tool in wanted):
            _say(f"{' and '.join(packages)}: not here; unpacking Debian's packages into {FOLDER}")
            try:
                unpack(packages, FOLDER, Path(scratch))
            except UnavailableError as error:
                _say(f"{' and '.join(packages)}: {error}")
    if lacking := missing(wanted):
        _say(f"Tests that need {', '.join(lacking)} are skipped; to run them: {how_to_install(lacking)}")
    return 1 if lacking and os.environ.get("CI") else 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def unpack(packages: Sequence[str], folder: Path, scratch: Path) -> None:
    """Unpacks the packages, and those they depend on that the system lacks, and writes what starts their tools.

    `scratch` is thrown away afterwards; what lists it has of packages is used again.

    Raises UnavailableError where they cannot be had, or do not run here.
    """
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        raise UnavailableError("there is no apt-get here to have them from")
    for archive in _download(packages, scratch):
        run(["dpkg", "-x", archive, scratch / "files"])
        archive.unlink()
    for kept in KEPT:
        if (source := scratch / "files" / kept).exists():
            shutil.copytree(source, folder / "files" / kept, symlinks=True, dirs_exist_ok=True)
    shutil.rmtree(scratch / "files", ignore_errors=True)
    for tool in [tool for tool, those in PACKAGES.items() if those == tuple(packages)]:
        _write_starter(tool, folder)


def _download(packages: Sequence[str], scratch: Path) -> list[Path]:
    """The archives of the packages and of what they need, fetched with lists of our own: those of the system may be
    old, or not there, and only root renews them."""
    apt = ["apt-get", "-q", f"-oDir::State::lists={scratch}/lists", f"-oDir::Cache={scratch}/cache"]
    apt += ["-oAPT::Sandbox::User=root", "-oAcquire::http::Timeout=30", "-oAcquire::Retries=1"]
    if not (scratch / "lists").exists():
        for name in ("lists/partial", "cache/archives/partial"):
            (scratch / name).mkdir(parents=True)
        run([*apt, "update"])
    planned = run([*apt, "install", "--simulate", "--no-install-recommends", *packages])
    names = [line.split()[1] for line in planned.splitlines() if line.startswith("Inst ")]
    run([*apt, "download", *(name for name in names if not name.startswith(UNUSED))], cwd=scratch / "cache")
    return sorted((scratch / "cache").glob("*.deb"))


def _write_starter(tool: str, folder: Path) -> None:
    """Writes bin/<tool>, which starts the unpacked tool with its own libraries and fonts."""
    files, starter = folder / "files", folder / "bin" / tool
    starter.parent.mkdir(parents=True, exist_ok=True)
    fonts = "".join(f"<dir>{place}/usr/share/fonts</dir>" for place in ("", files))
    (folder / "fonts.conf").write_text(f"<fontconfig>{fonts}<cachedir>{folder}/cache</cachedir></fontconfig>\n")
    places = (
        files / "usr/lib" / tool / tool,
        files / "usr/bin" / tool,
        *files.glob(f"usr/lib/postgresql/*/bin/{tool}"),
    )
    found = [path for path in places if path.exists()]
    if not found:
        raise UnavailableError(f"{tool} is not among what was unpacked")
    data = files / BUILT_IN.decode().lstrip("/")
    if BUILT_IN in (program := found[0].read_bytes()):
        found[0].write_bytes(program.replace(BUILT_IN, BUILT_IN_HERE))
    starter.write_text(
        "#!/bin/sh\n"
        f'export LD_LIBRARY_PATH="{":".join(_libraries(files))}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"\n'
        f'export FONTCONFIG_FILE="{folder}/fonts.conf"\n'
        + (f'exec 9<"{data}"\n' if BUILT_IN_HERE in found[0].read_bytes() else "")
        + f'exec "{found[0]}" "$@"\n'
    )
    starter.chmod(0o755)
    try:
        run([str(starter), "--version"])
    except UnavailableError:
        starter.unlink()
        raise


def _libraries(files: Path) -> list[str]:
    """The folders below `files` that have shared libraries."""
    patterns = ("lib/*-linux-gnu", "usr/lib/*-linux-gnu", "usr/lib/*-linux-gnu/pulseaudio")
    return [str(folder) for pattern in patterns for folder in sorted(files.glob(pattern))]


def run(command: Sequence[str | Path], cwd: Path | None = None) -> str:
    """What the command prints; UnavailableError, with its last line, where it fails."""
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(str(error)) from error
    if done.returncode:
        raise UnavailableError(((done.stderr or done.stdout).strip().splitlines() or ["it fails"])[-1])
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
