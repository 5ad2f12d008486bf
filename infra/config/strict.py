"""Strict base model of all config sections; merges defaults < YAML < `key.path=value`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from heliostat.infra.config.messages import explain, mentions
from heliostat.infra.errors import ConfigError

Section = TypeVar("Section", bound=BaseModel)
MOST_CHARACTERS = 1 << 20
MOST_NODES = 1 << 20
"""Limits of a YAML file; specs with thousands of columns or labels stay far below."""


class StrictModel(BaseModel):
    """A section of the spec: unknown keys fail, numbers are finite, each field is documented, instances are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuses booleans for numbers: pydantic would accept `workers: yes` as 1."""
        field = cls.model_fields[info.field_name or ""]
        if isinstance(value, bool) and not mentions(field.annotation, bool):
            raise ValueError("true and false are not allowed here")
        return value


class _Loader(yaml.SafeLoader):
    """A YAML loader that parses `3e-4` as a number and refuses repeated keys, unlike YAML 1.1."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and (key.tag, key.value) in seen:
                raise ConfigError(f"{key.value}: given twice, at {self.name} line {key.start_mark.line + 1}")
            seen.add((key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key))
        return node


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def parse_yaml(text: str, name: str = "<text>") -> Any:
    """Parses a YAML text; raises ConfigError with `name` and the line if it is not valid."""
    try:
        loader = _Loader(text)
        loader.name = name
        node = loader.get_single_node()
        if node is None:
            return None
        _count_nodes(node, name, {})
        return loader.construct_document(node)
    except RecursionError:
        raise ConfigError(f"{name}: nested too deeply; a spec has a few levels") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name} line {mark.line + 1}" if mark else name
        raise ConfigError(f"{where}: not valid YAML: {getattr(error, 'problem', None) or error}") from error
    except ValueError as error:  # such as a date with month 13
        raise ConfigError(f"{name}: not valid YAML: {error}") from error


def _count_nodes(node: yaml.Node, name: str, known: dict[int, int | None]) -> int:
    """The nodes at and below `node`, with what each alias stands for; `known` has those counted so far.

    Raises ConfigError for a node that contains itself, and for more than a spec can have: a few aliases of aliases
    stand for billions of nodes.
    """
    count = known.get(id(node), 0)
    if count is None:
        raise ConfigError(f"{name} line {node.start_mark.line + 1}: refers to itself")
    if count == 0 and isinstance(node, yaml.CollectionNode):
        known[id(node)] = None
        parts = (part for item in node.value for part in (item if isinstance(item, tuple) else (item,)))
        count = sum(_count_nodes(part, name, known) for part in parts)
    known[id(node)] = count = count or 1
    if count > MOST_NODES:
        raise ConfigError(f"{name}: stands for more than {MOST_NODES:,} values; use fewer aliases (*name)")
    return count


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in the file `path`; raises ConfigError if it is missing, unreadable, too large or not a mapping."""
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MOST_CHARACTERS + 1)  # /dev/zero never ends
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(text) > MOST_CHARACTERS:
        raise ConfigError(f"{path}: longer than {MOST_CHARACTERS:,} characters, so it is not a spec")
    value = parse_yaml(text, str(path))
    if not isinstance(value, dict):
        what = "nothing" if value is None else f"a {type(value).__name__}"
        raise ConfigError(f"{path}: holds {what}; a mapping of keys is needed")
    return value


def apply_overrides(values: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """A copy of `values` with each `key.path=value` set; the value is parsed as YAML.

    Raises ConfigError if an override has no `=` or its path leads through a value that is not a mapping.
    """
    result = _copy(values)
    for override in overrides:
        path, equals, text = override.partition("=")
        *parents, last = path.strip().split(".")
        if not equals or not all([*parents, last]):
            raise ConfigError(f"{override!r}: not an override; write key.path=value, such as train.epochs=2")
        target = result
        for parent in parents:
            if target.get(parent) is None:
                target[parent] = {}
            target = target[parent]
            if not isinstance(target, dict):
                raise ConfigError(f"{path}: {parent!r} is {target!r}, which has no keys below it")
        target[last] = parse_yaml(text, override)
    return result


def _copy(value: Any) -> Any:
    return {key: _copy(item) for key, item in value.items()} if isinstance(value, Mapping) else value


def build(section: type[Section], values: Mapping[str, Any], source: str = "") -> Section:
    """Validates `values` as `section`; raises ConfigError with one line for the first wrong key.

    The line begins with `source` (a file name) if given.
    """
    try:
        return section.model_validate(values)
    except ValidationError as error:
        lines = explain(section, error)
        more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
        raise ConfigError(f"{source}: {lines[0]}{more}" if source else lines[0] + more) from None


def dump_yaml(section: BaseModel) -> str:
    """The section as YAML with all values, defaults included."""
    return yaml.safe_dump(section.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
