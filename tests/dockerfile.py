"""What infra/docker/Dockerfile says, stage by stage."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass

from tests.guides import ROOT

FOLDER = ROOT / "infra" / "docker"


@dataclass(frozen=True)
class Step:
    """One instruction, in the stage that it belongs to."""

    stage: str
    word: str
    text: str


def steps() -> list[Step]:
    text = re.sub(r"^\s*#.*\n", "", (FOLDER / "Dockerfile").read_text(), flags=re.MULTILINE)
    found, stage = [], ""
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if not line.strip():
            continue
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            stage = rest.split(" AS ")[1]
        found.append(Step(stage, word, rest))
    return found


def of(word: str, stage: str | None = None) -> list[str]:
    return [step.text for step in steps() if step.word == word and stage in (None, step.stage)]


def ancestry(stage: str) -> list[str]:
    """The stage and those that it is built on, the first one first."""
    parents = {text.split(" AS ")[1]: text.split(" AS ")[0] for text in of("FROM")}
    parent = parents[stage]
    return [*ancestry(parent), stage] if parent in parents else [stage]


def lasting(word: str, stage: str) -> list[str]:
    """The instructions of the stage and of those that it is built on."""
    return [text for one in ancestry(stage) for text in of(word, one)]


def packages(stage: str) -> frozenset[str]:
    """Debian's packages that an image has on top of the one that it is built on."""
    installs = re.findall(r"apt-get install ([^&;]+)", " ".join(lasting("RUN", stage)))
    return frozenset(word for install in installs for word in install.split() if not word.startswith("-"))


def pip_installs(stage: str) -> list[list[str]]:
    """The arguments of each `pip install` of a stage."""
    found = re.findall(r"python -m pip install ([^&;]+)", " ".join(of("RUN", stage)))
    return [[word for word in shlex.split(one) if word != "\\"] for one in found]


def environment(stage: str) -> dict[str, str]:
    return dict(word.split("=", 1) for text in lasting("ENV", stage) for word in shlex.split(text))


def command(word: str, stage: str) -> list[str]:
    """ENTRYPOINT or CMD, in the form of a list."""
    return list(json.loads(lasting(word, stage)[-1]))


def builds() -> dict[str, str]:
    """Names of the images in the comments at the top, and the stage that each is built from."""
    text = (FOLDER / "Dockerfile").read_text()
    return {name: stage for stage, name in re.findall(r"^#   docker build .*--target (\w+) -t (\S+) \.$", text, re.M)}
