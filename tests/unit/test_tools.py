"""What is not on a machine is unpacked from packages without root; what cannot be had skips tests, and is counted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import tools

ROOT = Path(__file__).parents[2]
TWO_TESTS = """
from tests.tools import need

def test_needs_what_nobody_has():
    need("no-such-tool")

def test_needs_what_everybody_has():
    assert need("sh")
"""


def test_a_test_that_needs_what_is_not_here_is_skipped_by_name_and_counted(tmp_path: Path) -> None:
    (tmp_path / "test_two.py").write_text(TWO_TESTS)
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, f"--rootdir={tmp_path}", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    *_, counted, closing = done.stdout.splitlines()
    assert "1 passed, 1 skipped" in closing
    assert counted == (
        "Tests skipped for lack of a tool, 1 in all: no-such-tool (1); install with: apt-get install no-such-tool"
    )


def machine(folder: Path, monkeypatch: pytest.MonkeyPatch, **programs: str) -> Path:
    """A PATH with the shell's own programs and with `programs`, name -> script; tools go to a folder that is given."""
    (folder / "path").mkdir()
    for name in ("sh", "mkdir", "chmod", "cat"):
        (folder / "path" / name).symlink_to(f"/bin/{name}")
    for name, script in programs.items():
        file = folder / "path" / name.replace("_", "-")
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder / "path"))
    monkeypatch.setattr(tools, "FOLDER", folder / "tools")
    monkeypatch.setattr(tools, "PACKAGES", {"curl": ("curl",)})
    monkeypatch.delenv("CI", raising=False)
    return folder / "tools"


APT = """
case "$*" in
  *--simulate*) echo "Inst libcurl4 (7)"; echo "Inst curl (7)"; echo "Conf curl";;
  *" download libcurl4 curl") echo > libcurl4.deb; echo > curl.deb;;
esac
"""
DPKG = """
mkdir -p $3/usr/bin $3/usr/lib/x86_64-linux-gnu $3/usr/share/doc
printf '#!/bin/sh\\necho "$@" with $LD_LIBRARY_PATH' > $3/usr/bin/curl
chmod 755 $3/usr/bin/curl
"""


def test_what_is_missing_is_unpacked_with_what_it_needs_and_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = machine(tmp_path, monkeypatch, apt_get=APT, dpkg=DPKG)
    assert tools.missing(["curl", "sh"]) == ["curl"]
    assert tools.main() == 0
    assert "curl: not here; unpacking Debian's packages into" in capfd.readouterr().out
    assert tools.need("curl") == str(folder / "bin" / "curl")
    assert tools.run(["curl", "-s", "x"]).strip() == f"-s x with {folder}/files/usr/lib/x86_64-linux-gnu"
    assert not (folder / "files" / "usr" / "share" / "doc").exists()
    assert sorted(os.listdir(folder)) == ["bin", "files", "fonts.conf"]
    assert tools.main() == 0
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("programs", "why"),
    [
        ({}, "there is no apt-get here to have them from"),
        ({"apt_get": "echo 'E: no package curl' >&2; exit 100", "dpkg": DPKG}, "E: no package curl"),
        ({"apt_get": APT, "dpkg": DPKG.replace("echo", "exit 1; echo")}, "it fails"),
    ],
    ids=["no apt", "no package", "does not run"],
)
def test_what_cannot_be_had_is_one_line_and_an_error_in_continuous_integration(
    programs: dict[str, str],
    why: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    machine(tmp_path, monkeypatch, **programs)
    assert tools.main() == 0
    said = capfd.readouterr().out.splitlines()
    assert said[1:] == [f"curl: {why}", "Tests that need curl are skipped; to run them: apt-get install curl"]
    with pytest.raises(pytest.skip.Exception, match="there is no curl"):
        tools.need("curl")
    monkeypatch.setenv("CI", "true")
    assert tools.main() == 1
