"""The guides in Markdown, and the commands in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
GUIDES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
RECIPES = sorted(recipe.stem for recipe in (ROOT / "recipes").glob("*.yaml"))
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def prose(guide: Path) -> str:
    """All but its blocks of code."""
    return FENCED.sub("", guide.read_text(encoding="utf-8"))


def commands(guide: Path, program: str) -> Iterator[str]:
    """The calls of `program` in its blocks of commands, each with all of its lines."""
    for language, block in FENCED.findall(guide.read_text(encoding="utf-8")):
        if not language:
            calls = re.split(r"^(?=\w+ )", block, flags=re.MULTILINE)
            yield from (call.strip() for call in calls if call.startswith(f"{program} "))
