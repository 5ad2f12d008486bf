"""Implements `heliostat init`: writes a folder with a spec, its data and a README, atomically."""

from __future__ import annotations

import json
import re
from pathlib import Path
from string import Template
from tempfile import TemporaryDirectory

from heliostat.infra.config.strict import build, parse_yaml
from heliostat.infra.errors import ConfigError, StorageError
from heliostat.spec import Spec
from heliostat.starters.catalog import STARTERS, listed
from heliostat.starters.starter import Starter

TEMPLATES = Path(__file__).parent
EXPLAIN = "why; needs: pip install 'heliostat[explain]'"


def start(kind: str | None, folder: Path | None, name: str | None) -> str:
    """Writes a starter of `kind` to `folder` and returns the model's name: `name`, or derived from the folder's.

    Raises ConfigError for an unknown kind, an invalid model name and a folder that is not empty, StorageError if
    writing fails; nothing is left behind then.
    """
    check_arguments(kind, folder)
    assert kind
    assert folder
    check_empty(folder)
    name = name if name is not None else name_of(folder)
    spec = Template((TEMPLATES / f"{kind}.yaml").read_text(encoding="utf-8")).substitute(name=json.dumps(name))
    build(Spec, parse_yaml(spec))
    fill(folder, spec, readme(STARTERS[kind], name), STARTERS[kind])
    return name


def check_arguments(kind: str | None, folder: Path | None) -> None:
    """Raises ConfigError, listing the kinds, if the kind is unknown or missing; also if there is no folder."""
    if kind not in STARTERS:
        given = "no KIND" if kind is None else repr(kind)
        raise ConfigError(f"init: {given} given; KIND may be {listed()}")
    if folder is None:
        raise ConfigError(f"init: no DIR given; write heliostat init {kind} DIR, a folder to be made")


def check_empty(folder: Path) -> None:
    """Raises ConfigError if the folder is not empty or is a file."""
    try:
        if not folder.exists() or not any(folder.iterdir()):
            return
    except NotADirectoryError:
        raise ConfigError(f"init: {folder} is a file; a folder that is new or empty is needed") from None
    except OSError as error:
        raise StorageError(f"init: {folder} cannot be read: {error.strerror}") from None
    raise ConfigError(f"init: {folder} is not empty; a folder that is new or empty is needed")


def name_of(folder: Path) -> str:
    """The folder's name as a valid model name: `My shop` becomes `my-shop`; unchanged if that would be empty."""
    found = folder.absolute().name
    return re.sub(r"[^a-z0-9]+", "-", found.lower())[:63].strip("-") or found


def readme(starter: Starter, name: str) -> str:
    """The README: the commands from data to predictions."""
    explain = f"    heliostat explain {name} {starter.explain}  # {EXPLAIN}\n" if starter.explain else ""
    template = Template((TEMPLATES / "readme.md").read_text(encoding="utf-8"))
    call = Template(starter.call).substitute(name=name)
    return template.substitute(name=name, path=starter.path, call=call, explain=explain, own=starter.own)


def fill(folder: Path, spec: str, about: str, starter: Starter) -> None:
    """Writes `spec.yaml`, `README.md` and `data` to a temporary folder, and moves them into place when complete."""
    folder = folder.absolute()
    home = next(one for one in (folder, *folder.parents) if one.is_dir())
    try:
        with TemporaryDirectory(prefix=".heliostat-init-", dir=home) as scratch:
            staging = Path(scratch, "files")
            made = staging / folder.relative_to(home)
            (made / "data").mkdir(parents=True)
            starter.make(made / "data")
            (made / "README.md").write_text(about, encoding="utf-8")
            (made / "spec.yaml").write_text(spec, encoding="utf-8")
            move(staging, home)
    except OSError as error:
        raise StorageError(f"init: {folder} cannot be written: {error.strerror or error}") from error


def move(staging: Path, home: Path) -> None:
    """Moves the entries of `staging` to `home`, all or none; a new folder and its new parents are one entry."""
    moved: list[Path] = []
    try:
        for entry in sorted(staging.iterdir()):
            moved.append(entry.rename(home / entry.name))
    except BaseException:
        for entry in moved:
            entry.rename(staging / entry.name)
        raise
