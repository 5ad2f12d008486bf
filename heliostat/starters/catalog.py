"""The kinds that `heliostat init` knows. To add one: a module, its template of the same name, and a line here."""

from __future__ import annotations

from heliostat.starters import chat, generator, images, language, table, texts
from heliostat.starters.starter import Starter

STARTERS: dict[str, Starter] = {
    "table": table.STARTER,
    "images": images.STARTER,
    "texts": texts.STARTER,
    "chat": chat.STARTER,
    "language": language.STARTER,
    "generator": generator.STARTER,
}


def listed() -> str:
    """All kinds in one line, each with a short description."""
    return ", ".join(f"{kind} ({starter.about})" for kind, starter in STARTERS.items())
