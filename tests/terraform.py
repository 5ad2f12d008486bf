"""The Terraform modules in infra/terraform, as python-hcl2 reads them; no provider is needed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hcl2

from tests.guides import ROOT

FOLDER = ROOT / "infra" / "terraform"
_REFERENCE = re.compile(r"(?<![\w.\"/-])(data\.)?((?:aws|google|azurerm|helm)_\w+)\.(\w+)")


@dataclass(frozen=True)
class Module:
    """All files of one folder together."""

    name: str
    blocks: Mapping[str, list[Any]]
    """Kind of block (resource, variable, …) -> what stands below it, in the order of the files."""

    def named(self, kind: str) -> dict[str, Any]:
        """Blocks with one label, such as variables, by it."""
        return {
            name: body for block in self.blocks.get(kind, []) for name, body in block.items() if name != "__is_block__"
        }

    def typed(self, kind: str) -> dict[tuple[str, str], Any]:
        """Blocks with two labels, such as resources, by type and name."""
        return {
            (sort, name): body
            for block in self.blocks.get(kind, [])
            for sort, bodies in block.items()
            for name, body in bodies.items()
        }

    def only(self, sort: str) -> Any:
        """The one resource of a type."""
        [body] = [body for (found, _), body in self.typed("resource").items() if found == sort]
        return body

    def texts(self) -> list[str]:
        """Each text in it, with the expressions in them."""
        return list(_texts(self.blocks))


def modules(folder: Path = FOLDER) -> dict[str, Module]:
    return {one.name: read(one) for one in sorted(folder.iterdir()) if one.is_dir()}


def read(folder: Path) -> Module:
    blocks: dict[str, list[Any]] = {}
    for file in sorted(folder.glob("*.tf")):
        for kind, found in hcl2.loads(file.read_text(encoding="utf-8")).items():
            if kind != "__comments__":
                blocks.setdefault(kind, []).extend(_plain(found))
    return Module(folder.name, blocks)


def _plain(value: Any) -> Any:
    """Without the quotes that python-hcl2 keeps around texts and labels."""
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items() if key not in ("__is_block__", "__comments__")}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, str) and len(value) > 1 and value[0] == value[-1] == '"':
        return value[1:-1].replace('\\"', '"')
    return value


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key)
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str):
        yield value


def problems(module: Module) -> list[str]:
    """Variables, values, resources and data that are named and not declared, or declared and not used."""
    texts = module.texts()
    variables = {name for text in texts for name in re.findall(r"\bvar\.(\w+)", text)}
    values = {name for text in texts for name in re.findall(r"\blocal\.(\w+)", text)}
    declared = set(module.named("variable"))
    locally = {name for block in module.blocks.get("locals", []) for name in block}
    known = {f"{sort}.{name}" for sort, name in module.typed("resource")}
    known |= {f"data.{sort}.{name}" for sort, name in module.typed("data")}
    asked = {f"{data}{sort}.{name}" for text in texts for data, sort, name in _REFERENCE.findall(text)}
    return [
        *(f"var.{name}: not declared" for name in sorted(variables - declared)),
        *(f"var.{name}: not used" for name in sorted(declared - variables)),
        *(f"local.{name}: not declared" for name in sorted(values - locally)),
        *(f"local.{name}: not used" for name in sorted(locally - values)),
        *(f"{name}: not declared" for name in sorted(asked - known)),
    ]
