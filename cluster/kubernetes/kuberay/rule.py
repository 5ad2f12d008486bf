"""What a rule says, and how it reads an object's fields."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

DNS_1035 = r"[a-z]([-a-z0-9]*[a-z0-9])?"


class Refusal(NamedTuple):
    """One field that is not taken."""

    field: str
    """Its dotted path, from the object's root."""
    given: Any
    allowed: str
    """The end of the line: what is allowed."""

    def under(self, path: str) -> Refusal:
        """The same, of a part at this path."""
        return self._replace(field=f"{path}.{self.field}")

    def line(self, owner: Mapping[str, Any]) -> str:
        """One line that names object, field, value and what is allowed."""
        scalar = not isinstance(self.given, (Mapping, list))  # a mapping may hold a password
        given = "not given" if self.given is None else f"{self.given!r} given" if scalar else "given"
        return f"{owner.get('kind')}/{at(owner, 'metadata', 'name')}: {self.field}: {given}; {self.allowed}"


def at(value: Any, *keys: str) -> Any:
    """The value at a path of keys, None where there is none."""
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def name_of(one: Any, most: int, why: str = "") -> Iterator[Refusal]:
    """A name that is too long, or no DNS label of RFC 1035."""
    name = str(at(one, "metadata", "name") or "")
    if len(name) > most or not re.fullmatch(DNS_1035, name):
        allowed = f"{most} characters at most{why}, of a-z, 0-9 and dashes, the first a letter, the last no dash"
        yield Refusal("metadata.name", name, allowed)


def below(spec: Any, key: str, least: int) -> Iterator[Refusal]:
    """A whole number that is under the least."""
    value = at(spec, key)
    if value is not None and value < least:
        yield Refusal(key, value, f"{least} or more is allowed")


def variables(container: Any) -> dict[str, Any]:
    """Name -> value of a container's `env`; None where the value comes from elsewhere."""
    return {one.get("name", ""): one.get("value") for one in at(container, "env") or []}


def older(version: str, least: tuple[int, int]) -> bool | None:
    """Whether a version is older; None for what is no version."""
    found = re.match(r"\s*v?(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) < least if found else None
