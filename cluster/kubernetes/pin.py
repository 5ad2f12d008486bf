"""The version that a rendered folder serves, in whichever form the folder is. Commits and applies nothing."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from heliostat.cluster.kubernetes import folder
from heliostat.cluster.kubernetes.plain import dump
from heliostat.infra.errors import ConfigError

if TYPE_CHECKING:
    from heliostat.infra.registry.registry import ModelVersion

HOLDERS = ("kustomization.yaml", "manifests.yaml", "values.yaml")
"""Files that hold `serveConfigV2`, by the form of the folder."""
_BEGIN = re.compile(r" *(value|serveConfigV2|config): \|$")


@dataclass(frozen=True)
class Pin:
    """A published version, as `serveConfigV2` names it."""

    url: str
    digest: str
    version: str

    @classmethod
    def of(cls, model: ModelVersion) -> Pin:
        """That of a version in the registry."""
        return cls(model.url, model.digest, str(model.version))


@dataclass(frozen=True)
class Holder:
    """A file of a rendered folder, and the text of the endpoint's configuration in it."""

    folder: Path
    name: str
    block: str
    """The lines of `serveConfigV2`, as they are indented in the file."""
    config: dict[str, Any]
    application: dict[str, Any]
    """The part of `config` that serves the model."""

    @property
    def pin(self) -> Pin:
        """The version that is served."""
        args = self.application["args"]
        return Pin(args["url"], args["digest"], str(args["version"]))


def holder(place: Path, model: str) -> Holder:
    """The file of a rendered folder that says which version of a model is served.

    Raises ConfigError for what is no such folder, for one of another model, and for a file that was edited.
    """
    for name in HOLDERS:
        for block, config in _configs(place / name):
            folder.check_unedited(place, name)
            served = [one for one in config["applications"] if "args" in one]
            for application in served:
                if application["args"].get("name") == model and not application["args"].get("is_candidate"):
                    return Holder(place, name, block, config, application)
            names = ", ".join(str(one["args"].get("name")) for one in served)
            raise ConfigError(f"--into: {place} given, which serves {names}; the folder of {model} is allowed")
    raise ConfigError(f"--into: {place} given, which serves nothing; a folder that `heliostat render` wrote is allowed")


def write(found: Holder, pin: Pin) -> bool:
    """Lets the folder serve another version; returns whether it did not already. Raises as `holder` does."""
    if found.pin == pin:
        return False
    found.application["args"].update(asdict(pin))
    new = textwrap.indent(dump(found.config), " " * _indent(found.block))
    text = (found.folder / found.name).read_text(encoding="utf-8")
    folder.replace(found.folder, found.name, text.replace(found.block, new))
    return True


def _configs(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Blocks of a file that are configurations of Ray Serve, with what they say."""
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True) if file.is_file() else []
    for place, line in enumerate(lines):
        if _BEGIN.match(line):
            block = "".join(_block(lines[place + 1 :]))
            config = yaml.safe_load(textwrap.dedent(block)) if "applications:" in block else None
            if isinstance(config, dict) and "applications" in config:
                yield block, config


def _block(lines: list[str]) -> Iterator[str]:
    """The first lines, as long as they are indented as far as the first one is."""
    indent = _indent(lines[0]) if lines else 0
    for line in lines:
        if line.strip() and _indent(line) < indent:
            return
        yield line


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))
