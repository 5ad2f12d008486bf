"""What the guides say can be done: their links lead somewhere, and their commands are ones that there are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from heliostat.cli import app
from heliostat.infra.errors import ConfigError
from heliostat.spec import load_spec
from tests.guides import GUIDES, RECIPES, ROOT, commands, prose

WRONG_USE: Any = typer.BadParameter.__base__
"""What the parser raises; typer may bring a click of its own."""


def names_of(guides: list[Path]) -> list[str]:
    return [guide.relative_to(ROOT).as_posix() for guide in guides]


def anchors(guide: Path) -> set[str]:
    """What its headings are called in links."""
    found = re.findall(r"^#+ (.*)", prose(guide), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("guide", GUIDES, ids=names_of(GUIDES))
def test_links_lead_somewhere(guide: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(guide)):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        leads_to = (guide.parent / path).resolve() if path else guide
        assert leads_to.exists(), link
        assert not anchor or anchor in anchors(leads_to), link


@pytest.mark.parametrize("guide", GUIDES, ids=names_of(GUIDES))
def test_commands_are_ones_that_there_are(guide: Path) -> None:
    for command in commands(guide, "heliostat"):
        given = parsed(shlex.split(command, comments=True)[1:])
        if (spec := str(given.get("spec"))) in RECIPES:
            load_spec(spec, given.get("overrides") or [])


def parsed(words: list[str]) -> dict[str, Any]:
    """The arguments of the command that `words` call, which does not run."""
    command, rest = typer.main.get_command(app), list(words)
    while rest and (inner := getattr(command, "commands", None)) and not rest[0].startswith("-"):
        assert rest[0] in inner, f"no such command: {rest[0]}"
        command = inner[rest.pop(0)]
    return command.make_context(" ".join(words), rest).params


@pytest.mark.parametrize("words", [["trian", "sentiment"], ["serve", "sentiment", "--canery", "10"], ["serve"]])
def test_a_command_that_there_is_not_is_found(words: list[str]) -> None:
    with pytest.raises((AssertionError, WRONG_USE)):
        parsed(words)


def test_a_key_that_there_is_not_is_found() -> None:
    with pytest.raises(ConfigError):
        load_spec("sentiment", parsed(["train", "sentiment", "train.epoch=1"])["overrides"])


def test_each_recipe_has_a_page_that_the_table_leads_to() -> None:
    table = (ROOT / "docs" / "recipes.md").read_text()
    assert sorted(page.stem for page in (ROOT / "docs" / "recipes").glob("*.md")) == RECIPES
    for name in RECIPES:
        assert f"[`{name}`](recipes/{name}.md)" in table
        assert f"pictures/{name}.png" in table
