"""Prints what an image holds as CycloneDX 1.5, its Python distributions and Debian packages.

The same packages give the same bytes: no time and no serial number.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any
from urllib.parse import quote

DPKG = Path("/var/lib/dpkg/status")
Component = dict[str, Any]


def document(dpkg: Path = DPKG) -> dict[str, Any]:
    """The bill of materials, sorted by what identifies a component."""
    found = {one["purl"]: one for one in [*of_python(), *of_debian(dpkg)]}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "components": [found[purl] for purl in sorted(found)],
    }


def of_python() -> Iterator[Component]:
    """Distributions that this Python imports."""
    for one in distributions():
        name = re.sub(r"[-_.]+", "-", one.metadata["Name"]).lower()
        yield component(name, one.version, f"pkg:pypi/{name}@{escaped(one.version)}", licence(one))


def escaped(version: str) -> str:
    """A version as it stands in a purl."""
    return quote(version, safe=":~")


def licence(one: Distribution) -> str:
    """Its expression, or what it says in its own words, which may be a whole text: then nothing."""
    told = [one.metadata.get_all(field) for field in ("License-Expression", "License")]
    said = next((values[0] for values in told if values), "")
    return "" if "\n" in said else said


def of_debian(dpkg: Path) -> Iterator[Component]:
    """Packages that dpkg has installed."""
    if not dpkg.is_file():
        return
    for paragraph in dpkg.read_text(encoding="utf-8").split("\n\n"):
        fields = dict(re.findall(r"^(Package|Version|Architecture|Status): (.*)$", paragraph, re.MULTILINE))
        if fields.get("Status") == "install ok installed":
            purl = f"pkg:deb/debian/{fields['Package']}@{escaped(fields['Version'])}?arch={fields['Architecture']}"
            yield component(fields["Package"], fields["Version"], purl, "")


def component(name: str, version: str, purl: str, licence: str) -> Component:
    """One entry; `purl` identifies it (https://github.com/package-url/purl-spec)."""
    said = {"licenses": [{"license": {"name": licence}}]} if licence else {}
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl, **said}


if __name__ == "__main__":
    json.dump(document(), sys.stdout, indent=1)
    sys.stdout.write("\n")
