"""What an image says that it holds."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from heliostat.infra.sbom import document

STATUS = """Package: wget
Status: install ok installed
Architecture: amd64
Version: 1.21.3-1+deb12u1
Description: retrieves files
 Package: of the text

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1
"""


def test_it_names_what_is_installed(tmp_path: Path) -> None:
    (tmp_path / "status").write_text(STATUS)
    found = {one["purl"]: one for one in document(tmp_path / "status")["components"]}
    assert found["pkg:deb/debian/wget@1.21.3-1%2Bdeb12u1?arch=amd64"]["version"] == "1.21.3-1+deb12u1"
    assert [purl for purl in found if purl.startswith("pkg:deb/")] == [
        "pkg:deb/debian/wget@1.21.3-1%2Bdeb12u1?arch=amd64"
    ]
    pydantic = found[f"pkg:pypi/pydantic@{version('pydantic')}"]
    assert pydantic["name"] == "pydantic"
    assert pydantic["licenses"] == [{"license": {"name": "MIT"}}]
    assert list(found) == sorted(found)


def test_an_image_without_dpkg_has_distributions_only(tmp_path: Path) -> None:
    assert all(one["purl"].startswith("pkg:pypi/") for one in document(tmp_path / "none")["components"])


def test_the_command_of_the_dockerfile_prints_the_same_bytes_each_time() -> None:
    command = [sys.executable, "-m", "heliostat.infra.sbom"]
    first, second = (subprocess.run(command, capture_output=True, check=True).stdout for _ in range(2))
    assert first == second
    read = json.loads(first)
    assert (read["bomFormat"], read["specVersion"]) == ("CycloneDX", "1.5")
    assert len({one["bom-ref"] for one in read["components"]}) == len(read["components"]) > 100
