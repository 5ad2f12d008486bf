"""The pages that say where things are name every room, and nothing that is not there."""

from __future__ import annotations

import re

import pytest

from tests.guides import ROOT

TOP = ("heliostat", "infra", "cluster", "train", "tune", "serve")
PAGES = ("docs/architecture.md", "CONTRIBUTING.md", "AGENTS.md")


def rooms() -> set[str]:
    """The folders of code, but for those within one that is described as a whole."""
    found = {file.parent.relative_to(ROOT) for top in TOP for file in (ROOT / top).rglob("__init__.py")}
    own = {folder for folder in found if not any((ROOT / parent).is_symlink() for parent in [folder, *folder.parents])}
    return {str(folder) for folder in own}


def test_architecture_has_a_row_for_each_room() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    for room in sorted(rooms() - {"heliostat", "infra", "cluster", "train", "serve"}):
        parent, _, name = room.rpartition("/")
        named = any(f"`{room}/`" in row or (f"`{parent}/`" in row and f"`{name}/`" in row) for row in rows)
        assert named, f"docs/architecture.md has no row for {room}/"


@pytest.mark.parametrize("page", PAGES)
def test_paths_that_are_named_are_there(page: str) -> None:
    paths = re.findall(
        r"`((?:heliostat|infra|cluster|train|tune|serve|tests|docs|k8s)/[\w/.]*)`", (ROOT / page).read_text()
    )
    assert paths
    for path in paths:
        assert (ROOT / path).exists(), path


def test_the_tree_in_the_readme_is_the_tree() -> None:
    text = (ROOT / "README.md").read_text()
    tree = text[text.index("## The tree") :].split("```")[1]
    described = re.split(r"^(?=\w+/ )", tree, flags=re.MULTILINE)[1:]
    folders = {part.split("/")[0]: part for part in described}
    for top in (*TOP, "k8s", "recipes", "tests", "docs"):
        assert (ROOT / top).is_dir()
        assert top in folders, top
    for top in TOP:
        inside = {room.split("/")[1] for room in rooms() if room.startswith(f"{top}/")}
        for name in sorted(inside):
            assert re.search(rf"\b{name}/", folders[top]), f"README's tree does not name {top}/{name}/"
